//! Keeps every decision, every outcome and every dead letter in Postgres, each exactly once.
//!
//! The position in Kafka is part of the rows' own transaction and reading begins
//! there; the group's committed offsets only show others how far we are. While
//! Postgres is away reading stands still, nothing is skipped.

mod set_aside;
mod writer;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Part};
use crate::metrics;
use crate::postgres::Database;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    Event, InboundRecord, OutboundRecord, PublishError, Subscription, SubscriptionError, SubscriptionOptions,
    TopicPartition,
};
use crate::topics;

pub use writer::{AuditWriter, SetAside, Stored, WriteError};

/// Name of the role: `--stages`, consumer group, metrics.
pub const ROLE: &str = "audit";

/// How the audit works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records written with one transaction at most.
    pub batch_records: usize,
    /// Shortest and longest pause before something that failed is tried again.
    pub retry: (Duration, Duration),
    /// How often the group's offsets are brought up to date.
    pub commit_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_records: 2_000,
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
            commit_interval: Duration::from_secs(1),
        }
    }
}

/// Work in progress may take this long once shutdown has begun. What is cut off is
/// either committed as a whole or read again.
const GRACE: Duration = Duration::from_secs(1);

/// Runs the audit until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    settings: Settings,
    kafka: &KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let part = health.part(ROLE);
    let mut pause = Backoff::new(settings.retry);
    while !shutdown.is_cancelled() {
        let options = SubscriptionOptions {
            batch_records: settings.batch_records,
            buffered_records: settings.batch_records * 4,
            publishes: true,
            health: Some(health.part("audit consumer")),
            ..SubscriptionOptions::default()
        };
        let read = [
            &topics::DIAL_DECISIONS,
            &topics::ROLLBACK_DECISIONS,
            &topics::LAG_EVALUATIONS,
            &topics::ROUTING_DECISIONS,
            &topics::OUTCOMES,
            &topics::DEAD_LETTERS,
        ];
        let subscription = Subscription::open(kafka, ROLE, &read, options, shutdown.clone())?;
        let mut audit = Audit {
            writer: AuditWriter::new(database.clone(), kafka),
            subscription,
            part: part.clone(),
            settings: settings.clone(),
            uncommitted: HashMap::new(),
            commit_at: Instant::now(),
        };
        let ended = audit.run(&shutdown, &mut pause).await;
        audit.subscription.close().await;
        if let Ended::Again(reason) = ended {
            tracing::error!(reason, "the audit begins anew at its stored positions");
            part.not_ready(reason);
            pause.wait(&shutdown).await;
        }
    }
    Ok(())
}

/// Why one membership in the group ended.
enum Ended {
    Shutdown,
    /// A new one may go on, for this reason the old one could not.
    Again(String),
}

struct Audit {
    writer: AuditWriter,
    subscription: Subscription,
    part: Part,
    settings: Settings,
    uncommitted: HashMap<TopicPartition, i64>,
    commit_at: Instant,
}

impl Audit {
    async fn run(&mut self, shutdown: &CancellationToken, pause: &mut Backoff) -> Ended {
        loop {
            let event = tokio::select! {
                event = self.subscription.next() => event,
                () = tokio::time::sleep_until(self.commit_at), if !self.uncommitted.is_empty() => {
                    self.commit().await;
                    continue;
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
                self.forget(&partitions);
                self.subscription.acknowledge_revocation().await;
                None
            }
            Event::Lost(partitions) => {
                self.forget(&partitions);
                None
            }
            Event::Records(records) => self.store(&records, shutdown, pause).await,
            Event::Failed(SubscriptionError::PositionLost { partition, reason, .. }) => {
                Some(Ended::Again(format!(
                    "{partition} no longer has the records from the stored position on ({reason}): some were \
                     removed before the audit could read them; to go on with the earliest that are left, delete \
                     the partition's row from audit.positions"
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
        loop {
            match self.writer.positions(partitions).await {
                Ok(starts) => {
                    self.part.ready();
                    pause.reset();
                    self.subscription.start(starts).await;
                    return None;
                }
                Err(error) => {
                    tracing::warn!(%error, "the audit waits for Postgres");
                    self.part.not_ready(error.to_string());
                    if !pause.wait(shutdown).await {
                        return Some(Ended::Shutdown);
                    }
                }
            }
        }
    }

    /// Brings records into the ledger, however long it takes.
    async fn store(
        &mut self,
        records: &[InboundRecord],
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Option<Ended> {
        let began = Instant::now();
        let mut set_aside = Vec::new();
        loop {
            match self.writer.write(records, &set_aside).await {
                Ok(stored) => {
                    stored.count();
                    metrics::AUDIT_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
                    self.part.ready();
                    pause.reset();
                    if self.uncommitted.is_empty() {
                        self.commit_at = Instant::now() + self.settings.commit_interval;
                    }
                    self.uncommitted.extend(stored.next);
                    return None;
                }
                Err(WriteError::Refused(refused)) => {
                    if let Err(ended) = self.publish(records, &refused, shutdown, pause).await {
                        return Some(ended);
                    }
                    set_aside.extend(refused);
                }
                Err(WriteError::Rewound { partition }) => {
                    return Some(Ended::Again(format!(
                        "the stored position of {partition} went back: the database was set to an earlier state"
                    )));
                }
                Err(WriteError::Unavailable(error)) => {
                    tracing::warn!(%error, "the audit waits for Postgres");
                    self.part.not_ready(error.to_string());
                    if !pause.wait(shutdown).await {
                        return Some(Ended::Shutdown);
                    }
                }
            }
        }
    }

    /// Copies records to the dead letters. Comes before the transaction that moves the
    /// position past them: a crash between the two copies them again, never loses them.
    async fn publish(
        &self,
        records: &[InboundRecord],
        refused: &[SetAside],
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Result<(), Ended> {
        // A dead letter that cannot be kept is among the dead letters already.
        let mut letters: Vec<OutboundRecord> = refused
            .iter()
            .filter(|set_aside| *set_aside.partition.topic != topics::DEAD_LETTERS)
            .filter_map(|set_aside| self.writer.dead_letter(records, set_aside))
            .collect();
        for set_aside in refused {
            tracing::warn!(
                topic = set_aside.partition.topic.name,
                partition = set_aside.partition.partition,
                offset = set_aside.offset,
                reason = %set_aside.reason,
                "a record cannot be kept and goes to the dead letters"
            );
        }
        if letters.is_empty() {
            return Ok(());
        }
        loop {
            match self.subscription.publish(letters.clone(), Vec::new()).await {
                Ok(()) => return Ok(()),
                // Larger than any record of the topics it came from: its place must do.
                Err(PublishError::TooLarge { limit, .. }) => {
                    for letter in &mut letters {
                        if letter.value.as_ref().is_some_and(|value| value.len() > limit / 2) {
                            letter.value = None;
                        }
                    }
                }
                Err(PublishError::Closed) => return Err(Ended::Shutdown),
                Err(error @ (PublishError::Retry(_) | PublishError::Gone(_))) => {
                    self.part.not_ready(format!("dead letters cannot be written: {error}"));
                    if !pause.wait(shutdown).await {
                        return Err(Ended::Shutdown);
                    }
                }
            }
        }
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

    fn forget(&mut self, partitions: &[TopicPartition]) {
        self.writer.forget(partitions);
        self.uncommitted.retain(|partition, _| !partitions.contains(partition));
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

    /// `false` when shutdown ended the wait.
    async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}
