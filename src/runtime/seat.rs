//! A stage's seat in its group: a consumer, the state of the partitions it is given, and what is
//! done when a batch does not commit. The producer is the worker's: two seats may share one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{Batch, BatchError, Committed};
use super::dead_letter::Reason;
use super::fault::Fault;
use super::input::{ANSWER_WAIT, ask_for_partitions, consumer_config, partitions_of};
use super::onward::Onward;
use super::outbox::Routes;
use super::quiet::Quiet;
use super::report::Report;
use super::restore::Restore;
use super::stage::StageSettings;
use super::task::Task;
use crate::backoff::Backoff;
use crate::clock;
use crate::kafka::assignment::{Assignment, Change, partition_list};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::{Producer, Verdict};
use crate::kafka::{
    BaseConsumer, Consumer, FromClientConfigAndContext, KafkaError, RDKafkaErrorCode, TopicPartitionList,
};
use crate::pipeline::PartitionStage;
use crate::topics::Topic;

/// Time between two looks at partitions without records, at most.
const QUIET_LOOK: Duration = Duration::from_secs(1);

/// A member of a stage's group with the state of the partitions it holds.
pub(super) struct Seat<S: PartitionStage> {
    stage: Arc<S>,
    kafka: KafkaSettings,
    settings: StageSettings,
    shutdown: CancellationToken,
    pub(super) report: Report,
    /// The input topic's full name.
    pub(super) input: String,
    pub(super) consumer: BaseConsumer<Assignment>,
    pub(super) routes: Routes,
    pub(super) task: Task<S>,
    /// Failed batches since the last committed one.
    failures: u32,
    /// Pauses after the second and each further one.
    pauses: Backoff,
    /// The brokers could not be reached when last heard of.
    unreachable: bool,
    quiet: Quiet,
    /// Records that are to be read alone, one to a transaction: one of them is refused.
    read_alone: usize,
    /// How long the last committed transaction collected records.
    collecting: Duration,
}

