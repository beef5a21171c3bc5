//! Every change outside by one protocol, each at most once.
//!
//! A kind of [`Change`] says what is read, what is decided again on it, what is sent, and how
//! to see that it is in force; all else is here and the same for every kind. Decisions come
//! from the change's topic, outcomes go to [`OUTCOMES`](crate::topics::OUTCOMES) in one
//! transaction with the offsets. In between every step that changes something outside is on
//! record before it is taken, under a lease (the states of one decision are drawn in
//! [`execution`]).

mod execution;
mod leases;
mod ledger;
mod queues;
#[cfg(test)]
pub(in crate::sinks) mod stand;
#[cfg(test)]
pub(in crate::sinks) mod tests;
mod waits;
mod worker;

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::genesys::{CallError, Priority, Reply, Scope};
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::metrics::Metric;
use crate::model::decision::{Action, Loop};
use crate::model::outcome::{Effect, Outcome, OutcomeStatus, SentRequest};
use crate::model::pause::{PauseInForce, Pauses};
use crate::postgres::intents::{FlowChange, FlowTerms};
use crate::role::Role;
use crate::runtime::decided;
use crate::topics::Topic;

use super::transacted;
use worker::Executor;

pub use crate::kafka::subscription::SubscriptionError as ActuationError;
pub use execution::{Attempt, Interrupted};
pub use ledger::{Ledger, LedgerError};

/// Codes of the reasons with which a claim refuses for a while.
pub const COOLDOWN: &str = "cooldown";
pub const MAINTENANCE_WINDOW: &str = "maintenance_window";
/// How the reason begins where a change by somebody else between two of ours is given way to.
pub const OTHER_WRITER: &str = "other_writer";

/// A decision of this kind as it was read.
pub type Read<'a, C> = decided::Read<'a, <C as Change>::Inputs<'a>, <C as Change>::Parameters>;

/// How much one lease covers, and with it what may happen beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusivity {
    /// One partition of decisions, held while the partition is ours. Keys go beside each
    /// other; of one key a newer decision supersedes those before it.
    Key,
    /// Everything of an organisation, held for one decision: one change at a time over all its keys
    /// and all instances. Decisions wait for their turn and do not supersede each other.
    Everything,
}

/// What is meant by an answer that this very request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// What was asked for cannot be had; something else may.
    Unfit,
    /// The decision ends with this status.
    Ends(OutcomeStatus),
}

/// What tells one kind of change from another without being asked.
#[derive(Debug)]
pub struct Declaration {
    pub role: &'static Role,
    /// The action that is carried out; others are none of ours, or change nothing.
    pub action: Action,
    /// Reason of a decision that asks for something else.
    pub foreign_action: &'static str,
    /// Reason where the object itself is not there.
    pub missing: &'static str,
    /// How the names of leases begin.
    pub lease: &'static str,
    pub exclusivity: Exclusivity,
    /// A 2xx says that the change is in force; otherwise it is read back until it is.
    pub reply_confirms: bool,
    /// After conflicts in a row.
    pub conflicting: Refused,
    /// After a 404 to the request.
    pub not_found: Refused,
    pub outcomes: &'static Metric,
    pub attempts: &'static Metric,
    pub read_backs: &'static Metric,
    pub in_flight: Option<&'static Metric>,
}

/// Points in an execution at which tests kill the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    Claimed,
    Called,
    Settled,
    Publishing,
}

/// The end of a decision, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct End(pub OutcomeStatus, pub String);

/// What is in force now, held against an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// What it asked for.
    Ours,
    /// What was in force before it.
    Former,
    /// The platform does not say.
    Untold,
    /// The platform took it up and gave it up: why. It will have no effect.
    Failed(String),
    /// Neither: what it is.
    Other(String),
}

/// One kind of change.
pub trait Change: Sized + Send + Sync + 'static {
    type Inputs<'a>: Deserialize<'a> + Send + Sync;
    type Parameters: DeserializeOwned + Send + Sync;
    /// What was in force and what is asked for, as it stands in intent and outcome.
    type Plan: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + Unpin;
    /// What the platform says of the object.
    type Seen: Send + Sync;

    const DECLARATION: Declaration;

    /// The object as it is now.
    fn read(&self, key: &str, scope: &Scope) -> impl Future<Output = Result<Self::Seen, CallError>> + Send;

    /// The decision taken again on what was just read, without what proved `unfit`.
    ///
    /// # Errors
    /// How the decision ends where nothing is to be sent.
    fn plan(
        &self,
        decision: &Read<'_, Self>,
        seen: &Self::Seen,
        unfit: &[Self::Plan],
    ) -> Result<Self::Plan, End>;

    /// Looks again at what was planned where that takes asking: who else has changed the object,
    /// between two changes of ours.
    ///
    /// # Errors
    /// As [`plan`](Self::plan).
    fn review(
        &self,
        decision: &Read<'_, Self>,
        seen: &Self::Seen,
        planned: Result<Self::Plan, End>,
        scope: &Scope,
    ) -> impl Future<Output = Result<Self::Plan, End>> + Send {
        let _ = (decision, seen, scope);
        std::future::ready(planned)
    }

    /// The further organisation that an object belongs to: one does not wait for another.
    fn organization(&self, key: &str) -> Option<&str> {
        let _ = key;
        None
    }

    /// Takes in how a decision ended here.
    fn settled(&self, outcome: &Outcome) {
        let _ = outcome;
    }

    /// The request that makes it so.
    fn request(&self, decision: &Read<'_, Self>, seen: &Self::Seen, plan: &Self::Plan) -> SentRequest;

    /// Sends it; one attempt at its effect.
    fn send(
        &self,
        request: &SentRequest,
        key: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;

    /// A conditional request names the state it is for and has no effect on any other. It may
    /// be sent again as it is while an earlier one may still be on its way: at most one of them
    /// has an effect. Any other request is followed by no second one until then.
    fn is_conditional(&self, request: &SentRequest) -> bool {
        let _ = request;
        false
    }

    /// What came of an attempt, by what was just read.
    fn compare(&self, attempt: &Attempt<Self::Plan>, seen: &Self::Seen) -> Found;

    /// How urgent calls for it are; `plan` where there is one already.
    fn priority(&self, decision: &Read<'_, Self>, plan: Option<&Self::Plan>) -> Priority;

    /// What the claim asks besides lease and expiry.
    fn flow_terms<'t>(&self, decision: &'t Read<'_, Self>, plan: &'t Self::Plan) -> Option<FlowTerms<'t>> {
        let _ = (decision, plan);
        None
    }

    /// What is remembered of it once it is confirmed.
    fn remembered<'t>(&self, decision: &'t Read<'_, Self>, plan: &'t Self::Plan) -> Option<FlowChange<'t>> {
        let _ = (decision, plan);
        None
    }

    /// The plan as it stands in the outcome.
    fn effect(plan: Self::Plan) -> Effect;

    /// Where else an outcome goes: to those who have to decide again.
    fn tells_back(outcome: &Outcome) -> Option<&'static Topic> {
        let _ = outcome;
        None
    }

    /// Says that an execution has come to this point.
    fn reached(point: Point);
}

