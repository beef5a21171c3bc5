//! Records and offsets in one transaction.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::message::{Header, OwnedHeaders};
use tokio_util::sync::CancellationToken;

use super::OutboundRecord;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::{Producer, Transaction, TransactionError, TransactionSettings, Verdict};
use crate::topics::{Topic, partition_of};

/// Partitions may be added to a topic: their number is asked for again after this.
const PARTITIONS_KEPT: Duration = Duration::from_secs(60);

/// How a transaction failed.
pub(super) enum Failure {
    /// It was aborted, or never began.
    Aborted(String),
    /// It was aborted: a record is refused for what it is.
    Refused(String),
    /// The commit was asked for and its end is not known.
    Unknown(String),
}

pub(super) struct Publisher {
    kafka: KafkaSettings,
    producer: Producer,
    partitions: HashMap<&'static str, (i32, Instant)>,
}

impl Publisher {
    pub(super) fn new(kafka: &KafkaSettings, role: &str, shutdown: CancellationToken) -> Self {
        let settings = TransactionSettings { linger: Duration::ZERO, ..TransactionSettings::default() };
        Self {
            kafka: kafka.clone(),
            producer: Producer::new(kafka, role, 0, &settings, shutdown),
            partitions: HashMap::new(),
        }
    }

    /// Takes the transactional id: whatever was left open under it has ended then.
    pub(super) fn prepare(&mut self) -> bool {
        match self.producer.settle() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "no transactional producer yet");
                false
            }
        }
    }

    /// `count` looks up how many partitions a topic has.
    pub(super) fn publish(
        &mut self,
        records: &[OutboundRecord],
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        count: impl Fn(&str) -> Result<i32, String>,
    ) -> Result<(), Failure> {
        let routes: Vec<(String, i32)> = records
            .iter()
            .map(|record| self.route(record, &count))
            .collect::<Result<_, _>>()
            .map_err(Failure::Aborted)?;
        let mut transaction = self.producer.begin().map_err(aborted)?;
        // What fails before the commit is aborted by dropping the transaction.
        for (record, (topic, partition)) in records.iter().zip(&routes) {
            send(&mut transaction, topic, *partition, record).map_err(aborted)?;
        }
        transaction.flush().map_err(aborted)?;
        if offsets.count() > 0 {
            transaction.send_offsets(offsets, group).map_err(aborted)?;
        }
        transaction.commit().map_err(|error| match error.verdict {
            Verdict::Abortable => aborted(error),
            Verdict::Unknown | Verdict::Fenced | Verdict::Fatal => Failure::Unknown(error.to_string()),
        })
    }

    fn route(
        &mut self,
        record: &OutboundRecord,
        count: impl Fn(&str) -> Result<i32, String>,
    ) -> Result<(String, i32), String> {
        let name = self.kafka.topic(record.topic);
        let partitions = self.partitions_of(record.topic, &name, count)?;
        let partition = record.key.as_deref().map_or(0, |key| partition_of(key, partitions));
        Ok((name, partition))
    }

    fn partitions_of(
        &mut self,
        topic: &'static Topic,
        name: &str,
        count: impl Fn(&str) -> Result<i32, String>,
    ) -> Result<i32, String> {
        match self.partitions.get(topic.name) {
            Some((partitions, asked)) if asked.elapsed() < PARTITIONS_KEPT => Ok(*partitions),
            _ => {
                let partitions = count(name)?;
                self.partitions.insert(topic.name, (partitions, Instant::now()));
                Ok(partitions)
            }
        }
    }
}

fn aborted(error: TransactionError) -> Failure {
    match error.is_refusal() {
        true => Failure::Refused(error.cause.to_string()),
        false => Failure::Aborted(error.to_string()),
    }
}

pub(crate) fn send(
    transaction: &mut Transaction<'_>,
    topic: &str,
    partition: i32,
    record: &OutboundRecord,
) -> Result<(), TransactionError> {
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    transaction.send(topic, partition, key, value, Some(headers), None)
}
