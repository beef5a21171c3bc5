//! Rolls flow versions back on the platform, one at a time over all flows and instances, by
//! the protocol of [`actuation`](super::actuation).
//!
//! An activation is for whatever is in force: whoever acts holds one lease for all flows, and
//! while one may be under way nothing else is sent. Cooldown, maintenance windows and versions
//! that were taken back before are asked in the statement that claims.

mod target;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::time::Duration;

use super::actuation::{
    Actuation, Attempt, COOLDOWN, Change, Declaration, End, Exclusivity, Found, MAINTENANCE_WINDOW, Point,
    Read, Refused,
};
use crate::genesys::{CallError, Client, PlatformVersion, Priority, Reply, Scope};
use crate::metrics;
use crate::model::decision::Action;
use crate::model::outcome::{Effect, Outcome, OutcomeStatus, SentRequest};
use crate::model::pause::PAUSED_BY;
use crate::model::rollback::{RollbackInputs, RollbackParameters, VersionChange};
use crate::postgres::Database;
use crate::postgres::intents::{FlowChange, FlowTerms};
use crate::role::{self, Kind, Role};
use crate::topics::{self, Topic};

pub use super::actuation::{ActuationError, Settings};

pub static ROLE: Role = Role {
    name: "rollback-actuator",
    kind: Kind::Sink,
    description: "rolls flow versions back, one at a time over all flows and instances",
    reads: &[&topics::ROLLBACK_DECISIONS],
    writes: &[&topics::OUTCOMES, &topics::ROLLBACK_REFUSALS],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM, role::POSTGRES],
};

