//! Keeps the newest evaluation of each consumer group in Postgres, where every
//! instance's HTTP interface reads it, and shows it as metrics.

mod shown;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::positioned::{self, Keeper, NotKept, NotWritten, Positions, Reading, SetAside, Step, Writer};
use crate::clock;
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, SubscriptionError};
use crate::model::lag::LagEvaluation;
use crate::postgres::Database;
use crate::role::{self, Kind, Role};
use crate::runtime::dead_letter::Reason;
use crate::topics;

use shown::ShownGroups;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "lag-status",
    kind: Kind::Sink,
    description: "keeps how each consumer group is, for HTTP and metrics",
    reads: &[&topics::LAG_STATUS],
    writes: &[],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::POSTGRES],
};

/// Records kept with one transaction at most.
const BATCH_RECORDS: usize = 1_000;
/// Shortest and longest pause before Postgres is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often groups are looked for that nobody has heard of for too long to show them.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often rows of groups long gone are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// Runs until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    kafka: &KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: BATCH_RECORDS,
        retry: RETRY,
        commit_interval: positioned::COMMIT_INTERVAL,
    };
    let shown = Arc::new(Mutex::new(ShownGroups::default()));
    let sink = || Sink {
        positions: Positions::new(database.clone(), kafka, &ROLE),
        database: database.clone(),
        shown: Arc::clone(&shown),
        prune_at: Instant::now(),
    };
    // A group that is gone brings no record that could say so.
    let sweeping = async {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            lock(&shown).sweep(clock::now());
        }
    };
    tokio::select! {
        result = positioned::run(reading, kafka, health, shutdown, sink) => result,
        never = sweeping => never,
    }
}

/// The last evaluation of each group. A record without a value says that a group is gone.
///
/// # Errors
/// The records that are no evaluations.
fn newest(records: &[&InboundRecord]) -> Result<BTreeMap<String, LagEvaluation>, Vec<SetAside>> {
    let (mut newest, mut unreadable) = (BTreeMap::new(), Vec::new());
    for record in records {
        let Some(value) = record.value.as_deref() else { continue };
        match serde_json::from_slice::<LagEvaluation>(value) {
            Ok(evaluation) => drop(newest.insert(evaluation.consumer_group.clone(), evaluation)),
            Err(error) => unreadable.push(SetAside::new(record, Reason::BadJson(error.to_string()))),
        }
    }
    if unreadable.is_empty() { Ok(newest) } else { Err(unreadable) }
}

struct Sink {
    database: Database,
    positions: Positions,
    shown: Arc<Mutex<ShownGroups>>,
    prune_at: Instant,
}

fn lock(shown: &Mutex<ShownGroups>) -> std::sync::MutexGuard<'_, ShownGroups> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper for Sink {
    fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        positioned::keep(self, records, set_aside).await
    }
}

impl Writer for Sink {
    async fn write(&mut self, step: &Step<'_>) -> Result<(), NotWritten> {
        let newest = newest(&step.records).map_err(NotWritten::Refused)?;
        let evaluations: Vec<&LagEvaluation> = newest.values().collect();
        self.database.put_lag_status(self.positions.consumer(), &step.advances, &evaluations).await?;
        lock(&self.shown).update(newest.values(), clock::now());
        self.prune().await;
        Ok(())
    }
}

impl Sink {
    async fn prune(&mut self) {
        if Instant::now() < self.prune_at {
            return;
        }
        self.prune_at = Instant::now() + PRUNE_EVERY;
        if let Err(error) = self.database.prune_lag_status().await {
            tracing::warn!(%error, "groups long gone are still kept");
        }
    }
}
