//! Numbers over the whole ledger, for people who watch.

use sqlx::Row;

use super::{Database, Error};
use crate::model::decision::Loop;

/// What the ledger holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Decisions by loop, in the order of their names.
    pub decisions: Vec<(String, i64)>,
    /// Outcomes by status, most frequent first.
    pub outcomes: Vec<(String, i64)>,
    /// Writes that another writer's change made void, and that were decided again.
    pub conflicts: i64,
    /// Holes in sequences.
    pub gaps: i64,
    pub dead_letters: i64,
    /// Conversations that events told of, and those of them enriched.
    pub conversations: i64,
    pub enriched: i64,
}

/// A decision in a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    pub decision_id: uuid::Uuid,
    pub of: String,
    pub key: String,
    pub action: String,
    pub reason: String,
    /// What was asked for, in the loop's own form.
    pub parameters: serde_json::Value,
    pub status: Option<String>,
}

impl Database {
    /// Counts over the whole ledger.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn totals(&self) -> Result<Totals, Error> {
        let counts = "SELECT (SELECT count(*) FROM audit.gaps) AS gaps,
                             (SELECT coalesce(sum(attempts - 1), 0)::bigint FROM audit.outcomes
                               WHERE attempts > 1) AS conflicts,
                             (SELECT count(*) FROM audit.dead_letters) AS dead_letters,
                             (SELECT count(*) FROM audit.conversations) AS conversations,
                             (SELECT count(enriched_at) FROM audit.conversations) AS enriched";
        let row = sqlx::query(counts).fetch_one(self.pool()).await.map_err(|error| self.explain(error))?;
        let decisions = "SELECT loop, count(*) FROM audit.decisions GROUP BY loop ORDER BY loop";
        let decisions =
            sqlx::query_as(decisions).fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        let outcomes = sqlx::query_as(
            "SELECT status, count(*) FROM audit.outcomes GROUP BY status ORDER BY count(*) DESC, status",
        )
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(Totals {
            decisions,
            outcomes,
            conflicts: row.get("conflicts"),
            gaps: row.get("gaps"),
            dead_letters: row.get("dead_letters"),
            conversations: row.get("conversations"),
            enriched: row.get("enriched"),
        })
    }

    /// The newest decisions of `of` that asked for something, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn recent(&self, of: Loop, limit: i64) -> Result<Vec<Recent>, Error> {
        let sql = "SELECT decision_id, loop, key, action, reason, status, parameters
                   FROM audit.explained WHERE loop = $2 AND action <> 'hold'
                   ORDER BY decided_at DESC, decision_id DESC LIMIT $1";
        let rows = sqlx::query(sql)
            .bind(limit)
            .bind(of.name())
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(rows
            .iter()
            .map(|row| Recent {
                decision_id: row.get("decision_id"),
                of: row.get("loop"),
                key: row.get("key"),
                action: row.get("action"),
                reason: row.get("reason"),
                parameters: row.get("parameters"),
                status: row.get("status"),
            })
            .collect())
    }
}
