//! Leases: one holder at a time may act, and a former holder can be told apart.

use std::time::Duration;

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

    /// Takes a lease that is not [renewed](Self::renew_lease) any more, or was this
    /// holder's before. `None` while another holder renews it.
    ///
    /// # Errors
    /// When the database cannot be asked; the lease may have been taken.
    pub async fn take_idle_lease(
        &self,
        name: &str,
        holder: &str,
        idle: Duration,
    ) -> Result<Option<Lease>, Error> {
        const TAKE: &str = "INSERT INTO trunkline.leases AS held (name, holder, token) VALUES ($1, $2, 1)
            ON CONFLICT (name) DO UPDATE SET token = held.token + 1, holder = $2, taken_at = now()
            WHERE held.holder = $2 OR held.taken_at < now() - $3 * interval '1 second'
            RETURNING token";
        let token: Option<i64> = sqlx::query_scalar(TAKE)
            .bind(name)
            .bind(holder)
            .bind(idle.as_secs_f64())
            .fetch_optional(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(token.map(|token| Lease { name: name.to_owned(), token }))
    }

    /// Says that a lease is in use. `false` when somebody else has taken it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn renew_lease(&self, lease: &Lease) -> Result<bool, Error> {
        self.touch(lease, "UPDATE trunkline.leases SET taken_at = now() WHERE name = $1 AND token = $2").await
    }

    /// Lets a lease go, for anybody to take.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn release_lease(&self, lease: &Lease) -> Result<(), Error> {
        const RELEASE: &str =
            "UPDATE trunkline.leases SET taken_at = '-infinity' WHERE name = $1 AND token = $2";
        self.touch(lease, RELEASE).await.map(drop)
    }

    async fn touch(&self, lease: &Lease, sql: &'static str) -> Result<bool, Error> {
        let touched = sqlx::query(sql)
            .bind(&lease.name)
            .bind(lease.token)
            .execute(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(touched.rows_affected() == 1)
    }
}
