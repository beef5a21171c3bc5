//! Keeps every decision, every outcome and every dead letter in Postgres, each exactly once.

mod set_aside;
mod writer;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::positioned::{self, Keeper, NotKept, Positions, Reading};
use crate::health::Health;
use crate::metrics;
use crate::postgres::Database;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    InboundRecord, Offsets, OutboundRecord, PublishError, Subscription, SubscriptionError,
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
    let reading = Reading {
        role: ROLE,
        topics: vec![
            &topics::DIAL_DECISIONS,
            &topics::ROLLBACK_DECISIONS,
            &topics::LAG_EVALUATIONS,
            &topics::ROUTING_DECISIONS,
            &topics::OUTCOMES,
            &topics::DEAD_LETTERS,
        ],
        publishes: true,
        batch_records: settings.batch_records,
        retry: settings.retry,
        commit_interval: settings.commit_interval,
    };
    let audit =
        || Audit { writer: AuditWriter::new(database.clone(), kafka), set_aside: Vec::new(), began: None };
    positioned::run(reading, kafka, health, shutdown, audit).await
}

struct Audit {
    writer: AuditWriter,
    /// Records of the batch under way that are among the dead letters already.
    set_aside: Vec<SetAside>,
    /// When that batch came.
    began: Option<Instant>,
}

impl Keeper for Audit {
    fn positions(&mut self) -> &mut Positions {
        self.writer.stored_positions()
    }

    async fn keep(
        &mut self,
        records: &[InboundRecord],
        subscription: &Subscription,
    ) -> Result<Offsets, NotKept> {
        let began = *self.began.get_or_insert_with(Instant::now);
        loop {
            match self.writer.write(records, &self.set_aside).await {
                Ok(stored) => {
                    stored.count();
                    metrics::AUDIT_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
                    self.set_aside.clear();
                    self.began = None;
                    return Ok(stored.next);
                }
                Err(WriteError::Refused(refused)) => {
                    self.publish(records, &refused, subscription).await?;
                    self.set_aside.extend(refused);
                }
                Err(WriteError::Rewound { partition }) => return Err(NotKept::Rewound { partition }),
                Err(WriteError::Unavailable(error)) => return Err(NotKept::Yet(error.to_string())),
            }
        }
    }
}

impl Audit {
    /// Copies records to the dead letters. Comes before the transaction that moves the
    /// position past them: a crash between the two copies them again, never loses them.
    async fn publish(
        &self,
        records: &[InboundRecord],
        refused: &[SetAside],
        subscription: &Subscription,
    ) -> Result<(), NotKept> {
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
            match subscription.publish(letters.clone(), Vec::new()).await {
                Ok(()) => return Ok(()),
                // Larger than any record of the topics it came from: its place must do.
                Err(PublishError::TooLarge { limit, .. }) => {
                    for letter in &mut letters {
                        if letter.value.as_ref().is_some_and(|value| value.len() > limit / 2) {
                            letter.value = None;
                        }
                    }
                }
                Err(PublishError::Closed) => return Err(NotKept::Shutdown),
                Err(error @ (PublishError::Retry(_) | PublishError::Gone(_))) => {
                    return Err(NotKept::Yet(format!("dead letters cannot be written: {error}")));
                }
            }
        }
    }
}