/// Where flow versions are in force.
pub trait Platform: Send + Sync + 'static {
    /// The flow's versions as they are now.
    fn versions(
        &self,
        flow_id: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<Vec<PlatformVersion>, CallError>> + Send;

    /// Sends the activation of a version; one attempt at its effect.
    fn send(
        &self,
        request: &SentRequest,
        flow_id: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

impl Platform for Client {
    async fn versions(&self, flow_id: &str, scope: &Scope) -> Result<Vec<PlatformVersion>, CallError> {
        self.flow_versions(flow_id, scope).await
    }

    async fn send(&self, request: &SentRequest, flow_id: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.send_activation(request, flow_id, scope).await
    }
}

/// The version of a flow that is in force.
pub struct FlowVersionChange<P> {
    platform: P,
    lockout: Duration,
}

impl<P: Platform> FlowVersionChange<P> {
    /// A rollback locks its flow for `lockout`, from the event time of its decision on.
    pub fn new(platform: P, lockout: Duration) -> Self {
        Self { platform, lockout }
    }
}

/// Carries out rollback decisions.
pub type RollbackActuator = Actuation<FlowVersionChange<Client>, Database>;

impl<P: Platform> Change for FlowVersionChange<P> {
    type Inputs<'a> = RollbackInputs;
    type Parameters = RollbackParameters;
    type Plan = VersionChange;
    type Seen = Vec<PlatformVersion>;

    const DECLARATION: Declaration = Declaration {
        role: &ROLE,
        action: Action::Rollback,
        foreign_action: "not_a_rollback_action",
        missing: "flow_not_found",
        lease: "rollback-actuator",
        exclusivity: Exclusivity::Everything,
        conditional: false,
        reply_confirms: false,
        conflicting: Refused::Unfit,
        not_found: Refused::Unfit,
        outcomes: &metrics::ROLLBACK_OUTCOMES,
        attempts: &metrics::ROLLBACK_ATTEMPTS,
        read_backs: &metrics::ROLLBACK_READ_BACKS,
        in_flight: None,
    };

    async fn read(&self, key: &str, scope: &Scope) -> Result<Vec<PlatformVersion>, CallError> {
        self.platform.versions(key, scope).await
    }

    fn plan(
        &self,
        decision: &Read<'_, Self>,
        versions: &Vec<PlatformVersion>,
        unfit: &[VersionChange],
    ) -> Result<VersionChange, End> {
        let parameters = &decision.parameters;
        let in_force = target::in_force(versions, &parameters.flow_version).map_err(|problem| {
            let status = problem.status();
            End(status, problem.to_string())
        })?;
        let unfit: Vec<&str> = unfit.iter().map(|change| &*change.version).collect();
        let Some(target) = target::choose(versions, &parameters.candidates, in_force, &unfit) else {
            let reason = format!(
                "no_eligible_version: none of the decision's {} candidates is left",
                parameters.candidates.len()
            );
            return Err(End(OutcomeStatus::Failed, reason));
        };
        Ok(VersionChange {
            previous_version: in_force.to_owned(),
            version: target.to_owned(),
            error_rate: parameters.error_rate,
            threshold: parameters.threshold,
        })
    }

    fn request(
        &self,
        decision: &Read<'_, Self>,
        _: &Vec<PlatformVersion>,
        plan: &VersionChange,
    ) -> SentRequest {
        let description = format!(
            "rolled back from {} by trunkline: {:.1} % errors, {:.1} % are allowed; decision {}",
            plan.previous_version,
            plan.error_rate * 100.0,
            plan.threshold * 100.0,
            decision.decision_id
        );
        Client::prepare_activation(&decision.key, &plan.version, &description)
    }

    async fn send(&self, request: &SentRequest, key: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.platform.send(request, key, scope).await
    }

    fn compare(&self, attempt: &Attempt<VersionChange>, versions: &Vec<PlatformVersion>) -> Found {
        let VersionChange { previous_version, version, .. } = &attempt.plan;
        let active: Vec<&str> =
            versions.iter().filter(|version| version.is_active()).map(|version| &*version.id).collect();
        match active[..] {
            [] => Found::Untold,
            // While it changes over, both may be named.
            _ if active.contains(&&**previous_version) => Found::Former,
            _ if active.contains(&&**version) => Found::Ours,
            [other, ..] => {
                Found::Other(format!("{other} is in force, neither {previous_version} nor {version}"))
            }
        }
    }

    fn priority(&self, _: &Read<'_, Self>, _: Option<&VersionChange>) -> Priority {
        Priority::Rollback
    }

    fn flow_terms<'t>(&self, decision: &'t Read<'_, Self>, plan: &'t VersionChange) -> Option<FlowTerms<'t>> {
        Some(FlowTerms {
            flow_id: &decision.key,
            version: &plan.version,
            event_time: decision.event_time,
            lockout: self.lockout,
        })
    }

    fn remembered<'t>(
        &self,
        decision: &'t Read<'_, Self>,
        plan: &'t VersionChange,
    ) -> Option<FlowChange<'t>> {
        Some(FlowChange {
            flow_id: &decision.key,
            bad_version: &plan.previous_version,
            version: &plan.version,
            event_time: decision.event_time,
        })
    }

    fn tells_back(outcome: &Outcome) -> Option<&'static Topic> {
        let refused = match outcome.status {
            OutcomeStatus::Unchanged => matches!(outcome.code(), COOLDOWN | MAINTENANCE_WINDOW),
            // What a pause has stopped is to be decided again when it is over.
            OutcomeStatus::Shadowed => outcome.code().starts_with(PAUSED_BY),
            status => status == OutcomeStatus::Expired,
        };
        refused.then_some(&topics::ROLLBACK_REFUSALS)
    }

    fn effect(plan: VersionChange) -> Effect {
        Effect::FlowVersion(plan)
    }

    fn reached(point: Point) {
        match point {
            Point::Claimed => fail::fail_point!("rollback-after-claim", |_| std::process::abort()),
            Point::Called => fail::fail_point!("rollback-after-call", |_| std::process::abort()),
            Point::Settled => fail::fail_point!("rollback-after-settlement", |_| std::process::abort()),
            Point::Publishing => fail::fail_point!("rollback-before-publish", |_| std::process::abort()),
        }
    }
}
