//! Stages in memory: the same tasks as on Kafka, with topics as partitioned logs,
//! a clock moved by hand and a seed for everything that is left to chance.
//!
//! Batches commit as transactions do: outputs, changelog and positions together or
//! not at all. A crash at any point drops what is in memory; the next batch restores
//! it from the changelog's bytes.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::dead_letter::{ErrorHeaders, PER_HEADER};
use super::writer::{Failure, Incoming, Writer};
use super::{RecordCounts, state::StateError, task::Task};
use crate::model::Timestamp;
use crate::pipeline::{Declaration, Destination, Output, PartitionStage};
use crate::telemetry;
use crate::topics::{Topic, headers, partition_of};

/// A record of an in-memory topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// `None` is a record that does not say.
    pub written_at: Option<Timestamp>,
}

/// Why a stage cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("{topic}/{partition} offset {offset} has to be set aside but does not fit there")]
    DoesNotFit { topic: String, partition: i32, offset: i64 },
    #[error("the stage sends {bytes} bytes to {topic}, whose limit is {limit}: this is a bug")]
    OutputTooLarge { topic: &'static str, bytes: usize, limit: usize },
    #[error(transparent)]
    State(#[from] StateError),
}

/// Stages connected by topics in memory.
pub struct Driver {
    log: Log,
    now: Timestamp,
    random: ChaCha8Rng,
    stages: Vec<Box<dyn Run>>,
    crash_probability: f64,
    crash_next: bool,
    crashes: usize,
}

impl Driver {
    /// Every topic has `partitions` partitions, at least 1. The clock begins at the Unix epoch.
    pub fn new(seed: u64, partitions: i32) -> Self {
        assert!(partitions > 0, "topics have partitions");
        Self {
            log: Log { partitions, topics: BTreeMap::new(), positions: BTreeMap::new() },
            now: Timestamp::from_millis(0),
            random: ChaCha8Rng::seed_from_u64(seed),
            stages: Vec::new(),
            crash_probability: 0.0,
            crash_next: false,
            crashes: 0,
        }
    }

    pub fn add<S: PartitionStage>(&mut self, stage: S) {
        self.stages.push(Box::new(Runner::new(Arc::new(stage), self.log.partitions)));
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Sets the clock; it may go back, as clocks do.
    pub fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
    }

    /// Appends a record, written now, to the partition its key belongs to.
    pub fn produce(&mut self, topic: &'static Topic, key: &str, value: &[u8]) {
        self.produce_record(
            topic,
            Stored {
                key: Some(key.as_bytes().to_vec()),
                value: Some(value.to_vec()),
                headers: Vec::new(),
                written_at: Some(self.now),
            },
        );
    }

    /// Appends any record whatever; one without a key goes to partition 0.
    pub fn produce_record(&mut self, topic: &'static Topic, record: Stored) {
        let partition = record.key.as_ref().map_or(0, |key| partition_of(key, self.log.partitions));
        self.produce_to(topic, partition, record);
    }

    /// Appends any record whatever to a partition, whatever its key.
    pub fn produce_to(&mut self, topic: &'static Topic, partition: i32, record: Stored) {
        self.log.append(topic, partition, record);
    }

    /// The next batch crashes at some point of its course.
    pub fn crash_somewhere(&mut self) {
        self.crash_next = true;
    }

    /// From now on each batch crashes with this probability, 0–1.
    pub fn crash_with(&mut self, probability: f64) {
        self.crash_probability = probability;
    }

    /// How many batches have crashed.
    pub fn crashes(&self) -> usize {
        self.crashes
    }

    /// Every stage loses its memory between two batches.
    pub fn restart(&mut self) {
        for stage in &mut self.stages {
            stage.crash();
            stage.forget();
        }
    }

    /// Runs batches of random stages, sizes and partitions until every stage has read
    /// everything and time, as the clock stands, brings nothing more. Answers what became
    /// of the records, by stage.
    pub fn run_until_idle(&mut self) -> Result<BTreeMap<&'static str, RecordCounts>, DriverError> {
        let mut counts = BTreeMap::new();
        loop {
            let waiting: Vec<usize> =
                (0..self.stages.len()).filter(|index| self.stages[*index].has_work(&self.log)).collect();
            if waiting.is_empty() {
                let mut anything = false;
                for index in 0..self.stages.len() {
                    anything |= self.turn(index, &mut counts)?;
                }
                if !anything {
                    return Ok(counts);
                }
            } else {
                let index = waiting[self.random.random_range(0..waiting.len())];
                self.turn(index, &mut counts)?;
            }
        }
    }

    /// One batch of a stage. Answers whether anything came of it.
    fn turn(
        &mut self,
        index: usize,
        counts: &mut BTreeMap<&'static str, RecordCounts>,
    ) -> Result<bool, DriverError> {
        let crash = self.crash_next
            || (self.crash_probability > 0.0 && self.random.random_bool(self.crash_probability));
        let batch = Batch { at: self.now, crash, random: &mut self.random };
        let stage = &mut self.stages[index];
        let turn = stage.batch(&mut self.log, batch)?;
        if turn == Turn::Idle {
            return Ok(false);
        }
        self.crash_next = false;
        match turn {
            Turn::Committed(committed) => counts.entry(stage.name()).or_default().add(committed),
            Turn::Crashed | Turn::Idle => self.crashes += 1,
        }
        Ok(true)
    }

    /// All records of a topic, partition after partition.
    pub fn records(&self, topic: &Topic) -> Vec<Stored> {
        self.log.topics.get(topic.name).map(|partitions| partitions.concat()).unwrap_or_default()
    }

    /// The records of one key in a topic, in order.
    pub fn records_of(&self, topic: &Topic, key: &str) -> Vec<Stored> {
        let mut records = self.records(topic);
        records.retain(|record| record.key.as_deref() == Some(key.as_bytes()));
        records
    }
}

