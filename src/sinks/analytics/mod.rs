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

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::genesys::Client;
use crate::health::{Health, Part};
use crate::metrics;
use crate::postgres::Database;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    Event, InboundRecord, Subscription, SubscriptionError, SubscriptionOptions, TopicPartition,
};
use crate::topics;

use flusher::{Asking, Flusher};
use intake::{Intake, TakeError, Taken};
pub use work::{ATTEMPTS, Waits};

/// Name of the role: `--stages`, consumer group, metrics.
pub const ROLE: &str = "enrichment";

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

/// Work in progress may take this long once shutdown has begun. What is cut off is
/// either committed as a whole or done again.
const GRACE: Duration = Duration::from_secs(1);

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
    let part = health.part(ROLE);
    let asking = Arc::new(Asking {
        settings: settings.clone(),
        client,
        database: database.clone(),
        events_topic: kafka.topic(&topics::CONVERSATION_EVENTS),
        part: ready(health, "enrichment queries"),
    });
    let mut pause = Backoff::new(settings.retry);
    while !shutdown.is_cancelled() {
        let options = SubscriptionOptions {
            batch_records: settings.batch_records,
            buffered_records: settings.batch_records * 4,
            health: Some(health.part("enrichment consumer")),
            ..SubscriptionOptions::default()
        };
        let read = [&topics::CONVERSATION_EVENTS];
        let subscription = Subscription::open(kafka, ROLE, &read, options, shutdown.clone())?;
        let mut member = Member {
            intake: Intake::new(database.clone(), kafka, settings.waits),
            subscription,
            part: part.clone(),
            commit_interval: settings.commit_interval,
            uncommitted: HashMap::new(),
            commit_at: Instant::now(),
            asking: Arc::clone(&asking),
            flusher: None,
        };
        let ended = member.run(&shutdown, &mut pause).await;
        member.stop_asking().await;
        member.subscription.close().await;
        if let Ended::Again(reason) = ended {
            tracing::error!(reason, "enrichment begins anew at its stored positions");
            part.not_ready(reason);
            pause.wait(&shutdown).await;
        }
    }
    Ok(())
}

/// A part that works until something says otherwise.
fn ready(health: &Health, name: &str) -> Part {
    let part = health.part(name);
    part.ready();
    part
}

/// Why one membership in the group ended.
enum Ended {
    Shutdown,
    /// A new one may go on, for this reason the old one could not.
    Again(String),
}

struct Member {
    intake: Intake,
    subscription: Subscription,
    part: Part,
    commit_interval: Duration,
    uncommitted: HashMap<TopicPartition, i64>,
    commit_at: Instant,
    asking: Arc<Asking>,
    /// While partition 0 is ours.
    flusher: Option<(CancellationToken, AbortOnDropHandle<()>)>,
}

