//! The call budget that all instances share, as one row per OAuth client. The
//! database's clock is the only one that counts, so instances whose clocks differ
//! agree; its row lock puts their permits in order.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{Database, Error};

/// How an OAuth client is called in the tables: SHA-256 of its id.
pub(super) fn digest(client_id: &str) -> Vec<u8> {
    Sha256::digest(client_id).to_vec()
}

/// One OAuth client's token bucket.
#[derive(Clone, Debug)]
pub struct PlatformBudget {
    database: Database,
    /// SHA-256 of the OAuth client's id.
    client: Vec<u8>,
    capacity: f64,
    refill_per_second: f64,
    probing: Probing,
}

/// How it goes on after 429 replies: one call, and others when it was let through.
#[derive(Clone, Copy, Debug)]
pub struct Probing {
    /// How long the others wait for it: its process may have died.
    pub life: Duration,
    /// How often they ask.
    pub nap: Duration,
}

/// The answer to asking for a permit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Taken {
    /// One permit was taken; so many are left, and so many 429 replies came in a row.
    Granted { left: f64, refusals: u32 },
    /// None before this has passed.
    Wait(Duration),
}

/// What is in the bucket now.
const FILLED: &str =
    "LEAST($2::float8, tokens + GREATEST(0, extract(epoch FROM now() - refilled_at)::float8) * $3::float8)";

/// A time of refill so far ahead is from before the server's clock was set back.
const AHEAD: &str = "refilled_at > now() + interval '5 seconds'";

/// The time that goes with it. Statements that waited for the row may be older
/// than its last change: time must not run back, or refills would count twice.
const REFILLED_AT: &str = "CASE WHEN refilled_at > now() + interval '5 seconds' THEN now() \
     ELSE GREATEST(refilled_at, now()) END";

impl PlatformBudget {
    /// `capacity` permits at once at most, `refill_per_second` more each second.
    pub fn new(
        database: Database,
        client_id: &str,
        capacity: f64,
        refill_per_second: f64,
        probing: Probing,
    ) -> Self {
        let client = digest(client_id);
        Self { database, client, capacity, refill_per_second, probing }
    }

    /// The same for another OAuth client.
    #[must_use]
    pub fn of(&self, client_id: &str) -> Self {
        Self { client: digest(client_id), ..self.clone() }
    }

    /// Takes one permit where at least `needed` are there, no 429 is being waited out and
    /// after one nobody else is finding out whether they have ended: one statement when it
    /// is granted. The call is counted with it, in its hour; a poll as so many `polls_wanted`, any
    /// other call as 0.
    ///
    /// # Errors
    /// When the database cannot be asked. The permit may then be lost, never doubled.
    pub async fn take(&self, needed: f64, polls_wanted: f64) -> Result<Taken, Error> {
        if let Some(granted) = self.take_if_there(needed, polls_wanted).await? {
            return Ok(granted);
        }
        let wait: Option<(f64, bool)> = self
            .fetch(
                &format!(
                    "SELECT GREATEST(CASE WHEN blocked_until > now() \
                                          THEN extract(epoch FROM blocked_until - now())::float8 ELSE 0 END, \
                                     CASE WHEN refusals > 0 AND probe_until > now() \
                                          THEN LEAST({nap}, extract(epoch FROM probe_until - now()))::float8 \
                                          ELSE 0 END, \
                                     ($4 - {FILLED}) / $3), \
                            {AHEAD} \
                     FROM trunkline.platform_budget WHERE client = $1",
                    nap = self.probing.nap.as_secs_f64(),
                ),
                needed,
            )
            .await?;
        match wait {
            Some((seconds, false)) => return Ok(Taken::Wait(seconds_or_zero(seconds))),
            Some((_, true)) => self.lower(self.capacity).await?,
            None => self.begin().await?,
        }
        Ok(self.take_if_there(needed, polls_wanted).await?.unwrap_or(Taken::Wait(Duration::ZERO)))
    }

