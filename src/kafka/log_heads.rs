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
/// Why a record before the offset asked for comes.
const BEGAN_AGAIN: &str = "the log begins again before what was asked for";
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
pub struct LogHeads {
    consumer: BaseConsumer<Reader>,
    /// Topics whose leaders the client was told to look up.
    met: HashSet<String>,
}

impl LogHeads {
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
            // What is gone by the time it is read leaves the first that is still there.
            .set("auto.offset.reset", "earliest")
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
        self.meet(wanted.iter().map(|(place, _)| place), deadline);
        for chunk in wanted.chunks(PARTITIONS_AT_ONCE) {
            let mut open: HashMap<TopicPartition, i64> = chunk.iter().cloned().collect();
            match self.assign(chunk) {
                Ok(()) => self.gather(deadline, |place, happened| {
                    let Some(from) = open.get(&place).copied() else { return !open.is_empty() };
                    let answer = match happened {
                        Happened::Record(found) if found.offset < from => Err(BEGAN_AGAIN.to_owned()),
                        Happened::Record(found) => Ok(Some(found)),
                        Happened::End => Ok(None),
                        Happened::Failed(problem) => Err(problem),
                    };
                    // Later records of the same fetch, or of a chunk that is done, say nothing new.
                    open.remove(&place);
                    answers.insert(place, answer);
                    !open.is_empty()
                }),
                Err(error) => {
                    answers.extend(open.drain().map(|(place, _)| (place, Err(error.to_string()))));
                }
            }
            let late = "no record came in time";
            answers.extend(open.into_keys().map(|place| (place, Err(late.to_owned()))));
        }
        self.rest();
        answers
    }

    /// Counts the data records of each partition from the first offset on and before the
    /// second. What could not be counted by the deadline is left out.
    pub fn count(
        &mut self,
        wanted: &[(TopicPartition, i64, i64)],
        deadline: Instant,
    ) -> HashMap<TopicPartition, u64> {
        let mut counted = HashMap::with_capacity(wanted.len());
        self.meet(wanted.iter().map(|(place, ..)| place), deadline);
        for chunk in wanted.chunks(PARTITIONS_AT_ONCE) {
            let starts: Vec<_> = chunk.iter().map(|(place, from, _)| (place.clone(), *from)).collect();
            // Next offset that counts, end, records so far.
            let mut open: HashMap<TopicPartition, (i64, i64, u64)> =
                chunk.iter().map(|(place, from, to)| (place.clone(), (*from, *to, 0))).collect();
            if self.assign(&starts).is_err() {
                continue;
            }
            self.gather(deadline, |place, happened| {
                let Some((next, to, records)) = open.get_mut(&place) else { return !open.is_empty() };
                let ended = match happened {
                    Happened::Record(found) => {
                        if (*next..*to).contains(&found.offset) {
                            (*next, *records) = (found.offset + 1, *records + 1);
                        }
                        found.offset + 1 >= *to
                    }
                    Happened::End => true,
                    Happened::Failed(_) => {
                        open.remove(&place);
                        return !open.is_empty();
                    }
                };
                if ended {
                    let records = *records;
                    open.remove(&place);
                    counted.insert(place, records);
                }
                !open.is_empty()
            });
        }
        self.rest();
        counted
    }

    fn rest(&self) {
        if let Err(error) = self.consumer.unassign() {
            tracing::debug!(%error, "the reader of heads keeps its assignment");
        }
    }

    /// Looks up the leaders of topics read for the first time: left to itself the client does
    /// so once a second.
    fn meet<'w>(&mut self, wanted: impl Iterator<Item = &'w TopicPartition>, deadline: Instant) {
        let topics: HashSet<&str> = wanted.map(|(topic, _)| topic.as_str()).collect();
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

    /// Hands on what happens until `more` wants no more, or the deadline comes.
    fn gather(&self, deadline: Instant, mut more: impl FnMut(TopicPartition, Happened) -> bool) {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if let Some((place, happened)) = native::next(self.consumer.client(), left.min(POLL))
                && !more(place, happened)
            {
                return;
            }
        }
    }
}
