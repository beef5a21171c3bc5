//! What readers of a topic outside any group have in common: the consumer, the partitions,
//! and what its errors mean.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::settings::{KafkaSettings, is_slow, longer};
use crate::backoff::{self, Backoff};
use crate::health::Part;
use crate::topics::Topic;

/// Longest wait for a record; the shutdown waits for it.
pub(crate) const POLL: Duration = Duration::from_millis(250);
/// Time between two looks at the topic's partitions.
pub(crate) const LOOK: Duration = Duration::from_secs(10);
const LOOK_UNREACHABLE: Duration = Duration::from_secs(1);
pub(crate) const ANSWER_WAIT: Duration = Duration::from_millis(1_500);

/// Partitions, and where each is read from.
pub(super) type Places = BTreeMap<i32, Offset>;

/// Reads one topic as a whole, for one instance.
#[derive(Clone)]
pub(crate) struct TopicReader {
    kafka: KafkaSettings,
    /// The topic's full name.
    pub name: String,
    pub topic: &'static Topic,
    pub health: Part,
    pub stop: CancellationToken,
}

impl TopicReader {
    pub(super) fn new(
        kafka: &KafkaSettings,
        topic: &'static Topic,
        health: Part,
        stop: CancellationToken,
    ) -> Self {
        Self { kafka: kafka.clone(), name: kafka.topic(topic), topic, health, stop }
    }

    /// Reads by `read` until it ends well or `stop`; anew after errors, with back-off.
    pub(super) fn again_and_again(&self, mut read: impl FnMut() -> Result<(), String>) {
        let (mut failures, mut pauses) = (0, Backoff::new(Backoff::RESTART));
        while !self.stop.is_cancelled() {
            let Err(reason) = read() else { break };
            failures += 1;
            tracing::warn!(topic = self.name, reason, failures, "reading the topic anew");
            self.health.not_ready(reason);
            pauses.sleep(&self.stop);
        }
    }

    /// A consumer that follows the topic: nothing to read is news that may wait.
    pub(super) fn follower(&self) -> Result<BaseConsumer<Watch>, String> {
        self.consumer(&[])
    }

    /// A consumer that reads to the end, and is told at once that there is no more.
    pub(super) fn to_the_end(&self) -> Result<BaseConsumer<Watch>, String> {
        self.consumer(&[("fetch.wait.max.ms", "10"), ("fetch.error.backoff.ms", "20")])
    }

    fn consumer(&self, settings: &[(&str, &str)]) -> Result<BaseConsumer<Watch>, String> {
        let mut config = self.kafka.reader("table");
        config.set("auto.offset.reset", "earliest");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let preferences = [("queued.max.messages.kbytes", "4096")];
        self.kafka.prefer(&mut config, &preferences);
        BaseConsumer::from_config_and_context(&config, Watch::default())
            .map_err(|error| format!("cannot make a Kafka consumer: {error}"))
    }

    /// Lets a consumer read from these places.
    pub(super) fn assign(&self, consumer: &BaseConsumer<Watch>, places: &Places) -> Result<(), String> {
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (partition, offset) in places {
            list.add_partition_offset(&self.name, *partition, *offset).expect("a valid offset");
        }
        consumer.assign(&list).map_err(|error| format!("cannot read {}: {error}", self.name))
    }

    /// The topic's partitions, asked for until brokers that are merely slow have answered. `None`
    /// when the shutdown came first.
    pub(super) fn first_partitions(
        &self,
        consumer: &BaseConsumer<Watch>,
    ) -> Result<Option<Vec<i32>>, String> {
        let mut wait = ANSWER_WAIT;
        while !self.stop.is_cancelled() {
            match self.ask_partitions(consumer, wait) {
                Ok(partitions) => return Ok(Some(partitions)),
                Err(NoPartitions::Slow(reason)) => self.health.not_ready(reason),
                Err(NoPartitions::Else(reason)) => return Err(reason),
            }
            wait = longer(wait);
        }
        Ok(None)
    }

    /// Whether the topic now has another number of partitions; not known counts as no.
    pub(super) fn has_other_partitions(&self, consumer: &BaseConsumer<Watch>, than: usize) -> bool {
        self.ask_partitions(consumer, ANSWER_WAIT).is_ok_and(|now| now.len() != than)
    }

    fn ask_partitions(
        &self,
        consumer: &BaseConsumer<Watch>,
        within: Duration,
    ) -> Result<Vec<i32>, NoPartitions> {
        let metadata = consumer.fetch_metadata(Some(&self.name), within).map_err(|error| {
            let reason = format!("cannot reach Kafka at {}: {error}", self.kafka.brokers);
            if is_slow(&error) { NoPartitions::Slow(reason) } else { NoPartitions::Else(reason) }
        })?;
        let found =
            metadata.topics().iter().find(|topic| topic.name() == self.name && topic.error().is_none());
        let partitions: Vec<i32> =
            found.map_or(&[][..], |topic| topic.partitions()).iter().map(|found| found.id()).collect();
        if partitions.is_empty() {
            let remedy = "create it with `trunkline topics apply`";
            return Err(NoPartitions::Else(format!("topic {} does not exist: {remedy}", self.name)));
        }
        Ok(partitions)
    }

    /// Errors that end reading; all others pass by themselves.
    pub(super) fn judge(&self, error: &KafkaError) -> Result<(), String> {
        match error {
            KafkaError::PartitionEOF(_) => Ok(()),
            KafkaError::MessageConsumptionFatal(_) => Err(format!("reading {}: {error}", self.name)),
            _ => {
                tracing::warn!(topic = self.name, %error, "topic reader");
                Ok(())
            }
        }
    }

    /// Says so while the brokers cannot be reached. Answers whether they just came back.
    pub(super) fn look_at_connection(&self, consumer: &BaseConsumer<Watch>) -> bool {
        if !consumer.context().unreachable.swap(false, Ordering::AcqRel) {
            return false;
        }
        self.health.not_ready(format!(
            "cannot reach Kafka at {}: {} may be out of date",
            self.kafka.brokers, self.topic.name
        ));
        while !self.stop.is_cancelled() {
            if consumer.fetch_metadata(Some(&self.name), ANSWER_WAIT).is_ok() {
                consumer.context().unreachable.store(false, Ordering::Release);
                return true;
            }
            backoff::sleep(LOOK_UNREACHABLE, &self.stop);
        }
        false
    }
}

/// Why a topic's partitions are not known.
enum NoPartitions {
    /// No answer in time.
    Slow(String),
    Else(String),
}

/// Notes what librdkafka reports from its own threads.
#[derive(Default)]
pub(crate) struct Watch {
    unreachable: AtomicBool,
}

impl ClientContext for Watch {
    fn error(&self, error: KafkaError, reason: &str) {
        use rdkafka::types::RDKafkaErrorCode::{
            AllBrokersDown, BrokerTransportFailure, PartitionEOF, Resolve,
        };
        match error.rdkafka_error_code() {
            Some(AllBrokersDown | BrokerTransportFailure | Resolve) => {
                self.unreachable.store(true, Ordering::Release);
            }
            // The end of a partition is no news.
            Some(PartitionEOF) => return,
            _ => {}
        }
        tracing::warn!(%error, reason, "topic reader");
    }
}

impl ConsumerContext for Watch {}
