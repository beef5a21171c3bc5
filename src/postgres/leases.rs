//! Leases: one holder at a time may act, and a former holder can be told apart.

use super::{Database, Error};

/// A lease as it was taken. Statements that act under it name its token, so that
/// they do nothing once somebody else has taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub name: String,
    /// Rises with every taking.
    pub token: i64,
}

impl Database {
    /// Takes a lease from whoever has it. What the former holder was about to
    /// write under it is written before this returns, or never.
    ///
    /// # Errors
    /// When the database cannot be asked; the lease may have been taken.
    pub async fn take_lease(&self, name: &str, holder: &str) -> Result<Lease, Error> {
        const TAKE: &str = "INSERT INTO trunkline.leases AS held (name, holder, token) VALUES ($1, $2, 1)
            ON CONFLICT (name) DO UPDATE SET token = held.token + 1, holder = $2, taken_at = now()
            RETURNING token";
        let token = sqlx::query_scalar(TAKE)
            .bind(name)
            .bind(holder)
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(Lease { name: name.to_owned(), token })
    }
}
