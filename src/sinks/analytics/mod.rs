//! Enriches conversations with what the platform's analytics know of them.
//!
//! Events make rows in Postgres, one per conversation, in one transaction with the
//! position in Kafka (`intake`). What is due is asked about in batches through the shared
//! budget (`flusher`), and an answer's details, what is still to be done and what is
//! published are one transaction again (`finish`). While the platform is away rows wait:
//! nothing pending ever expires.

mod batching;
mod finish;
mod flusher;
mod intake;
mod publication;
mod summary;
mod work;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::positioned::{self, Keeper, NotKept, Positions, Reading, SetAside};
use crate::genesys::Client;
use crate::health::{Health, Part};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, SubscriptionError, TopicPartition};
use crate::model::organization::OneOf;
use crate::postgres::Database;
use crate::role::{self, Kind, Role};
use crate::topics;

use flusher::{Asking, Flusher};
use intake::Intake;
pub use work::{ATTEMPTS, Waits};

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "enrichment",
    kind: Kind::Sink,
    description: "asks the platform's analytics about conversations that have had events, in batches",
    reads: &[&topics::CONVERSATION_EVENTS],
    writes: &[&topics::CONVERSATIONS],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM, role::POSTGRES],
};

/// How enrichment works.
#[derive(Clone, Debug)]
pub struct Settings {
    pub waits: Waits,
    /// How long conversations are kept once nothing is to be done about them any more.
    pub retention: Duration,
    /// Conversations in one query at most.
    pub batch: usize,
    /// How long one that is due waits for others to fill its query.
    pub linger: Duration,
    /// Event time one query covers at most.
    pub span: Duration,
    /// Queries under way at once at most.
    pub queries: usize,
    /// Longest time for one query and all its pages, the wait for the budget included.
    pub query_limit: Duration,
    /// Shortest and longest pause after a query that failed.
    pub pauses: (Duration, Duration),
    /// Records taken in with one transaction at most.
    pub batch_records: usize,
    /// Shortest and longest pause before what Postgres did not take is tried again.
    pub retry: (Duration, Duration),
    /// How often the group's offsets are brought up to date.
    pub commit_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            waits: Waits {
                quiet: Duration::from_secs(60),
                settle: Duration::from_secs(5),
                patience: Duration::from_secs(7_200),
            },
            retention: Duration::from_secs(7 * 86_400),
            batch: 50,
            linger: Duration::from_secs(1),
            span: Duration::from_secs(86_400),
            queries: 4,
            query_limit: Duration::from_secs(120),
            pauses: (Duration::from_secs(1), Duration::from_secs(30)),
            batch_records: 2_000,
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
            commit_interval: Duration::from_secs(1),
        }
    }
}

/// Runs enrichment until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    settings: Settings,
    kafka: &KafkaSettings,
    database: Database,
    client: Client,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: settings.batch_records,
        retry: settings.retry,
        commit_interval: settings.commit_interval,
    };
    let waits = settings.waits;
    let names: Vec<Option<String>> =
        client.organizations().map(|client| client.organization().name.clone()).collect();
    let further: Vec<String> = names.iter().flatten().cloned().collect();
    let asking = |name: &Option<String>| {
        let of = name.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        Arc::new(Asking {
            settings: settings.clone(),
            of: OneOf { name: name.clone(), further: further.clone() },
            client: client.clone(),
            database: database.clone(),
            events_topic: kafka.topic(&topics::CONVERSATION_EVENTS),
            part: ready(health, &format!("enrichment queries{of}")),
        })
    };
    let asking: Vec<Arc<Asking>> = names.iter().map(asking).collect();
    let enrichment = || Enrichment {
        intake: Intake::new(database.clone(), kafka, waits),
        asking: asking.clone(),
        flusher: None,
    };
    positioned::run(reading, kafka, health, shutdown, enrichment).await
}

/// A part that works until something says otherwise.
fn ready(health: &Health, name: &str) -> Part {
    let part = health.part(name);
    part.ready();
    part
}

struct Enrichment {
    intake: Intake,
    /// One for each organisation.
    asking: Vec<Arc<Asking>>,
    /// While partition 0 is ours.
    flusher: Option<(CancellationToken, AbortOnDropHandle<()>)>,
}

fn has_first(partitions: &[TopicPartition]) -> bool {
    partitions.iter().any(|partition| partition.partition == 0)
}

impl Keeper for Enrichment {
    fn positions(&mut self) -> &mut Positions {
        &mut self.intake.positions
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        let taken = self.intake.take(records, set_aside).await?;
        taken.count();
        Ok(taken.next)
    }

    async fn gained(&mut self, partitions: &[TopicPartition], shutdown: &CancellationToken) {
        if has_first(partitions) {
            self.stop_asking().await;
            let stop = shutdown.child_token();
            tracing::info!("this instance asks the platform about conversations");
            let asking = ask_all(self.asking.clone(), stop.clone());
            self.flusher = Some((stop, AbortOnDropHandle::new(tokio::spawn(asking))));
        }
    }

    async fn lost(&mut self, partitions: &[TopicPartition]) {
        if has_first(partitions) {
            self.stop_asking().await;
        }
    }

    async fn end(&mut self) {
        self.stop_asking().await;
    }

    async fn broken(&mut self) -> String {
        if let Some((stop, running)) = &mut self.flusher {
            drop(running.await);
            let was_to_end = stop.is_cancelled();
            self.flusher = None;
            if !was_to_end {
                return "asking the platform ended by itself, which is a bug".to_owned();
            }
        }
        std::future::pending().await
    }
}

/// Asks each organisation about its own, until `stop`.
async fn ask_all(asking: Vec<Arc<Asking>>, stop: CancellationToken) {
    let mut flushers = JoinSet::new();
    for asking in asking {
        flushers.spawn(Flusher::new(asking).run(stop.clone()));
    }
    while let Some(ended) = flushers.join_next().await {
        ended.expect("asking does not panic");
    }
}

impl Enrichment {
    async fn stop_asking(&mut self) {
        let Some((stop, running)) = self.flusher.take() else { return };
        stop.cancel();
        let _ = running.await;
    }
}
