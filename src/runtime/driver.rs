//! Stages in memory: the same tasks as on Kafka, with topics as partitioned logs,
//! a clock moved by hand and a seed for everything that is left to chance.
//!
//! Batches commit as transactions do: outputs, changelog and positions together or
//! not at all. A crash at any point drops what is in memory; the next batch restores
//! it from the changelog's bytes.

mod pending;
mod runner;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::RecordCounts;
use super::state::StateError;
use crate::model::Timestamp;
use crate::pipeline::PartitionStage;
use crate::topics::{Topic, partition_of};
use runner::{Batch, Run, Runner, Turn};

/// Records of a batch at most, where nothing else was said.
const MOST_RECORDS: usize = 40;

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
    most_records: usize,
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
            most_records: MOST_RECORDS,
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

    /// From now on batches have up to so many records, at least 1.
    pub fn batches_up_to(&mut self, records: usize) {
        self.most_records = records.max(1);
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
        let most_records = self.most_records;
        let batch = Batch { at: self.now, most_records, crash, random: &mut self.random };
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
