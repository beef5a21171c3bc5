//! A member of a consumer group for everything that is not a stage: sinks read
//! topics through it, and where they publish, offsets and records go into one
//! transaction.
//!
//! The member lives on its own thread, because librdkafka wants to be polled
//! there; this is its async face. Nothing is delivered from a partition until
//! its owner has said where to [`start`](SubscriptionHandle::start).

mod exchange;
mod member;
mod publisher;
mod record;
mod settings;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::health::Part;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::topic_ids::TopicIds;
use crate::role::Role;
use crate::topics::Topic;

use exchange::{Command, Held, Shared};
pub(crate) use publisher::send;
pub use record::{InboundRecord, OutboundRecord};

/// One partition of one of our topics.
#[derive(Clone, Copy, Debug)]
pub struct TopicPartition {
    pub topic: &'static Topic,
    pub partition: i32,
}

impl PartialEq for TopicPartition {
    fn eq(&self, other: &Self) -> bool {
        self.partition == other.partition && self.topic.name == other.topic.name
    }
}

impl Eq for TopicPartition {}

impl Hash for TopicPartition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.topic.name.hash(state);
        self.partition.hash(state);
    }
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic.name, self.partition)
    }
}

/// Where reading a partition begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The group's committed offset, or the earliest record where it has none.
    Committed,
    /// This offset; records before it were dealt with elsewhere.
    At(i64),
    /// The earliest record there is, whatever the group has committed.
    Earliest,
}

/// The offset of the next record to read, per partition.
pub type Offsets = Vec<(TopicPartition, i64)>;

/// What a member of the group is told, in order.
#[derive(Debug)]
pub enum Event {
    /// These partitions are ours; say where to [`start`](SubscriptionHandle::start). None are
    /// where the group has been joined and all partitions are with other members.
    Assigned(Vec<TopicPartition>),
    /// These go to another member. What is to be committed can be committed until
    /// [`acknowledge_revocation`](SubscriptionHandle::acknowledge_revocation).
    Revoked(Vec<TopicPartition>),
    /// These went to another member without our having been asked: nothing can be committed.
    Lost(Vec<TopicPartition>),
    /// Records in the order of their offsets per partition, at least one.
    Records(Vec<InboundRecord>),
    /// The subscription cannot go on; nothing follows.
    Failed(SubscriptionError),
    /// Shutdown has begun; nothing follows. Commits are still taken until it is dropped.
    Closed,
}

/// How a subscription reads and whether it publishes.
#[derive(Clone, Debug)]
pub struct SubscriptionOptions {
    /// Records waiting for their receiver before partitions are paused; 32 MiB of
    /// them pause too.
    pub buffered_records: usize,
    /// Records in one [`Event::Records`] at most; it ends with 8 MiB as well.
    pub batch_records: usize,
    /// How long a revocation waits for its acknowledgement.
    pub revocation_wait: Duration,
    /// Whether [`publish`](SubscriptionHandle::publish) will be used: takes the
    /// transactional id at the start, which frees what a crashed predecessor left open.
    pub publishes: bool,
    /// Says whether the group could be joined and the brokers answer.
    pub health: Option<Part>,
}

impl Default for SubscriptionOptions {
    fn default() -> Self {
        Self {
            buffered_records: 4_000,
            batch_records: 1_000,
            revocation_wait: Duration::from_secs(3),
            publishes: false,
            health: None,
        }
    }
}

/// Why a subscription could not begin or go on.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SubscriptionError {
    #[error("cannot make a Kafka consumer for group `{group}`: {reason}; check the `kafka` settings")]
    Create { group: String, reason: String },
    #[error("cannot start a thread for group `{group}`: {reason}")]
    Thread { group: String, reason: String },
    #[error(
        "group `{group}` is to read {partition} at an offset that no longer exists ({reason}): records were \
         removed before they were read; to go on with the earliest that are left, stop the role on every instance \
         (a group in use keeps its offsets) and run kafka-consumer-groups.sh with --group {group} --reset-offsets \
         --to-earliest --execute for that topic"
    )]
    PositionLost { group: String, partition: String, reason: String },
    #[error(
        "group `{group}`: {topic} was deleted and made again while it was read; it is read from its beginning"
    )]
    TopicReplaced { group: String, topic: String },
    #[error("the consumer of group `{group}` failed for good: {reason}")]
    Fatal { group: String, reason: String },
}