/// How decisions are carried out, the same for every kind of change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Decisions read and not published yet, before reading pauses. Default 512.
    pub in_flight_limit: usize,
    /// Conflicts in a row until they are no coincidence any more. Default 5.
    pub conflicts_limit: u32,
    /// Intents of one decision until it ends `failed`. Default 20.
    pub attempts_limit: u32,
    /// How long after its claim a request may be sent: a process that was stopped for
    /// longer looks again first. Default 10 s.
    pub claim_lifetime: Duration,
    /// How long a request that was sent may take to its effect although nothing is heard of
    /// it: until then nothing is concluded from its having had none. Default 30 s, longer
    /// than the platform's own time limits.
    pub in_flight_time: Duration,
    /// How long one read-back may take after a decision's expiry. Default 20 s.
    pub settling_time: Duration,
    /// How long after its expiry it is tried to read an unknown effect back. Default 15 min.
    pub settling_limit: Duration,
    /// After how long a partition's lease that somebody else took is taken back, while Kafka
    /// still says that the partition is ours. Longer than a consumer session. Default 10 s.
    pub retake_after: Duration,
    /// After how long without renewal somebody else may take the lease over everything.
    /// Longer than `claim_lifetime` by at least a renewal, a fifth of it. Default 30 s.
    pub lease_idle: Duration,
    /// How often it is tried to get that lease. Default 500 ms.
    pub lease_poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight_limit: 512,
            conflicts_limit: 5,
            attempts_limit: 20,
            claim_lifetime: Duration::from_secs(10),
            in_flight_time: Duration::from_secs(30),
            settling_time: Duration::from_secs(20),
            settling_limit: Duration::from_secs(900),
            retake_after: Duration::from_secs(10),
            lease_idle: Duration::from_secs(30),
            lease_poll: Duration::from_millis(500),
        }
    }
}

/// Carries out the decisions of the partitions that the consumer group gives it.
pub struct Actuation<C, L> {
    kafka: KafkaSettings,
    settings: Settings,
    pub(in crate::sinks) change: C,
    ledger: L,
    pauses: watch::Receiver<Pauses>,
}

impl<C: Change, L: Ledger> Actuation<C, L> {
    pub fn new(kafka: KafkaSettings, settings: Settings, change: C, ledger: L) -> Self {
        // Without anybody who tells of pauses the claims find them.
        let (_, pauses) = watch::channel(Pauses::default());
        Self { kafka, settings, change, ledger, pauses }
    }

    /// Hears of pauses from `pauses`, also between a claim and its call.
    #[must_use]
    pub fn heeding(self, pauses: watch::Receiver<Pauses>) -> Self {
        Self { pauses, ..self }
    }

    /// The pause that stops this loop, as an outcome says it.
    fn pause_of(&self, of: Loop) -> Option<String> {
        self.pauses.borrow().stopping(of).map(PauseInForce::told)
    }

    /// Waits for a call; a pause that comes meanwhile withdraws what is not on its way yet.
    async fn unless_paused<T>(
        &self,
        of: Loop,
        withdrawn: &CancellationToken,
        call: impl Future<Output = T>,
    ) -> T {
        let mut pauses = self.pauses.clone();
        let paused = async {
            // Nobody tells any more: there is nothing to wait for.
            if pauses.wait_for(|pauses| pauses.stopping(of).is_some()).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(call, paused);
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            () = &mut paused => withdrawn.cancel(),
        }
        call.await
    }

    /// Works until `shutdown`, which ends every wait within 2 s; decisions whose outcomes
    /// are not published then are taken up by the next start. Registers the role and its
    /// `leases` with `health`.
    ///
    /// # Errors
    /// See [`ActuationError`]; a restart goes on from the committed offsets.
    pub async fn run(self, health: &Health, shutdown: CancellationToken) -> Result<(), ActuationError> {
        let role = C::DECLARATION.role;
        let (kafka, limit) = (self.kafka.clone(), self.settings.in_flight_limit);
        let lease_health = health.part(&format!("{}.leases", role.name));
        lease_health.ready();
        let actuation = Arc::new(self);
        let executor = || Executor::new(Arc::clone(&actuation), lease_health.clone());
        transacted::run(role, &kafka, limit, health, shutdown, executor).await
    }
}
