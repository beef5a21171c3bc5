//! Reads a topic up to its end, for one instance and outside any group; what comes after that is
//! the global consumer's.
//!
//! The client is for this topic alone, since librdkafka's word of an end does not name the topic;
//! and it goes when the end has been reached.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset};
use tokio_util::sync::CancellationToken;

use super::global_consumer::GlobalConsumer;
use super::settings::longer;
use super::whole_topic::{self, ANSWER_WAIT, Connection, LOOK_UNREACHABLE, NoPartitions, POLL, Watch};
use crate::backoff::{self, Backoff};
use crate::health::Part;
use crate::topics::Topic;

/// Partitions, and where each is read from.
pub(super) type Places = BTreeMap<i32, Offset>;

/// Where reading a topic begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Beginning,
    /// The newest so many of each partition.
    Newest(i64),
}

/// What the records of a topic keep up to date. Used by one thread at a time; dropped when reading ends.
pub(crate) trait Maintainer: Send + 'static {
    fn origin(&self) -> Origin;

    /// The topic is read from there, for the first time or anew.
    fn begin(&mut self);

    fn take(&mut self, record: &BorrowedMessage<'_>);

    /// Every record up to the end was taken; or the brokers are back and it is so again.
    fn whole(&mut self, health: &Part);

    /// After some records beyond the end.
    ///
    /// # Errors
    /// Why the topic has to be read anew.
    fn settle(&mut self, health: &Part) -> Result<(), String>;
}

/// A topic, and what its records maintain.
pub(super) struct TopicReader {
    /// The topic's full name.
    pub name: String,
    pub topic: &'static Topic,
    pub health: Part,
    pub stop: CancellationToken,
    pub maintainer: Box<dyn Maintainer>,
    global: GlobalConsumer,
    failures: u32,
    pauses: Backoff,
}

impl TopicReader {
    /// Reads `topic` up to its end on a thread of its own, and then has it followed; anew after
    /// errors, until `stop`.
    pub(super) fn start(
        global: &GlobalConsumer,
        topic: &'static Topic,
        health: Part,
        stop: CancellationToken,
        maintainer: Box<dyn Maintainer>,
    ) {
        let reader = Self {
            name: global.kafka.topic(topic),
            topic,
            health,
            stop,
            maintainer,
            global: global.clone(),
            failures: 0,
            pauses: Backoff::new(Backoff::RESTART),
        };
        reader.on_a_thread(Self::read);
    }

    /// Reads the topic anew, after a pause.
    pub(super) fn again(self, reason: String) {
        self.on_a_thread(|mut reader| {
            reader.pause_after(reason);
            reader.read();
        });
    }

    fn on_a_thread(self, work: impl FnOnce(Self) + Send + 'static) {
        thread::Builder::new()
            .name(format!("table-{}", self.topic.name))
            .spawn(move || work(self))
            .expect("the system can start a thread");
    }

    fn pause_after(&mut self, reason: String) {
        self.failures += 1;
        tracing::warn!(topic = self.name, reason, failures = self.failures, "reading the topic anew");
        self.health.not_ready(reason);
        self.pauses.sleep(&self.stop);
    }

    fn read(mut self) {
        while !self.stop.is_cancelled() {
            match self.read_to_the_end() {
                Ok(Some(places)) => {
                    let global = self.global.clone();
                    return global.follow(self, places);
                }
                Ok(None) => return,
                Err(reason) => self.pause_after(reason),
            }
        }
    }

    /// Where the topic goes on. `None` when the shutdown came first.
    fn read_to_the_end(&mut self) -> Result<Option<Places>, String> {
        let started = Instant::now();
        self.is_reading();
        // Told at once that there is no more, instead of when something comes or half a second later.
        let at_once = [("fetch.wait.max.ms", "10"), ("fetch.error.backoff.ms", "20")];
        let consumer = whole_topic::consumer(&self.global.kafka, &at_once)?;
        let Some(partitions) = self.first_partitions(&consumer)? else { return Ok(None) };
        let mut places = self.beginning(&consumer, &partitions)?;
        let list = whole_topic::list(&self.name, &places);
        consumer.assign(&list).map_err(|error| format!("cannot read {}: {error}", self.name))?;
        self.maintainer.begin();
        let (mut unread, mut records) = (BTreeSet::from_iter(partitions), 0);
        while !unread.is_empty() {
            if self.stop.is_cancelled() {
                return Ok(None);
            }
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    places.insert(message.partition(), Offset::Offset(message.offset() + 1));
                    self.maintainer.take(&message);
                    records += 1;
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(unread.remove(&partition)),
                Some(Err(error)) => whole_topic::judge(&error)?,
                None => {}
            }
            self.look_at_connection(&consumer);
        }
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::info!(topic = self.name, records, took_ms, "the topic is read");
        self.maintainer.whole(&self.health);
        Ok(Some(places))
    }

    fn is_reading(&self) {
        self.health.not_ready(format!("reading {}", self.name));
    }

    /// Says so while the brokers cannot be reached.
    pub(super) fn is_cut_off(&self) {
        self.health.not_ready(format!(
            "cannot reach Kafka at {}: {} may be out of date",
            self.global.kafka.brokers, self.topic.name
        ));
    }

    fn look_at_connection(&self, consumer: &BaseConsumer<Watch>) {
        match whole_topic::connection(consumer, &self.name) {
            Connection::Sound => {}
            Connection::Back => self.is_reading(),
            Connection::Lost => {
                self.is_cut_off();
                backoff::sleep(LOOK_UNREACHABLE, &self.stop);
            }
        }
    }

    /// The topic's partitions, asked for until brokers that are merely slow have answered. `None`
    /// when the shutdown came first.
    fn first_partitions(&self, consumer: &BaseConsumer<Watch>) -> Result<Option<Vec<i32>>, String> {
        let mut wait = ANSWER_WAIT;
        while !self.stop.is_cancelled() {
            match whole_topic::partitions(consumer, &self.name, wait) {
                Ok(partitions) => return Ok(Some(partitions)),
                Err(NoPartitions::Slow(error)) => self.health.not_ready(self.unreachable(&error)),
                Err(NoPartitions::Failed(error)) => return Err(self.unreachable(&error)),
                Err(NoPartitions::None) => {
                    let remedy = "create it with `trunkline topics apply`";
                    return Err(format!("topic {} does not exist: {remedy}", self.name));
                }
            }
            wait = longer(wait);
        }
        Ok(None)
    }

    fn unreachable(&self, error: &KafkaError) -> String {
        format!("cannot reach Kafka at {}: {error}", self.global.kafka.brokers)
    }

    fn beginning(&self, consumer: &BaseConsumer<Watch>, partitions: &[i32]) -> Result<Places, String> {
        let place = |&partition: &i32| {
            let Origin::Newest(most) = self.maintainer.origin() else {
                return Ok((partition, Offset::Beginning));
            };
            let (first, end) = consumer
                .fetch_watermarks(&self.name, partition, ANSWER_WAIT)
                .map_err(|error| format!("cannot read {}: {error}", self.name))?;
            Ok((partition, Offset::Offset(first.max(end - most))))
        };
        partitions.iter().map(place).collect()
    }
}