/// Why offsets were not committed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// The same offsets may be committed again.
    #[error("offsets were not committed: {0}")]
    Retry(String),
    /// Another member has the partitions; it begins at the last committed offsets.
    #[error("offsets were not committed, the partitions went to another member: {0}")]
    Gone(String),
    /// The subscription has ended.
    #[error("the subscription has ended")]
    Closed,
}

/// Why records were not published. Unless said otherwise no reader sees any of
/// them and the offsets are as they were.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The same records and offsets may be published again.
    #[error("the transaction was aborted: {0}")]
    Retry(String),
    /// Another member has the partitions; it begins at the last committed offsets.
    #[error("the partitions went to another member: {0}")]
    Gone(String),
    /// No retry helps: one of the records is refused for what it is.
    #[error("a record is refused: {0}")]
    Refused(String),
    /// The subscription has ended. What was under way may have been published: the
    /// group's committed offsets tell.
    #[error("the subscription has ended")]
    Closed,
}

/// The receiving end. Dropping it leaves the group.
pub struct Subscription {
    handle: SubscriptionHandle,
    shutdown: CancellationToken,
    finished: Option<oneshot::Receiver<()>>,
}

/// Commands to the member; cheap to clone and usable while another task waits
/// in [`Subscription::next`].
#[derive(Clone)]
pub struct SubscriptionHandle {
    role: &'static Role,
    shared: Arc<Shared>,
}

