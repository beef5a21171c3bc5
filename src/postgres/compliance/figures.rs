//! Figures: those of open windows as they are now, those of settled ones once.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;

use super::super::outbox::{self, Message};
use super::super::{Database, Error};
use super::{at, time};
use crate::model::Timestamp;
use crate::model::compliance::{Counters, Figure, Statement, Window, WindowKind};

/// Records of one kind that are deleted together at most.
pub const PRUNED_AT_ONCE: i32 = 5_000;

/// A campaign that is counted, and how far.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub campaign_id: String,
    /// A moment of its first day.
    pub began_at: Timestamp,
    /// Windows that ended by then are stated as known, and as restated.
    pub known_upto: Timestamp,
    pub restated_upto: Timestamp,
    /// The last call that was looked up again: when it counts, and its id.
    pub again_upto: (Timestamp, String),
}

/// One figure of one window, as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct FigureRow {
    pub window: Window,
    pub figure: Figure,
    /// Calls answered by a person in the window and those of them that were abandoned.
    pub answered: Option<u64>,
    pub abandoned: Option<u64>,
    pub cap: f64,
    pub time_zone: String,
    /// The counts it was made of.
    pub counts: Value,
    /// What it was made under.
    pub terms: Value,
}

impl Database {
    /// Takes campaigns up whose decisions are in the ledger, from the first of them on, but windows
    /// no further back than `backwards`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn take_up_campaigns(&self, campaign_ids: &[String], backwards: Duration) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO trunkline.compliance_campaigns
                 (campaign_id, began_at, known_upto, restated_upto, again_upto)
             SELECT given.campaign_id, first.event_time, counted.since, counted.since, counted.since
             FROM unnest($1::text[]) AS given(campaign_id)
             CROSS JOIN LATERAL (SELECT event_time FROM audit.decision_log
                 WHERE loop = 'dial' AND key = given.campaign_id ORDER BY event_time LIMIT 1) AS first
             CROSS JOIN LATERAL (
                 SELECT greatest(first.event_time, now() - $2 * interval '1 second') AS since) AS counted
             ORDER BY given.campaign_id
             ON CONFLICT DO NOTHING",
        )
        .bind(campaign_ids)
        .bind(backwards.as_secs_f64())
        .execute(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(())
    }

    /// The campaigns that are counted, by id; those after `after` only.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn compliance_standings(&self, after: &str, most: u32) -> Result<Vec<Standing>, Error> {
        type Row = (String, i64, i64, i64, i64, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT campaign_id, floor(extract(epoch FROM began_at) * 1000)::bigint,
                    floor(extract(epoch FROM known_upto) * 1000)::bigint,
                    floor(extract(epoch FROM restated_upto) * 1000)::bigint,
                    floor(extract(epoch FROM again_upto) * 1000)::bigint, again_after_id
             FROM trunkline.compliance_campaigns WHERE campaign_id > $1 ORDER BY campaign_id LIMIT $2",
        )
        .bind(after)
        .bind(i64::from(most))
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        let standing = |(campaign_id, began, known, restated, again, id): Row| Standing {
            campaign_id,
            began_at: at(began),
            known_upto: at(known),
            restated_upto: at(restated),
            again_upto: (at(again), id),
        };
        Ok(rows.into_iter().map(standing).collect())
    }

    /// What the platform counted for a campaign after `start` and by `end`: a poll tells what was
    /// counted up to it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn campaign_counters(
        &self,
        campaign_id: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Counters, Error> {
        let sql = format!(
            "SELECT sum(attempted)::bigint, sum(answered)::bigint, sum(abandoned)::bigint
             FROM audit.campaign_counts WHERE campaign_id = $1 AND event_time > {} AND event_time <= {}",
            time(2),
            time(3)
        );
        let (attempts, answers, abandoned): (Option<i64>, Option<i64>, Option<i64>) =
            sqlx::query_as(sqlx::AssertSqlSafe(sql))
                .bind(campaign_id)
                .bind(start.as_millis())
                .bind(end.as_millis())
                .fetch_one(self.pool())
                .await
                .map_err(|error| self.explain(error))?;
        let count = |sum: Option<i64>| sum.and_then(|sum| u64::try_from(sum).ok());
        Ok(Counters { attempts: count(attempts), answers: count(answers), abandoned: count(abandoned) })
    }

    /// Calls that all campaigns placed after `start` and by `end`; `None` where nothing counts them.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn attempts_of_all_campaigns(
        &self,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Option<u64>, Error> {
        let sql = format!(
            "SELECT sum(attempted)::bigint FROM audit.campaign_counts WHERE event_time > {} AND event_time <= {}",
            time(1),
            time(2)
        );
        let attempts: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(start.as_millis())
            .bind(end.as_millis())
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(attempts.and_then(|attempts| u64::try_from(attempts).ok()))
    }

    /// Puts the figures of a campaign's open windows of these kinds in place of those that are
    /// there, and appends messages to the outbox.
    ///
    /// # Errors
    /// When the database cannot be asked; nothing is changed then.
    pub async fn put_open_figures(
        &self,
        campaign_id: &str,
        kinds: &[WindowKind],
        rows: &[FigureRow],
        messages: &[Message<'_>],
    ) -> Result<u64, Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        sqlx::query("DELETE FROM trunkline.compliance_open WHERE campaign_id = $1 AND \"window\" = ANY ($2)")
            .bind(campaign_id)
            .bind(kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await
            .map_err(explain)?;
        insert(&mut transaction, "trunkline.compliance_open", campaign_id, Statement::SoFar, rows)
            .await
            .map_err(explain)?;
        let appended = outbox::append_all(&mut transaction, messages).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(appended)
    }

    /// States the figures of settled windows, and that all that ended by `upto` are stated.
    /// `false` when somebody else was faster; nothing is changed then.
    ///
    /// # Errors
    /// When the database cannot be asked; nothing is changed then.
    pub async fn state_figures(
        &self,
        standing: &Standing,
        statement: Statement,
        upto: Timestamp,
        rows: &[FigureRow],
    ) -> Result<bool, Error> {
        let explain = |error| self.explain(error);
        let (column, before) = match statement {
            Statement::Restated => ("restated_upto", standing.restated_upto),
            _ => ("known_upto", standing.known_upto),
        };
        let sql = format!(
            "UPDATE trunkline.compliance_campaigns SET {column} = {}
             WHERE campaign_id = $1 AND floor(extract(epoch FROM {column}) * 1000)::bigint = $3",
            time(2)
        );
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let moved = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&standing.campaign_id)
            .bind(upto.as_millis())
            .bind(before.as_millis())
            .execute(&mut *transaction)
            .await
            .map_err(explain)?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        let table = "audit.compliance_figure_log";
        insert(&mut transaction, table, &standing.campaign_id, statement, rows).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(true)
    }

    /// Deletes records of campaigns that are older than `retention`, dial decisions among them or not,
    /// [`PRUNED_AT_ONCE`] of each kind at most. Returns how many.
    ///
    /// # Errors
    /// When the database cannot be asked, or refuses so short a retention.
    pub async fn prune_campaign_records(&self, retention: Duration, decisions: bool) -> Result<u64, Error> {
        let sql = match decisions {
            true => "SELECT audit.prune_campaign_records($1 * interval '1 second', $2)",
            false => "SELECT audit.prune_calls($1 * interval '1 second', $2)",
        };
        let gone: i64 = sqlx::query_scalar(sql)
            .bind(retention.as_secs_f64())
            .bind(PRUNED_AT_ONCE)
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(u64::try_from(gone).unwrap_or(0))
    }
}

