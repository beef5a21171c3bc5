//! Tells people: decisions and outcomes become alerts, alerts are delivered to
//! webhooks.
//!
//! Two halves that know each other through Postgres only. The [intake] reads topics,
//! asks one pure function per loop ([incidents]) and queues alerts with the Kafka
//! position in one SQL transaction. Delivery works off the queue of each receiver by
//! itself: one that hangs delays nobody else, and no loop ever waits for any.

pub mod incidents;

mod address;
mod compliance;
mod delivery;
mod dial;
mod dial_statistics;
mod intake;
mod lag;
mod rollback;
mod route;
mod signature;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::SubscriptionError;
use crate::postgres::Database;
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "alerts",
    kind: Kind::Sink,
    description: "tells people by webhook, each receiver once and none waiting for another",
    reads: &[
        &topics::OUTCOMES,
        &topics::DIAL_DECISIONS,
        &topics::COMPLIANCE_WARNINGS,
        &topics::ROLLBACK_DECISIONS,
        &topics::LAG_EVALUATIONS,
        &topics::ROUTING_DECISIONS,
    ],
    writes: &[],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::POSTGRES, "webhooks"],
};

/// How alerts are taken in and delivered.
#[derive(Clone, Debug)]
pub struct Settings {
    pub receivers: Vec<Receiver>,
    /// Alerts about older events are kept and not sent any more: after a long absence
    /// nobody is to be woken for what is long past. Default 24 h.
    pub oldest: Duration,
    /// How long a receiver is tried before an alert goes to the dead letters. Default 7 days.
    pub give_up_after: Duration,
    /// Whether receivers may be on this machine or in private networks, and speak plain
    /// http. Default no.
    pub private_receivers: bool,
    /// Shortest and longest pause before something that failed in here is tried again.
    pub retry: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            receivers: Vec::new(),
            oldest: Duration::from_secs(86_400),
            give_up_after: Duration::from_secs(7 * 86_400),
            private_receivers: false,
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }
}

/// Where alerts go.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub name: String,
    pub url: SecretString,
    /// `whsec_` and the key in base64; messages are signed with each.
    pub secrets: Vec<SecretString>,
    /// Incident types it is told of; empty is all.
    pub incident_types: Vec<String>,
}

impl Receiver {
    fn wants(&self, incident_type: &str) -> bool {
        self.incident_types.is_empty() || self.incident_types.iter().any(|wanted| wanted == incident_type)
    }
}

/// A receiver that cannot be one.
#[derive(Clone, Debug, thiserror::Error)]
#[error("alerts.webhooks: receiver {name}: {problem}")]
pub struct ReceiverError {
    pub name: String,
    pub problem: String,
}

/// Why alerts cannot be taken in or delivered at all.
#[derive(Debug, thiserror::Error)]
pub enum AlertsError {
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// Looks whether a receiver could be told, without telling it anything.
///
/// # Errors
/// When it cannot be one, its name is not known or leads to an address that is not allowed, or
/// nobody listens there. Never says the URL.
pub async fn reach(receiver: &Receiver, private: bool) -> Result<(), ReceiverError> {
    let problem = |problem| ReceiverError { name: receiver.name.clone(), problem };
    webhook::Webhook::new(receiver, private)?.reach(private).await.map_err(problem)
}

/// Takes in and delivers until `shutdown`.
///
/// # Errors
/// When a receiver or the Kafka settings cannot be used; everything else is retried
/// and shown on `health`.
pub async fn run(
    settings: Settings,
    kafka: KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), AlertsError> {
    let mut halves = JoinSet::new();
    for receiver in &settings.receivers {
        let queue = delivery::Queue {
            name: receiver.name.clone(),
            webhook: Arc::new(webhook::Webhook::new(receiver, settings.private_receivers)?),
            database: database.clone(),
            part: health.part(&format!("alerts to {}", receiver.name)),
        };
        halves.spawn(queue.run(shutdown.clone()));
    }
    let prefix = kafka.topic_prefix.clone();
    halves.spawn(delivery::give_up(settings.clone(), database.clone(), prefix, shutdown.clone()));
    intake::run(&settings, &kafka, &database, health, &shutdown).await?;
    halves.join_all().await;
    Ok(())
}
