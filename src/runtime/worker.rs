//! One worker: a thread's consumer, transactional producer and the state of the
//! partitions it holds.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Routes};
use super::quiet::Quiet;
use super::restore::{Restore, RestoreError};
use super::stage::{Report, StageSettings};
use super::task::{Failure, Incoming, Task};
use crate::backoff::Backoff;
use crate::clock;
use crate::kafka::assignment::{Assignment, Change, partition_list};
use crate::kafka::settings::{KafkaSettings, is_slow, longer};
use crate::kafka::transaction::{Producer, Transaction, TransactionError, Verdict};
use crate::kafka::{
    BaseConsumer, BorrowedMessage, ClientConfig, Consumer, FromClientConfigAndContext, KafkaError, Message,
    Offset, RDKafkaErrorCode, TopicPartitionList,
};
use crate::model::Timestamp;
use crate::pipeline::PartitionStage;
use crate::telemetry::Merged;
use crate::topics::Topic;

/// How long an idle worker waits for a record before it looks after other things.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// A batch of this many records is worth waiting a moment for more.
const BUSY_BATCH: usize = 1_000;
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// The brokers finish a small transaction this long after its commit. A record sent
/// earlier is refused, and librdkafka then waits 20 ms before it tries again.
const MARKERS_TAKE: Duration = Duration::from_millis(4);
/// Records between two looks at the clock.
const RECORDS_PER_LOOK: usize = 32;
/// Time between two looks at partitions without records, at most.
const QUIET_LOOK: Duration = Duration::from_secs(1);
/// How long a broker may take to answer; a shutdown waits for it.
const ANSWER_WAIT: Duration = Duration::from_millis(1_500);

