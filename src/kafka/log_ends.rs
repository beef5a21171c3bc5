//! Where partitions end, whatever of them is committed.

use std::time::Duration;

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::reader::Reader;
use super::settings::KafkaSettings;

/// Asks with a client of its own: one that reads has connections on which requests wait for records.
pub(crate) struct LogEnds(BaseConsumer<Reader>);

impl LogEnds {
    /// # Errors
    /// When the configuration is not accepted.
    pub(crate) fn new(kafka: &KafkaSettings, role: &str) -> Result<Self, KafkaError> {
        let mut config = kafka.reader(role);
        config.set("isolation.level", "read_uncommitted");
        BaseConsumer::from_config_and_context(&config, Reader { what: "ends of logs" }).map(Self)
    }

    /// Offset after the last record or marker of each of a topic's `partitions`, in their order.
    /// One request to each broker.
    ///
    /// # Errors
    /// When not all of them have answered within `wait`.
    pub(crate) fn of(&self, topic: &str, partitions: &[i32], wait: Duration) -> Result<Vec<i64>, KafkaError> {
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            // In the place of a time this stands for the end.
            asked.add_partition_offset(topic, *partition, Offset::End)?;
        }
        let answered = self.0.offsets_for_times(asked, wait)?;
        let end = |partition: &i32| {
            let found = answered.find_partition(topic, *partition).ok_or(KafkaError::NoMessageReceived)?;
            found.error()?;
            found.offset().to_raw().filter(|end| *end >= 0).ok_or(KafkaError::NoMessageReceived)
        };
        partitions.iter().map(end).collect()
    }
}
