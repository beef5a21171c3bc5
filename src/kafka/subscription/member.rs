//! The thread behind a subscription: polls the consumer, carries out commands,
//! and answers rebalances.
//!
//! Rebalances are queued by the consumer's context and answered from the loop.
//! An assignment is acknowledged at once with nothing in it, so that the group
//! does not wait, and partitions enter it one by one as their owner says where to
//! start: nothing is fetched that would have to be thrown away.

mod context;
mod offsets;
mod rebalance;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::exchange::{Command, Held, Queued, Shared};
use super::publisher::Publisher;
use super::settings;
use super::{InboundRecord, Start, SubscriptionError, SubscriptionOptions, TopicPartition};
use crate::kafka::native;
use crate::kafka::settings::{KafkaSettings, longer};
use crate::kafka::topic_ids::{TopicIds, topic_ids};
use crate::topics::Topic;

use context::Context;

/// Longest sleep with nothing to do: the backstop for a lost wake-up.
const IDLE_WAIT: Duration = Duration::from_millis(250);
/// For looking up committed offsets and topics, the first time.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
const LOOKUP_RETRY: Duration = Duration::from_millis(250);
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// How often is looked whether topics are still those they were.
const IDENTIFY_EVERY: Duration = Duration::from_secs(5);
/// Bytes of records that wait for their receiver before partitions are paused.
const BUFFERED_BYTES: usize = 32 * 1_024 * 1_024;
/// Bytes in one batch of records; the one that goes over it is its last.
const BATCH_BYTES: usize = 8 * 1_024 * 1_024;

/// Starts the thread. The receiver resolves when the thread has left the group.
pub(super) fn spawn(
    kafka: &KafkaSettings,
    role: &'static str,
    topics: &[&'static Topic],
    options: SubscriptionOptions,
    shutdown: CancellationToken,
    shared: Arc<Shared>,
) -> Result<oneshot::Receiver<()>, SubscriptionError> {
    let group = kafka.group(role);
    let config = settings::consumer(kafka, &group, role);
    let context = Context {
        shared: Arc::clone(&shared),
        rebalances: Mutex::default(),
        closing: AtomicBool::new(false),
    };
    let create =
        |error: KafkaError| SubscriptionError::Create { group: group.clone(), reason: error.to_string() };
    let mut consumer = BaseConsumer::from_config_and_context(&config, context).map_err(create)?;
    let wake = Arc::clone(&shared);
    consumer.set_nonempty_callback(move || wake.work.set());
    let names: HashMap<String, &'static Topic> =
        topics.iter().map(|topic| (kafka.topic(topic), *topic)).collect();
    let subscribed: Vec<&str> = names.keys().map(String::as_str).collect();
    consumer.subscribe(&subscribed).map_err(create)?;
    let publisher = options.publishes.then(|| Publisher::new(kafka, role, shutdown.clone()));
    let (done, finished) = oneshot::channel();
    let ending = Ending { shared: Arc::clone(&shared), group: group.clone() };
    let member = Member {
        kafka: kafka.clone(),
        role,
        group: group.clone(),
        names,
        options,
        shutdown,
        shared,
        publisher,
        consumer,
        held: HashMap::new(),
        next_epoch: 0,
        starting: Vec::new(),
        revoking: None,
        full: false,
        unreachable_since: None,
        probed_at: Instant::now(),
        joined: false,
        ids: None,
        lookup_wait: LOOKUP_TIMEOUT,
        identified_at: Instant::now(),
    };
    std::thread::Builder::new()
        .name(format!("read-{role}"))
        .spawn(move || {
            // Dropped last, also when the member panics.
            let _ending = ending;
            let _done = done;
            member.run();
        })
        .map_err(|error| SubscriptionError::Thread { group, reason: error.to_string() })?;
    Ok(finished)
}

/// However the thread ends, its owner learns of it and no command waits for ever.
struct Ending {
    shared: Arc<Shared>,
    group: String,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "its thread panicked".to_owned();
            self.shared.push(Queued::Failed(SubscriptionError::Fatal { group: self.group.clone(), reason }));
        }
        let mut queues = self.shared.lock();
        queues.closed = true;
        queues.commands.clear();
    }
}