/// What ends a worker. A new one is started, after a pause, unless told otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot reach Kafka at {brokers}: {cause}")]
    Unreachable { brokers: String, cause: KafkaError },
    #[error("topic {topic} does not exist: create it with `trunkline topics apply`")]
    TopicMissing { topic: String },
    #[error(
        "{input} has {input_partitions} partitions and {changelog} has {changelog_partitions}: state would be \
         looked for in the wrong place; give both the same number (see `trunkline topics list`)"
    )]
    NotCopartitioned { input: String, input_partitions: i32, changelog: String, changelog_partitions: i32 },
    #[error(
        "the number of partitions of {topic} has changed from {then} to {now} while running: keys have moved; \
         give it its former number, or delete changelog and group to begin anew"
    )]
    PartitionsChanged { topic: String, then: i32, now: i32 },
    #[error(
        "{topic}: the next record to read is gone, retention was faster than this stage. Nothing was skipped. \
         To accept the loss, stop this stage on every instance and move the group to the earliest offset: \
         kafka-consumer-groups.sh --group {group} --reset-offsets --to-earliest --execute for that topic"
    )]
    OffsetsExpired { topic: String, group: String },
    #[error(
        "{topic}/{partition} offset {offset} has to be set aside, but its {bytes} bytes do not fit {aside}: \
         skip it by moving the group's offset, after keeping a copy"
    )]
    DoesNotFit { topic: String, partition: i32, offset: i64, bytes: usize, aside: &'static str },
    #[error("the stage sends {bytes} bytes to {topic}, whose limit is {limit}: this is a bug")]
    OutputTooLarge { topic: &'static str, bytes: usize, limit: usize },
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("{0}")]
    Transaction(#[from] TransactionError),
    #[error("{step}: {cause}")]
    Kafka { step: &'static str, cause: KafkaError },
    #[error("got a record of partition {partition}, which is not assigned")]
    NotAssigned { partition: i32 },
}

impl Fault {
    fn is_slow(&self) -> bool {
        matches!(self, Fault::Unreachable { cause, .. } if is_slow(cause))
    }

    fn kafka(step: &'static str) -> impl Fn(KafkaError) -> Fault {
        move |cause| Fault::Kafka { step, cause }
    }
}

pub(super) struct Worker<S: PartitionStage> {
    stage: Arc<S>,
    kafka: KafkaSettings,
    settings: StageSettings,
    shutdown: CancellationToken,
    report: Report,
    /// The input topic's full name.
    input: String,
    partitions: i32,
    consumer: BaseConsumer<Assignment>,
    producer: Producer,
    routes: Routes,
    task: Task<S>,
    /// Failed batches since the last committed one.
    failures: u32,
    /// Pauses after the second and each further one.
    pauses: Backoff,
    /// The brokers could not be reached when last heard of.
    unreachable: bool,
    /// The next batch does not begin before this.
    rest_until: Instant,
    quiet: Quiet,
}

/// Why a batch was not committed.
enum BatchError {
    /// Abort, restore, go on.
    Again(String, Verdict),
    /// Abort, restore with this record condemned, go on.
    Spoilt {
        partition: i32,
        offset: i64,
        reason: super::dead_letter::Reason,
    },
    /// Abort, restore, look closely up to this record, go on.
    Suspect {
        partition: i32,
        offset: i64,
    },
    Fault(Fault),
}

impl From<TransactionError> for BatchError {
    fn from(error: TransactionError) -> Self {
        BatchError::Again(error.to_string(), error.verdict)
    }
}

impl<S: PartitionStage> Worker<S> {
    /// Connects, checks the topics and joins the group.
    pub(super) fn start(
        stage: Arc<S>,
        number: usize,
        kafka: &KafkaSettings,
        settings: &StageSettings,
        report: Report,
        shutdown: &CancellationToken,
    ) -> Result<Self, Fault> {
        let declaration = stage.declaration();
        let producer =
            Producer::new(kafka, declaration.name, number, &settings.transactions, shutdown.clone());
        let consumer = BaseConsumer::from_config_and_context(
            &consumer_config(kafka, declaration.name, settings),
            Assignment::default(),
        )
        .map_err(Fault::kafka("creating the consumer"))?;
        let input = kafka.topic(declaration.input);
        let ask = |topic: &str| ask_for_partitions(&consumer, kafka, topic, &report, shutdown);
        let partitions = ask(&input)?;
        let changelog = kafka.topic(declaration.changelog);
        let changelog_partitions = ask(&changelog)?;
        if partitions != changelog_partitions {
            let input_partitions = partitions;
            return Err(Fault::NotCopartitioned { input, input_partitions, changelog, changelog_partitions });
        }
        let routes = Routes::new(declaration, kafka, |topic: &Topic| ask(&kafka.topic(topic)))?;
        consumer.subscribe(&[&input]).map_err(Fault::kafka("subscribing"))?;
        Ok(Self {
            task: Task::new(Arc::clone(&stage), input.clone(), partitions),
            stage,
            kafka: kafka.clone(),
            settings: settings.clone(),
            shutdown: shutdown.clone(),
            report,
            input,
            partitions,
            consumer,
            producer,
            routes,
            failures: 0,
            pauses: Backoff::new(Backoff::RESTART),
            unreachable: false,
            rest_until: Instant::now(),
            quiet: Quiet::default(),
        })
    }

    /// Works until shutdown or a fault.
    pub(super) fn run(&mut self) -> Result<(), Fault> {
        // Frees what an earlier life of this worker may have left open.
        self.producer.settle()?;
        while !self.shutdown.is_cancelled() {
            self.answer_rebalances()?;
            self.look_at_connection();
            self.let_time_pass();
            std::thread::sleep(self.rest_until.saturating_duration_since(Instant::now()));
            // The message borrows the consumer, the batch needs the rest of the worker.
            let outcome = {
                let Self { consumer, producer, task, routes, settings, shutdown, input, quiet, .. } = self;
                let polled = consumer.poll(IDLE_WAIT);
                quiet.drained = polled.is_none();
                let batch = Batch { consumer, task, routes, settings, shutdown, input };
                match polled {
                    Some(Err(error)) => {
                        Err(BatchError::Fault(Fault::Kafka { step: "reading", cause: error }))
                    }
                    Some(Ok(first)) => batch.run(producer, first),
                    None => match batch.advance(producer) {
                        Ok(None) => continue,
                        Ok(Some(committed)) => Ok(committed),
                        Err(error) => Err(error),
                    },
                }
            };
            match outcome {
                Ok(committed) => {
                    self.failures = 0;
                    self.pauses.reset();
                    self.unreachable = false;
                    self.quiet.drained = committed.drained;
                    if committed.small {
                        self.rest_until = Instant::now() + MARKERS_TAKE;
                    }
                    self.report.committed(&committed, &mut self.task);
                    self.report.ready();
                    if let Some(error) = committed.consumer_error {
                        self.judge_consumer_error(error)?;
                    }
                }
                Err(BatchError::Fault(Fault::Kafka { step: "reading", cause })) => {
                    self.judge_consumer_error(cause)?;
                }
                Err(BatchError::Fault(fault)) => return Err(fault),
                Err(BatchError::Again(why, verdict)) => self.recover(&why, verdict)?,
                Err(BatchError::Spoilt { partition, offset, reason }) => {
                    let why = format!("{}/{partition}/{offset}: {reason}", self.input);
                    self.task.condemn(partition, offset, reason);
                    self.recover(&why, Verdict::Abortable)?;
                }
                Err(BatchError::Suspect { partition, offset }) => {
                    let why = format!("{}/{partition}: a state is too large by {offset}", self.input);
                    self.task.inspect(partition, offset);
                    self.recover(&why, Verdict::Abortable)?;
                }
            }
        }
        Ok(())
    }

    /// Answers what the group has changed. No transaction is open here.
    fn answer_rebalances(&mut self) -> Result<(), Fault> {
        while let Some(change) = self.consumer.context().next() {
            match change {
                Change::Assigned(partitions) => {
                    tracing::info!(stage = self.name(), ?partitions, "assigned");
                    let beyond = partitions.iter().copied().find(|partition| *partition >= self.partitions);
                    if beyond.is_some() {
                        let now =
                            partitions_of(&self.consumer, &self.kafka.brokers, &self.input, ANSWER_WAIT)?;
                        let (topic, then) = (self.input.clone(), self.partitions);
                        return Err(Fault::PartitionsChanged { topic, then, now });
                    }
                    let positions = self.restore(&partitions)?;
                    self.consumer.incremental_assign(&positions).map_err(Fault::kafka("assigning"))?;
                    self.report.ready();
                }
                Change::Revoked { partitions, lost } => {
                    tracing::info!(stage = self.name(), ?partitions, lost, "revoked");
                    for partition in &partitions {
                        self.task.release(*partition);
                        self.report.released(*partition);
                    }
                    self.consumer
                        .incremental_unassign(&partition_list(&self.input, &partitions))
                        .map_err(Fault::kafka("unassigning"))?;
                }
            }
            self.report.keys(self.task.keys());
        }
        Ok(())
    }

    fn restore(&mut self, partitions: &[i32]) -> Result<TopicPartitionList, Fault> {
        let started = Instant::now();
        self.report.not_ready(format!("restoring the state of partitions {partitions:?}"));
        let restore = Restore {
            kafka: &self.kafka,
            declaration: self.stage.declaration(),
            shutdown: &self.shutdown,
            patience: self.settings.restore_patience,
        };
        let positions = restore.run(&self.consumer, &mut self.task, partitions)?;
        if !partitions.is_empty() {
            self.report.restored(started.elapsed());
        }
        for partition in partitions {
            self.report.read(*partition, self.task.watermark(*partition));
        }
        Ok(positions)
    }

    /// After a batch that did not commit: everything in memory is dropped and read
    /// back, and reading goes on from the committed offsets.
    fn recover(&mut self, why: &str, verdict: Verdict) -> Result<(), Fault> {
        self.report.ended(verdict);
        self.failures += 1;
        tracing::warn!(
            stage = self.name(),
            why,
            ?verdict,
            failures = self.failures,
            "a batch did not commit"
        );
        if self.failures > 1 {
            self.report.not_ready(match verdict {
                Verdict::Fenced => format!(
                    "another producer uses the transactional id {}: is `kafka.instance` unique? ({why})",
                    self.producer.transactional_id()
                ),
                _ => format!("batches fail: {why}"),
            });
        }
        let held = self.task.reset();
        if self.failures > 1 {
            self.pauses.sleep(&self.shutdown);
        }
        if self.shutdown.is_cancelled() {
            return Ok(());
        }
        // First end what may still be open, or restoring would wait for it.
        self.producer.settle()?;
        let positions = self.restore(&held)?;
        if !held.is_empty() {
            let sought = self
                .consumer
                .seek_partitions(positions, ANSWER_WAIT * self.failures.clamp(1, 3))
                .map_err(Fault::kafka("seeking the committed offsets"))?;
            sought
                .elements()
                .iter()
                .try_for_each(|element| element.error())
                .map_err(Fault::kafka("seeking the committed offsets"))?;
        }
        self.report.keys(self.task.keys());
        self.report.ready();
        Ok(())
    }

    fn judge_consumer_error(&mut self, cause: KafkaError) -> Result<(), Fault> {
        match (&cause, cause.rdkafka_error_code()) {
            (_, Some(RDKafkaErrorCode::AutoOffsetReset)) => {
                let group = self.kafka.group(self.name());
                Err(Fault::OffsetsExpired { topic: self.input.clone(), group })
            }
            (_, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {
                Err(Fault::TopicMissing { topic: self.input.clone() })
            }
            (KafkaError::MessageConsumptionFatal(_), _) => Err(Fault::Kafka { step: "reading", cause }),
            _ => {
                tracing::warn!(stage = self.name(), error = %cause, "reading");
                Ok(())
            }
        }
    }

    /// Lets the watermarks of quiet partitions follow the clock, where the brokers say
    /// that there is nothing to be read.
    fn let_time_pass(&mut self) {
        if self.quiet.looked_at.is_some_and(|at| at.elapsed() < QUIET_LOOK) {
            return;
        }
        self.quiet.looked_at = Some(Instant::now());
        let at = clock::now();
        for (partition, next_offset) in self.task.quiet(at) {
            match self.producer.end_of(&self.input, partition, ANSWER_WAIT) {
                Ok(end) if self.quiet.is_at_end(partition, next_offset, end) => {
                    self.task.let_time_pass(partition, at);
                }
                Ok(_) => {}
                // One that cannot be asked about may hold anything.
                Err(_) => return,
            }
        }
    }

    /// Says so while the brokers cannot be reached, and when they can again.
    fn look_at_connection(&mut self) {
        if self.consumer.context().take_unreachable() {
            self.unreachable = true;
            self.report.not_ready(format!("cannot reach Kafka at {}", self.kafka.brokers));
        } else if self.unreachable
            && self.consumer.fetch_metadata(Some(&self.input), Duration::from_secs(1)).is_ok()
        {
            self.unreachable = false;
            self.report.ready();
        }
    }

    fn name(&self) -> &'static str {
        self.stage.declaration().name
    }
}

impl<S: PartitionStage> Drop for Worker<S> {
    fn drop(&mut self) {
        // The group waits for an answer to what was not handled any more.
        let context = Arc::clone(self.consumer.context());
        context.close();
        while let Some(change) = context.next() {
            let (partitions, assigned) = match change {
                Change::Assigned(partitions) => (partitions, true),
                Change::Revoked { partitions, .. } => (partitions, false),
            };
            let list = partition_list(&self.input, &partitions);
            let answered = match assigned {
                true => self.consumer.incremental_assign(&list),
                false => self.consumer.incremental_unassign(&list),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "leaving the group");
            }
        }
    }
}

/// What a committed batch was.
pub(super) struct Committed {
    pub counts: super::task::RecordCounts,
    pub partitions: Vec<i32>,
    pub took: Duration,
    /// Whether the batch was one of an idle stage.
    small: bool,
    /// Nothing more was waiting to be read at its end.
    drained: bool,
    /// An error the consumer reported after the batch's last record.
    consumer_error: Option<KafkaError>,
}

/// One transaction's worth of records.
struct Batch<'w, S: PartitionStage> {
    consumer: &'w BaseConsumer<Assignment>,
    task: &'w mut Task<S>,
    routes: &'w Routes,
    settings: &'w StageSettings,
    shutdown: &'w CancellationToken,
    input: &'w str,
}

