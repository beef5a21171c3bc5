//! Carries dial decisions out on the platform, each at most once.
//!
//! Decisions come from [`DIAL_DECISIONS`](crate::topics::DIAL_DECISIONS), outcomes go to
//! [`OUTCOMES`](crate::topics::OUTCOMES) in one transaction with the offsets. In between every
//! step that changes something outside is on record before it is taken, under a lease
//! of the decision's partition (`docs/architecture.md`; the paths of one decision
//! are in [`carry`]).

mod carry;
mod lanes;
mod leases;
mod member;
mod platform;
#[cfg(test)]
mod played;
mod publication;
mod tracker;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::genesys::Campaign;
use crate::health::Health;
use crate::model::Timestamp;
use crate::runtime::clock;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::SubscriptionError;
use crate::topics::DialDecision;

pub use platform::{Ledger, LedgerError, Platform};

/// What the rule says about a campaign as it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Redecision {
    /// Lines per idle agent.
    Set(f64),
    /// Nothing is to be changed, and why.
    Hold(String),
}

/// Decides again: the decision with all its recorded inputs, and the campaign as it was
/// just read. Must depend on nothing else.
pub type Redecide = Arc<dyn Fn(&DialDecision<'_, Vec<String>>, &Campaign) -> Redecision + Send + Sync>;

/// How decisions are carried out.
#[derive(Clone)]
pub struct Settings {
    /// The rule, to be asked again when the campaign was just read.
    pub redecide: Redecide,
    /// The time of day. Expiries are compared with it.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Decisions read and not published yet, before reading pauses. Default 512.
    pub in_flight_limit: usize,
    /// Conflicts in a row until a decision ends `conflicted`. Default 5.
    pub conflicts_limit: u32,
    /// Intents of one decision until it ends `failed`. Default 20.
    pub attempts_limit: u32,
    /// How long after its claim a request may be sent: a process that was stopped for
    /// longer looks again first. Default 10 s.
    pub claim_lifetime: Duration,
    /// How long one read-back may take after a decision's expiry. Default 20 s.
    pub settling_time: Duration,
    /// How long a request without a reply may still be on its way: until then nothing is
    /// concluded from its having had no effect yet. Default 5 s.
    pub in_flight_time: Duration,
    /// How long after its expiry it is tried to read an unknown effect back. Default 15 min.
    pub settling_limit: Duration,
    /// After how long a lease that somebody else took is taken back, while Kafka still
    /// says that the partition is ours. Longer than a consumer session. Default 10 s.
    pub retake_after: Duration,
}

impl Settings {
    /// The defaults with this rule.
    pub fn new(redecide: Redecide) -> Self {
        Self {
            redecide,
            clock: Arc::new(clock::now),
            in_flight_limit: 512,
            conflicts_limit: 5,
            attempts_limit: 20,
            claim_lifetime: Duration::from_secs(10),
            settling_time: Duration::from_secs(20),
            in_flight_time: Duration::from_secs(5),
            settling_limit: Duration::from_secs(900),
            retake_after: Duration::from_secs(10),
        }
    }
}

/// Why the actuator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ActuatorError {
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    #[error("an outcome cannot be published: {0}")]
    Unpublishable(String),
}

/// The role's name: consumer group, transactional id, leases, metrics.
pub const ROLE: &str = "actuator";

/// Carries out the decisions of the partitions that the consumer group gives it.
pub struct Actuator<P, L> {
    kafka: KafkaSettings,
    settings: Settings,
    platform: P,
    ledger: L,
}

impl<P: Platform, L: Ledger> Actuator<P, L> {
    pub fn new(kafka: KafkaSettings, settings: Settings, platform: P, ledger: L) -> Self {
        Self { kafka, settings, platform, ledger }
    }

    /// Works until `shutdown`, which ends every wait within 2 s; decisions whose outcomes
    /// are not published then are taken up by the next start. Registers `actuator` and
    /// `actuator.leases` with `health`.
    ///
    /// # Errors
    /// See [`ActuatorError`]; a restart goes on from the committed offsets.
    pub async fn run(self, health: &Health, shutdown: CancellationToken) -> Result<(), ActuatorError> {
        member::run(Arc::new(self), health, shutdown).await
    }

    fn now(&self) -> Timestamp {
        (self.settings.clock)()
    }
}
