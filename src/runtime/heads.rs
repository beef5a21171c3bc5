//! Reads the first record from an offset on, of many partitions at once.
//!
//! `read_committed`: records of transactions that were aborted or are open, and
//! markers, are passed over.

mod native;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::groups::TopicPartition;
use super::reader::Reader;
use native::Happened;

/// Partitions fetched from at once, and bytes from each: 32 MiB together.
const PARTITIONS_AT_ONCE: usize = 512;
const BYTES_PER_PARTITION: &str = "65536";
/// Time to look up the leaders of one topic.
const LEADERS: Duration = Duration::from_secs(2);
/// How often the deadline is looked at.
const POLL: Duration = Duration::from_millis(100);

/// The first record found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub offset: i64,
    /// The record's own time, where it has one.
    pub timestamp_ms: Option<i64>,
}

/// A consumer that belongs to no group's membership and commits nothing.
pub struct Heads {
    consumer: BaseConsumer<Reader>,
    /// Topics whose leaders the client was told to look up.
    met: HashSet<String>,
}

impl Heads {
    /// # Errors
    /// When the configuration is not accepted.
    pub fn new(config: &ClientConfig, group: &str) -> Result<Self, KafkaError> {
        let consumer = config
            .clone()
            // librdkafka assigns nothing without one; it is never joined.
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            // What waits is counted over all partitions together, and a partition whose turn
            // it is not because of that would wait a second.
            .set("queued.min.messages", "1000")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.message.max.bytes", BYTES_PER_PARTITION)
            .set("fetch.wait.max.ms", "10")
            .set("fetch.error.backoff.ms", "20")
            .set("check.crcs", "false")
            .create_with_context(Reader { what: "heads of logs" })?;
        Ok(Self { consumer, met: HashSet::new() })
    }

    /// The first record of each partition from its offset on; `None` where there is none
    /// before the last stable offset. Each partition may be asked for once.
    ///
    /// Partitions that have not answered by the deadline are told as such.
    pub fn read(
        &mut self,
        wanted: &[(TopicPartition, i64)],
        deadline: Instant,
    ) -> HashMap<TopicPartition, Result<Option<Found>, String>> {
        let mut answers = HashMap::with_capacity(wanted.len());
        self.meet(wanted, deadline);
        for chunk in wanted.chunks(PARTITIONS_AT_ONCE) {
            let mut open: HashSet<TopicPartition> = chunk.iter().map(|(place, _)| place.clone()).collect();
            match self.assign(chunk) {
                Ok(()) => self.gather(&mut open, &mut answers, deadline),
                Err(error) => {
                    answers.extend(open.drain().map(|place| (place, Err(error.to_string()))));
                }
            }
            answers.extend(open.into_iter().map(|place| (place, Err("no record came in time".to_owned()))));
        }
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "the reader of heads keeps its assignment");
        }
        answers
    }

    /// Looks up the leaders of topics read for the first time: left to itself the client does
    /// so once a second.
    fn meet(&mut self, wanted: &[(TopicPartition, i64)], deadline: Instant) {
        let topics: HashSet<&str> = wanted.iter().map(|((topic, _), _)| topic.as_str()).collect();
        self.met.retain(|topic| topics.contains(topic.as_str()));
        for topic in topics {
            if self.met.insert(topic.to_owned()) {
                let left = deadline.saturating_duration_since(Instant::now());
                if let Err(error) = self.consumer.fetch_metadata(Some(topic), left.min(LEADERS)) {
                    tracing::debug!(topic, %error, "leaders are not known yet");
                }
            }
        }
    }

    fn assign(&self, chunk: &[(TopicPartition, i64)]) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(chunk.len());
        for ((topic, partition), from) in chunk {
            list.add_partition_offset(topic, *partition, Offset::Offset(*from))?;
        }
        self.consumer.assign(&list)
    }

    fn gather(
        &self,
        open: &mut HashSet<TopicPartition>,
        answers: &mut HashMap<TopicPartition, Result<Option<Found>, String>>,
        deadline: Instant,
    ) {
        while !open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let (place, answer) = match native::next(self.consumer.client(), left.min(POLL)) {
                Some(Happened::Record { place, found }) => (place, Ok(Some(found))),
                Some(Happened::End { place }) => (place, Ok(None)),
                Some(Happened::Failed { place, problem }) => (place, Err(problem)),
                Some(Happened::Else) | None => continue,
            };
            // Later records of the same fetch, or of a chunk that is done, say nothing new.
            if open.remove(&place) {
                answers.insert(place, answer);
            }
        }
    }
}
