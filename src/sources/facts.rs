//! Writes facts to their topics: acknowledged by all replicas, never twice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::kafka::settings::KafkaSettings;
use crate::role::Role;
use crate::topics::{Topic, headers};

/// How long a fact is offered to the brokers; a newer one has taken its place then.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// An idempotent producer; clones share it.
#[derive(Clone)]
pub struct FactProducer {
    kafka: KafkaSettings,
    role: &'static Role,
    config: ClientConfig,
    current: Arc<Mutex<Arc<ThreadedProducer<Deliveries>>>>,
}

/// Hands each delivery report to whoever waits for it.
struct Deliveries;

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<oneshot::Sender<Result<(), KafkaError>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let result = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        // Nobody waits any more: shutdown.
        let _ = waiting.send(result);
    }
}

/// The fact is not known to be on its topic.
#[derive(Debug, thiserror::Error)]
#[error("{topic} did not take the record: {problem}; check the brokers ({brokers})")]
pub struct NotDelivered {
    topic: String,
    brokers: String,
    problem: String,
}

impl FactProducer {
    /// # Errors
    /// When the settings are not accepted; brokers that do not answer are no error.
    pub fn new(kafka: &KafkaSettings, role: &'static Role) -> Result<Self, KafkaError> {
        let mut config = kafka.client(role.name);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            .set("linger.ms", "0")
            .set("compression.type", "lz4");
        let current = Arc::new(Mutex::new(Arc::new(make(&config)?)));
        Ok(Self { kafka: kafka.clone(), role, config, current })
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// When it does not exist or no broker answers within 2 s.
    pub async fn partitions(&self, topic: &'static Topic) -> Result<i32, NotDelivered> {
        let name = self.kafka.topic(topic);
        let producer = self.current().clone();
        let asked = tokio::task::spawn_blocking(move || {
            let metadata = producer.client().fetch_metadata(Some(&name), METADATA_TIMEOUT)?;
            let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            Ok::<_, KafkaError>(count)
        });
        let problem = match asked.await {
            Ok(Ok(count)) if count > 0 => return Ok(i32::try_from(count).unwrap_or(i32::MAX)),
            Ok(Ok(_)) => "the topic does not exist; `trunkline topics apply` creates it".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(stopped) => stopped.to_string(),
        };
        Err(self.not_delivered(topic, problem))
    }

    /// Writes one JSON value and waits until all replicas have it.
    ///
    /// # Errors
    /// When they did not take it within 30 s. It is then on the topic once or not at all.
    pub async fn publish(
        &self,
        topic: &'static Topic,
        partition: i32,
        key: &str,
        value: &[u8],
        traceparent: &str,
    ) -> Result<(), NotDelivered> {
        self.publish_all(topic, [(partition, key, value.to_vec())], traceparent).await
    }

    /// Writes JSON values and waits until all replicas have all of them.
    ///
    /// # Errors
    /// When they did not take one within 30 s. Each is then on the topic once or not at all.
    pub async fn publish_all<'k>(
        &self,
        topic: &'static Topic,
        records: impl IntoIterator<Item = (i32, &'k str, Vec<u8>)>,
        traceparent: &str,
    ) -> Result<(), NotDelivered> {
        self.role.assert_sends(topic);
        let name = self.kafka.topic(topic);
        let producer = self.current().clone();
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header(headers::CONTENT_TYPE, headers::CONTENT_TYPE_JSON))
            .insert(header(headers::SCHEMA, topic.schema_id()))
            .insert(header(headers::TRACEPARENT, traceparent));
        let mut waiting = Vec::new();
        let mut result = Ok(());
        for (partition, key, value) in records {
            let (reply, delivered) = oneshot::channel();
            let record = BaseRecord::with_opaque_to(&name, Box::new(reply))
                .partition(partition)
                .key(key)
                .payload(&value)
                .headers(headers.clone());
            match producer.send(record) {
                Ok(()) => waiting.push(delivered),
                Err((error, _)) => {
                    result = Err(error);
                    break;
                }
            }
        }
        for delivered in waiting {
            result = result.and(delivered.await.unwrap_or(Err(KafkaError::Canceled)));
        }
        result.map_err(|error| {
            self.replace_if_broken(&producer);
            self.not_delivered(topic, error.to_string())
        })
    }

    /// A producer with a fatal error never sends again.
    fn replace_if_broken(&self, used: &Arc<ThreadedProducer<Deliveries>>) {
        let Some((code, reason)) = used.client().fatal_error() else {
            return;
        };
        let mut current = self.current();
        if !Arc::ptr_eq(&current, used) {
            return;
        }
        tracing::warn!(%code, reason, "the producer is broken for good: making another one");
        match make(&self.config) {
            Ok(producer) => *current = Arc::new(producer),
            Err(error) => tracing::error!(%error, "no other producer can be made"),
        }
    }

    fn current(&self) -> MutexGuard<'_, Arc<ThreadedProducer<Deliveries>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn not_delivered(&self, topic: &Topic, problem: String) -> NotDelivered {
        NotDelivered { topic: self.kafka.topic(topic), brokers: self.kafka.brokers.clone(), problem }
    }
}

fn make(config: &ClientConfig) -> Result<ThreadedProducer<Deliveries>, KafkaError> {
    config.create_with_context(Deliveries)
}

/// A new trace, as W3C Trace Context spells it.
pub fn new_traceparent() -> String {
    use rand::RngExt as _;
    // Zero is not allowed for either.
    let mut random = rand::rng();
    let trace: u128 = random.random_range(1..=u128::MAX);
    let span: u64 = random.random_range(1..=u64::MAX);
    format!("00-{trace:032x}-{span:016x}-01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_spelled_as_the_standard_says() {
        let text = new_traceparent();
        let parts: Vec<_> = text.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{text}");
        assert!(text.chars().all(|c| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c)), "{text}");
        assert_ne!(text, new_traceparent());
    }
}
