//! One transaction's worth of records.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::counts::RecordCounts;
use super::dead_letter::Reason;
use super::fault::Fault;
use super::onward::Onward;
use super::outbox::{Outbox, Routes};
use super::stage::StageSettings;
use super::task::Task;
use super::writer::{Failure, Incoming};
use crate::clock;
use crate::kafka::assignment::Assignment;
use crate::kafka::transaction::{Producer, Transaction, TransactionError, Verdict};
use crate::kafka::{
    BaseConsumer, BorrowedMessage, Consumer, KafkaError, Message, Offset, TopicPartitionList,
};
use crate::model::Timestamp;
use crate::pipeline::PartitionStage;
use crate::telemetry::Merged;

/// A batch of this many records is worth waiting a moment for more.
const BUSY_BATCH: usize = 1_000;
const BUSY_PAUSE: Duration = Duration::from_millis(1);
/// Pauses for the fetcher while the records are old.
const PAUSES_BEHIND: u32 = 5;
/// Records that have waited this many times as long may be collected for a while: nobody who
/// waits for what comes of them notices.
const WAITED_PER_COLLECTED: u32 = 4;
/// A transaction collects no longer than this many times the one before: the first result after a
/// start comes soon, however much has waited.
const GROWTH: u32 = 2;
/// Records between two looks at the clock.
const RECORDS_PER_LOOK: usize = 32;

/// Why a batch was not committed.
pub(super) enum BatchError {
    /// Abort, restore, go on.
    Again(String, Verdict),
    /// Abort, restore with this record condemned, go on.
    Spoilt {
        partition: i32,
        offset: i64,
        reason: Reason,
    },
    /// Abort, restore, look closely up to this record, go on.
    Suspect {
        partition: i32,
        offset: i64,
    },
    /// The brokers refuse a record of it for what it is; how many were read, the first of them where.
    Refused {
        why: String,
        records: usize,
        first: Option<(i32, i64)>,
    },
    Fault(Fault),
}

impl BatchError {
    /// Why, in words, for those who only begin again.
    pub(super) fn told(self) -> Result<(String, Verdict), Fault> {
        match self {
            BatchError::Again(why, verdict) => Ok((why, verdict)),
            BatchError::Spoilt { reason, .. } => Ok((reason.to_string(), Verdict::Abortable)),
            BatchError::Suspect { .. } => Ok(("a state is too large".to_owned(), Verdict::Abortable)),
            BatchError::Refused { why, .. } => {
                Ok((format!("the brokers refuse a record: {why}"), Verdict::Abortable))
            }
            BatchError::Fault(fault) => Err(fault),
        }
    }
}

impl From<TransactionError> for BatchError {
    fn from(error: TransactionError) -> Self {
        match error.is_refusal() {
            true => BatchError::Refused { why: error.cause.to_string(), records: 0, first: None },
            false => BatchError::Again(error.to_string(), error.verdict),
        }
    }
}

/// What a committed batch was.
pub(super) struct Committed {
    pub counts: RecordCounts,
    pub partitions: Vec<i32>,
    pub took: Duration,
    /// How long it was to collect records.
    pub collecting: Duration,
    /// Whether the batch was one of an idle stage.
    pub small: bool,
    /// Nothing more was waiting to be read at its end.
    pub drained: bool,
    /// An error the consumer reported after the batch's last record.
    pub consumer_error: Option<KafkaError>,
}

/// Nothing more at once: commit, for the sake of latency. Unless the batch is large or its records
/// are old: then we are behind, and only the fetcher is. (Sleeps, because a short timeout of
/// `poll` spins.)
fn next(
    consumer: &BaseConsumer<Assignment>,
    records: usize,
    is_behind: bool,
) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
    let pauses = match is_behind {
        true => PAUSES_BEHIND,
        false => u32::from(records >= BUSY_BATCH),
    };
    (0..pauses).fold(consumer.poll(Duration::ZERO), |next, _| {
        next.or_else(|| {
            std::thread::sleep(BUSY_PAUSE);
            consumer.poll(Duration::ZERO)
        })
    })
}

