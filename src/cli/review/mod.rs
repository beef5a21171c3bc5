//! Changes of run-time settings before they are made: what the last hour would have been like under them, and
//! whether the last day keeps the campaigns' caps (`docs/replay.md`). The command line, HTTP and the console ask
//! here alike.

mod cap;
mod played;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::console::{Proposed, ReviewError, Routing, SettingsReview};
use crate::model::compliance::Campaigns;
use crate::model::dry_run::DryRun;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN};
use crate::postgres::{self, Database};
use crate::replay::Numbers;
use crate::topology::settings;

/// Connections of its own, so that it takes none from the work itself.
const CONNECTIONS: u32 = 2;

/// See the module.
pub(super) struct Review(Arc<Inner>);

struct Inner {
    database: Database,
    /// The configuration's numbers.
    own: Numbers,
    /// Whether changes are judged at all.
    required: bool,
    /// Campaigns that the loop decides about: they have a record.
    watched: Vec<String>,
    /// Caps that only the configuration changes; none where compliance is off.
    compliance: Option<Campaigns>,
    /// One review at a time.
    turn: Arc<Semaphore>,
}

impl Review {
    /// The database need not be there yet.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let postgres = postgres::Settings { max_connections: CONNECTIONS, ..settings::postgres(config) };
        let (dial, compliance) = (&config.dial, &config.compliance);
        Ok(Self(Arc::new(Inner {
            database: Database::connect(&postgres)?,
            own: settings::numbers(config),
            required: config.settings.require_replay,
            watched: if dial.mode.is_some() { dial.campaigns.clone() } else { Vec::new() },
            compliance: compliance.mode.is_on().then(|| compliance.terms()),
            turn: Arc::new(Semaphore::new(1)),
        })))
    }

    /// On a thread of its own, since it computes for long, and until `within` is over.
    async fn apart<T, F>(
        &self,
        within: Duration,
        work: impl FnOnce(Arc<Inner>, Instant) -> F + Send + 'static,
    ) -> Result<T, ReviewError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ReviewError>>,
    {
        let (inner, runtime, end) = (self.0.clone(), Handle::current(), Instant::now() + within);
        let Ok(turn) = timeout_at(end, inner.turn.clone().acquire_owned()).await else {
            return Err(too_long());
        };
        let played = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            runtime.block_on(async { timeout_at(end, work(inner, end)).await })
        });
        match played.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(too_long()),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl SettingsReview for Review {
    fn admit<'a>(&'a self, proposed: Proposed<'a>, within: Duration) -> Routing<'a, Result<(), ReviewError>> {
        Box::pin(async move {
            // Pauses and maintenance windows must never wait, and weights have no cap.
            if !self.0.required || !is_of_dial(proposed.scope) {
                return Ok(());
            }
            let (scope, value) = owned(proposed);
            self.apart(within, move |inner, end| async move { cap::judge(&inner, &scope, value, end).await })
                .await
        })
    }

    fn dry_run<'a>(
        &'a self,
        proposed: Proposed<'a>,
        within: Duration,
    ) -> Routing<'a, Result<DryRun, ReviewError>> {
        Box::pin(async move {
            let (scope, value) = owned(proposed);
            // What was looked at by then is told; a little is left to tell it.
            let enough = Instant::now() + within.mul_f64(0.8);
            self.apart(
                within,
                move |inner, _| async move { played::dry_run(&inner, &scope, value, enough).await },
            )
            .await
        })
    }
}

fn owned(proposed: Proposed<'_>) -> (String, Value) {
    (proposed.scope.to_owned(), proposed.value.clone())
}

fn is_of_dial(scope: &str) -> bool {
    scope == DIAL || scope.starts_with(DIAL_CAMPAIGN)
}

fn too_long() -> ReviewError {
    ReviewError::Unknown {
        why: "the record could not be played in the time there is for it".to_owned(),
        remedy: "change one campaign at a time (dial/<campaignId>), or use `trunkline settings set`, which takes ten \
                 minutes for it"
            .to_owned(),
    }
}

/// A record that cannot be read.
fn unread(error: anyhow::Error) -> ReviewError {
    match error.downcast::<postgres::Error>() {
        Ok(error) => ReviewError::Database(error),
        Err(error) => ReviewError::Unknown {
            why: format!("the record cannot be played: {error:#}"),
            remedy: "see `trunkline replay`, which says where it is not as it should be".to_owned(),
        },
    }
}