/// Topics by name, and how far each stage has read each partition.
struct Log {
    partitions: i32,
    topics: BTreeMap<&'static str, Vec<Vec<Stored>>>,
    positions: BTreeMap<(&'static str, i32), usize>,
}

impl Log {
    fn partition(&self, topic: &Topic, partition: i32) -> &[Stored] {
        self.topics.get(topic.name).map_or(&[], |partitions| &partitions[partition as usize])
    }

    fn append(&mut self, topic: &'static Topic, partition: i32, record: Stored) {
        let partitions = self.partitions as usize;
        let topic = self.topics.entry(topic.name).or_insert_with(|| vec![Vec::new(); partitions]);
        topic[partition as usize].push(record);
    }

    fn position(&self, stage: &'static str, partition: i32) -> usize {
        self.positions.get(&(stage, partition)).copied().unwrap_or(0)
    }
}

struct Batch<'d> {
    at: Timestamp,
    crash: bool,
    random: &'d mut ChaCha8Rng,
}

/// Where in its batch a stage crashes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CrashPoint {
    Never,
    AfterRecords(usize),
    BeforeCommit,
    AfterCommit,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Committed(RecordCounts),
    Crashed,
    /// There was nothing to read and nothing to write.
    Idle,
}

trait Run {
    fn name(&self) -> &'static str;
    fn has_work(&self, log: &Log) -> bool;
    fn batch(&mut self, log: &mut Log, batch: Batch<'_>) -> Result<Turn, DriverError>;
    /// Loses the state of a batch that did not commit.
    fn crash(&mut self);
    /// Is a new process.
    fn forget(&mut self);
}

struct Runner<S: PartitionStage> {
    stage: Arc<S>,
    task: Task<S>,
    restored: bool,
}

impl<S: PartitionStage> Runner<S> {
    fn new(stage: Arc<S>, partitions: i32) -> Self {
        let input = stage.declaration().input.name.to_owned();
        Self { task: Task::new(Arc::clone(&stage), input, partitions), stage, restored: false }
    }

    fn declaration(&self) -> &'static Declaration {
        self.stage.declaration()
    }

