//! Who is logged in to the console. Tokens and keys are known by their digests alone.

use std::time::Duration;

use super::super::{Database, Error};

/// Sessions at the same time; one more ends the oldest.
pub const SESSIONS_LIMIT: i64 = 1_000;

/// What is kept of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of its token.
    pub token_digest: [u8; 32],
    /// SHA-256 of the digest of the key it was opened with.
    pub key_digest: [u8; 32],
}

impl Database {
    /// Opens a session for `length`; it is on record who did.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn open_session(
        &self,
        session: &Session,
        length: Duration,
        key_name: &str,
        role: &str,
    ) -> Result<(), Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        sqlx::query(
            "DELETE FROM trunkline.console_sessions WHERE expires_at <= now() OR token_digest IN
                 (SELECT token_digest FROM trunkline.console_sessions ORDER BY opened_at DESC OFFSET $1)",
        )
        .bind(SESSIONS_LIMIT - 1)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        sqlx::query(
            "INSERT INTO trunkline.console_sessions (token_digest, key_digest, expires_at)
             VALUES ($1, $2, now() + $3 * interval '1 second')",
        )
        .bind(&session.token_digest[..])
        .bind(&session.key_digest[..])
        .bind(length.as_secs_f64())
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        let opened = "INSERT INTO audit.session_log (what, key_name, role) VALUES ('opened', $1, $2)";
        sqlx::query(opened).bind(key_name).bind(role).execute(&mut *transaction).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)
    }

    /// The digest of the key that a session was opened with, while the session lasts.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn session_key(&self, token_digest: &[u8; 32]) -> Result<Option<Vec<u8>>, Error> {
        let sql = "SELECT key_digest FROM trunkline.console_sessions WHERE token_digest = $1 AND expires_at > now()";
        let found = sqlx::query_scalar(sql).bind(&token_digest[..]).fetch_optional(self.pool()).await;
        found.map_err(|error| self.explain(error))
    }

    /// Ends a session; it is on record who did, if there was one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn close_session(
        &self,
        token_digest: &[u8; 32],
        key_name: &str,
        role: &str,
    ) -> Result<(), Error> {
        let sql = "WITH gone AS (DELETE FROM trunkline.console_sessions WHERE token_digest = $1 RETURNING 1)
             INSERT INTO audit.session_log (what, key_name, role) SELECT 'closed', $2, $3 FROM gone";
        let closed = sqlx::query(sql).bind(&token_digest[..]).bind(key_name).bind(role);
        closed.execute(self.pool()).await.map(drop).map_err(|error| self.explain(error))
    }
}