    async fn take_if_there(&self, needed: f64, polls_wanted: f64) -> Result<Option<Taken>, Error> {
        let sql = format!(
            "WITH taken AS ( \
                 UPDATE trunkline.platform_budget SET tokens = {FILLED} - 1, refilled_at = {REFILLED_AT}, \
                     probe_until = CASE WHEN refusals > 0 THEN now() + {life} * interval '1 second' \
                                        ELSE probe_until END \
                 WHERE client = $1 AND blocked_until <= now() AND {FILLED} >= $4 \
                     AND (refusals = 0 OR probe_until <= now()) \
                 RETURNING tokens, refusals), \
             counted AS ( \
                 INSERT INTO trunkline.platform_calls AS held (client, hour, calls, polls, polls_wanted) \
                 SELECT $1, date_trunc('hour', now(), 'UTC'), 1, ($5::float8 > 0)::int, $5 FROM taken \
                 ON CONFLICT (client, hour) DO UPDATE SET calls = held.calls + 1, \
                     polls = held.polls + excluded.polls, \
                     polls_wanted = held.polls_wanted + excluded.polls_wanted) \
             SELECT tokens, refusals FROM taken",
            life = self.probing.life.as_secs_f64(),
        );
        let taken: Option<(f64, i32)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(&self.client)
            .bind(self.capacity)
            .bind(self.refill_per_second)
            .bind(needed)
            .bind(polls_wanted)
            .fetch_optional(self.database.pool())
            .await
            .map_err(|error| self.database.explain(error))?;
        Ok(taken.map(|(left, refusals)| Taken::Granted { left, refusals: refusals.unsigned_abs() }))
    }

    /// Lowers what is left to `ceiling`; never raises it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn lower(&self, ceiling: f64) -> Result<(), Error> {
        let _: Option<(f64,)> = self
            .fetch(
                &format!(
                    "UPDATE trunkline.platform_budget \
                     SET tokens = LEAST({FILLED}, $4), refilled_at = {REFILLED_AT} \
                     WHERE client = $1 RETURNING tokens"
                ),
                ceiling,
            )
            .await?;
        Ok(())
    }

    /// A 429 came: nobody takes a permit for `retry_after`, or without it for the
    /// wait of `untold` that belongs to the number of 429 replies in a row (its last
    /// one for all above). While one is being waited out others count as the same.
    /// Returns how long nobody takes a permit now.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn refused(
        &self,
        retry_after: Option<Duration>,
        untold: &[Duration],
    ) -> Result<Duration, Error> {
        if let Some(wait) = self.block(retry_after, untold).await? {
            return Ok(wait);
        }
        self.begin().await?;
        Ok(self.block(retry_after, untold).await?.unwrap_or_default())
    }

    async fn block(
        &self,
        retry_after: Option<Duration>,
        untold: &[Duration],
    ) -> Result<Option<Duration>, Error> {
        let untold: Vec<f64> = untold.iter().map(Duration::as_secs_f64).collect();
        let blocked: Option<(f64,)> = sqlx::query_as(
            "UPDATE trunkline.platform_budget SET \
                 refusals = CASE WHEN blocked_until > now() THEN refusals ELSE refusals + 1 END, \
                 probe_until = '-infinity', \
                 blocked_until = GREATEST(blocked_until, CASE \
                     WHEN $2::float8 IS NOT NULL THEN now() + $2 * interval '1 second' \
                     WHEN blocked_until > now() THEN blocked_until \
                     ELSE now() + ($3::float8[])[LEAST(refusals + 1, cardinality($3::float8[]))] \
                                * interval '1 second' END) \
             WHERE client = $1 \
             RETURNING extract(epoch FROM blocked_until - now())::float8",
        )
        .bind(&self.client)
        .bind(retry_after.map(|wait| wait.as_secs_f64()))
        .bind(untold)
        .fetch_optional(self.database.pool())
        .await
        .map_err(|error| self.database.explain(error))?;
        Ok(blocked.map(|(seconds,)| seconds_or_zero(seconds)))
    }

    /// A call was let through: 429 replies in a row are counted anew, and others may call.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn accepted(&self) -> Result<(), Error> {
        sqlx::query(
            "UPDATE trunkline.platform_budget SET refusals = 0 \
             WHERE client = $1 AND refusals > 0 AND blocked_until <= now()",
        )
        .bind(&self.client)
        .execute(self.database.pool())
        .await
        .map_err(|error| self.database.explain(error))?;
        Ok(())
    }

    /// The first instance brings the row, full.
    async fn begin(&self) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO trunkline.platform_budget (client, tokens, refilled_at) VALUES ($1, $2, now()) \
             ON CONFLICT DO NOTHING",
        )
        .bind(&self.client)
        .bind(self.capacity)
        .execute(self.database.pool())
        .await
        .map_err(|error| self.database.explain(error))?;
        Ok(())
    }

    /// Runs a statement of this bucket: `$1` client, `$2` capacity, `$3` refill, `$4` amount.
    async fn fetch<R>(&self, sql: &str, amount: f64) -> Result<Option<R>, Error>
    where
        R: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
    {
        sqlx::query_as::<_, R>(sqlx::AssertSqlSafe(sql))
            .bind(&self.client)
            .bind(self.capacity)
            .bind(self.refill_per_second)
            .bind(amount)
            .fetch_optional(self.database.pool())
            .await
            .map_err(|error| self.database.explain(error))
    }
}

fn seconds_or_zero(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::ZERO)
}
