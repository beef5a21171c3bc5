//! Connects the client's budget to the row in Postgres that all instances share.

use std::time::Duration;

use rand::RngExt as _;

use crate::genesys::{
    BoxFuture, BucketShape, Credentials, Limits, PROBE_LIFE, PROBE_NAP, Permit, PermitStore, Priority,
    Settings, StoreError, Take, untold_wait,
};
use crate::postgres::Database;
use crate::postgres::budget::{PlatformBudget, Probing, Taken};

/// Permits from the database, for every instance with the same OAuth client.
#[derive(Clone, Debug)]
pub struct SharedBudget {
    row: PlatformBudget,
    shape: BucketShape,
    /// Whose row it is: another one's once the OAuth client was changed.
    credentials: Credentials,
}

impl SharedBudget {
    /// Does not connect yet.
    pub fn new(database: Database, settings: &Settings) -> Self {
        let shape = BucketShape::new(settings.requests_per_minute, settings.budget_window);
        let probing = Probing { life: PROBE_LIFE, nap: PROBE_NAP };
        let (capacity, refill) = (shape.capacity, shape.refill_per_second);
        let credentials = settings.credentials.clone();
        let row = PlatformBudget::new(database, &credentials.account(), capacity, refill, probing);
        Self { row, shape, credentials }
    }
}

impl SharedBudget {
    fn row(&self) -> PlatformBudget {
        self.row.of(&self.credentials.account())
    }
}

fn told<E: std::fmt::Display>(error: E) -> StoreError {
    StoreError(error.to_string())
}

impl PermitStore for SharedBudget {
    fn take(&self, priority: Priority) -> BoxFuture<'_, Result<Take, StoreError>> {
        Box::pin(async move {
            let taken =
                self.row().take(self.shape.needed(priority), priority.polls_wanted()).await.map_err(told)?;
            Ok(match taken {
                Taken::Granted { left, refusals } => Take::Granted(Permit { left, refusals }),
                Taken::Wait(wait) => Take::Wait(wait),
            })
        })
    }

    fn correct(&self, limits: Limits) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.row().lower(self.shape.ceiling(limits)).await.map_err(told) })
    }

    fn refused(&self, retry_after: Option<Duration>) -> BoxFuture<'_, Result<Duration, StoreError>> {
        let chance = rand::rng().random();
        // Doubling ends at the fifth.
        let untold: Vec<Duration> = (1..=5).map(|refusals| untold_wait(refusals, chance)).collect();
        Box::pin(async move { self.row().refused(retry_after, &untold).await.map_err(told) })
    }

    fn accepted(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { self.row().accepted().await.map_err(told) })
    }
}