impl<S: PartitionStage> Batch<'_, S> {
    /// What time brings without a record; `None` is nothing.
    fn advance(mut self, producer: &mut Producer) -> Result<Option<Committed>, BatchError> {
        let started = Instant::now();
        if !self.task.advance(clock::now()) {
            return Ok(None);
        }
        let transaction = producer.begin()?;
        let committed = self.commit(transaction, started, self.merged())?;
        Ok(Some(Committed { small: true, drained: true, ..committed }))
    }

    fn run(mut self, producer: &mut Producer, first: BorrowedMessage<'_>) -> Result<Committed, BatchError> {
        let started = Instant::now();
        let at = clock::now();
        let mut transaction = producer.begin()?;
        let mut merged = self.merged();
        self.process(at, &first, &mut Outbox::new(&mut transaction, self.routes, &first, &mut merged))?;
        drop(first);
        let mut records = 1;
        let mut drained = false;
        let consumer_error = loop {
            if records >= self.settings.batch_records || self.consumer.context().is_pending() {
                break None;
            }
            if records % RECORDS_PER_LOOK == 0
                && (started.elapsed() >= self.settings.batch_time || self.shutdown.is_cancelled())
            {
                break None;
            }
            let mut next = self.consumer.poll(Duration::ZERO);
            // Nothing more at once: commit, for the sake of latency. Unless the batch is
            // large: then we are behind, and only the fetcher is. (A sleep, because a short
            // timeout of `poll` spins.)
            if next.is_none() && records >= BUSY_BATCH {
                std::thread::sleep(BUSY_PAUSE);
                next = self.consumer.poll(Duration::ZERO);
            }
            match next {
                None => {
                    drained = true;
                    break None;
                }
                Some(Err(error)) => break Some(error),
                Some(Ok(message)) => {
                    let mut outbox = Outbox::new(&mut transaction, self.routes, &message, &mut merged);
                    self.process(at, &message, &mut outbox)?;
                    records += 1;
                }
            }
        };
        self.task.advance(at);
        let committed = self.commit(transaction, started, merged)?;
        Ok(Committed { small: records < BUSY_BATCH, drained, consumer_error, ..committed })
    }

    fn commit(
        &mut self,
        mut transaction: Transaction<'_>,
        started: Instant,
        mut merged: Merged,
    ) -> Result<Committed, BatchError> {
        let mut outbox = Outbox::without_record(&mut transaction, self.routes, &mut merged);
        let written = self.task.write_changes(&mut outbox);
        written.map_err(|failure| self.batch_error(failure))?;
        // The offsets travel while the records do; the commit waits for both. They go along
        // even where none has moved: the group then refuses what is not ours any more.
        let offsets = self.offsets();
        let group = self.consumer.group_metadata().expect("the consumer has a group");
        transaction.send_offsets(&offsets, &group)?;
        transaction.commit()?;
        let partitions = self.task.positions().map(|(partition, _)| partition).collect();
        let counts = self.task.committed();
        let took = started.elapsed();
        Ok(Committed { counts, partitions, took, small: false, drained: false, consumer_error: None })
    }

    /// For the traces of the records of one transaction.
    fn merged(&self) -> Merged {
        let input = self.input;
        Merged::new(
            || tracing::info_span!(parent: None, "transaction", otel.name = format!("transaction {input}")),
        )
    }

    fn process(
        &mut self,
        at: Timestamp,
        message: &BorrowedMessage<'_>,
        outbox: &mut Outbox<'_, '_, '_>,
    ) -> Result<(), BatchError> {
        let record = Incoming {
            partition: message.partition(),
            offset: message.offset(),
            written_at: message.timestamp().to_millis().map(Timestamp::from_millis),
            key: message.key(),
            value: message.payload(),
        };
        self.task.process(at, &record, outbox).map_err(|failure| self.batch_error(failure))
    }

    fn offsets(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in self.task.positions() {
            list.add_partition_offset(self.input, partition, Offset::Offset(offset))
                .expect("an offset that was read is valid");
        }
        list
    }

    fn batch_error(&self, failure: Failure<TransactionError>) -> BatchError {
        match failure {
            Failure::Writer(error) => error.into(),
            Failure::Spoilt { partition, offset, reason } => BatchError::Spoilt { partition, offset, reason },
            Failure::Suspect { partition, offset } => BatchError::Suspect { partition, offset },
            Failure::DoesNotFit { partition, offset, topic: aside, bytes } => {
                let topic = self.input.to_owned();
                BatchError::Fault(Fault::DoesNotFit { topic, partition, offset, bytes, aside })
            }
            Failure::OutputTooLarge { topic, bytes, limit } => {
                BatchError::Fault(Fault::OutputTooLarge { topic, bytes, limit })
            }
            Failure::NotHeld { partition } => BatchError::Fault(Fault::NotAssigned { partition }),
        }
    }
}