impl<S: PartitionStage> Seat<S> {
    /// Connects, checks the topics and joins the group.
    pub(super) fn take(
        stage: Arc<S>,
        kafka: &KafkaSettings,
        settings: &StageSettings,
        report: Report,
        shutdown: &CancellationToken,
    ) -> Result<Self, Fault> {
        let declaration = stage.declaration();
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
            consumer,
            routes,
            failures: 0,
            pauses: Backoff::new(Backoff::RESTART),
            unreachable: false,
            quiet: Quiet::default(),
            read_alone: 0,
            collecting: Duration::ZERO,
        })
    }

    /// Notices that brokers come and go, and time where no records do.
    pub(super) fn look_around(&mut self, producer: &Producer) {
        self.look_at_connection();
        self.let_time_pass(producer);
    }

    /// Reads a transaction's worth of records, the first of them within `wait`; without one, does
    /// what time brings. `None` is nothing.
    pub(super) fn turn(
        &mut self,
        producer: &mut Producer,
        wait: Duration,
        onward: Option<&mut dyn Onward>,
    ) -> Result<Option<Committed>, BatchError> {
        let polled = self.consumer.poll(wait);
        self.quiet.drained = polled.is_none();
        let batch = Batch {
            consumer: &self.consumer,
            task: &mut self.task,
            routes: &self.routes,
            settings: &self.settings,
            before: self.collecting,
            alone: self.read_alone > 0,
            shutdown: &self.shutdown,
            input: &self.input,
            onward,
        };
        match polled {
            Some(Err(cause)) => Err(BatchError::Fault(Fault::Kafka { step: "reading", cause })),
            Some(Ok(first)) => batch.run(producer, first).map(Some),
            None => batch.advance(producer),
        }
    }

    /// Goes on from how a turn went. Answers whether there was one, and the brokers need a moment
    /// before the next.
    pub(super) fn go_on(
        &mut self,
        turn: Result<Option<Committed>, BatchError>,
        producer: &mut Producer,
    ) -> Result<bool, Fault> {
        match turn {
            Ok(None) => Ok(false),
            Ok(Some(committed)) => {
                let small = committed.small;
                self.committed(committed)?;
                Ok(small)
            }
            Err(error) => self.not_committed(error, producer).map(|()| false),
        }
    }

    /// Takes note of a batch that is committed.
    pub(super) fn committed(&mut self, committed: Committed) -> Result<(), Fault> {
        self.read_alone = self.read_alone.saturating_sub(1);
        self.failures = 0;
        self.collecting = committed.collecting;
        self.pauses.reset();
        self.unreachable = false;
        self.quiet.drained = committed.drained;
        self.report.committed(&committed, &mut self.task);
        self.report.ready();
        committed.consumer_error.map_or(Ok(()), |error| self.judge_consumer_error(error))
    }

    fn not_committed(&mut self, error: BatchError, producer: &mut Producer) -> Result<(), Fault> {
        match error {
            BatchError::Fault(Fault::Kafka { step: "reading", cause }) => self.judge_consumer_error(cause),
            BatchError::Fault(fault) => Err(fault),
            BatchError::Again(why, verdict) => self.recover(&why, verdict, producer),
            BatchError::Spoilt { partition, offset, reason } => {
                let why = format!("{}/{partition}/{offset}: {reason}", self.input);
                self.task.condemn(partition, offset, reason);
                self.recover(&why, Verdict::Abortable, producer)
            }
            BatchError::Refused { why, records, first } => {
                self.set_refused_aside(why, records, first, producer)
            }
            BatchError::Suspect { partition, offset } => {
                let why = format!("{}/{partition}: a state is too large by {offset}", self.input);
                self.task.inspect(partition, offset);
                self.recover(&why, Verdict::Abortable, producer)
            }
        }
    }

    /// Finds the record that the brokers refuse, or what comes of it, by reading one at a time;
    /// it becomes a dead letter, without its contents where even that is refused.
    fn set_refused_aside(
        &mut self,
        why: String,
        records: usize,
        first: Option<(i32, i64)>,
        producer: &mut Producer,
    ) -> Result<(), Fault> {
        let told = format!("the brokers refuse a record: {why}");
        match first {
            Some((partition, offset)) if records == 1 && self.read_alone > 0 => {
                self.task.condemn_refused(partition, offset, Reason::RefusedByBroker(why));
            }
            _ => self.read_alone = self.read_alone.max(records),
        }
        self.recover(&told, Verdict::Abortable, producer)
    }

    /// Answers what the group has changed. No transaction is open here.
    pub(super) fn answer_rebalances(&mut self) -> Result<(), Fault> {
        while let Some(change) = self.consumer.context().next() {
            match change {
                Change::Assigned(partitions) => {
                    tracing::info!(stage = self.name(), ?partitions, "assigned");
                    let then = self.task.partitions();
                    let beyond = partitions.iter().copied().find(|partition| *partition >= then);
                    if beyond.is_some() {
                        let now =
                            partitions_of(&self.consumer, &self.kafka.brokers, &self.input, ANSWER_WAIT)?;
                        let topic = self.input.clone();
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
                    let list = partition_list(&self.input, &partitions);
                    // A pause would outlast the assignment.
                    self.consumer.resume(&list).map_err(Fault::kafka("resuming a partition"))?;
                    self.consumer.incremental_unassign(&list).map_err(Fault::kafka("unassigning"))?;
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
            let (took, keys) = (started.elapsed(), self.task.keys());
            tracing::info!(stage = self.name(), ?partitions, keys, took_ms = took.as_millis(), "restored");
            self.report.restored(took);
        }
        for partition in partitions {
            self.report.read(*partition, self.task.watermark(*partition));
        }
        Ok(positions)
    }

    /// After a batch that did not commit: everything in memory is dropped and read
    /// back, and reading goes on from the committed offsets.
    pub(super) fn recover(
        &mut self,
        why: &str,
        verdict: Verdict,
        producer: &mut Producer,
    ) -> Result<(), Fault> {
        self.report.ended(verdict);
        self.failures += 1;
        self.collecting = Duration::ZERO;
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
                    producer.transactional_id()
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
        producer.settle()?;
        let positions = self.restore(&held)?;
        if !held.is_empty() {
            self.seek(positions, ANSWER_WAIT * self.failures.clamp(1, 3))?;
        }
        self.report.keys(self.task.keys());
        self.report.ready();
        Ok(())
    }

    /// Reading goes on from these offsets.
    pub(super) fn seek(&self, positions: TopicPartitionList, wait: Duration) -> Result<(), Fault> {
        let failed = Fault::kafka("seeking the committed offsets");
        let sought = self.consumer.seek_partitions(positions, wait);
        sought
            .and_then(|sought| sought.elements().iter().try_for_each(|element| element.error()))
            .map_err(failed)
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
    fn let_time_pass(&mut self, producer: &Producer) {
        if self.quiet.looked_at.is_some_and(|at| at.elapsed() < QUIET_LOOK) {
            return;
        }
        self.quiet.looked_at = Some(Instant::now());
        let at = clock::now();
        let quiet = self.task.quiet(at);
        if quiet.is_empty() {
            return;
        }
        let partitions: Vec<i32> = quiet.iter().map(|(partition, _)| *partition).collect();
        // Those that cannot be asked about may hold anything.
        let Ok(ends) = producer.ends_of(&self.input, &partitions, ANSWER_WAIT) else { return };
        for ((partition, next_offset), end) in quiet.into_iter().zip(ends) {
            if self.quiet.is_at_end(partition, next_offset, end) {
                self.task.let_time_pass(partition, at);
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

    pub(super) fn name(&self) -> &'static str {
        self.stage.declaration().name
    }
}

impl<S: PartitionStage> Drop for Seat<S> {
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