struct Member {
    kafka: KafkaSettings,
    role: &'static str,
    group: String,
    names: HashMap<String, &'static Topic>,
    options: SubscriptionOptions,
    shutdown: CancellationToken,
    shared: Arc<Shared>,
    /// Dropped before the consumer whose offsets it may still be committing.
    publisher: Option<Publisher>,
    consumer: BaseConsumer<Context>,
    /// Every partition that is ours.
    held: HashMap<TopicPartition, Partition>,
    next_epoch: u64,
    /// To be started, with the time of the next try.
    starting: Vec<(Instant, Held, Start)>,
    revoking: Option<Revoking>,
    /// The receiver is behind; all partitions are paused.
    full: bool,
    unreachable_since: Option<Instant>,
    probed_at: Instant,
    /// In the group, be it without a partition.
    joined: bool,
    /// Which topics are read, for an owner that has asked.
    ids: Option<TopicIds>,
    /// How long the next look-up waits for its answer: longer after one that came too late.
    lookup_wait: Duration,
    identified_at: Instant,
}

struct Partition {
    epoch: u64,
    /// In the consumer's assignment.
    started: bool,
    /// By its owner's wish.
    paused: bool,
}

struct Revoking {
    partitions: Vec<TopicPartition>,
    until: Instant,
}

impl Member {
    fn run(mut self) {
        if let Some(publisher) = &mut self.publisher {
            publisher.prepare();
        }
        let ended = loop {
            if self.shared.lock().closed {
                break None;
            }
            self.carry_out_commands();
            match self.poll_records() {
                Ok(true) => {}
                Ok(false) => self.shared.work.wait(self.longest_sleep()),
                Err(error) => break Some(error),
            }
            self.answer_rebalances();
            self.finish_revocation();
            self.start_partitions();
            self.regulate();
            self.probe();
            if let Some(error) = self.replaced() {
                break Some(error);
            }
        };
        if let Some(error) = ended {
            tracing::error!(group = self.group, %error, "subscription ends");
            self.not_ready(&error.to_string());
            self.shared.push(Queued::Failed(error));
        }
    }

    fn longest_sleep(&self) -> Duration {
        let now = Instant::now();
        let starting = self.starting.iter().map(|(at, ..)| *at);
        let revoking = self.revoking.as_ref().map(|revoking| revoking.until);
        starting.chain(revoking).map(|at| at.saturating_duration_since(now)).fold(IDLE_WAIT, Duration::min)
    }

    fn carry_out_commands(&mut self) {
        loop {
            let Some(command) = self.shared.lock().commands.pop_front() else {
                return;
            };
            match command {
                Command::Start(positions) => {
                    let now = Instant::now();
                    self.starting.extend(positions.into_iter().map(|(held, start)| (now, held, start)));
                }
                Command::AcknowledgeRevocation => {
                    if let Some(revoking) = &mut self.revoking {
                        revoking.until = Instant::now();
                    }
                    self.finish_revocation();
                }
                Command::Commit { offsets, reply } => {
                    let _ = reply.send(self.commit(&offsets));
                }
                Command::Publish { records, offsets, reply } => {
                    let _ = reply.send(self.publish(records, &offsets));
                }
                Command::TopicIds { reply } => {
                    let ids = self.topic_ids();
                    match &ids {
                        Ok(ids) => self.ids = Some(ids.clone()),
                        Err(_) => self.lookup_wait = longer(self.lookup_wait),
                    }
                    let _ = reply.send(ids);
                }
                Command::Pause(partitions) => self.set_paused(&partitions, true),
                Command::Resume(partitions) => self.set_paused(&partitions, false),
            }
        }
    }

