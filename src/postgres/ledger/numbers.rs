//! The numbers that rules go by, each set of them once.

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::types::Json;

use super::super::{Database, Error};

impl Database {
    /// Keeps these numbers, if they are not there.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn note_rule_numbers(&self, numbers: &Value, program: &str) -> Result<(), Error> {
        let digest = Sha256::digest(numbers.to_string());
        let note = sqlx::query(
            "INSERT INTO audit.rule_numbers_log (digest, numbers, program) VALUES ($1, $2, $3)
             ON CONFLICT (digest) DO NOTHING",
        );
        let note = note.bind(digest.as_slice()).bind(Json(numbers)).bind(program).execute(self.pool());
        note.await.map(drop).map_err(|error| self.explain(error))
    }

    /// Numbers that were noted, newest first, `limit` at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn rule_numbers(&self, limit: u32) -> Result<Vec<Value>, Error> {
        let query =
            sqlx::query_scalar("SELECT numbers FROM audit.rule_numbers ORDER BY noted_at DESC LIMIT $1");
        let rows: Vec<Json<Value>> =
            query.bind(i64::from(limit)).fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        Ok(rows.into_iter().map(|Json(numbers)| numbers).collect())
    }
}
