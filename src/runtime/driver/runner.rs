//! One stage in memory, batch by batch.

use std::convert::Infallible;
use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::pending::Pending;
use super::{DriverError, Log, Stored};
use crate::model::Timestamp;
use crate::pipeline::{Declaration, PartitionStage};
use crate::runtime::RecordCounts;
use crate::runtime::compacted::Compacted;
use crate::runtime::task::Task;
use crate::runtime::writer::{Failure, Incoming};
use crate::topics::Topic;

/// What a batch is to be like.
pub(super) struct Batch<'d> {
    pub at: Timestamp,
    /// Up to so many records, at least one.
    pub most_records: usize,
    pub crash: bool,
    pub random: &'d mut ChaCha8Rng,
}

/// Where in its batch a stage crashes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CrashPoint {
    Never,
    AfterRecords(usize),
    BeforeCommit,
    AfterCommit,
}

/// What is left to be read.
enum Waiting {
    Nothing,
    More,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Committed(RecordCounts),
    Crashed,
    /// There was nothing to read and nothing to write.
    Idle,
}

pub(super) trait Run {
    fn name(&self) -> &'static str;
    fn has_work(&self, log: &Log) -> bool;
    fn batch(&mut self, log: &mut Log, batch: Batch<'_>) -> Result<Turn, DriverError>;
    /// Loses the state of a batch that did not commit.
    fn crash(&mut self);
    /// Is a new process.
    fn forget(&mut self);
}

pub(super) struct Runner<S: PartitionStage> {
    stage: Arc<S>,
    task: Task<S>,
    restored: bool,
}

impl<S: PartitionStage> Runner<S> {
    pub(super) fn new(stage: Arc<S>, partitions: i32) -> Self {
        let input = stage.declaration().input.name.to_owned();
        Self { task: Task::new(Arc::clone(&stage), input, partitions), stage, restored: false }
    }

    fn declaration(&self) -> &'static Declaration {
        self.stage.declaration()
    }

    fn restore(&mut self, log: &Log, at: Timestamp) -> Result<(), DriverError> {
        for partition in 0..log.partitions {
            self.task.take(partition, at);
            let mut records = Compacted::default();
            for record in log.partition(self.declaration().changelog, partition) {
                records.push(partition, record.key.as_deref().unwrap_or_default(), record.value.as_deref());
            }
            records.drain(|partition, key, value| {
                self.task.restore(partition, key, value).map(|_progress| ())
            })?;
            self.task.stand(partition, log.position(self.declaration().name, partition) as i64);
        }
        self.restored = true;
        Ok(())
    }
}

impl<S: PartitionStage> Run for Runner<S> {
    fn name(&self) -> &'static str {
        self.declaration().name
    }

    fn has_work(&self, log: &Log) -> bool {
        let declaration = self.declaration();
        (0..log.partitions).any(|partition| {
            log.position(declaration.name, partition) < log.partition(declaration.input, partition).len()
        })
    }

    fn batch(&mut self, log: &mut Log, batch: Batch<'_>) -> Result<Turn, DriverError> {
        if !self.restored {
            self.restore(log, batch.at)?;
        }
        let Declaration { name, input, .. } = *self.declaration();
        for (partition, next_offset) in self.task.quiet(batch.at) {
            if next_offset == log.partition(input, partition).len() as i64 {
                self.task.let_time_pass(partition, batch.at);
            }
        }
        let room = batch.random.random_range(1..=batch.most_records);
        let crash_point = match batch.crash {
            false => CrashPoint::Never,
            true => match batch.random.random_range(0..4) {
                0 => CrashPoint::BeforeCommit,
                1 => CrashPoint::AfterCommit,
                _ => CrashPoint::AfterRecords(batch.random.random_range(0..room)),
            },
        };
        let (most, is_cut) = match crash_point {
            CrashPoint::AfterRecords(records) => (records, true),
            _ => (room, false),
        };
        let first = batch.random.random_range(0..log.partitions);
        let mut pending = Vec::new();
        match self.read(log, first, batch.at, most, &mut pending) {
            Err(failure) => return self.failed(failure),
            Ok(Waiting::More) if is_cut => {
                self.crash();
                return Ok(Turn::Crashed);
            }
            Ok(_) => {}
        }
        if !self.task.advance(batch.at) {
            return Ok(Turn::Idle);
        }
        let mut writer =
            Pending { at: batch.at, partitions: log.partitions, record: None, records: &mut pending };
        if let Err(failure) = self.task.write_changes(&mut writer) {
            return self.failed(failure);
        }
        if is_cut || crash_point == CrashPoint::BeforeCommit {
            self.crash();
            return Ok(Turn::Crashed);
        }
        for (topic, partition, record) in pending {
            log.append(topic, partition, record);
        }
        for (partition, offset) in self.task.positions() {
            log.positions.insert((name, partition), offset as usize);
        }
        let counts = self.task.committed();
        if crash_point == CrashPoint::AfterCommit {
            self.crash();
        }
        Ok(Turn::Committed(counts))
    }

    fn crash(&mut self) {
        self.task.reset();
        self.restored = false;
    }

    fn forget(&mut self) {
        let partitions = self.task.partitions();
        self.task = Task::new(Arc::clone(&self.stage), self.declaration().input.name.to_owned(), partitions);
    }
}

impl<S: PartitionStage> Runner<S> {
    /// Processes `most` records, beginning with those of the partition `first`.
    fn read(
        &mut self,
        log: &Log,
        first: i32,
        at: Timestamp,
        most: usize,
        pending: &mut Vec<(&'static Topic, i32, Stored)>,
    ) -> Result<Waiting, Failure<Infallible>> {
        let Declaration { name, input, .. } = *self.declaration();
        let mut room = most;
        for partition in (first..log.partitions).chain(0..first) {
            let from = log.position(name, partition);
            let records = log.partition(input, partition);
            for (offset, record) in records.iter().enumerate().skip(from) {
                if room == 0 {
                    return Ok(Waiting::More);
                }
                room -= 1;
                let incoming = Incoming {
                    partition,
                    offset: offset as i64,
                    written_at: record.written_at,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                };
                let partitions = log.partitions;
                let mut writer = Pending { at, partitions, record: Some(record), records: pending };
                self.task.process(at, &incoming, &mut writer)?;
            }
        }
        Ok(Waiting::Nothing)
    }

    /// What the worker does on each failure, without the waiting.
    fn failed(&mut self, failure: Failure<Infallible>) -> Result<Turn, DriverError> {
        self.crash();
        match failure {
            Failure::Spoilt { partition, offset, reason } => {
                self.task.condemn(partition, offset, reason);
                Ok(Turn::Crashed)
            }
            Failure::Suspect { partition, offset } => {
                self.task.inspect(partition, offset);
                Ok(Turn::Crashed)
            }
            Failure::DoesNotFit { partition, offset, .. } => {
                let topic = self.declaration().input.name.to_owned();
                Err(DriverError::DoesNotFit { topic, partition, offset })
            }
            Failure::OutputTooLarge { topic, bytes, limit } => {
                Err(DriverError::OutputTooLarge { topic, bytes, limit })
            }
            Failure::NotHeld { partition } => unreachable!("every partition is held, {partition} too"),
        }
    }
}
