//! What a month's allowances have been used for: calls of the platform by OAuth client and hour,
//! counted with their permits (`budget.rs`), and call attempts by campaign and day.

use std::time::Duration;

use super::budget::digest;
use super::ledger::{Advance, RecordError};
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::allowance::{Counted, Demand};

/// Rows older than this are removed.
const KEPT_FOR: &str = "400 days";
/// Over how long the pace of now is measured, and over how long at least.
const PACE_SPAN: &str = "24 hours";
const LEAST_PACE_SPAN_SECONDS: f64 = 3_600.0;

/// Calls of an OAuth client in this month (UTC), and of the rest of its organisation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallsCounted {
    /// Of the whole organisation: as the platform counted them, and ours since.
    pub month_to_date: u64,
    /// A second, over the last day: those that only look, as they would be if nobody slowed them.
    pub polls_per_second: f64,
    /// All others of ours, and those of the organisation's other clients.
    pub others_per_second: f64,
    /// Until when the platform's own count is in it; `None` where it was never told.
    pub reconciled_at: Option<Timestamp>,
    /// Calls of ours that the platform had counted then and we had not; negative where we counted
    /// more.
    pub drift: i64,
}

impl CallsCounted {
    pub fn demand(&self) -> Demand {
        Demand { polls: self.polls_per_second, others: self.others_per_second }
    }

    /// As it goes on with polls so far apart.
    pub fn counted(&self, stretch: f64) -> Counted {
        let per_second = self.polls_per_second / stretch + self.others_per_second;
        Counted { month_to_date: self.month_to_date, per_second }
    }
}

/// Attempts of a campaign in this month, UTC.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptsCounted {
    pub campaign_id: String,
    pub month_to_date: u64,
    /// Over the last day.
    pub per_second: f64,
}

impl AttemptsCounted {
    pub fn counted(&self) -> Counted {
        Counted { month_to_date: self.month_to_date, per_second: self.per_second }
    }
}

/// What a campaign's statistics counted, up to a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempts {
    pub campaign_id: String,
    pub attempted: u64,
    pub observed_at: Timestamp,
}

/// What the platform says about a month.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlatformCount {
    /// When it was asked: nothing later is in it.
    pub asked_at: Timestamp,
    pub own: u64,
    pub others: u64,
}

