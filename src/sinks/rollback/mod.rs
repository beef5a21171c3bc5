//! Carries rollbacks out on the platform: one at a time over all flows and instances.
//!
//! Decisions come from [`ROLLBACK_DECISIONS`](crate::topics::ROLLBACK_DECISIONS), outcomes go
//! to [`OUTCOMES`](crate::topics::OUTCOMES) in one transaction with the offsets. Whoever acts
//! holds one lease for all of them, renewed while it acts; the statement that records an
//! intent checks it (the paths of one decision are in [`carry`]).

mod carry;
mod lease;
mod member;
mod target;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::genesys::Client;
use crate::health::Health;
use crate::model::Timestamp;
use crate::postgres::Database;
use crate::runtime::clock;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::SubscriptionError;

/// The role's name: consumer group, transactional id, lease, metrics.
pub const ROLE: &str = "rollback-actuator";

/// How rollbacks are carried out.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time after a rollback of a flow without another one.
    pub cooldown: Duration,
    /// After how long without renewal somebody else may take the lease. Longer than a
    /// request can take from its claim to its effect. Default 30 s.
    pub lease_idle: Duration,
    /// How often it is tried to get the lease. Default 500 ms.
    pub lease_poll: Duration,
    /// How long after its claim a request may be sent, and how old the lease's renewal may
    /// be. Default 10 s.
    pub claim_lifetime: Duration,
    /// How long a request without a reply may still be on its way: until then nothing is
    /// concluded from its having had no effect yet. Default 5 s.
    pub in_flight_time: Duration,
    /// How long one read-back may take after a decision's expiry. Default 20 s.
    pub settling_time: Duration,
    /// How long after its expiry it is tried to read an effect back. Default 15 min.
    pub settling_limit: Duration,
    /// Intents of one decision until it ends `failed`. Default 20.
    pub attempts_limit: u32,
    /// The time of day. Expiries are compared with it.
    pub clock: fn() -> Timestamp,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cooldown: Duration::from_secs(900),
            lease_idle: Duration::from_secs(30),
            lease_poll: Duration::from_millis(500),
            claim_lifetime: Duration::from_secs(10),
            in_flight_time: Duration::from_secs(5),
            settling_time: Duration::from_secs(20),
            settling_limit: Duration::from_secs(900),
            attempts_limit: 20,
            clock: clock::now,
        }
    }
}

/// Why the actuator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error("an outcome cannot be published: {0}")]
    Unpublishable(String),
}

/// Carries out the rollback decisions of the partitions that the consumer group gives it.
pub struct RollbackActuator {
    kafka: KafkaSettings,
    settings: Settings,
    platform: Client,
    ledger: Database,
}

impl RollbackActuator {
    pub fn new(kafka: KafkaSettings, settings: Settings, platform: Client, ledger: Database) -> Self {
        Self { kafka, settings, platform, ledger }
    }

    /// Works until `shutdown`, which ends every wait within 2 s; decisions whose outcomes
    /// are not published then are taken up by the next start.
    ///
    /// # Errors
    /// See [`RollbackError`]; a restart goes on from the committed offsets.
    pub async fn run(self, health: &Health, shutdown: CancellationToken) -> Result<(), RollbackError> {
        member::run(Arc::new(self), health, shutdown).await
    }

    fn now(&self) -> Timestamp {
        (self.settings.clock)()
    }
}
