//! Publishes what a canary has proven, by the protocol of [`actuation`](super::actuation): the
//! version of the control that has the candidate's content.
//!
//! It shares the lease of rollbacks: while one of both may be under way nothing else is sent. What it
//! puts in force is a publish like any other to the rollback loop, which is armed for it.

use super::actuation::{
    Actuation, Attempt, Change, Declaration, End, Exclusivity, Found, Point, Read, Refused,
};
use crate::genesys::{CallError, Client, Flow, PlatformVersion, Priority, Reply, Scope};
use crate::metrics;
use crate::model::decision::Action;
use crate::model::delivery::{DeliveryInputs, DeliveryParameters, Publication};
use crate::model::outcome::{Effect, OutcomeStatus, SentRequest};
use crate::postgres::Database;
use crate::role::{self, Kind, Role};
use crate::topics;

pub static ROLE: Role = Role {
    name: "promotion-actuator",
    kind: Kind::Sink,
    description: "publishes flows that a canary has proven, one at a time over all flows and instances",
    reads: &[&topics::PROMOTIONS],
    writes: &[&topics::OUTCOMES],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM, role::POSTGRES],
};

/// The version of a flow that is published.
pub struct FlowPublication(pub Client);

/// Carries out promotions.
pub type PromotionActuator = Actuation<FlowPublication, Database>;

impl Change for FlowPublication {
    type Inputs<'a> = DeliveryInputs;
    type Parameters = DeliveryParameters;
    type Plan = Publication;
    type Seen = Flow;

    const DECLARATION: Declaration = Declaration {
        role: &ROLE,
        action: Action::Promote,
        foreign_action: "not_a_promotion",
        missing: "flow_not_found",
        lease: "rollback-actuator",
        exclusivity: Exclusivity::Everything,
        reply_confirms: false,
        conflicting: Refused::Ends(OutcomeStatus::Conflicted),
        not_found: Refused::Ends(OutcomeStatus::Failed),
        outcomes: &metrics::PROMOTION_OUTCOMES,
        attempts: &metrics::PROMOTION_ATTEMPTS,
        read_backs: &metrics::PROMOTION_READ_BACKS,
        in_flight: None,
    };

    async fn read(&self, key: &str, scope: &Scope) -> Result<Flow, CallError> {
        self.0.flow(key, scope).await
    }

    fn plan(&self, decision: &Read<'_, Self>, flow: &Flow, _: &[Publication]) -> Result<Publication, End> {
        let planned = plan(&flow.versions, decision.parameters.version.as_deref())?;
        match &flow.locked_by {
            None => Ok(planned),
            Some(who) => {
                let version = planned.version;
                let reason = format!("flow_locked: by {who}; unlock it, or publish {version} there");
                Err(End(OutcomeStatus::Failed, reason))
            }
        }
    }

    fn organization(&self, key: &str) -> Option<&str> {
        self.0.organization_of(key).name.as_deref()
    }

    fn request(&self, decision: &Read<'_, Self>, _: &Flow, plan: &Publication) -> SentRequest {
        let DeliveryParameters { canary_id, .. } = &decision.parameters;
        let description = format!("proven by {canary_id} of trunkline; decision {}", decision.decision_id);
        self.0.prepare_activation(&decision.key, &plan.version, &description)
    }

    async fn send(&self, request: &SentRequest, key: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.0.send_activation(request, key, scope).await
    }

    fn compare(&self, attempt: &Attempt<Publication>, flow: &Flow) -> Found {
        let Publication { previous_version, version } = &attempt.plan;
        let begun = flow.operation.as_ref().filter(|it| attempt.operation.as_ref() == Some(&it.id));
        let active: Vec<&str> =
            flow.versions.iter().filter(|version| version.is_active()).map(|version| &*version.id).collect();
        let is_former = |id: &&str| previous_version.as_deref() == Some(*id);
        match active[..] {
            _ if active.contains(&&**version) && !active.iter().any(is_former) => Found::Ours,
            _ if begun.is_some_and(|it| it.failure.is_some()) => {
                Found::Failed(begun.and_then(|it| it.failure.clone()).unwrap_or_default())
            }
            [] if previous_version.is_none() => Found::Former,
            [] => Found::Untold,
            _ if active.iter().any(is_former) => Found::Former,
            [other, ..] => Found::Other(format!("{other} is in force, not {version}")),
        }
    }

