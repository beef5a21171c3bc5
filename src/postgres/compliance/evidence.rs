//! What an evidence pack and the table on a terminal are made of.

use jiff::civil::Date;
use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::super::{Database, Error};
use super::{at, time};
use crate::model::Timestamp;
use crate::model::compliance::Counters;

/// Figures listed at most.
pub const FIGURES_LISTED: u32 = 10_000;

/// A figure as `audit.campaign_compliance` has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptFigure {
    pub campaign_id: String,
    pub day: Date,
    pub figure: String,
    pub window: String,
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    pub statement: String,
    pub source: String,
    pub answered: Option<i64>,
    pub abandoned: Option<i64>,
    pub numerator: Option<f64>,
    pub denominator: Option<f64>,
    pub rate: Option<f64>,
    pub not_known: Option<String>,
    pub cap: f64,
    pub over_cap: Option<bool>,
    pub time_zone: String,
    pub counts: Value,
    pub terms: Value,
    pub recorded_at: Option<Timestamp>,
}

const COLUMNS: &str = "campaign_id, day::text AS day, figure, \"window\",
     floor(extract(epoch FROM window_start) * 1000)::bigint AS start_ms,
     floor(extract(epoch FROM window_end) * 1000)::bigint AS end_ms, statement, source, answered, abandoned,
     numerator, denominator, rate, not_known, cap::float8 AS cap, over_cap, time_zone, counts, terms,
     floor(extract(epoch FROM recorded_at) * 1000)::bigint AS recorded_ms";

impl Database {
    /// Figures of a campaign's windows of the given kinds that are filed under `from` to `to`, both
    /// among them.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn kept_figures(
        &self,
        campaign_id: &str,
        windows: &[&str],
        from: Date,
        to: Date,
    ) -> Result<Vec<KeptFigure>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM audit.campaign_compliance
             WHERE campaign_id = $1 AND \"window\" = ANY ($2) AND day BETWEEN $3::text::date AND $4::text::date
             ORDER BY day, window_start, window_end, \"window\", statement, figure LIMIT $5"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(campaign_id)
            .bind(windows)
            .bind(from.to_string())
            .bind(to.to_string())
            .bind(i64::from(FIGURES_LISTED))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        rows.iter().map(kept).collect::<Result<_, _>>().map_err(|error| self.explain(error))
    }

    /// The moment a campaign began, where it is counted or has decisions in the ledger.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn campaign_began(&self, campaign_id: &str) -> Result<Option<Timestamp>, Error> {
        let began: Option<i64> = sqlx::query_scalar(
            "SELECT floor(extract(epoch FROM coalesce(
                 (SELECT began_at FROM trunkline.compliance_campaigns WHERE campaign_id = $1),
                 (SELECT event_time FROM audit.decision_log WHERE loop = 'dial' AND key = $1
                  ORDER BY event_time LIMIT 1))) * 1000)::bigint",
        )
        .bind(campaign_id)
        .fetch_one(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(began.map(at))
    }

    /// A campaign's dial decisions on what was observed from `start` on and before `end`, each with
    /// its outcome, as JSON texts of the rows of `audit.explained` in the order of their sequence;
    /// `most` at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn explained_decisions(
        &self,
        campaign_id: &str,
        start: Timestamp,
        end: Timestamp,
        most: u32,
    ) -> Result<Vec<String>, Error> {
        let sql = format!(
            "SELECT to_jsonb(e)::text FROM audit.explained e
             WHERE e.loop = 'dial' AND e.key = $1 AND e.event_time >= {} AND e.event_time < {}
             ORDER BY e.sequence, e.decision_id LIMIT $4",
            time(2),
            time(3)
        );
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(campaign_id)
            .bind(start.as_millis())
            .bind(end.as_millis())
            .bind(i64::from(most))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))
    }

    /// What the platform counted, poll by poll, after `start` and by `end`; `most` at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn campaign_polls(
        &self,
        campaign_id: &str,
        start: Timestamp,
        end: Timestamp,
        most: u32,
    ) -> Result<Vec<(Timestamp, Counters)>, Error> {
        type Row = (i64, Option<i64>, Option<i64>, Option<i64>);
        let sql = format!(
            "SELECT floor(extract(epoch FROM event_time) * 1000)::bigint, attempted::bigint, answered::bigint,
                    abandoned::bigint
             FROM audit.campaign_counts WHERE campaign_id = $1 AND event_time > {} AND event_time <= {}
             ORDER BY event_time LIMIT $4",
            time(2),
            time(3)
        );
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(campaign_id)
            .bind(start.as_millis())
            .bind(end.as_millis())
            .bind(i64::from(most))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let count = |sum: Option<i64>| sum.and_then(|sum| u64::try_from(sum).ok());
        let poll = |(when, attempts, answers, abandoned): Row| {
            let counters =
                Counters { attempts: count(attempts), answers: count(answers), abandoned: count(abandoned) };
            (at(when), counters)
        };
        Ok(rows.into_iter().map(poll).collect())
    }
}

fn kept(row: &PgRow) -> Result<KeptFigure, sqlx::Error> {
    let day: String = row.try_get("day")?;
    Ok(KeptFigure {
        campaign_id: row.try_get("campaign_id")?,
        day: day.parse().map_err(|error: jiff::Error| sqlx::Error::Decode(error.into()))?,
        figure: row.try_get("figure")?,
        window: row.try_get("window")?,
        window_start: at(row.try_get("start_ms")?),
        window_end: at(row.try_get("end_ms")?),
        statement: row.try_get("statement")?,
        source: row.try_get("source")?,
        answered: row.try_get("answered")?,
        abandoned: row.try_get("abandoned")?,
        numerator: row.try_get("numerator")?,
        denominator: row.try_get("denominator")?,
        rate: row.try_get("rate")?,
        not_known: row.try_get("not_known")?,
        cap: row.try_get("cap")?,
        over_cap: row.try_get("over_cap")?,
        time_zone: row.try_get("time_zone")?,
        counts: row.try_get("counts")?,
        terms: row.try_get("terms")?,
        recorded_at: row.try_get::<Option<i64>, _>("recorded_ms")?.map(at),
    })
}