/// How long a transaction collects records whose first has `waited` on its topic, where the one
/// `before` collected that long: what is behind catches up sooner in large transactions, which write
/// each key's state once.
fn collecting_time(settings: &StageSettings, waited: Duration, before: Duration) -> Duration {
    let longest = settings.batch_time_behind.min(before * GROWTH).max(settings.batch_time);
    (waited / WAITED_PER_COLLECTED).clamp(settings.batch_time, longest)
}

/// How long a record has been on its topic, where it says.
fn waited(record: &BorrowedMessage<'_>, at: Timestamp) -> Duration {
    let written_at = record.timestamp().to_millis().map(Timestamp::from_millis);
    let waited_ms = written_at.map_or(0, |written_at| at.millis_since(written_at));
    Duration::from_millis(waited_ms.max(0).unsigned_abs())
}

/// One transaction's worth of records.
pub(super) struct Batch<'w, 'o, S: PartitionStage> {
    pub consumer: &'w BaseConsumer<Assignment>,
    pub task: &'w mut Task<S>,
    pub routes: &'w Routes,
    pub settings: &'w StageSettings,
    /// How long the transaction before this collected records.
    pub before: Duration,
    /// Nothing but one record, so that a refusal is about it.
    pub alone: bool,
    pub shutdown: &'w CancellationToken,
    pub input: &'w str,
    /// Goes on with what is sent, in the same transaction.
    pub onward: Option<&'o mut dyn Onward>,
}

impl<S: PartitionStage> Batch<'_, '_, S> {
    /// What time brings without a record; `None` is nothing.
    pub(super) fn advance(mut self, producer: &mut Producer) -> Result<Option<Committed>, BatchError> {
        let (started, at) = (Instant::now(), clock::now());
        if !self.task.advance(at) {
            return Ok(None);
        }
        let transaction = producer.begin()?;
        let committed = self.commit(transaction, started, at, merged(self.input))?;
        Ok(Some(Committed { small: true, drained: true, ..committed }))
    }

    pub(super) fn run(
        mut self,
        producer: &mut Producer,
        first: BorrowedMessage<'_>,
    ) -> Result<Committed, BatchError> {
        let (at, mut records) = ((first.partition(), first.offset()), 0);
        self.read(producer, first, &mut records).map_err(|error| match error {
            BatchError::Refused { why, .. } => BatchError::Refused { why, records, first: Some(at) },
            other => other,
        })
    }

    /// Counts the `records` it has read.
    fn read(
        &mut self,
        producer: &mut Producer,
        first: BorrowedMessage<'_>,
        records: &mut usize,
    ) -> Result<Committed, BatchError> {
        let started = Instant::now();
        let at = clock::now();
        let waited = waited(&first, at);
        let is_behind = waited / WAITED_PER_COLLECTED > self.settings.batch_time;
        let time = collecting_time(self.settings, waited, self.before);
        let mut transaction = producer.begin()?;
        let mut merged = merged(self.input);
        *records = 1;
        self.process(at, &first, &mut transaction, &mut merged)?;
        drop(first);
        let mut drained = false;
        let consumer_error = loop {
            if self.alone || *records >= self.settings.batch_records || self.consumer.context().is_pending() {
                break None;
            }
            if records.is_multiple_of(RECORDS_PER_LOOK)
                && (started.elapsed() >= time || self.shutdown.is_cancelled())
            {
                break None;
            }
            match next(self.consumer, *records, is_behind) {
                None => {
                    drained = true;
                    break None;
                }
                Some(Err(error)) => break Some(error),
                Some(Ok(message)) => {
                    *records += 1;
                    self.process(at, &message, &mut transaction, &mut merged)?;
                }
            }
        };
        if !self.alone {
            self.task.advance(at);
        }
        let committed = self.commit(transaction, started, at, merged)?;
        let small = *records < BUSY_BATCH;
        Ok(Committed { small, collecting: time, drained, consumer_error, ..committed })
    }

    fn commit(
        &mut self,
        mut transaction: Transaction<'_>,
        started: Instant,
        at: Timestamp,
        mut merged: Merged,
    ) -> Result<Committed, BatchError> {
        let handed = self.onward.as_mut().map(|onward| onward.handed());
        let mut outbox = Outbox::without_record(&mut transaction, self.routes, &mut merged).handing(handed);
        let written = self.task.write_changes(&mut outbox);
        written.map_err(|failure| blame(failure, self.input))?;
        if let Some(onward) = &mut self.onward {
            onward.take_over(at, &mut transaction)?;
            onward.conclude(at, &mut transaction)?;
        }
        // The offsets travel while the records do; the commit waits for both. They go along
        // even where none has moved: the group then refuses what is not ours any more.
        send_offsets(&mut transaction, self.consumer, self.task, self.input)?;
        if let Some(onward) = &mut self.onward {
            onward.verify(&mut transaction)?;
        }
        transaction.commit()?;
        Ok(Committed::of(self.task, started))
    }