    /// As urgent as taking a version back: people wait for it.
    fn priority(&self, _: &Read<'_, Self>, _: Option<&Publication>) -> Priority {
        Priority::Rollback
    }

    fn effect(plan: Publication) -> Effect {
        Effect::Published(plan)
    }

    fn reached(point: Point) {
        match point {
            Point::Claimed => fail::fail_point!("promotion-after-claim", |_| std::process::abort()),
            Point::Called => fail::fail_point!("promotion-after-call", |_| std::process::abort()),
            Point::Settled => fail::fail_point!("promotion-after-settlement", |_| std::process::abort()),
            Point::Publishing => fail::fail_point!("promotion-before-publish", |_| std::process::abort()),
        }
    }
}

/// The version that is named, or the newest that was never in force.
fn plan(versions: &[PlatformVersion], named: Option<&str>) -> Result<Publication, End> {
    let active = versions.iter().rev().find(|version| version.is_active()).map(|version| &*version.id);
    let was_never_in_force = |version: &&PlatformVersion| {
        !version.is_active() && !version.is_published() && version.published_at.is_none()
    };
    let number = |version: &&PlatformVersion| version.id.parse::<f64>().unwrap_or(f64::NEG_INFINITY);
    let version = match named {
        Some(named) if Some(named) == active => {
            return Err(End(OutcomeStatus::Unchanged, format!("already_in_force: version {named}")));
        }
        Some(named) => {
            versions.iter().find(|version| version.id == named).map(|version| &*version.id).ok_or_else(
                || End(OutcomeStatus::Failed, format!("no_such_version: the flow has no version {named}")),
            )?
        }
        None => {
            let newest = versions
                .iter()
                .filter(was_never_in_force)
                .max_by(|a, b| number(a).total_cmp(&number(b)))
                .map(|version| &*version.id);
            newest.ok_or_else(|| {
                let reason = "nothing_to_publish: the flow has no version that was never in force; save the \
                              candidate's content there, or name a version";
                End(OutcomeStatus::Failed, reason.to_owned())
            })?
        }
    };
    Ok(Publication { previous_version: active.map(str::to_owned), version: version.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn version(id: &str, status: &str, was_published: bool) -> PlatformVersion {
        PlatformVersion {
            id: id.to_owned(),
            status: status.to_owned(),
            published_at: was_published.then(|| Timestamp::from_millis(1)),
            replaced_at: None,
        }
    }

    #[test]
    fn what_is_published_is_named_or_the_newest_that_was_never_in_force() {
        let versions = [
            version("9.0", "published", true),
            version("12.0", "saved", false),
            version("10.0", "active", true),
            version("11.0", "saved", false),
        ];
        let of = |version: &str| Publication {
            previous_version: Some("10.0".to_owned()),
            version: version.to_owned(),
        };
        assert_eq!(plan(&versions, None), Ok(of("12.0")));
        assert_eq!(plan(&versions, Some("11.0")), Ok(of("11.0")));
        assert_eq!(plan(&versions, Some("9.0")), Ok(of("9.0")), "people may name an older one");
        assert_eq!(plan(&versions, Some("10.0")).unwrap_err().0, OutcomeStatus::Unchanged);
        assert_eq!(plan(&versions, Some("13.0")).unwrap_err().0, OutcomeStatus::Failed);
        let End(status, reason) = plan(&versions[..1], None).unwrap_err();
        assert_eq!(status, OutcomeStatus::Failed);
        assert!(reason.starts_with("nothing_to_publish: "), "{reason}");
    }
}
