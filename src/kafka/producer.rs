//! Writes records without a transaction: acknowledged by all replicas, each there once or not
//! at all. Waits for many records by one counter instead of one waiter per record.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use tokio::sync::Notify;

use super::settings::KafkaSettings;
use super::transaction::is_refusal;

const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
/// Reports are told at once. `poll` spins for the last millisecond of its time, so that a producer costs
/// .1 % of a core where this is a second; one that nobody has any more lives on for so long.
const POLL: Duration = Duration::from_secs(5);

/// An idempotent producer, replaced when it breaks; clones share it.
#[derive(Clone)]
pub struct IdempotentProducer {
    config: ClientConfig,
    brokers: String,
    current: Arc<Mutex<Arc<BaseProducer<Counting>>>>,
}

/// A client whose delivery reports are taken by a thread of its own, until nobody else has it.
fn polled(config: &ClientConfig) -> Result<Arc<BaseProducer<Counting>>, KafkaError> {
    let client = Arc::new(config.create_with_context::<_, BaseProducer<_>>(Counting)?);
    let held = Arc::downgrade(&client);
    thread::Builder::new()
        .name("delivery-reports".to_owned())
        .spawn(move || {
            while let Some(client) = held.upgrade() {
                client.poll(POLL);
            }
        })
        .expect("the system can start a thread");
    Ok(client)
}

/// One record; `topic` by its full name.
pub struct Outgoing<'r> {
    pub topic: &'r str,
    /// `None` chooses by the key, where clients in other languages put the same.
    pub partition: Option<i32>,
    pub key: Option<&'r [u8]>,
    pub value: Option<&'r [u8]>,
    pub headers: OwnedHeaders,
}

/// Counts each delivery report down on its batch's counter.
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

/// What the records of one batch are waiting for.
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

impl NotDelivered {
    /// A record is refused for what it is, and will be again.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { source, .. } if is_refusal(source))
    }
}

impl IdempotentProducer {
    /// Records are offered to the brokers for `delivery_timeout`. `preferences` are librdkafka
    /// properties that the operator's win over.
    ///
    /// # Errors
    /// When the settings are not accepted; brokers that do not answer are no error.
    pub fn new(
        kafka: &KafkaSettings,
        role: &str,
        delivery_timeout: Duration,
        preferences: &[(&str, &str)],
    ) -> Result<Self, KafkaError> {
        let mut config = kafka.client(role);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", delivery_timeout.as_millis().to_string())
            .set("partitioner", "murmur2_random");
        kafka.prefer(&mut config, preferences);
        let current = Arc::new(Mutex::new(polled(&config)?));
        Ok(Self { config, brokers: kafka.brokers.clone(), current })
    }

    /// Begins records that are waited for together.
    pub fn batch(&self) -> Batch<'_> {
        let deliveries =
            Deliveries { missing: AtomicUsize::new(1), failure: OnceLock::new(), all_told: Notify::new() };
        Batch { of: self, producer: self.current().clone(), deliveries: Arc::new(deliveries) }
    }

    /// How many partitions a topic has, by its full name. Blocks for 2 s at most.
    ///
    /// # Errors
    /// What is wrong, for people: it does not exist, or no broker answers.
    pub fn partitions(&self, topic: &str) -> Result<i32, String> {
        let producer = self.current().clone();
        let metadata = producer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT);
        let metadata =
            metadata.map_err(|error| format!("the brokers ({}) do not answer: {error}", self.brokers))?;
        match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
            0 => Err(format!("{topic} does not exist; `trunkline topics apply` creates it")),
            count => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        }
    }

    /// A producer with a fatal error never sends again.
    fn replace_if_broken(&self, used: &Arc<BaseProducer<Counting>>) {
        let Some((code, reason)) = used.client().fatal_error() else { return };
        let mut current = self.current();
        if !Arc::ptr_eq(&current, used) {
            return;
        }
        tracing::warn!(%code, reason, "the producer is broken for good: making another one");
        match polled(&self.config) {
            Ok(producer) => *current = producer,
            Err(error) => tracing::error!(%error, "no other producer can be made"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<BaseProducer<Counting>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records on their way together.
pub struct Batch<'p> {
    of: &'p IdempotentProducer,
    producer: Arc<BaseProducer<Counting>>,
    deliveries: Arc<Deliveries>,
}

impl Batch<'_> {
    /// Queues one record.
    ///
    /// # Errors
    /// When it cannot be queued. Those before it are on their way.
    pub fn send(&self, outgoing: Outgoing<'_>) -> Result<(), NotDelivered> {
        self.deliveries.missing.fetch_add(1, Ordering::AcqRel);
        let mut record: BaseRecord<'_, [u8], [u8], Arc<Deliveries>> =
            BaseRecord::with_opaque_to(outgoing.topic, self.deliveries.clone()).headers(outgoing.headers);
        if let Some(partition) = outgoing.partition {
            record = record.partition(partition);
        }
        if let Some(key) = outgoing.key {
            record = record.key(key);
        }
        if let Some(value) = outgoing.value {
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