    /// Reads what librdkafka has, up to one batch. True when there may be more.
    fn poll_records(&mut self) -> Result<bool, SubscriptionError> {
        let mut records = Vec::new();
        let mut failed = None;
        let mut empty_polls = 0;
        // One poll may consume an event of librdkafka's own and return nothing:
        // only the second empty one means that the queue is empty.
        let mut bytes = 0;
        while records.len() < self.options.batch_records && bytes < BATCH_BYTES && empty_polls < 2 {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    let record = self.inbound(&message);
                    bytes += record.as_ref().map_or(0, InboundRecord::size);
                    records.extend(record);
                }
                Some(Err(error)) => {
                    if let Some(error) = self.judge(&error) {
                        failed = Some(error);
                        break;
                    }
                }
                None => empty_polls += 1,
            }
        }
        let more = records.len() == self.options.batch_records || bytes >= BATCH_BYTES;
        if !records.is_empty() {
            self.reached();
            self.shared.push(Queued::Records(records));
            self.regulate();
        }
        failed.map_or(Ok(more), Err)
    }

    fn topic_ids(&self) -> Result<TopicIds, String> {
        let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
        topic_ids(self.consumer.client(), &names, self.lookup_wait)
            .map_err(|problem| format!("Kafka at {} does not tell its topics: {problem}", self.kafka.brokers))
    }

    /// A topic that is no longer the one it was: a position in it would be one in another log.
    fn replaced(&mut self) -> Option<SubscriptionError> {
        if self.ids.is_none() || self.held.is_empty() || self.identified_at.elapsed() < IDENTIFY_EVERY {
            return None;
        }
        self.find_replaced()
    }

    fn find_replaced(&mut self) -> Option<SubscriptionError> {
        self.identified_at = Instant::now();
        let known = self.ids.as_ref()?;
        // One that is gone altogether is told by the brokers' errors.
        let now = self.topic_ids().ok()?;
        let is_another = |(name, id): &(&String, &Option<uuid::Uuid>)| {
            id.is_some() && known.get(*name).is_some_and(|known| known.is_some() && known != *id)
        };
        let (topic, _) = now.iter().find(is_another)?;
        Some(SubscriptionError::TopicReplaced { group: self.group.clone(), topic: topic.clone() })
    }

    /// `None` for what was fetched before its partition was taken away.
    fn inbound(&self, message: &BorrowedMessage<'_>) -> Option<InboundRecord> {
        let topic = *self.names.get(message.topic())?;
        let partition = TopicPartition { topic, partition: message.partition() };
        if !self.held.get(&partition).is_some_and(|held| held.started) {
            return None;
        }
        Some(InboundRecord {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: native::all_headers(message),
        })
    }

    /// Errors that end the subscription; all others pass by themselves.
    fn judge(&mut self, error: &KafkaError) -> Option<SubscriptionError> {
        let group = self.group.clone();
        match error {
            KafkaError::MessageConsumptionFatal(code) => {
                Some(SubscriptionError::Fatal { group, reason: code.to_string() })
            }
            KafkaError::MessageConsumption(
                code @ (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange),
            ) => Some(self.find_replaced().unwrap_or_else(|| SubscriptionError::PositionLost {
                group,
                partition: self.lost_partitions(),
                reason: code.to_string(),
            })),
            KafkaError::MessageConsumption(code) => {
                if self.unreachable_since.is_none() {
                    tracing::warn!(group = self.group, error = %code, "Kafka is not as it should be; trying on");
                }
                self.unreachable_since.get_or_insert_with(Instant::now);
                self.not_ready(&format!("{code} ({})", self.kafka.brokers));
                None
            }
            other => {
                tracing::warn!(group = self.group, error = %other, "while reading");
                None
            }
        }
    }

    /// The event of a lost position names no partition: those whose logs begin later or end
    /// earlier are looked up, and where none can be found the topics narrow it down.
    fn lost_partitions(&self) -> String {
        let positions = self.consumer.position().unwrap_or_else(|_| TopicPartitionList::new());
        let elements = positions.elements();
        let outside = elements.iter().filter_map(|element| {
            let Offset::Offset(at) = element.offset() else { return None };
            let (topic, partition) = (element.topic(), element.partition());
            let (first, end) = self.consumer.fetch_watermarks(topic, partition, LOOKUP_TIMEOUT).ok()?;
            (at < first || at > end).then(|| format!("{topic}/{partition}"))
        });
        let found: Vec<String> = outside.collect();
        match found.is_empty() {
            true => self.names.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
            false => found.join(", "),
        }
    }

    /// Pauses everything while the receiver is behind, and keeps polling for the group's sake.
    fn regulate(&mut self) {
        let (records, bytes) = {
            let queues = self.shared.lock();
            (queues.records, queues.bytes)
        };
        let full = if self.full {
            records > self.options.buffered_records / 2 || bytes > BUFFERED_BYTES / 2
        } else {
            records >= self.options.buffered_records || bytes >= BUFFERED_BYTES
        };
        if full == self.full {
            return;
        }
        self.full = full;
        let mut list = TopicPartitionList::new();
        for (partition, _) in self.held.iter().filter(|(_, held)| held.started && !held.paused) {
            list.add_partition(&self.kafka.topic(partition.topic), partition.partition);
        }
        if full { self.pause_in_client(&list) } else { self.resume_in_client(&list) }
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) {
        let revoking = self.revoking.as_ref().map_or(&[][..], |revoking| &revoking.partitions);
        let mut list = TopicPartitionList::new();
        for partition in partitions.iter().filter(|partition| !revoking.contains(partition)) {
            let Some(held) = self.held.get_mut(partition) else { continue };
            held.paused = paused;
            if held.started {
                list.add_partition(&self.kafka.topic(partition.topic), partition.partition);
            }
        }
        if paused {
            self.pause_in_client(&list);
        } else if !self.full {
            self.resume_in_client(&list);
        }
    }

    fn pause_in_client(&self, list: &TopicPartitionList) {
        if let Err(error) = self.consumer.pause(list) {
            tracing::warn!(group = self.group, %error, "cannot pause");
        }
    }

    fn resume_in_client(&self, list: &TopicPartitionList) {
        if let Err(error) = self.consumer.resume(list) {
            tracing::warn!(group = self.group, %error, "cannot resume");
        }
    }

    /// Brokers answered.
    fn reached(&mut self) {
        if let Some(since) = self.unreachable_since.take() {
            tracing::info!(
                group = self.group,
                after_ms = since.elapsed().as_millis() as u64,
                "Kafka is back"
            );
        }
        if let Some(part) = &self.options.health {
            part.ready();
        }
    }

    fn not_ready(&self, reason: &str) {
        if let Some(part) = &self.options.health {
            part.not_ready(reason);
        }
    }

    /// After an error nothing need arrive for a long time: asks whether all is well again.
    fn probe(&mut self) {
        if self.unreachable_since.is_none() || self.probed_at.elapsed() < PROBE_EVERY {
            return;
        }
        self.probed_at = Instant::now();
        let well = self.names.keys().all(|name| {
            let metadata = self.consumer.fetch_metadata(Some(name), Duration::from_millis(500));
            metadata.is_ok_and(|metadata| {
                metadata
                    .topics()
                    .iter()
                    .all(|topic| topic.error().is_none() && !topic.partitions().is_empty())
            })
        });
        if well && self.joined {
            self.reached();
        } else if well {
            self.unreachable_since = None;
            self.not_ready("joining the consumer group");
        }
    }
}

impl Drop for Member {
    /// Dropping the consumer leaves the group, and waits until every rebalance is answered.
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Release);
        let unanswered =
            !self.consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if self.revoking.is_some() || unanswered {
            let assigned = self.consumer.assignment().unwrap_or_else(|_| TopicPartitionList::new());
            let _ = self.consumer.incremental_unassign(&assigned);
        }
    }
}

fn add(list: &mut TopicPartitionList, topic: &str, partition: i32, offset: Offset) {
    list.add_partition_offset(topic, partition, offset)
        .expect("offsets of records are representable, and so are the logical ones used here");
}