    fn restore(&mut self, log: &Log, at: Timestamp) -> Result<(), DriverError> {
        for partition in 0..log.partitions {
            self.task.take(partition, at);
            for record in log.partition(self.declaration().changelog, partition) {
                self.task.restore(
                    partition,
                    record.key.as_deref().unwrap_or_default(),
                    record.value.as_deref(),
                )?;
            }
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
        let mut room = batch.random.random_range(1..=40);
        let crash_point = match batch.crash {
            false => CrashPoint::Never,
            true => match batch.random.random_range(0..4) {
                0 => CrashPoint::BeforeCommit,
                1 => CrashPoint::AfterCommit,
                _ => CrashPoint::AfterRecords(batch.random.random_range(0..room)),
            },
        };
        let mut pending = Vec::new();
        let mut done = 0;
        let first = batch.random.random_range(0..log.partitions);
        for partition in (first..log.partitions).chain(0..first) {
            let from = log.position(name, partition);
            let records = log.partition(input, partition);
            for (offset, record) in records.iter().enumerate().skip(from) {
                if crash_point == CrashPoint::AfterRecords(done) {
                    self.crash();
                    return Ok(Turn::Crashed);
                }
                if room == 0 {
                    break;
                }
                room -= 1;
                done += 1;
                let incoming = Incoming {
                    partition,
                    offset: offset as i64,
                    written_at: record.written_at,
                    key: record.key.as_deref(),
                    value: record.value.as_deref(),
                };
                let mut writer = Pending {
                    at: batch.at,
                    partitions: log.partitions,
                    record: Some(record),
                    records: &mut pending,
                };
                if let Err(failure) = self.task.process(batch.at, &incoming, &mut writer) {
                    return self.failed(failure);
                }
            }
        }
        if !self.task.advance(batch.at) {
            return Ok(Turn::Idle);
        }
        let mut writer =
            Pending { at: batch.at, partitions: log.partitions, record: None, records: &mut pending };
        if let Err(failure) = self.task.write_changes(&mut writer) {
            return self.failed(failure);
        }
        if matches!(crash_point, CrashPoint::BeforeCommit | CrashPoint::AfterRecords(_)) {
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

/// What a batch has written so far.
struct Pending<'b> {
    at: Timestamp,
    partitions: i32,
    record: Option<&'b Stored>,
    records: &'b mut Vec<(&'static Topic, i32, Stored)>,
}

impl Writer for Pending<'_> {
    type Error = Infallible;

    fn output(&mut self, output: Output<'_>) -> Result<(), Infallible> {
        let Output { topic, destination, key, value } = output;
        let mut all = vec![
            (headers::CONTENT_TYPE.to_owned(), headers::CONTENT_TYPE_JSON.as_bytes().to_vec()),
            (headers::SCHEMA.to_owned(), topic.schema_id().as_bytes().to_vec()),
        ];
        let traces = self.record.iter().flat_map(|record| &record.headers);
        let mut traces = traces.filter(|(name, value)| {
            name == headers::TRACEPARENT && std::str::from_utf8(value).is_ok_and(telemetry::is_traceparent)
        });
        all.extend(traces.next_back().cloned());
        let stored = Stored {
            key: Some(key.to_vec()),
            value: Some(value.to_vec()),
            headers: all,
            written_at: Some(self.at),
        };
        match destination {
            Destination::Key => self.records.push((topic, partition_of(key, self.partitions), stored)),
            Destination::EveryPartition => {
                let copies = (0..self.partitions).map(|partition| (topic, partition, stored.clone()));
                self.records.extend(copies);
            }
        }
        Ok(())
    }

    fn set_aside(
        &mut self,
        topic: &'static Topic,
        record: &Incoming<'_>,
        keep_headers: bool,
        errors: &ErrorHeaders,
    ) -> Result<(), Infallible> {
        let mut stored = self.record.expect("a record is being processed").clone();
        if !keep_headers {
            stored.headers.clear();
        }
        stored
            .headers
            .extend(errors.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        let partition = record.key.map_or(record.partition, |key| partition_of(key, self.partitions));
        self.records.push((topic, partition, stored));
        Ok(())
    }

    fn changelog(
        &mut self,
        topic: &'static Topic,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Infallible> {
        let stored = Stored {
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
            written_at: Some(self.at),
        };
        self.records.push((topic, partition, stored));
        Ok(())
    }

    fn headers_len(&self) -> usize {
        let headers = self.record.iter().flat_map(|record| &record.headers);
        headers.map(|(name, value)| name.len() + value.len() + PER_HEADER).sum()
    }
}
