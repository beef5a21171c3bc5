//! Opens months before they begin and drops those whose retention is over.

use std::time::Duration;

use crate::backoff::Backoff;
use crate::postgres::{Database, Error};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Shortest and longest pause after one that failed: somebody may read for long.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Keeps months until it is dropped.
pub(super) async fn keep<T>(retention: Duration, database: &Database) -> T {
    let mut pause = Backoff::new(RETRY);
    loop {
        match look(retention, database).await {
            Ok(()) => {
                pause.reset();
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the audit's months are looked after later");
                tokio::time::sleep(pause.pause()).await;
            }
        }
    }
}

async fn look(retention: Duration, database: &Database) -> Result<(), Error> {
    database.open_months().await?;
    loop {
        let dropped = database.drop_months(retention).await?;
        if dropped.months > 0 || dropped.decisions > 0 {
            let (months, decisions) = (dropped.months, dropped.decisions);
            tracing::info!(months, decisions, "the audit's retention is over for these");
        }
        if !dropped.is_part() {
            return Ok(());
        }
    }
}