impl Member {
    async fn run(&mut self, shutdown: &CancellationToken, pause: &mut Backoff) -> Ended {
        loop {
            let event = tokio::select! {
                event = self.subscription.next() => event,
                () = tokio::time::sleep_until(self.commit_at), if !self.uncommitted.is_empty() => {
                    self.commit().await;
                    continue;
                }
                () = asking_ended(&mut self.flusher) => {
                    self.flusher = None;
                    if shutdown.is_cancelled() {
                        continue;
                    }
                    return Ended::Again("asking the platform ended by itself, which is a bug".to_owned());
                }
            };
            let patience = async {
                shutdown.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let ended = tokio::select! {
                ended = self.handle(event, shutdown, pause) => ended,
                () = patience => Some(Ended::Shutdown),
            };
            if let Some(ended) = ended {
                return ended;
            }
        }
    }

    async fn handle(
        &mut self,
        event: Event,
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Option<Ended> {
        match event {
            Event::Assigned(partitions) => self.begin(&partitions, shutdown, pause).await,
            Event::Revoked(partitions) => {
                self.commit().await;
                self.forget(&partitions).await;
                self.subscription.acknowledge_revocation().await;
                None
            }
            Event::Lost(partitions) => {
                self.forget(&partitions).await;
                None
            }
            Event::Records(records) => self.take(&records, shutdown, pause).await,
            Event::Failed(SubscriptionError::PositionLost { partition, reason, .. }) => {
                Some(Ended::Again(format!(
                    "{partition} no longer has the records from the stored position on ({reason}): some were \
                     removed before they could be read; to go on with the earliest that are left, delete the \
                     partition's row from audit.positions"
                )))
            }
            Event::Failed(error) => Some(Ended::Again(error.to_string())),
            Event::Closed => {
                self.commit().await;
                Some(Ended::Shutdown)
            }
        }
    }

    /// Delivery of new partitions begins at their stored positions, once they can be read.
    async fn begin(
        &mut self,
        partitions: &[TopicPartition],
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Option<Ended> {
        if partitions.iter().any(|partition| partition.partition == 0) {
            self.start_asking(shutdown).await;
        }
        loop {
            match self.intake.positions(partitions).await {
                Ok(starts) => {
                    self.part.ready();
                    pause.reset();
                    self.subscription.start(starts).await;
                    return None;
                }
                Err(error) if self.wait_for_postgres(error.to_string(), shutdown, pause).await => {}
                Err(_) => return Some(Ended::Shutdown),
            }
        }
    }

    /// Takes records in, however long it takes.
    async fn take(
        &mut self,
        records: &[InboundRecord],
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Option<Ended> {
        loop {
            match self.intake.take(records).await {
                Ok(taken) => {
                    self.part.ready();
                    pause.reset();
                    self.count(taken);
                    return None;
                }
                Err(error @ TakeError::Rewound { .. }) => return Some(Ended::Again(error.to_string())),
                Err(error) if self.wait_for_postgres(error.to_string(), shutdown, pause).await => {}
                Err(_) => return Some(Ended::Shutdown),
            }
        }
    }

    /// `false` when the process stops.
    async fn wait_for_postgres(
        &self,
        reason: String,
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> bool {
        tracing::warn!(reason, "enrichment waits for Postgres");
        self.part.not_ready(reason);
        pause.wait(shutdown).await
    }

    fn count(&mut self, taken: Taken) {
        for (result, number) in [
            ("told", taken.told),
            ("known", taken.known),
            ("unreadable", taken.unreadable),
            ("refused", taken.refused),
        ] {
            metrics::ENRICHMENT_EVENTS.counter(&[result]).increment(number);
        }
        if self.uncommitted.is_empty() {
            self.commit_at = Instant::now() + self.commit_interval;
        }
        self.uncommitted.extend(taken.next);
    }

    async fn start_asking(&mut self, shutdown: &CancellationToken) {
        self.stop_asking().await;
        let stop = shutdown.child_token();
        let flusher = Flusher::new(Arc::clone(&self.asking));
        tracing::info!("this instance asks the platform about conversations");
        self.flusher = Some((stop.clone(), AbortOnDropHandle::new(tokio::spawn(flusher.run(stop)))));
    }

    async fn stop_asking(&mut self) {
        let Some((stop, running)) = self.flusher.take() else { return };
        stop.cancel();
        let _ = running.await;
    }

    /// Shows the group how far we are. The positions that count are in Postgres, so
    /// a failure changes nothing.
    async fn commit(&mut self) {
        if self.uncommitted.is_empty() {
            return;
        }
        let offsets = self.uncommitted.drain().collect();
        if let Err(error) = self.subscription.commit(offsets).await {
            tracing::debug!(%error, "the group's offsets fall behind the stored positions");
        }
    }

    async fn forget(&mut self, partitions: &[TopicPartition]) {
        self.intake.forget(partitions);
        self.uncommitted.retain(|partition, _| !partitions.contains(partition));
        if partitions.iter().any(|partition| partition.partition == 0) {
            self.stop_asking().await;
        }
    }
}

/// Never, while it goes on as it should.
async fn asking_ended(flusher: &mut Option<(CancellationToken, AbortOnDropHandle<()>)>) {
    match flusher {
        Some((_, running)) => drop(running.await),
        None => std::future::pending().await,
    }
}

/// Pauses that double.
struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    fn reset(&mut self) {
        self.next = self.shortest;
    }

    fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// `false` when shutdown ended the wait.
    async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let pause = self.next();
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}
