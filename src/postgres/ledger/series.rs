//! Reading in the order in which it was decided: the decisions of one loop, key by key.

use sqlx::{Postgres, QueryBuilder, Row};

use super::super::{Database, Error};
use super::read::{LedgerEntry, SELECT, entry, push_time};
use crate::model::Timestamp;
use crate::model::decision::Loop;

/// The last decision that was read of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    decided_at: Timestamp,
    sequence: i64,
}

impl Place {
    pub fn of(entry: &LedgerEntry) -> Self {
        Self { decided_at: entry.decided_at, sequence: entry.sequence }
    }
}

impl Database {
    /// Keys of a loop that were decided about from `from` until before `to`, in their order, after
    /// `after`; `limit` at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn keys_decided(
        &self,
        of: Loop,
        [from, to]: [Timestamp; 2],
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, Error> {
        let mut query =
            QueryBuilder::<Postgres>::new("SELECT DISTINCT key FROM audit.decision_log WHERE loop = ");
        query.push_bind(of.name()).push(" AND decided_at >= ");
        push_time(&mut query, from);
        query.push(" AND decided_at < ");
        push_time(&mut query, to);
        if let Some(after) = after {
            query.push(" AND key > ").push_bind(after);
        }
        query.push(" ORDER BY key LIMIT ").push_bind(i64::from(limit));
        query.build_query_scalar().fetch_all(self.pool()).await.map_err(|error| self.explain(error))
    }

    /// From when on a key's decisions are to be read so that those from `from` on can be taken again:
    /// what a loop remembers between them is told by its first, or now and then (dial), or by the one
    /// before (lag). `from` itself where nothing before it tells anything.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn remembered_from(&self, of: Loop, key: &str, from: Timestamp) -> Result<Timestamp, Error> {
        let told = match of {
            Loop::Dial => " AND (sequence = 1 OR parameters ? 'memory')",
            Loop::Lag => "",
            Loop::Rollback | Loop::Route | Loop::Delivery => return Ok(from),
        };
        let mut query = QueryBuilder::<Postgres>::new(
            "SELECT floor(extract(epoch FROM decided_at) * 1000)::bigint FROM audit.decision_log WHERE loop = ",
        );
        query.push_bind(of.name()).push(" AND key = ").push_bind(key).push(" AND decided_at < ");
        push_time(&mut query, from);
        query.push(told).push(" ORDER BY decided_at DESC LIMIT 1");
        let found: Option<i64> = query
            .build()
            .fetch_optional(self.pool())
            .await
            .and_then(|row| row.map(|row| row.try_get(0)).transpose())
            .map_err(|error| self.explain(error))?;
        Ok(found.map_or(from, Timestamp::from_millis))
    }

    /// Decisions of one key from `from` until before `to`, oldest first, after `after`; `limit` at
    /// most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn decided(
        &self,
        of: Loop,
        key: &str,
        [from, to]: [Timestamp; 2],
        after: Option<Place>,
        limit: u32,
    ) -> Result<Vec<LedgerEntry>, Error> {
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        query.push("d.loop = ").push_bind(of.name()).push(" AND d.key = ").push_bind(key);
        query.push(" AND d.decided_at >= ");
        push_time(&mut query, from);
        query.push(" AND d.decided_at < ");
        push_time(&mut query, to);
        if let Some(after) = after {
            query.push(" AND (d.decided_at, d.sequence) > (");
            push_time(&mut query, after.decided_at);
            query.push(", ").push_bind(after.sequence).push(")");
        }
        query.push(" ORDER BY d.decided_at, d.sequence LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        rows.iter().map(entry).collect::<Result<_, _>>().map_err(|error| self.explain(error))
    }
}
