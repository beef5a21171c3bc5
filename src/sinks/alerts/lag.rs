//! Consumer groups that need help.

use serde_json::json;

use crate::model::alert::{Alert, details};
use crate::model::decision::{Action, Mode};
use crate::topics::LagDecision;

/// The incident type, as the seed's audit names it.
pub(super) const THRESHOLD_EXCEEDED: &str = "LAG_THRESHOLD_EXCEEDED";

/// From a decision's record: one that asks for something, and not in shadow.
pub(super) fn decision(value: &[u8]) -> Option<Alert> {
    let decision: LagDecision<'_, Vec<String>> = serde_json::from_slice(value).ok()?;
    if decision.action == Action::Hold || decision.mode == Mode::Shadow {
        return None;
    }
    let evaluation = &decision.inputs.evaluation;
    let details = details([
        ("group", json!(decision.key)),
        ("status", json!(decision.parameters.status)),
        ("reason", json!(decision.reason)),
        ("recommended_action", json!(decision.action)),
        ("suggested_replicas", json!(decision.parameters.replicas)),
        ("lag", json!(evaluation.lag)),
        ("age_seconds", json!(evaluation.age_seconds)),
        ("arrival_per_second", json!(evaluation.arrival_per_second)),
        ("drain_per_second", json!(evaluation.drain_per_second)),
        ("catch_up_seconds", json!(evaluation.catch_up_seconds)),
        ("members", json!(evaluation.members)),
        ("worst", json!(evaluation.reasons.first().and_then(|reason| reason.example.as_deref()))),
    ]);
    Some(Alert {
        incident_type: THRESHOLD_EXCEEDED,
        decision_id: decision.decision_id,
        r#loop: decision.r#loop,
        key: decision.key.into_owned(),
        occurred_at: decision.event_time,
        once_per: None,
        details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn example(mode: &str, name: &str) -> Vec<u8> {
        let text = match name {
            "scale-out" => {
                include_str!("../../../schemas/examples/trunkline.lag-evaluations.v1/scale-out.json")
            }
            _ => include_str!("../../../schemas/examples/trunkline.lag-evaluations.v1/recovered.json"),
        };
        let mut value: Value = serde_json::from_str(text).unwrap();
        value["mode"] = mode.into();
        value.to_string().into_bytes()
    }

    #[test]
    fn a_call_for_help_says_who_how_far_behind_and_what_helps() {
        let alert = decision(&example("live", "scale-out")).unwrap();
        assert_eq!((alert.incident_type, alert.key.as_str()), (THRESHOLD_EXCEEDED, "trunkline-dialing"));
        let expected = [
            ("status", json!("ERROR")),
            ("recommended_action", json!("scale_out")),
            ("suggested_replicas", json!(3)),
            ("lag", json!(5400)),
            ("arrival_per_second", json!(120.0)),
            ("worst", json!("trunkline.campaign-windows.v1/3")),
        ];
        for (name, value) in expected {
            assert_eq!(alert.details.get(name), Some(&value), "{name}");
        }
    }

    #[test]
    fn holding_and_shadow_call_nobody() {
        assert_eq!(decision(&example("live", "recovered")), None);
        assert_eq!(decision(&example("shadow", "scale-out")), None);
        assert_eq!(decision(b"{"), None);
    }
}
