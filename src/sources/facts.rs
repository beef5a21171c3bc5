//! Writes facts to their topics: acknowledged by all replicas, never twice.

use std::time::Duration;

use tracing::Span;

use crate::clock;
use crate::kafka::producer::{IdempotentProducer, NotDelivered, Outgoing};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::{Header, KafkaError, OwnedHeaders};
use crate::model::decision::Position;
use crate::role::Role;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::telemetry;
use crate::topics::{self, Topic, headers};

/// How long a fact is offered to the brokers; a newer one has taken its place then.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// An idempotent producer of facts; clones share it.
#[derive(Clone)]
pub(super) struct FactProducer {
    kafka: KafkaSettings,
    role: &'static Role,
    producer: IdempotentProducer,
}

/// The fact is not known to be on its topic.
#[derive(Debug, thiserror::Error)]
pub(super) enum FactLost {
    #[error("{topic} did not take the record: {source}")]
    NotDelivered { topic: String, source: NotDelivered },
    #[error("{0}")]
    NoTopic(String),
}

impl FactProducer {
    /// # Errors
    /// When the settings are not accepted; brokers that do not answer are no error.
    pub(super) fn new(kafka: &KafkaSettings, role: &'static Role) -> Result<Self, KafkaError> {
        let preferences = [("linger.ms", "0"), ("compression.type", "lz4")];
        let producer = IdempotentProducer::new(kafka, role.name, DELIVERY_TIMEOUT, &preferences)?;
        Ok(Self { kafka: kafka.clone(), role, producer })
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// When it does not exist or no broker answers within 2 s.
    pub(super) async fn partitions(&self, topic: &'static Topic) -> Result<i32, FactLost> {
        let (producer, name) = (self.producer.clone(), self.kafka.topic(topic));
        let asked = tokio::task::spawn_blocking(move || producer.partitions(&name));
        asked.await.unwrap_or_else(|stopped| Err(stopped.to_string())).map_err(FactLost::NoTopic)
    }

    /// Writes one JSON value and waits until all replicas have it.
    ///
    /// # Errors
    /// When they did not take it within 30 s. It is then on the topic once or not at all.
    pub(super) async fn publish(
        &self,
        topic: &'static Topic,
        partition: i32,
        key: &str,
        value: &[u8],
        traceparent: &str,
    ) -> Result<(), FactLost> {
        self.publish_all(topic, [(partition, key, value.to_vec())], traceparent).await
    }

    /// Writes JSON values and waits until all replicas have all of them. One that the brokers
    /// refuse becomes a dead letter; those beside it may be there twice then.
    ///
    /// # Errors
    /// When they did not take one within 30 s. Each is then on the topic once or not at all.
    pub(super) async fn publish_all<'k>(
        &self,
        topic: &'static Topic,
        records: impl IntoIterator<Item = Fact<'k>>,
        traceparent: &str,
    ) -> Result<(), FactLost> {
        self.role.assert_sends(topic);
        let name = self.kafka.topic(topic);
        let header = |key, value| Header { key, value: Some(value) };
        let headers = OwnedHeaders::new()
            .insert(header(headers::CONTENT_TYPE, headers::CONTENT_TYPE_JSON))
            .insert(header(headers::SCHEMA, topic.schema_id()))
            .insert(header(headers::TRACEPARENT, traceparent));
        let records: Vec<Fact<'_>> = records.into_iter().collect();
        let not_delivered = |source| FactLost::NotDelivered { topic: name.clone(), source };
        // Halves of what is refused, until it is one.
        let mut parts = vec![&records[..]];
        while let Some(part) = parts.pop() {
            match self.send(&name, part, &headers).await {
                Err(error) if error.is_refusal() && part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
                Err(error) if error.is_refusal() => {
                    let why = error.to_string();
                    self.set_aside(&name, &part[0], &headers, why).await.map_err(not_delivered)?;
                }
                sent => sent.map_err(not_delivered)?,
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        topic: &str,
        facts: &[Fact<'_>],
        headers: &OwnedHeaders,
    ) -> Result<(), NotDelivered> {
        let batch = self.producer.batch();
        let sent = facts.iter().try_for_each(|(partition, key, value)| {
            batch.send(Outgoing {
                topic,
                partition: Some(*partition),
                key: Some(key.as_bytes()),
                value: Some(value),
                headers: headers.clone(),
            })
        });
        // Those before one that could not be queued are on their way.
        sent.and(batch.delivered().await)
    }

    /// A fact that the brokers refuse becomes a dead letter, without its contents where that is
    /// refused as well.
    async fn set_aside(
        &self,
        topic: &str,
        (partition, key, value): &Fact<'_>,
        headers: &OwnedHeaders,
        why: String,
    ) -> Result<(), NotDelivered> {
        self.role.assert_sends(&topics::DEAD_LETTERS);
        tracing::error!(role = self.role.name, topic, key, why, "the brokers refuse a fact; it is set aside");
        let position = Position { topic, partition: *partition, offset: NO_OFFSET };
        let reason = Reason::RefusedByBroker(why);
        let errors = ErrorHeaders::new(self.role.name, &reason, position, clock::now());
        let headers = errors
            .iter()
            .fold(headers.clone(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        let name = self.kafka.topic(&topics::DEAD_LETTERS);
        for (key, value) in [(Some(key.as_bytes()), Some(&value[..])), (None, None)] {
            let batch = self.producer.batch();
            let (topic, headers) = (&*name, headers.clone());
            let sent = batch.send(Outgoing { topic, partition: None, key, value, headers });
            match sent.and(batch.delivered().await) {
                Err(error) if error.is_refusal() && value.is_some() => {}
                ended => return ended,
            }
        }
        Ok(())
    }
}

/// Partition, key and value.
type Fact<'k> = (i32, &'k str, Vec<u8>);

/// What never came to its topic has no offset there.
const NO_OFFSET: i64 = -1;

/// For facts of the current span: its own trace, or where spans are not exported a new one.
pub(super) fn current_traceparent() -> String {
    telemetry::traceparent(&Span::current()).unwrap_or_else(telemetry::new_traceparent)
}
