//! From topics into Postgres, each record once: the position in Kafka is part of the rows'
//! own transaction and reading begins there; the group's committed offsets only show others
//! how far we are. While Postgres is away reading stands still, nothing is skipped. A record
//! that Postgres refuses for what is in it becomes a dead letter, and those behind it go on.

mod positions;
mod refusals;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::health::{Health, Part};
use crate::kafka::memberships::{Ended, Memberships};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{
    Event, InboundRecord, Offsets, Start, Subscription, SubscriptionError, SubscriptionOptions,
    TopicPartition,
};
use crate::role::Role;

pub(super) use positions::{NotWritten, PositionError, Positions, Step, Writer, keep};
pub use refusals::SetAside;

/// Brings records into Postgres.
pub(super) trait Keeper {
    fn positions(&mut self) -> &mut Positions;

    /// Keeps what of these records has not been kept yet, in one transaction; those in
    /// `set_aside` only move the positions. Answers how far they moved.
    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept>;

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
    /// These cannot be kept, now or later: keep the others without them.
    Refused(Vec<SetAside>),
    /// At least one cannot be kept, with the database's own words; fewer at a time find out which.
    RefusedSome(String),
    /// Reading must begin anew.
    Rewound { partition: TopicPartition },
    /// And so it must: the partition is one of another topic than it was.
    Replaced { partition: TopicPartition },
}

impl From<PositionError> for NotKept {
    fn from(error: PositionError) -> Self {
        match error {
            PositionError::Rewound { partition } => Self::Rewound { partition },
            PositionError::Replaced { partition } => Self::Replaced { partition },
            PositionError::Unavailable(error) => Self::Yet(error.to_string()),
        }
    }
}

/// What a role reads, and how.
pub(super) struct Reading {
    pub role: &'static Role,
    /// Records kept with one transaction at most.
    pub batch_records: usize,
    /// Shortest and longest pause before something that failed is tried again.
    pub retry: (Duration, Duration),
    /// How often the group's offsets are brought up to date.
    pub commit_interval: Duration,
}

/// How often the group's offsets are brought up to date, where nothing else is set.
pub(super) const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

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
    let part = health.part(reading.role.name);
    let options = SubscriptionOptions {
        batch_records: reading.batch_records,
        buffered_records: reading.batch_records * 4,
        health: Some(health.part(&format!("{} consumer", reading.role.name))),
        ..SubscriptionOptions::default()
    };
    let mut memberships =
        Memberships::new(kafka, reading.role, options, part.clone(), reading.retry, shutdown.clone());
    while let Some(subscription) = memberships.next()? {
        let mut member = Member {
            keeper: keeper(),
            subscription,
            reading: &reading,
            part: part.clone(),
            uncommitted: HashMap::new(),
            commit_at: Instant::now(),
        };
        let ended = member.run(&shutdown, memberships.pause()).await;
        member.keeper.end().await;
        memberships.end(member.subscription, ended).await;
    }
    Ok(())
}

/// Why a batch is not done with.
enum Hindrance {
    /// The same may be tried again, with this reason until then.
    Passing(String),
    /// A new membership may go on.
    Lasting(String),
}

