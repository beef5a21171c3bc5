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
    Actuation, Attempt, COOLDOWN, Change, Declaration, End, Exclusivity, Found, MAINTENANCE_WINDOW,
    OTHER_WRITER, Point, Read, Refused,
};
use crate::genesys::{CallError, Changed, Client, Flow, Priority, Reply, Scope};
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
    description: "rolls flow versions back, one at a time over all flows of an organisation and all instances",
    reads: &[&topics::ROLLBACK_DECISIONS],
    writes: &[&topics::OUTCOMES, &topics::ROLLBACK_REFUSALS],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM, role::POSTGRES],
};

/// Where flow versions are in force.
pub trait Platform: Send + Sync + 'static {
    /// The flow as it is now.
    fn flow(&self, flow_id: &str, scope: &Scope) -> impl Future<Output = Result<Flow, CallError>> + Send;

    /// The request that puts a version in force.
    fn prepare(&self, flow_id: &str, version: &str, description: &str) -> SentRequest;

    /// Who but us has changed the flow last, where the platform tells.
    fn other_writer(&self, flow_id: &str, scope: &Scope) -> impl Future<Output = Option<String>> + Send;

    /// The further organisation that has the flow.
    fn organization(&self, flow_id: &str) -> Option<&str> {
        let _ = flow_id;
        None
    }

    /// Sends the activation of a version; one attempt at its effect.
    fn send(
        &self,
        request: &SentRequest,
        flow_id: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

impl Platform for Client {
    async fn flow(&self, flow_id: &str, scope: &Scope) -> Result<Flow, CallError> {
        Client::flow(self, flow_id, scope).await
    }

    fn prepare(&self, flow_id: &str, version: &str, description: &str) -> SentRequest {
        self.prepare_activation(flow_id, version, description)
    }

    async fn send(&self, request: &SentRequest, flow_id: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.send_activation(request, flow_id, scope).await
    }

    async fn other_writer(&self, flow_id: &str, scope: &Scope) -> Option<String> {
        self.last_writer(Changed::Flow, flow_id, scope).await
    }

    fn organization(&self, flow_id: &str) -> Option<&str> {
        self.organization_of(flow_id).name.as_deref()
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
    type Seen = Flow;

    const DECLARATION: Declaration = Declaration {
        role: &ROLE,
        action: Action::Rollback,
        foreign_action: "not_a_rollback_action",
        missing: "flow_not_found",
        lease: "rollback-actuator",
        exclusivity: Exclusivity::Everything,
        reply_confirms: false,
        conflicting: Refused::Unfit,
        not_found: Refused::Unfit,
        outcomes: &metrics::ROLLBACK_OUTCOMES,
        attempts: &metrics::ROLLBACK_ATTEMPTS,
        read_backs: &metrics::ROLLBACK_READ_BACKS,
        in_flight: None,
    };

    async fn read(&self, key: &str, scope: &Scope) -> Result<Flow, CallError> {
        self.platform.flow(key, scope).await
    }

    fn plan(
        &self,
        decision: &Read<'_, Self>,
        flow: &Flow,
        unfit: &[VersionChange],
    ) -> Result<VersionChange, End> {
        let parameters = &decision.parameters;
        let versions = &flow.versions;
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
        if let Some(who) = &flow.locked_by {
            let reason =
                format!("flow_locked: by {who}; nothing was sent: unlock it, or publish {target} there");
            return Err(End(OutcomeStatus::Failed, reason));
        }
        Ok(VersionChange {
            previous_version: in_force.to_owned(),
            version: target.to_owned(),
            error_rate: parameters.error_rate,
            threshold: parameters.threshold,
        })
    }

    /// Where another version is in force than the one decided about, somebody else has published
    /// it: that is respected, and told whose it is.
    async fn review(
        &self,
        decision: &Read<'_, Self>,
        _: &Flow,
        planned: Result<VersionChange, End>,
        scope: &Scope,
    ) -> Result<VersionChange, End> {
        let Err(End(OutcomeStatus::Unchanged, reason)) = planned else { return planned };
        let who = self.platform.other_writer(&decision.key, scope).await;
        let who = who.map(|who| format!(" ({OTHER_WRITER}: {who})")).unwrap_or_default();
        Err(End(OutcomeStatus::Unchanged, format!("{reason}{who}")))
    }

    fn organization(&self, key: &str) -> Option<&str> {
        self.platform.organization(key)
    }

    fn request(&self, decision: &Read<'_, Self>, _: &Flow, plan: &VersionChange) -> SentRequest {
        let description = format!(
            "rolled back from {} by trunkline: {:.1} % errors, {:.1} % are allowed; decision {}",
            plan.previous_version,
            plan.error_rate * 100.0,
            plan.threshold * 100.0,
            decision.decision_id
        );
        self.platform.prepare(&decision.key, &plan.version, &description)
    }

    async fn send(&self, request: &SentRequest, key: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.platform.send(request, key, scope).await
    }

    fn compare(&self, attempt: &Attempt<VersionChange>, flow: &Flow) -> Found {
        let VersionChange { previous_version, version, .. } = &attempt.plan;
        // Only of what the platform said it began for us is it known that it is ours.
        let begun = flow.operation.as_ref().filter(|it| attempt.operation.as_ref() == Some(&it.id));
        let active: Vec<&str> =
            flow.versions.iter().filter(|version| version.is_active()).map(|version| &*version.id).collect();
        match active[..] {
            _ if active.contains(&&**version) && !active.contains(&&**previous_version) => Found::Ours,
            _ if begun.is_some_and(|it| it.failure.is_some()) => {
                Found::Failed(begun.and_then(|it| it.failure.clone()).unwrap_or_default())
            }
            [] => Found::Untold,
            // While it changes over, both may be named.
            _ if active.contains(&&**previous_version) => Found::Former,
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