fn consumer_config(kafka: &KafkaSettings, role: &str, settings: &StageSettings) -> ClientConfig {
    let mut config = kafka.client(role);
    config
        .set("group.id", kafka.group(role))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Positions are always given; one that is gone must stop the stage.
        .set("auto.offset.reset", "error");
    let read_ahead_kib = settings.read_ahead_kib.to_string();
    let preferences = [
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("topic.metadata.refresh.interval.ms", "5000"),
        ("fetch.min.bytes", "1"),
        ("fetch.wait.max.ms", "100"),
        // Compressed: in memory it is several times as much.
        ("fetch.message.max.bytes", "131072"),
        ("queued.min.messages", "20000"),
        // A full read-ahead is looked at again after this; the default is a second.
        ("fetch.queue.backoff.ms", "5"),
        ("queued.max.messages.kbytes", &read_ahead_kib),
    ];
    kafka.prefer(&mut config, &preferences);
    config
}

/// How many partitions a topic has, asked until brokers that are merely slow have answered: a
/// worker made anew would only connect anew.
fn ask_for_partitions(
    consumer: &BaseConsumer<Assignment>,
    kafka: &KafkaSettings,
    topic: &str,
    report: &Report,
    shutdown: &CancellationToken,
) -> Result<i32, Fault> {
    let mut wait = ANSWER_WAIT;
    loop {
        match partitions_of(consumer, &kafka.brokers, topic, wait) {
            Err(fault) if fault.is_slow() && !shutdown.is_cancelled() => {
                report.not_ready(fault.to_string());
                wait = longer(wait);
            }
            known => return known,
        }
    }
}

/// How many partitions a topic has.
fn partitions_of(
    consumer: &BaseConsumer<Assignment>,
    brokers: &str,
    topic: &str,
    wait: Duration,
) -> Result<i32, Fault> {
    let metadata = consumer
        .fetch_metadata(Some(topic), wait)
        .map_err(|cause| Fault::Unreachable { brokers: brokers.to_owned(), cause })?;
    let count = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none())
        .map(|found| found.partitions().len())
        .next()
        .unwrap_or(0);
    match i32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Fault::TopicMissing { topic: topic.to_owned() }),
    }
}

impl<S: PartitionStage> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("stage", &self.name()).field("input", &self.input).finish()
    }
}
