//! From topics into Postgres, each record once: the position in Kafka is part of the rows'
//! own transaction and reading begins there; the group's committed offsets only show others
//! how far we are. While Postgres is away reading stands still, nothing is skipped.

mod positions;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use crate::health::{Health, Part};
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    Event, InboundRecord, Offsets, Subscription, SubscriptionError, SubscriptionOptions, TopicPartition,
};
use crate::topics::Topic;

pub use positions::{PositionError, Positions};

/// Brings records into Postgres.
pub(super) trait Keeper {
    fn positions(&mut self) -> &mut Positions;

    /// Keeps what of these records has not been kept yet, each batch again until it succeeds.
    /// Answers how far the positions moved.
    async fn keep(
        &mut self,
        records: &[InboundRecord],
        subscription: &Subscription,
    ) -> Result<Offsets, NotKept>;

    /// These partitions are ours from now on.
    async fn gained(&mut self, _partitions: &[TopicPartition], _shutdown: &CancellationToken) {}

    /// And these no longer.
    async fn lost(&mut self, _partitions: &[TopicPartition]) {}

    /// The membership is over.
    async fn end(&mut self) {}

    /// Ends when something beside the reading is broken, with what it is. Is dropped and
    /// begun anew all the time.
    async fn broken(&mut self) -> String {
        std::future::pending().await
    }
}

/// Why records are not kept.
pub(super) enum NotKept {
    /// Not yet, for this reason: keep the same records again later.
    Yet(String),
    /// Reading must begin anew.
    Rewound {
        partition: TopicPartition,
    },
    Shutdown,
}

/// What a role reads, and how.
pub(super) struct Reading {
    /// Consumer group, readiness, log.
    pub role: &'static str,
    pub topics: Vec<&'static Topic>,
    /// Whether the keeper publishes.
    pub publishes: bool,
    /// Records kept with one transaction at most.
    pub batch_records: usize,
    /// Shortest and longest pause before something that failed is tried again.
    pub retry: (Duration, Duration),
    /// How often the group's offsets are brought up to date.
    pub commit_interval: Duration,
}

/// Work in progress may take this long once shutdown has begun. What is cut off is
/// either committed as a whole or read again.
const GRACE: Duration = Duration::from_secs(1);

/// Reads until `shutdown`, with a keeper of its own for each membership in the group.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub(super) async fn run<K: Keeper>(
    reading: Reading,
    kafka: &KafkaSettings,
    health: &Health,
    shutdown: CancellationToken,
    keeper: impl Fn() -> K,
) -> Result<(), SubscriptionError> {
    let part = health.part(reading.role);
    let mut pause = Backoff::new(reading.retry);
    while !shutdown.is_cancelled() {
        let options = SubscriptionOptions {
            batch_records: reading.batch_records,
            buffered_records: reading.batch_records * 4,
            publishes: reading.publishes,
            health: Some(health.part(&format!("{} consumer", reading.role))),
            ..SubscriptionOptions::default()
        };
        let subscription =
            Subscription::open(kafka, reading.role, &reading.topics, options, shutdown.clone())?;
        let mut member = Member {
            keeper: keeper(),
            subscription,
            reading: &reading,
            part: part.clone(),
            uncommitted: HashMap::new(),
            commit_at: Instant::now(),
        };
        let ended = member.run(&shutdown, &mut pause).await;
        member.keeper.end().await;
        member.subscription.close().await;
        if let Ended::Again(reason) = ended {
            tracing::error!(role = reading.role, reason, "reading begins anew at the stored positions");
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

struct Member<'r, K> {
    keeper: K,
    subscription: Subscription,
    reading: &'r Reading,
    part: Part,
    uncommitted: HashMap<TopicPartition, i64>,
    commit_at: Instant,
}

impl<K: Keeper> Member<'_, K> {
    async fn run(&mut self, shutdown: &CancellationToken, pause: &mut Backoff) -> Ended {
        loop {
            let event = tokio::select! {
                event = self.subscription.next() => event,
                () = tokio::time::sleep_until(self.commit_at), if !self.uncommitted.is_empty() => {
                    self.commit().await;
                    continue;
                }
                reason = self.keeper.broken() => return Ended::Again(reason),
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
            Event::Records(records) => self.keep(&records, shutdown, pause).await,
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
        self.keeper.gained(partitions, shutdown).await;
        loop {
            match self.keeper.positions().begin(partitions).await {
                Ok(starts) => {
                    self.part.ready();
                    pause.reset();
                    self.subscription.start(starts).await;
                    return None;
                }
                Err(error) if self.wait(&error.to_string(), shutdown, pause).await => {}
                Err(_) => return Some(Ended::Shutdown),
            }
        }
    }

    /// Has records kept, however long it takes.
    async fn keep(
        &mut self,
        records: &[InboundRecord],
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Option<Ended> {
        loop {
            match self.keeper.keep(records, &self.subscription).await {
                Ok(next) => {
                    self.part.ready();
                    pause.reset();
                    if self.uncommitted.is_empty() {
                        self.commit_at = Instant::now() + self.reading.commit_interval;
                    }
                    self.uncommitted.extend(next);
                    return None;
                }
                Err(NotKept::Rewound { partition }) => {
                    return Some(Ended::Again(format!(
                        "the stored position of {partition} went back: the database was set to an earlier state"
                    )));
                }
                Err(NotKept::Yet(reason)) if self.wait(&reason, shutdown, pause).await => {}
                Err(NotKept::Yet(_) | NotKept::Shutdown) => return Some(Ended::Shutdown),
            }
        }
    }

    /// `false` when the process stops.
    async fn wait(&self, reason: &str, shutdown: &CancellationToken, pause: &mut Backoff) -> bool {
        tracing::warn!(role = self.reading.role, reason, "records wait to be kept");
        self.part.not_ready(reason);
        pause.wait(shutdown).await
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
        self.keeper.positions().forget(partitions);
        self.uncommitted.retain(|partition, _| !partitions.contains(partition));
        self.keeper.lost(partitions).await;
    }
}