impl Hindrance {
    fn replaced(partition: TopicPartition) -> Self {
        Self::Lasting(format!("the topic of {partition} was deleted and made again"))
    }
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
                let consumer = self.keeper.positions().consumer().to_owned();
                Some(Ended::Again(format!(
                    "{partition} no longer has the records from the stored position on ({reason}): some were \
                     removed before they could be read; to go on with the earliest that are left, as owner of \
                     the database delete the rows of consumer {consumer} with that topic and partition from \
                     audit.positions"
                )))
            }
            Event::Failed(error) => Some(error.into()),
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
            match self.starts(partitions).await {
                Ok(starts) => {
                    self.part.ready();
                    pause.reset();
                    self.subscription.start(starts).await;
                    return None;
                }
                Err(reason) if self.wait(&reason, shutdown, pause).await => {}
                Err(_) => return Some(Ended::Shutdown),
            }
        }
    }

    /// Which topics these are comes first: a position counts for one of them only.
    async fn starts(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Start)>, String> {
        let ids = self.subscription.topic_ids().await?;
        let positions = self.keeper.positions();
        if let Some(gone) = partitions.iter().find(|at| !ids.contains_key(positions.name(at.topic))) {
            return Err(format!(
                "topic {} does not exist; run: trunkline topics apply",
                positions.name(gone.topic)
            ));
        }
        positions.begin(partitions, &ids).await.map_err(|error| error.to_string())
    }

    /// Has records kept, however long it takes. What cannot be kept is found by halving and
    /// set aside.
    async fn keep(
        &mut self,
        records: &[InboundRecord],
        shutdown: &CancellationToken,
        pause: &mut Backoff,
    ) -> Option<Ended> {
        let mut set_aside: Vec<SetAside> = Vec::new();
        let mut parts = vec![records];
        while let Some(part) = parts.pop() {
            let refused = match self.keeper.keep(part, &set_aside).await {
                Ok(next) => {
                    self.kept(next, pause);
                    continue;
                }
                Err(NotKept::RefusedSome(_)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                Err(NotKept::RefusedSome(reason)) => {
                    Ok(part.iter().map(|record| SetAside::refused(record, &reason)).collect())
                }
                Err(NotKept::Refused(refused)) => Ok(refused),
                Err(NotKept::Yet(reason)) => Err(Hindrance::Passing(reason)),
                Err(NotKept::Rewound { partition }) => Err(Hindrance::Lasting(format!(
                    "the stored position of {partition} went back: the database was set to an earlier state"
                ))),
                Err(NotKept::Replaced { partition }) => Err(Hindrance::replaced(partition)),
            };
            parts.push(part);
            let done = match refused {
                Ok(refused) => self.set_aside(part, refused, &mut set_aside).await,
                Err(hindrance) => Err(hindrance),
            };
            match done {
                Ok(()) => {}
                Err(Hindrance::Lasting(reason)) => return Some(Ended::Again(reason)),
                Err(Hindrance::Passing(reason)) if self.wait(&reason, shutdown, pause).await => {}
                Err(Hindrance::Passing(_)) => return Some(Ended::Shutdown),
            }
        }
        None
    }

    fn kept(&mut self, next: Offsets, pause: &mut Backoff) {
        self.part.ready();
        pause.reset();
        if self.uncommitted.is_empty() {
            self.commit_at = Instant::now() + self.reading.commit_interval;
        }
        self.uncommitted.extend(next);
    }

    /// Makes dead letters of what is refused, before the positions move past it.
    async fn set_aside(
        &mut self,
        records: &[InboundRecord],
        mut refused: Vec<SetAside>,
        before: &mut Vec<SetAside>,
    ) -> Result<(), Hindrance> {
        refused.retain(|refused| !before.iter().any(|known| known.is_of_same_record(refused)));
        if refused.is_empty() {
            let reason = "Postgres refuses the positions of records that are set aside".to_owned();
            return Err(Hindrance::Passing(reason));
        }
        // In a topic that was made again a record is refused for the place of an old one.
        let ids = self.subscription.topic_ids().await.map_err(Hindrance::Passing)?;
        let positions = self.keeper.positions();
        let replaced = |refused: &&SetAside| {
            let topic = refused.partition.topic;
            let now = ids.get(positions.name(topic)).copied().flatten();
            now.is_some() && positions.topic_id(topic).is_some_and(|known| Some(known) != now)
        };
        if let Some(of_another) = refused.iter().find(replaced) {
            return Err(Hindrance::replaced(of_another.partition));
        }
        refusals::publish(positions, records, &refused)
            .await
            .map_err(|error| Hindrance::Passing(format!("dead letters cannot be written: {error}")))?;
        before.extend(refused);
        Ok(())
    }

    /// `false` when the process stops.
    async fn wait(&self, reason: &str, shutdown: &CancellationToken, pause: &mut Backoff) -> bool {
        tracing::warn!(role = self.reading.role.name, reason, "records wait to be kept");
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
