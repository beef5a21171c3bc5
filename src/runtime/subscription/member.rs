//! The thread behind a subscription: polls the consumer, carries out commands,
//! and answers rebalances.
//!
//! Rebalances are queued by the consumer's context and answered from the loop.
//! An assignment is acknowledged at once with nothing in it, so that the group
//! does not wait, and partitions enter it one by one as their owner says where to
//! start: nothing is fetched that would have to be thrown away.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::publisher::{Failure, Publisher};
use super::{
    Command, CommitError, Held, InboundRecord, PublishError, Queued, Shared, Start, SubscriptionError,
    SubscriptionOptions, TopicPartition,
};
use crate::runtime::kafka::KafkaSettings;
use crate::topics::Topic;

/// Longest sleep with nothing to do: the backstop for a lost wake-up.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// For looking up committed offsets and for probing brokers that went away.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
const LOOKUP_RETRY: Duration = Duration::from_millis(250);
const PROBE_EVERY: Duration = Duration::from_secs(2);

/// Queues what librdkafka reports from within `poll`.
struct Context {
    shared: Arc<Shared>,
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// While the consumer closes, revocations are answered where they arrive.
    closing: AtomicBool,
}

enum Rebalance {
    Assign(Vec<(String, i32)>),
    Revoke { partitions: Vec<(String, i32)>, lost: bool },
    Error(String),
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: Code, partitions: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Acquire) {
            let assigned = consumer.assignment().unwrap_or_else(|_| TopicPartitionList::new());
            if let Err(error) = consumer.incremental_unassign(&assigned) {
                tracing::debug!(%error, "while leaving the group");
            }
            return;
        }
        let list = partitions
            .elements()
            .iter()
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        let rebalance = match code {
            Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(list),
            Code::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                Rebalance::Revoke { partitions: list, lost: consumer.assignment_lost() }
            }
            other => Rebalance::Error(RDKafkaErrorCode::from(other).to_string()),
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
        self.shared.work.set();
    }
}

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
    let mut config = kafka.client(role);
    config
        .set("group.id", &group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A position that is gone stops the subscription; it is never skipped silently.
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1500")
        // How soon a topic or partition that comes later is found.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("fetch.wait.max.ms", "100")
        .set("queued.max.messages.kbytes", "16384");
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
        while records.len() < self.options.batch_records && empty_polls < 2 {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => records.extend(self.inbound(&message)),
                Some(Err(error)) => {
                    if let Some(error) = self.judge(&error) {
                        failed = Some(error);
                        break;
                    }
                }
                None => empty_polls += 1,
            }
        }
        let more = records.len() == self.options.batch_records;
        if !records.is_empty() {
            self.reached();
            self.shared.push(Queued::Records(records));
            self.regulate();
        }
        failed.map_or(Ok(more), Err)
    }

    /// `None` for what was fetched before its partition was taken away.
    fn inbound(&self, message: &BorrowedMessage<'_>) -> Option<InboundRecord> {
        let topic = *self.names.get(message.topic())?;
        let partition = TopicPartition { topic, partition: message.partition() };
        if !self.held.get(&partition).is_some_and(|held| held.started) {
            return None;
        }
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers
                .iter()
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect()
        });
        Some(InboundRecord {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers,
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
            ) => {
                // The event names no partition; the topics narrow it down.
                let partition = self.names.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                Some(SubscriptionError::PositionLost { group, partition, reason: code.to_string() })
            }
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

    fn answer_rebalances(&mut self) {
        // A revocation in progress is answered before anything newer is looked at.
        while self.revoking.is_none() {
            let next =
                self.consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                None => return,
                Some(Rebalance::Assign(partitions)) => self.assigned(&partitions),
                Some(Rebalance::Revoke { partitions, lost }) => self.revoked(&partitions, lost),
                Some(Rebalance::Error(error)) => {
                    tracing::warn!(group = self.group, error, "rebalance failed; all partitions are let go");
                    let all: Vec<_> = self.held.keys().copied().collect();
                    self.let_go(&all, true);
                }
            }
        }
    }

    fn ours(&self, partitions: &[(String, i32)]) -> Vec<TopicPartition> {
        partitions
            .iter()
            .filter_map(|(name, partition)| {
                Some(TopicPartition { topic: self.names.get(name)?, partition: *partition })
            })
            .collect()
    }

    fn assigned(&mut self, partitions: &[(String, i32)]) {
        if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
            tracing::error!(group = self.group, %error, "cannot acknowledge an assignment");
        }
        self.reached();
        let mut held = Vec::new();
        for partition in self.ours(partitions) {
            self.next_epoch += 1;
            let epoch = self.next_epoch;
            self.held.insert(partition, Partition { epoch, started: false, paused: false });
            held.push(Held { partition, epoch });
        }
        tracing::info!(group = self.group, partitions = %listed(held.iter().map(|h| h.partition)), "assigned");
        if !held.is_empty() {
            self.shared.push(Queued::Assigned(held));
        }
    }

    fn revoked(&mut self, partitions: &[(String, i32)], lost: bool) {
        let partitions: Vec<_> =
            self.ours(partitions).into_iter().filter(|partition| self.held.contains_key(partition)).collect();
        tracing::info!(group = self.group, partitions = %listed(partitions.iter().copied()), lost, "revoked");
        self.shared.withdraw(&partitions);
        if lost || partitions.is_empty() {
            self.let_go(&partitions, lost);
            return;
        }
        // Nothing further is delivered, while what is under way can be committed.
        self.stop_fetching(&partitions);
        self.shared.push(Queued::Revoked(partitions.clone()));
        self.revoking = Some(Revoking { partitions, until: Instant::now() + self.options.revocation_wait });
    }

    fn finish_revocation(&mut self) {
        let over = |revoking: &Revoking| revoking.until <= Instant::now() || self.shutdown.is_cancelled();
        if let Some(revoking) = self.revoking.take_if(|revoking| over(revoking)) {
            self.let_go(&revoking.partitions, false);
        }
    }

    /// Takes partitions out of the assignment, which answers the revocation.
    fn let_go(&mut self, partitions: &[TopicPartition], lost: bool) {
        let mut assigned = TopicPartitionList::new();
        for partition in partitions {
            if self.held.remove(partition).is_some_and(|held| held.started) {
                assigned.add_partition(&self.kafka.topic(partition.topic), partition.partition);
            }
        }
        if let Err(error) = self.consumer.incremental_unassign(&assigned) {
            tracing::error!(group = self.group, %error, "cannot let partitions go");
        }
        if lost && !partitions.is_empty() {
            self.shared.push(Queued::Lost(partitions.to_vec()));
        }
    }

    fn stop_fetching(&mut self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition).filter(|held| held.started) {
                held.paused = true;
                list.add_partition(&self.kafka.topic(partition.topic), partition.partition);
            }
        }
        self.pause_in_client(&list);
    }

    fn start_partitions(&mut self) {
        let now = Instant::now();
        if !self.starting.iter().any(|(at, ..)| *at <= now) {
            return;
        }
        let held = &self.held;
        // Gone, or started already: passed over.
        self.starting.retain(|(_, wanted, _)| {
            held.get(&wanted.partition).is_some_and(|held| held.epoch == wanted.epoch && !held.started)
        });
        let due: Vec<_> = self.starting.extract_if(.., |(at, ..)| *at <= now).collect();
        let mut list = TopicPartitionList::new();
        let mut unknown = TopicPartitionList::new();
        for (_, wanted, start) in &due {
            let name = self.kafka.topic(wanted.partition.topic);
            match start {
                Start::At(offset) => {
                    add(&mut list, &name, wanted.partition.partition, Offset::Offset(*offset))
                }
                Start::Earliest => add(&mut list, &name, wanted.partition.partition, Offset::Beginning),
                Start::Committed => add(&mut unknown, &name, wanted.partition.partition, Offset::Invalid),
            }
        }
        if unknown.count() > 0 {
            match self.committed(unknown) {
                Ok(found) => {
                    for (name, partition, offset) in found {
                        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
                        add(&mut list, &name, partition, offset);
                    }
                }
                Err(error) => {
                    tracing::warn!(group = self.group, %error, "cannot look up committed offsets; trying again");
                    let again = Instant::now() + LOOKUP_RETRY;
                    self.starting.extend(due.into_iter().map(|(_, wanted, start)| (again, wanted, start)));
                    return;
                }
            }
        }
        if list.count() > 0 {
            self.assign_at(&list);
        }
    }

    fn assign_at(&mut self, list: &TopicPartitionList) {
        if let Err(error) = self.consumer.incremental_assign(list) {
            tracing::error!(group = self.group, %error, "cannot start partitions");
            return;
        }
        for element in list.elements() {
            let Some(topic) = self.names.get(element.topic()) else { continue };
            let partition = TopicPartition { topic, partition: element.partition() };
            let Some(held) = self.held.get_mut(&partition) else { continue };
            held.started = true;
            let mut single = TopicPartitionList::new();
            single.add_partition(element.topic(), element.partition());
            if held.paused || self.full {
                self.pause_in_client(&single);
            } else {
                // A pause outlives an assignment in librdkafka.
                self.resume_in_client(&single);
            }
        }
    }

    /// The group's committed offsets; waits for transactions that still hold them.
    fn committed(&self, of: TopicPartitionList) -> KafkaResult<Vec<(String, i32, Option<i64>)>> {
        let found = self.consumer.committed_offsets(of, LOOKUP_TIMEOUT)?;
        found
            .elements()
            .iter()
            .map(|element| {
                element.error()?;
                let offset = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
                Ok((element.topic().to_owned(), element.partition(), offset))
            })
            .collect()
    }

    /// The first partition that is no longer held as it was when the command was given.
    fn first_gone(&self, offsets: &[(Held, i64)]) -> Option<TopicPartition> {
        offsets
            .iter()
            .map(|(wanted, _)| wanted)
            .find(|wanted| self.held.get(&wanted.partition).is_none_or(|held| held.epoch != wanted.epoch))
            .map(|wanted| wanted.partition)
    }

    fn offset_list(&self, offsets: &[(Held, i64)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (held, offset) in offsets {
            let name = self.kafka.topic(held.partition.topic);
            add(&mut list, &name, held.partition.partition, Offset::Offset(*offset));
        }
        list
    }

    fn publish(
        &mut self,
        records: Vec<super::OutboundRecord>,
        offsets: &[(Held, i64)],
    ) -> Result<(), PublishError> {
        // A rebalance that is known but not answered yet counts.
        self.answer_rebalances();
        if let Some(partition) = self.first_gone(offsets) {
            return Err(PublishError::Gone(format!("{partition} is not assigned")));
        }
        let list = self.offset_list(offsets);
        let Some(metadata) = self.consumer.group_metadata() else {
            return Err(PublishError::Retry("the group's metadata is not known yet".to_owned()));
        };
        let shutdown = &self.shutdown;
        let publisher =
            self.publisher.get_or_insert_with(|| Publisher::new(&self.kafka, self.role, shutdown.clone()));
        let consumer = &self.consumer;
        let unknown = match publisher.publish(&records, &list, &metadata, |topic| count(consumer, topic)) {
            Ok(()) => return Ok(()),
            Err(Failure::Aborted(reason)) => return Err(PublishError::Retry(reason)),
            Err(Failure::Unknown(reason)) => reason,
        };
        tracing::warn!(
            group = self.group,
            reason = unknown,
            "a transaction's end is not known; looking it up"
        );
        if offsets.is_empty() {
            return Err(PublishError::Retry(unknown));
        }
        // Nothing of ours can go on before this is known, so nothing else is done.
        while !self.shutdown.is_cancelled() && !self.shared.lock().closed {
            match self.has_committed(&list) {
                Some(true) => return Ok(()),
                Some(false) => return Err(PublishError::Retry(unknown)),
                None => std::thread::sleep(LOOKUP_RETRY),
            }
        }
        Err(PublishError::Closed)
    }

    /// Whether the transaction with these offsets was committed: they were part of it,
    /// so where they stand tells, once a new producer has waited for the old one's end.
    fn has_committed(&mut self, offsets: &TopicPartitionList) -> Option<bool> {
        if !self.publisher.as_mut()?.prepare() {
            return None;
        }
        match self.committed(offsets.clone()) {
            Ok(found) => {
                let stands = |(topic, partition, offset): &(String, i32, Option<i64>)| {
                    let sent = offsets.find_partition(topic, *partition);
                    let sent = sent.and_then(|element| element.offset().to_raw());
                    offset.zip(sent).is_some_and(|(stands, sent)| stands >= sent)
                };
                Some(found.iter().all(stands))
            }
            Err(error) => {
                tracing::warn!(group = self.group, %error, "cannot look up committed offsets");
                None
            }
        }
    }

    /// librdkafka bounds the wait for the coordinator by the session's timeout.
    fn commit(&mut self, offsets: &[(Held, i64)]) -> Result<(), CommitError> {
        self.answer_rebalances();
        if let Some(partition) = self.first_gone(offsets) {
            return Err(CommitError::Gone(format!("{partition} is not assigned")));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.offset_list(offsets);
        self.consumer.commit(&list, CommitMode::Sync).map_err(|error| CommitError::Retry(error.to_string()))
    }

    /// Pauses everything while the receiver is behind, and keeps polling for the group's sake.
    fn regulate(&mut self) {
        let waiting = self.shared.lock().records;
        let full = if self.full {
            waiting > self.options.buffered_records / 2
        } else {
            waiting >= self.options.buffered_records
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
        // Before the first assignment the group is not joined yet.
        if well && !self.held.is_empty() {
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

/// How many partitions a topic has.
fn count(consumer: &BaseConsumer<Context>, topic: &str) -> Result<i32, String> {
    let metadata =
        consumer.fetch_metadata(Some(topic), LOOKUP_TIMEOUT).map_err(|error| format!("{topic}: {error}"))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.map_or(0, |found| found.partitions().len());
    match i32::try_from(partitions) {
        Ok(partitions) if partitions > 0 => Ok(partitions),
        _ => Err(format!("topic {topic} does not exist; run `trunkline topics apply`")),
    }
}

fn add(list: &mut TopicPartitionList, topic: &str, partition: i32, offset: Offset) {
    list.add_partition_offset(topic, partition, offset)
        .expect("offsets of records are representable, and so are the logical ones used here");
}

fn listed(partitions: impl Iterator<Item = TopicPartition>) -> String {
    partitions.map(|partition| partition.to_string()).collect::<Vec<_>>().join(" ")
}
