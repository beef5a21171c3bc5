//! Numbers over the whole ledger, for people who watch.

use sqlx::Row;

use super::{Database, Error};

/// What the ledger holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub decisions: i64,
    /// Outcomes by status, most frequent first.
    pub outcomes: Vec<(String, i64)>,
    /// Writes that another writer's change made void, and that were decided again.
    pub conflicts: i64,
    /// Holes in sequences.
    pub gaps: i64,
}

/// A dial decision in a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Recent {
    pub decision_id: uuid::Uuid,
    pub key: String,
    pub reason: String,
    /// Lines per idle agent.
    pub from: Option<f64>,
    pub to: Option<f64>,
    pub status: Option<String>,
}

impl Database {
    /// Counts over the whole ledger.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn tally(&self) -> Result<Tally, Error> {
        let counts = "SELECT (SELECT count(*) FROM audit.decisions) AS decisions,
                             (SELECT count(*) FROM audit.gaps) AS gaps,
                             (SELECT coalesce(sum(attempts - 1), 0)::bigint FROM audit.outcomes
                               WHERE attempts > 1) AS conflicts";
        let row = sqlx::query(counts).fetch_one(self.pool()).await.map_err(|error| self.explain(error))?;
        let outcomes = sqlx::query_as(
            "SELECT status, count(*) FROM audit.outcomes GROUP BY status ORDER BY count(*) DESC, status",
        )
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(Tally {
            decisions: row.get("decisions"),
            outcomes,
            conflicts: row.get("conflicts"),
            gaps: row.get("gaps"),
        })
    }

    /// The newest decisions that asked for something, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn recent(&self, limit: i64) -> Result<Vec<Recent>, Error> {
        let sql = "SELECT decision_id, key, reason, status,
                          (parameters ->> 'previousDialRate')::float8 AS \"from\",
                          (parameters ->> 'dialRate')::float8 AS \"to\"
                   FROM audit.explained WHERE action <> 'hold'
                   ORDER BY decided_at DESC, decision_id DESC LIMIT $1";
        let rows =
            sqlx::query(sql).bind(limit).fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        Ok(rows
            .iter()
            .map(|row| Recent {
                decision_id: row.get("decision_id"),
                key: row.get("key"),
                reason: row.get("reason"),
                from: row.get("from"),
                to: row.get("to"),
                status: row.get("status"),
            })
            .collect())
    }
}
