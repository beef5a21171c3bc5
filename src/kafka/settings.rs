//! How clients reach the brokers, and under which names.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use secrecy::{ExposeSecret, SecretString};

use crate::topics::Topic;

/// What every client of ours is made from.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// Comma-separated `host:port`.
    pub brokers: String,
    /// Stands before every topic, consumer group and transactional id.
    pub topic_prefix: String,
    /// Tells instances apart on one host and over restarts: transactional ids are
    /// made from it, so that a restarted instance frees what it left open.
    pub instance: String,
    /// librdkafka properties as the operator gave them; they win over ours,
    /// except where exactly-once depends on ours.
    pub properties: BTreeMap<String, SecretString>,
}

/// How soon a consumer whose read-ahead was full looks whether it fetches again. By default it is a
/// second, in which whoever reads quicker than that has nothing to do.
pub const QUEUE_LOOK: (&str, &str) = ("fetch.queue.backoff.ms", "5");

impl KafkaSettings {
    /// The topic's name on the brokers.
    pub fn topic(&self, topic: &Topic) -> String {
        format!("{}{}", self.topic_prefix, topic.name)
    }

    /// The consumer group of a role: `{prefix}trunkline-{role}`.
    pub fn group(&self, role: &str) -> String {
        format!("{}trunkline-{role}", self.topic_prefix)
    }

    /// Stable over restarts of the same instance, unique over instances.
    pub fn transactional_id(&self, role: &str, worker: usize) -> String {
        format!("{}trunkline-{role}-{}-{worker}", self.topic_prefix, self.instance)
    }

    /// Sets what the operator has not set: preferences of ours, on which nothing depends.
    pub fn prefer(&self, config: &mut ClientConfig, preferences: &[(&str, &str)]) {
        for (name, value) in preferences.iter().filter(|(name, _)| !self.properties.contains_key(*name)) {
            config.set(*name, *value);
        }
    }

    /// For a consumer that is given its partitions and positions, reads what is committed and is
    /// told of ends. It names a group because the client wants one, and never joins it.
    pub fn reader(&self, role: &str) -> ClientConfig {
        let mut config = self.client(role);
        config
            .set("group.id", self.group(role))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true");
        self.prefer(&mut config, &[QUEUE_LOOK]);
        config
    }

    /// Common to all clients; roles add theirs with [`ClientConfig::set`].
    pub fn client(&self, role: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", format!("trunkline-{role}-{}", self.instance))
            // Reconnects within a second or so instead of ten.
            .set("reconnect.backoff.max.ms", "1000")
            // From 115 ms to 3 ms for the offsets of a transaction.
            .set("retry.backoff.ms", "10")
            .set("socket.nagle.disable", "true")
            // Metrics that brokers may ask for (KIP-714) take .3 MB of each client, asked or not.
            .set("enable.metrics.push", "false");
        for (name, value) in &self.properties {
            config.set(name, value.expose_secret());
        }
        config
    }
}

/// Longest wait for an answer to one question; a shutdown may wait for it.
const LONGEST_ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How long the next question waits for its answer after one that waited so long in vain:
/// brokers on a loaded host answer late, and asked anew they answer no sooner.
pub(crate) fn longer(wait: Duration) -> Duration {
    (wait * 2).min(LONGEST_ANSWER_WAIT)
}

/// Whether brokers did not answer in time, which asking again for longer may help: the same client goes on
/// with connecting, one made anew would begin at the first handshake.
pub(crate) fn is_slow(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{BrokerTransportFailure, OperationTimedOut, RequestTimedOut};
    // The second is what librdkafka says when no connection was made in the time given.
    let slow = [OperationTimedOut, BrokerTransportFailure, RequestTimedOut];
    error.rdkafka_error_code().is_some_and(|code| slow.contains(&code))
}
