//! Tells people: decisions and outcomes become alerts, alerts are delivered to
//! webhooks.
//!
//! Two halves that know each other through Postgres only. The [intake] reads topics,
//! asks one pure function per loop ([incidents]) and queues alerts with the Kafka
//! position in one SQL transaction. Delivery works off the queue of each receiver by
//! itself: one that hangs delays nobody else, and no loop ever waits for any.

pub mod incidents;

mod dial;
mod intake;
mod lag;

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::postgres::Database;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::SubscriptionError;

/// Name of the role: `--stages`, consumer group, metrics.
pub const ROLE: &str = "alerts";

/// How alerts are taken in and delivered.
#[derive(Clone, Debug)]
pub struct Settings {
    pub receivers: Vec<Receiver>,
    /// Alerts about older events are kept and not sent any more: after a long absence
    /// nobody is to be woken for what is long past. Default 24 h.
    pub oldest: Duration,
    /// Shortest and longest pause before something that failed in here is tried again.
    pub retry: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            receivers: Vec::new(),
            oldest: Duration::from_secs(86_400),
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }
}

/// Where alerts go.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub name: String,
    /// Incident types it is told of; empty is all.
    pub incident_types: Vec<String>,
}

impl Receiver {
    fn wants(&self, incident_type: &str) -> bool {
        self.incident_types.is_empty() || self.incident_types.iter().any(|wanted| wanted == incident_type)
    }
}

/// Takes in and delivers until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown on
/// `health`.
pub async fn run(
    settings: Settings,
    kafka: KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    intake::run(&settings, &kafka, &database, health, &shutdown).await
}
