//! Writes the events of a request to their topics and waits for all of them at once: one
//! counter per request instead of one waiter per record.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use crate::kafka::settings::KafkaSettings;

const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Records and bytes the producer holds at most.
const MAX_QUEUED_RECORDS: &str = "200000";
const MAX_QUEUED_KBYTES: &str = "131072";

/// An idempotent producer, replaced when it breaks.
pub struct EventProducer {
    config: ClientConfig,
    brokers: String,
    current: Mutex<Arc<ThreadedProducer<Counting>>>,
}

/// Counts each delivery report down on its request's counter.
struct Counting;

impl ClientContext for Counting {}

impl ProducerContext for Counting {
    type DeliveryOpaque = Arc<Deliveries>;

    fn delivery(&self, result: &DeliveryResult<'_>, deliveries: Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            deliveries.failure.get_or_init(|| error.clone());
        }
        deliveries.one_less();
    }
}

/// What the records of one request are waiting for.
struct Deliveries {
    missing: AtomicUsize,
    failure: OnceLock<KafkaError>,
    all_told: Notify,
}

impl Deliveries {
    fn one_less(&self) {
        if self.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_told.notify_one();
        }
    }
}

/// Why records are not known to be on their topics.
#[derive(Debug, thiserror::Error)]
pub enum NotDelivered {
    /// The producer holds as much as it may.
    #[error("the producer's queue is full")]
    QueueFull,
    #[error("the brokers ({brokers}) did not take all records: {source}")]
    Refused { brokers: String, source: KafkaError },
}

impl EventProducer {
    /// Records are offered to the brokers for `delivery_timeout`.
    ///
    /// # Errors
    /// When the settings are not accepted; brokers that do not answer are no error.
    pub fn new(kafka: &KafkaSettings, role: &str, delivery_timeout: Duration) -> Result<Self, KafkaError> {
        let mut config = kafka.client(role);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", delivery_timeout.as_millis().to_string())
            // Where clients in other languages put the same keys.
            .set("partitioner", "murmur2_random");
        let preferences = [
            ("linger.ms", "2"),
            ("compression.type", "lz4"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.messages", MAX_QUEUED_RECORDS),
            ("queue.buffering.max.kbytes", MAX_QUEUED_KBYTES),
        ];
        kafka.prefer(&mut config, &preferences);
        let current = Mutex::new(Arc::new(config.create_with_context(Counting)?));
        Ok(Self { config, brokers: kafka.brokers.clone(), current })
    }

    /// Begins the records of one request.
    pub fn batch(&self) -> Batch<'_> {
        let deliveries =
            Deliveries { missing: AtomicUsize::new(1), failure: OnceLock::new(), all_told: Notify::new() };
        Batch { of: self, producer: self.current().clone(), deliveries: Arc::new(deliveries) }
    }

    /// Whether the brokers answer and know these topics, by their full names.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn probe(&self, topics: &[String]) -> Result<(), String> {
        let producer = self.current().clone();
        for name in topics {
            let metadata = producer.client().fetch_metadata(Some(name), METADATA_TIMEOUT);
            let metadata =
                metadata.map_err(|error| format!("the brokers ({}) do not answer: {error}", self.brokers))?;
            if metadata.topics().first().is_none_or(|topic| topic.partitions().is_empty()) {
                return Err(format!("{name} does not exist; `trunkline topics apply` creates it"));
            }
        }
        Ok(())
    }

    /// A producer with a fatal error never sends again.
    fn replace_if_broken(&self, used: &Arc<ThreadedProducer<Counting>>) {
        let Some((code, reason)) = used.client().fatal_error() else { return };
        let mut current = self.current();
        if !Arc::ptr_eq(&current, used) {
            return;
        }
        tracing::warn!(%code, reason, "the producer is broken for good: making another one");
        match self.config.create_with_context(Counting) {
            Ok(producer) => *current = Arc::new(producer),
            Err(error) => tracing::error!(%error, "no other producer can be made"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<ThreadedProducer<Counting>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The records of one request on their way.
pub struct Batch<'p> {
    of: &'p EventProducer,
    producer: Arc<ThreadedProducer<Counting>>,
    deliveries: Arc<Deliveries>,
}

impl Batch<'_> {
    /// Queues one record; `topic` by its full name.
    ///
    /// # Errors
    /// When it cannot be queued. Those before it are on their way.
    pub fn send(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: OwnedHeaders,
    ) -> Result<(), NotDelivered> {
        self.deliveries.missing.fetch_add(1, Ordering::AcqRel);
        let mut record: BaseRecord<'_, [u8], [u8], Arc<Deliveries>> =
            BaseRecord::with_opaque_to(topic, self.deliveries.clone()).headers(headers);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = value {
            record = record.payload(value);
        }
        self.producer.send(record).map_err(|(error, _)| {
            self.deliveries.one_less();
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => NotDelivered::QueueFull,
                _ => self.refused(error),
            }
        })
    }

    /// Waits until all replicas have every record.
    ///
    /// # Errors
    /// When they did not take one of them in time; others may be there.
    pub async fn delivered(self) -> Result<(), NotDelivered> {
        self.deliveries.one_less();
        while self.deliveries.missing.load(Ordering::Acquire) > 0 {
            self.deliveries.all_told.notified().await;
        }
        match self.deliveries.failure.get() {
            None => Ok(()),
            Some(error) => Err(self.refused(error.clone())),
        }
    }

    fn refused(&self, source: KafkaError) -> NotDelivered {
        self.of.replace_if_broken(&self.producer);
        NotDelivered::Refused { brokers: self.of.brokers.clone(), source }
    }
}