    fn process(
        &mut self,
        at: Timestamp,
        message: &BorrowedMessage<'_>,
        transaction: &mut Transaction<'_>,
        merged: &mut Merged,
    ) -> Result<(), BatchError> {
        // One that was taken over on its way to the brokers comes from them as well, should the
        // consumer not have heard in time that it is not wanted.
        if self.task.next_offset(message.partition()).is_some_and(|next| message.offset() < next) {
            return Ok(());
        }
        let record = Incoming {
            partition: message.partition(),
            offset: message.offset(),
            written_at: message.timestamp().to_millis().map(Timestamp::from_millis),
            key: message.key(),
            value: message.payload(),
        };
        let handed = self.onward.as_mut().map(|onward| onward.handed());
        let mut outbox = Outbox::new(transaction, self.routes, message, merged).handing(handed);
        let processed = self.task.process(at, &record, &mut outbox);
        drop(outbox);
        processed.map_err(|failure| blame(failure, self.input))?;
        self.onward.as_mut().map_or(Ok(()), |onward| onward.take_over(at, transaction))
    }
}

impl Committed {
    /// Of a task whose transaction has just been committed.
    pub(super) fn of<S: PartitionStage>(task: &mut Task<S>, started: Instant) -> Self {
        let partitions = task.positions().map(|(partition, _)| partition).collect();
        let (counts, took) = (task.committed(), started.elapsed());
        Committed {
            counts,
            partitions,
            took,
            collecting: Duration::ZERO,
            small: false,
            drained: false,
            consumer_error: None,
        }
    }
}

/// For the traces of the records of one transaction.
pub(super) fn merged(input: &str) -> Merged {
    Merged::new(
        || tracing::info_span!(parent: None, "transaction", otel.name = format!("transaction {input}")),
    )
}

/// Makes where a task has come to a part of the transaction.
pub(super) fn send_offsets<S: PartitionStage>(
    transaction: &mut Transaction<'_>,
    consumer: &BaseConsumer<Assignment>,
    task: &Task<S>,
    input: &str,
) -> Result<(), BatchError> {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in task.positions() {
        offsets
            .add_partition_offset(input, partition, Offset::Offset(offset))
            .expect("an offset that was read is valid");
    }
    let group = consumer.group_metadata().expect("the consumer has a group");
    Ok(transaction.send_offsets(&offsets, &group)?)
}

/// What a task's failure is for its batch.
pub(super) fn blame(failure: Failure<TransactionError>, input: &str) -> BatchError {
    match failure {
        Failure::Writer(error) => error.into(),
        Failure::Spoilt { partition, offset, reason } => BatchError::Spoilt { partition, offset, reason },
        Failure::Suspect { partition, offset } => BatchError::Suspect { partition, offset },
        Failure::DoesNotFit { partition, offset, topic: aside, bytes } => {
            let topic = input.to_owned();
            BatchError::Fault(Fault::DoesNotFit { topic, partition, offset, bytes, aside })
        }
        Failure::OutputTooLarge { topic, bytes, limit } => {
            BatchError::Fault(Fault::OutputTooLarge { topic, bytes, limit })
        }
        Failure::NotHeld { partition } => BatchError::Fault(Fault::NotAssigned { partition }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_grow_with_what_their_records_have_waited() {
        let settings = StageSettings::default();
        let of = |waited_ms, before_ms| {
            let [waited, before] = [waited_ms, before_ms].map(Duration::from_millis);
            collecting_time(&settings, waited, before).as_millis()
        };
        assert_eq!([0, 399, 2_000, 3_600_000].map(|waited| of(waited, 1_000)), [100, 100, 500, 1_000]);
        assert_eq!([0, 100, 200, 400, 800].map(|before| of(3_600_000, before)), [100, 200, 400, 800, 1_000]);
    }
}