impl Database {
    /// How the month stands for an OAuth client.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn calls_of_month(&self, client_id: &str) -> Result<CallsCounted, Error> {
        // Of an hour that the platform has counted in part our own count is all there is: the
        // difference counts as ours.
        let sql = format!(
            "WITH clock AS (SELECT now() AS at, date_trunc('month', now(), 'UTC') AS month),
                  own AS (SELECT * FROM trunkline.platform_calls WHERE client = $1),
                  told AS (SELECT u.* FROM trunkline.platform_usage u, clock
                           WHERE u.client = $1 AND u.month = (clock.month AT TIME ZONE 'UTC')::date),
                  pace AS (SELECT count(*) AS hours, coalesce(sum(calls), 0)::bigint AS calls,
                                  coalesce(sum(polls), 0)::bigint AS polls,
                                  coalesce(sum(polls_wanted), 0) AS wanted,
                                  GREATEST({LEAST_PACE_SPAN_SECONDS},
                                           extract(epoch FROM clock.at - min(hour)))::float8 AS seconds
                           FROM clock LEFT JOIN own ON hour > clock.at - interval '{PACE_SPAN}' GROUP BY clock.at)
             SELECT coalesce((SELECT sum(calls) FROM own, clock WHERE hour >= clock.month), 0)::bigint,
                    (pace.wanted / pace.seconds)::float8,
                    ((pace.calls - pace.polls) / pace.seconds)::float8,
                    coalesce(told.own, 0), coalesce(told.others, 0), coalesce(told.own_counted, 0),
                    round(extract(epoch FROM told.counted_at) * 1000)::bigint,
                    extract(epoch FROM told.counted_at - clock.month)::float8
             FROM pace CROSS JOIN clock LEFT JOIN told ON true"
        );
        type Row = (i64, f64, f64, i64, i64, i64, Option<i64>, Option<f64>);
        let row: Row = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(digest(client_id))
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let (counted, polls_per_second, actions_per_second, own, others, own_counted, at, into_month) = row;
        let drift = if at.is_some() { own - own_counted } else { 0 };
        let others_per_second =
            into_month.map_or(0.0, |seconds| others as f64 / seconds.max(LEAST_PACE_SPAN_SECONDS));
        Ok(CallsCounted {
            month_to_date: u64::try_from(counted + drift + others).unwrap_or(0),
            polls_per_second,
            others_per_second: actions_per_second + others_per_second,
            reconciled_at: at.map(Timestamp::from_millis),
            drift,
        })
    }

    /// Whether the platform is to be asked for its count now; of all instances one is told so, and
    /// none again before `pause` is over.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn may_ask_for_usage(&self, client_id: &str, pause: Duration) -> Result<bool, Error> {
        let asked: Option<bool> = sqlx::query_scalar(
            "INSERT INTO trunkline.platform_usage AS held (client, month, asked_at)
             VALUES ($1, (date_trunc('month', now(), 'UTC') AT TIME ZONE 'UTC')::date, now())
             ON CONFLICT (client) DO UPDATE SET asked_at = now()
             WHERE held.asked_at <= now() - $2 * interval '1 second'
             RETURNING true",
        )
        .bind(digest(client_id))
        .bind(pause.as_secs_f64())
        .fetch_optional(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(asked.is_some())
    }

    /// Keeps what the platform has counted, beside what was counted here by then, and forgets
    /// what is long past.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn reconcile_usage(&self, client_id: &str, told: PlatformCount) -> Result<(), Error> {
        const RECONCILE: &str = "UPDATE trunkline.platform_usage SET
                 month = (date_trunc('month', at, 'UTC') AT TIME ZONE 'UTC')::date,
                 counted_at = at, own = $3, others = $4,
                 own_counted = coalesce((SELECT sum(calls) FROM trunkline.platform_calls
                     WHERE client = $1 AND hour >= date_trunc('month', at, 'UTC')), 0)
             FROM (SELECT to_timestamp($2::float8 / 1000) AS at) AS told WHERE client = $1";
        let units = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
        let explain = |error| self.explain(error);
        sqlx::query(RECONCILE)
            .bind(digest(client_id))
            .bind(told.asked_at.as_millis())
            .bind(units(told.own))
            .bind(units(told.others))
            .execute(self.pool())
            .await
            .map_err(explain)?;
        for forget in [
            format!("DELETE FROM trunkline.platform_calls WHERE hour < now() - interval '{KEPT_FOR}'"),
            format!("DELETE FROM trunkline.campaign_attempts WHERE day < now() - interval '{KEPT_FOR}'"),
        ] {
            sqlx::query(sqlx::AssertSqlSafe(forget)).execute(self.pool()).await.map_err(explain)?;
        }
        Ok(())
    }

    /// Adds attempts to their days and moves the positions of `consumer`: all of it or nothing.
    /// What a campaign's statistics counted by a time is added once.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn count_attempts(
        &self,
        consumer: &str,
        advances: &[Advance],
        attempts: &[Attempts],
    ) -> Result<(), RecordError> {
        const COUNT: &str = "WITH told AS (
                 SELECT campaign_id, attempted, to_timestamp(observed_at::float8 / 1000) AS observed_at
                 FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS t(campaign_id, attempted, observed_at)),
             known AS (SELECT campaign_id, max(counted_until) AS counted_until
                 FROM trunkline.campaign_attempts WHERE campaign_id = ANY($1) GROUP BY campaign_id),
             new AS (SELECT told.campaign_id, (told.observed_at AT TIME ZONE 'UTC')::date AS day,
                     sum(told.attempted)::bigint AS attempts, max(told.observed_at) AS counted_until
                 FROM (SELECT DISTINCT ON (campaign_id, observed_at) * FROM told) AS told
                 LEFT JOIN known USING (campaign_id)
                 WHERE known.counted_until IS NULL OR told.observed_at > known.counted_until
                 GROUP BY 1, 2)
             INSERT INTO trunkline.campaign_attempts AS held (campaign_id, day, attempts, counted_until)
             SELECT campaign_id, day, attempts, counted_until FROM new
             ON CONFLICT (campaign_id, day) DO UPDATE
             SET attempts = held.attempts + excluded.attempts,
                 counted_until = GREATEST(held.counted_until, excluded.counted_until)";
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.moving(consumer, advances).await?;
        let units = |units: u64| i64::try_from(units).unwrap_or(i64::MAX);
        sqlx::query(COUNT)
            .bind(attempts.iter().map(|told| told.campaign_id.as_str()).collect::<Vec<_>>())
            .bind(attempts.iter().map(|told| units(told.attempted)).collect::<Vec<_>>())
            .bind(attempts.iter().map(|told| told.observed_at.as_millis()).collect::<Vec<_>>())
            .execute(&mut *transaction)
            .await
            .map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// Attempts of this month by campaign, those with most first, `most` of them.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn attempts_of_month(&self, most: i64) -> Result<Vec<AttemptsCounted>, Error> {
        // The pace of yesterday and today: a day has no finer parts here.
        const SQL: &str = "WITH clock AS (SELECT now() AS at, (now() AT TIME ZONE 'UTC')::date AS today),
                  month AS (SELECT a.*, today, at FROM trunkline.campaign_attempts a, clock
                            WHERE day >= date_trunc('month', today::timestamp) - interval '1 day')
             SELECT campaign_id,
                    coalesce(sum(attempts) FILTER (WHERE day >= date_trunc('month', today::timestamp)), 0)::bigint AS units,
                    (coalesce(sum(attempts) FILTER (WHERE day >= today - 1), 0)
                     / GREATEST(3600, extract(epoch FROM at - GREATEST(min(day), today - 1)::timestamp
                                              AT TIME ZONE 'UTC')))::float8
             FROM month GROUP BY campaign_id, today, at ORDER BY units DESC, campaign_id LIMIT $1";
        let rows: Vec<(String, i64, f64)> = sqlx::query_as(SQL)
            .bind(most)
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let counted = |(campaign_id, units, per_second): (String, i64, f64)| AttemptsCounted {
            campaign_id,
            month_to_date: u64::try_from(units).unwrap_or(0),
            per_second,
        };
        Ok(rows.into_iter().map(counted).collect())
    }
}
