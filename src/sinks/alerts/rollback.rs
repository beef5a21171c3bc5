//! Flows whose versions fail: taken back, told only, or not to be helped.

use serde_json::{Map, Value, json};

use crate::model::alert::{Alert, details};
use crate::model::decision::{Action, Loop, Mode};
use crate::model::outcome::{Effect, Outcome, OutcomeStatus};
use crate::model::rollback::{RollbackInputs, RollbackParameters};
use crate::topics::RollbackDecision;

/// A version was taken back. The fields are those that the project was asked for.
pub(super) const TRIGGERED: &str = "AUTO_ROLLBACK_TRIGGERED";
/// The error rate is too high, and no version is taken back: people have to look.
pub(super) const ALERT_ONLY: &str = "ERROR_RATE_ALERT";
/// A version was to be taken back and could not be.
pub(super) const FAILED: &str = "AUTO_ROLLBACK_FAILED";
/// A version was taken back, and the flow still fails.
pub(super) const NOT_RECOVERED: &str = "AUTO_ROLLBACK_NOT_RECOVERED";

/// From a decision's record: one that tells people only, and not in shadow.
pub(super) fn decision(value: &[u8]) -> Option<Alert> {
    let decision: RollbackDecision<'_, Vec<String>> = serde_json::from_slice(value).ok()?;
    if decision.action != Action::Alert || decision.mode == Mode::Shadow {
        return None;
    }
    let (RollbackParameters { error_rate, threshold, .. }, RollbackInputs { flow_version, .. }) =
        (&decision.parameters, &decision.inputs);
    let details = details([
        ("flow_id", json!(decision.key)),
        ("flow_version", json!(flow_version)),
        ("error_rate_breach", json!(error_rate)),
        ("threshold_breach", json!(threshold)),
        ("action_taken", json!("NONE")),
        ("reason", json!(decision.reason)),
    ]);
    Some(Alert {
        incident_type: ALERT_ONLY,
        decision_id: decision.decision_id,
        r#loop: decision.r#loop,
        key: decision.key.into_owned(),
        occurred_at: decision.decided_at,
        once_per: None,
        details,
    })
}

/// From an outcome's record.
pub(super) fn outcome(value: &[u8]) -> Option<Alert> {
    let outcome: Outcome = serde_json::from_slice(value).ok()?;
    if outcome.r#loop != Loop::Rollback {
        return None;
    }
    let (incident_type, details) = match (outcome.status, &outcome.effect) {
        (OutcomeStatus::Applied, Some(Effect::FlowVersion(change))) => (
            TRIGGERED,
            details([
                ("flow_id", json!(outcome.key)),
                ("error_rate_breach", json!(change.error_rate)),
                ("threshold_breach", json!(change.threshold)),
                ("action_taken", json!(format!("SWITCHED_TO_VERSION_{}", change.version))),
                ("target_version", json!(change.version)),
                ("previous_version", json!(change.previous_version)),
            ]),
        ),
        (OutcomeStatus::Failed | OutcomeStatus::Conflicted | OutcomeStatus::Expired, _) => {
            (FAILED, unhelped(&outcome))
        }
        (OutcomeStatus::NotRecovered, _) => (NOT_RECOVERED, unhelped(&outcome)),
        _ => return None,
    };
    Some(Alert {
        incident_type,
        decision_id: outcome.decision_id,
        r#loop: outcome.r#loop,
        key: outcome.key.clone(),
        occurred_at: outcome.finished_at,
        once_per: None,
        details,
    })
}

fn unhelped(outcome: &Outcome) -> Map<String, Value> {
    details([
        ("flow_id", json!(outcome.key)),
        ("action_taken", json!("NONE")),
        ("reason", json!(outcome.reason)),
        ("attempts", json!(outcome.attempts)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(status: &str, effect: Value) -> Vec<u8> {
        json!({
            "decisionId": "0199ffff-0000-8000-8000-000000000001", "loop": "rollback", "key": "f", "sequence": 1,
            "status": status, "reason": "why", "attempts": 1, "finishedAt": "2026-01-02T03:04:05.678Z",
            "effect": effect
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_rollback_is_told_in_the_fields_that_were_asked_for() {
        let change = json!({"previousVersion": "11", "version": "10", "errorRate": 0.081, "threshold": 0.05});
        let alert = outcome(&ended("applied", change)).unwrap();
        let body: Value = serde_json::from_str(&alert.body()).unwrap();
        assert_eq!(
            body,
            json!({
                "incident_type": "AUTO_ROLLBACK_TRIGGERED", "flow_id": "f", "error_rate_breach": 0.081,
                "threshold_breach": 0.05, "timestamp": "2026-01-02T03:04:05.678Z",
                "action_taken": "SWITCHED_TO_VERSION_10", "target_version": "10", "previous_version": "11",
                "decision_id": "0199ffff-0000-8000-8000-000000000001"
            })
        );
    }

    #[test]
    fn other_ends_have_their_own_types_or_none() {
        for (status, expected) in [
            ("failed", Some(FAILED)),
            ("conflicted", Some(FAILED)),
            ("expired", Some(FAILED)),
            ("not_recovered", Some(NOT_RECOVERED)),
            ("recovered", None),
            ("unchanged", None),
            ("shadowed", None),
        ] {
            let alert = outcome(&ended(status, Value::Null));
            assert_eq!(alert.map(|alert| alert.incident_type), expected, "{status}");
        }
        let dial =
            String::from_utf8(ended("failed", Value::Null)).unwrap().replace("\"rollback\"", "\"dial\"");
        assert_eq!(outcome(dial.as_bytes()), None);
    }

    #[test]
    fn only_decisions_that_tell_people_do() {
        let text = include_str!("../../../schemas/examples/trunkline.rollback-decisions.v1/rollback.json");
        let with = |action: &str, mode: &str| {
            let mut value: Value = serde_json::from_str(text).unwrap();
            (value["action"], value["mode"]) = (action.into(), mode.into());
            decision(value.to_string().as_bytes()).map(|alert| alert.incident_type)
        };
        assert_eq!(with("alert", "live"), Some(ALERT_ONLY));
        for (action, mode) in [("alert", "shadow"), ("rollback", "live"), ("hold", "live")] {
            assert_eq!(with(action, mode), None, "{action} {mode}");
        }
    }
}
