//! What reading a topic outside any group is made of: the consumer, the topic's partitions, and what
//! the consumer's errors mean.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::{ClientContext, TopicPartitionList};

use super::settings::{KafkaSettings, is_slow};
use super::topic_reader::Places;

/// Longest wait for a record; the shutdown waits for it.
pub(super) const POLL: Duration = Duration::from_millis(250);
pub(super) const ANSWER_WAIT: Duration = Duration::from_millis(1_500);
/// Between two questions to brokers that could not be reached.
pub(super) const LOOK_UNREACHABLE: Duration = Duration::from_secs(1);

pub(super) fn consumer(
    kafka: &KafkaSettings,
    settings: &[(&str, &str)],
) -> Result<BaseConsumer<Watch>, String> {
    let mut config = kafka.reader("table");
    config.set("auto.offset.reset", "earliest");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    kafka.prefer(&mut config, &[("queued.max.messages.kbytes", "4096")]);
    BaseConsumer::from_config_and_context(&config, Watch::default())
        .map_err(|error| format!("cannot make a Kafka consumer: {error}"))
}

pub(super) fn list(topic: &str, places: &Places) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(places.len());
    for (partition, offset) in places {
        list.add_partition_offset(topic, *partition, *offset).expect("a valid offset");
    }
    list
}

/// Why a topic's partitions are not known.
pub(super) enum NoPartitions {
    /// No answer in time.
    Slow(KafkaError),
    Failed(KafkaError),
    /// There is no such topic.
    None,
}

pub(super) fn partitions(
    consumer: &BaseConsumer<Watch>,
    topic: &str,
    within: Duration,
) -> Result<Vec<i32>, NoPartitions> {
    let metadata = consumer.fetch_metadata(Some(topic), within).map_err(|error| {
        if is_slow(&error) { NoPartitions::Slow(error) } else { NoPartitions::Failed(error) }
    })?;
    let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
    let partitions: Vec<i32> =
        found.map_or(&[][..], |topic| topic.partitions()).iter().map(|found| found.id()).collect();
    if partitions.is_empty() { Err(NoPartitions::None) } else { Ok(partitions) }
}

/// Errors that end reading; all others pass by themselves.
pub(super) fn judge(error: &KafkaError) -> Result<(), String> {
    if let KafkaError::MessageConsumptionFatal(_) = error {
        return Err(format!("cannot read on: {error}"));
    }
    tracing::warn!(%error, "topic reader");
    Ok(())
}

/// How a consumer stands to the brokers.
pub(super) enum Connection {
    Sound,
    Lost,
    /// It was lost until now.
    Back,
}

/// Asks the brokers for `topic` where the consumer has lost them, which takes 1.5 s at most.
pub(super) fn connection(consumer: &BaseConsumer<Watch>, topic: &str) -> Connection {
    let unreachable = &consumer.context().unreachable;
    if !unreachable.load(Ordering::Acquire) {
        return Connection::Sound;
    }
    if consumer.fetch_metadata(Some(topic), ANSWER_WAIT).is_err() {
        return Connection::Lost;
    }
    unreachable.store(false, Ordering::Release);
    Connection::Back
}

/// Notes what librdkafka reports from its own threads.
#[derive(Default)]
pub(super) struct Watch {
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
