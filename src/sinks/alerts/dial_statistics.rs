//! Campaigns whose statistics say nothing new.

use serde_json::json;

use crate::model::alert::{Alert, details};
use crate::model::decision::Mode;
use crate::topics::DialDecision;

/// Statistics have been the same, or have not come, for so long that the least rate is kept.
pub(super) const STALE: &str = "DIAL_STATISTICS_STALE";

/// The reason that the first decision of such a spell has.
const REASON: &str = "statistics_stale";

/// From a decision's record: the first of a spell, and not in shadow.
pub(super) fn decision(value: &[u8]) -> Option<Alert> {
    // Few decisions are, and each is looked at.
    memchr::memmem::find(value, REASON.as_bytes())?;
    let decision: DialDecision<'_, Vec<String>> = serde_json::from_slice(value).ok()?;
    if decision.reason != REASON || decision.mode == Mode::Shadow {
        return None;
    }
    let details = details([
        ("campaign_id", json!(decision.key)),
        ("observed_at", json!(decision.inputs.observed_at)),
        ("unchanged_since", json!(decision.inputs.changed_at)),
        ("old_rate", json!(decision.parameters.previous_dial_rate)),
        ("new_rate", json!(decision.parameters.dial_rate)),
    ]);
    Some(Alert {
        incident_type: STALE,
        decision_id: decision.decision_id,
        r#loop: decision.r#loop,
        key: decision.key.into_owned(),
        occurred_at: decision.decided_at,
        once_per: None,
        details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn value(mode: &str, reason: &str) -> Vec<u8> {
        let example =
            include_str!("../../../schemas/examples/trunkline.dial-decisions.v1/statistics-stale.json");
        let mut decision: Value = serde_json::from_str(example).unwrap();
        decision["mode"] = json!(mode);
        decision["reason"] = json!(reason);
        decision.to_string().into_bytes()
    }

    #[test]
    fn the_first_decision_on_stale_statistics_is_told_and_no_other() {
        let alert = decision(&value("live", "statistics_stale")).unwrap();
        assert_eq!(alert.incident_type, "DIAL_STATISTICS_STALE");
        assert_eq!(
            Value::Object(alert.details),
            json!({
                "campaign_id": "5f0b1c1e-6c1f-4a0e-9d6e-6a3b0c1d2e3f",
                "observed_at": "2026-01-02T03:04:05.678Z", "unchanged_since": "2026-01-02T03:02:05.678Z",
                "old_rate": 1.8, "new_rate": 0.5
            })
        );
        for (mode, reason) in
            [("shadow", "statistics_stale"), ("live", "statistics_still_stale"), ("live", "no_data")]
        {
            assert_eq!(decision(&value(mode, reason)), None, "{mode} {reason}");
        }
    }
}