impl Subscription {
    /// Joins the group `{prefix}trunkline-{role}`.
    ///
    /// # Errors
    /// When the settings are not accepted by the Kafka client. Brokers that do
    /// not answer are no error: joining goes on until they do.
    pub fn open(
        kafka: &KafkaSettings,
        role: &'static Role,
        topics: &[&'static Topic],
        options: SubscriptionOptions,
        shutdown: CancellationToken,
    ) -> Result<Self, SubscriptionError> {
        let shared = Arc::new(Shared::default());
        let finished =
            member::spawn(kafka, role.name, topics, options, shutdown.clone(), Arc::clone(&shared))?;
        Ok(Self { handle: SubscriptionHandle { shared, role }, shutdown, finished: Some(finished) })
    }

    /// The next event. Can be dropped while it waits without losing one.
    pub async fn next(&mut self) -> Event {
        loop {
            if self.shutdown.is_cancelled() {
                return Event::Closed;
            }
            if let Some(event) = self.handle.shared.take_event() {
                return event;
            }
            tokio::select! {
                () = self.handle.shared.arrived.notified() => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }

    pub fn handle(&self) -> SubscriptionHandle {
        self.handle.clone()
    }

    /// See [`SubscriptionHandle::start`].
    pub async fn start(&self, positions: Vec<(TopicPartition, Start)>) {
        self.handle.start(positions).await;
    }

    /// See [`SubscriptionHandle::acknowledge_revocation`].
    pub async fn acknowledge_revocation(&self) {
        self.handle.acknowledge_revocation().await;
    }

    /// See [`SubscriptionHandle::commit`].
    pub async fn commit(&self, offsets: Offsets) -> Result<(), CommitError> {
        self.handle.commit(offsets).await
    }

    /// See [`SubscriptionHandle::publish`].
    pub async fn publish(&self, records: Vec<OutboundRecord>, offsets: Offsets) -> Result<(), PublishError> {
        self.handle.publish(records, offsets).await
    }

    /// See [`SubscriptionHandle::pause`].
    pub async fn pause(&self, partitions: Vec<TopicPartition>) {
        self.handle.pause(partitions).await;
    }

    /// See [`SubscriptionHandle::resume`].
    pub async fn resume(&self, partitions: Vec<TopicPartition>) {
        self.handle.resume(partitions).await;
    }

    /// Which topics these are that are read now. Should one be replaced by another of the same
    /// name from here on, the subscription fails with
    /// [`TopicReplaced`](SubscriptionError::TopicReplaced).
    ///
    /// # Errors
    /// When the brokers do not tell within 2 s, in a form for people.
    pub async fn topic_ids(&self) -> Result<TopicIds, String> {
        self.handle.topic_ids().await
    }

    /// Leaves the group and waits for it, 2 s at most: others take over at once
    /// instead of after the session's end.
    pub async fn close(mut self) {
        self.handle.shared.close();
        if let Some(finished) = self.finished.take() {
            let _ = tokio::time::timeout(Duration::from_secs(2), finished).await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.handle.shared.close();
    }
}

impl SubscriptionHandle {
    /// See [`Subscription::topic_ids`].
    pub(crate) async fn topic_ids(&self) -> Result<TopicIds, String> {
        let (reply, answer) = oneshot::channel();
        self.shared.command(Command::TopicIds { reply });
        answer.await.unwrap_or_else(|_| Err("the subscription has ended".to_owned()))
    }

    /// Delivery of these assigned partitions begins there. Partitions that are no
    /// longer ours are passed over.
    pub async fn start(&self, positions: Vec<(TopicPartition, Start)>) {
        let positions = positions
            .into_iter()
            .filter_map(|(partition, start)| {
                let epoch = self.shared.epoch_of(partition)?;
                Some((Held { partition, epoch }, start))
            })
            .collect();
        self.shared.command(Command::Start(positions));
    }

    /// Lets the partitions of the last [`Event::Revoked`] go.
    pub async fn acknowledge_revocation(&self) {
        self.shared.command(Command::AcknowledgeRevocation);
    }

    /// Commits offsets to the group.
    ///
    /// # Errors
    /// See [`CommitError`].
    pub async fn commit(&self, offsets: Offsets) -> Result<(), CommitError> {
        let (reply, answer) = oneshot::channel();
        let offsets = self
            .shared
            .held(offsets)
            .map_err(|partition| CommitError::Gone(format!("{partition} is not assigned")))?;
        self.shared.command(Command::Commit { offsets, reply });
        answer.await.unwrap_or(Err(CommitError::Closed))
    }

    /// Publishes records and commits offsets to the group in one transaction:
    /// both happen or neither. With no offsets a commit whose reply is lost cannot
    /// be told from an abort, and a retry may publish twice.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(&self, records: Vec<OutboundRecord>, offsets: Offsets) -> Result<(), PublishError> {
        records.iter().for_each(|record| self.role.assert_sends(record.topic));
        if let Some(record) = records.iter().find(|record| record.size() > record.topic.max_message_bytes) {
            // Refused by the broker it would cost the whole transaction, twice.
            let (bytes, limit) = (record.size(), record.topic.max_message_bytes);
            let refused = format!("{bytes} bytes for {}, the limit is {limit}", record.topic.name);
            return Err(PublishError::Refused(refused));
        }
        let (reply, answer) = oneshot::channel();
        let offsets = self
            .shared
            .held(offsets)
            .map_err(|partition| PublishError::Gone(format!("{partition} is not assigned")))?;
        self.shared.command(Command::Publish { records, offsets, reply });
        answer.await.unwrap_or(Err(PublishError::Closed))
    }

    /// Stops delivery of these partitions, beyond what is delivered already.
    pub async fn pause(&self, partitions: Vec<TopicPartition>) {
        self.shared.command(Command::Pause(partitions));
    }

    /// Goes on with delivery.
    pub async fn resume(&self, partitions: Vec<TopicPartition>) {
        self.shared.command(Command::Resume(partitions));
    }
}