/// Writes figures of one campaign.
async fn insert(
    connection: &mut PgConnection,
    table: &str,
    campaign_id: &str,
    statement: Statement,
    rows: &[FigureRow],
) -> Result<(), sqlx::Error> {
    let sql = format!(
        "INSERT INTO {table} (campaign_id, figure, \"window\", window_start, window_end, statement, day, time_zone,
             source, answered, abandoned, numerator, denominator, rate, not_known, cap, over_cap, counts, terms)
         SELECT $1, figure, \"window\", to_timestamp(window_start::float8 / 1000),
                to_timestamp(window_end::float8 / 1000), $2, day::date, time_zone, source, answered, abandoned,
                numerator, denominator, rate, not_known, cap, over_cap, counts::jsonb, terms::jsonb
         FROM unnest($3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[],
                     $10::bigint[], $11::bigint[], $12::float8[], $13::float8[], $14::float8[], $15::text[],
                     $16::float8[], $17::bool[], $18::text[], $19::text[])
              AS r(figure, \"window\", window_start, window_end, day, time_zone, source, answered, abandoned,
                   numerator, denominator, rate, not_known, cap, over_cap, counts, terms)
         ON CONFLICT DO NOTHING"
    );
    let whole = |count: Option<u64>| count.and_then(|count| i64::try_from(count).ok());
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(campaign_id)
        .bind(statement.name())
        .bind(column!(row => row.figure.kind.name()))
        .bind(column!(row => row.window.kind.name()))
        .bind(column!(row => row.window.start.as_millis()))
        .bind(column!(row => row.window.end.as_millis()))
        .bind(column!(row => row.window.day.to_string()))
        .bind(column!(row => row.time_zone.as_str()))
        .bind(column!(row => row.figure.source.as_str()))
        .bind(column!(row => whole(row.answered)))
        .bind(column!(row => whole(row.abandoned)))
        .bind(column!(row => row.figure.numerator))
        .bind(column!(row => row.figure.denominator))
        .bind(column!(row => row.figure.rate))
        .bind(column!(row => row.figure.not_known.as_deref()))
        .bind(column!(row => row.cap))
        .bind(column!(row => row.figure.over_cap))
        .bind(column!(row => row.counts.to_string()))
        .bind(column!(row => row.terms.to_string()))
        .execute(&mut *connection)
        .await?;
    Ok(())
}
