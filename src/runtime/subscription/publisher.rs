//! Records and offsets in one transaction.

use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::OutboundRecord;
use crate::runtime::kafka::KafkaSettings;

const INIT_TIMEOUT: Duration = Duration::from_secs(10);
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const END_TIMEOUT: Duration = Duration::from_secs(5);
const COMMIT_TRIES: usize = 3;

/// How a transaction failed.
pub(super) enum Failure {
    /// It was aborted, or never began.
    Aborted(String),
    /// The commit was asked for and no answer came.
    Unknown(String),
}

/// A transactional producer that is thrown away after every failure: its
/// successor's `init_transactions` fences whatever request is still under way.
pub(super) struct Publisher {
    config: ClientConfig,
    topic_prefix: String,
    producer: Option<BaseProducer>,
}

impl Publisher {
    pub(super) fn new(kafka: &KafkaSettings, role: &str) -> Self {
        let mut config = kafka.client(role);
        config
            .set("transactional.id", kafka.transactional_id(role, 0))
            .set("transaction.timeout.ms", "15000")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "0");
        Self { config, topic_prefix: kafka.topic_prefix.clone(), producer: None }
    }

    /// Makes the producer if there is none; failing is told by the next publish.
    pub(super) fn prepare(&mut self) {
        if let Err(error) = self.producer() {
            tracing::warn!(%error, "no transactional producer yet");
        }
    }

    fn producer(&mut self) -> Result<&BaseProducer, KafkaError> {
        if self.producer.is_none() {
            let producer: BaseProducer = self.config.create()?;
            producer.init_transactions(INIT_TIMEOUT)?;
            self.producer = Some(producer);
        }
        Ok(self.producer.as_ref().expect("just made"))
    }

    pub(super) fn publish(
        &mut self,
        records: Vec<OutboundRecord>,
        offsets: &TopicPartitionList,
        metadata: &ConsumerGroupMetadata,
    ) -> Result<(), Failure> {
        let prefix = self.topic_prefix.clone();
        let began = Instant::now();
        let result = match self.producer() {
            Ok(producer) => transact(producer, &prefix, records, offsets, metadata),
            Err(error) => Err(Failure::Aborted(error.to_string())),
        };
        // After a slow end too: the request may have been sent twice (KAFKA-17754).
        if result.is_err() || began.elapsed() >= Duration::from_secs(1) {
            self.producer = None;
        }
        result
    }
}

fn transact(
    producer: &BaseProducer,
    prefix: &str,
    records: Vec<OutboundRecord>,
    offsets: &TopicPartitionList,
    metadata: &ConsumerGroupMetadata,
) -> Result<(), Failure> {
    let aborted = |error: KafkaError| {
        let _ = producer.abort_transaction(END_TIMEOUT);
        Failure::Aborted(error.to_string())
    };
    producer.begin_transaction().map_err(aborted)?;
    let deadline = Instant::now() + SEND_TIMEOUT;
    for record in records {
        send(producer, prefix, &record, deadline).map_err(aborted)?;
    }
    while producer.in_flight_count() > 0 {
        if Instant::now() > deadline {
            let _ = producer.abort_transaction(END_TIMEOUT);
            return Err(Failure::Aborted("the brokers did not take the records in time".to_owned()));
        }
        producer.poll(Duration::from_millis(5));
    }
    if offsets.count() > 0 {
        producer.send_offsets_to_transaction(offsets, metadata, END_TIMEOUT).map_err(aborted)?;
    }
    commit(producer)
}

fn send(
    producer: &BaseProducer,
    prefix: &str,
    record: &OutboundRecord,
    deadline: Instant,
) -> Result<(), KafkaError> {
    let topic = format!("{prefix}{}", record.topic.name);
    let headers = record.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let mut outbound = BaseRecord::<[u8], [u8]>::to(&topic).headers(headers);
    outbound.key = record.key.as_deref();
    outbound.payload = record.value.as_deref();
    loop {
        match producer.send(outbound) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                if Instant::now() < deadline =>
            {
                outbound = again;
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// A commit whose reply is lost is asked for again, never aborted.
fn commit(producer: &BaseProducer) -> Result<(), Failure> {
    let mut last = String::new();
    for _ in 0..COMMIT_TRIES {
        match producer.commit_transaction(END_TIMEOUT) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                let reason = error.to_string();
                return match producer.abort_transaction(END_TIMEOUT) {
                    Ok(()) => Err(Failure::Aborted(reason)),
                    Err(abort) => Err(Failure::Unknown(format!("{reason}; {abort}"))),
                };
            }
            Err(KafkaError::Transaction(error)) if error.is_retriable() => last = error.to_string(),
            Err(error) => return Err(Failure::Unknown(error.to_string())),
        }
    }
    Err(Failure::Unknown(last))
}
