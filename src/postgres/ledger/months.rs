//! Months: decisions and outcomes lie in one table for each, so that those whose retention is over are
//! dropped, not deleted.

use std::time::Duration;

use super::super::{Database, Error};

/// Decisions outside of months that are deleted at once.
const DELETED_AT_ONCE: i32 = 10_000;

/// What was older than the retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Tables that went whole.
    pub months: u64,
    /// Decisions that lay in no month.
    pub decisions: u64,
}

impl Dropped {
    /// There may be more of what has to be deleted one by one.
    pub fn is_part(&self) -> bool {
        self.decisions >= DELETED_AT_ONCE.unsigned_abs().into()
    }
}

impl Database {
    /// Opens this month and the next by the database's clock, where they are not.
    ///
    /// # Errors
    /// When the database cannot be asked, or somebody reads the tables for longer than this waits.
    pub async fn open_months(&self) -> Result<(), Error> {
        sqlx::query("SELECT audit.open_month(now()), audit.open_month(audit.month_after(now()))")
            .execute(self.pool())
            .await
            .map(drop)
            .map_err(|error| self.explain(error))
    }

    /// Drops months that ended longer ago than `retention`, and so many of the older decisions that
    /// lie in none.
    ///
    /// # Errors
    /// When the database cannot be asked, refuses so short a retention, or somebody reads the tables
    /// for longer than this waits.
    pub async fn drop_months(&self, retention: Duration) -> Result<Dropped, Error> {
        let (months, decisions): (i64, i64) =
            sqlx::query_as("SELECT months, decisions FROM audit.drop_months($1 * interval '1 second', $2)")
                .bind(retention.as_secs_f64())
                .bind(DELETED_AT_ONCE)
                .fetch_one(self.pool())
                .await
                .map_err(|error| self.explain(error))?;
        let count = |rows: i64| u64::try_from(rows).unwrap_or(0);
        Ok(Dropped { months: count(months), decisions: count(decisions) })
    }
}
