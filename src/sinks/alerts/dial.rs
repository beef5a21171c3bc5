//! Dial rates that could not be set.

use serde_json::Value;

use crate::model::alert::{Alert, details};
use crate::model::decision::Loop;
use crate::model::outcome::{Outcome, OutcomeStatus};

/// A change the platform refused for good, or that could not be carried out.
pub(super) const CHANGE_FAILED: &str = "DIAL_CHANGE_FAILED";

/// From an outcome's record.
pub(super) fn outcome(value: &[u8]) -> Option<Alert> {
    let outcome: Outcome = serde_json::from_slice(value).ok()?;
    if outcome.r#loop != Loop::Dial || outcome.status != OutcomeStatus::Failed {
        return None;
    }
    let status = outcome.response.as_ref().and_then(|response| response.status);
    let details = details([
        ("campaign_id", outcome.key.as_str().into()),
        ("reason", outcome.reason.into()),
        ("attempts", outcome.attempts.into()),
        ("http_status", status.map_or(Value::Null, Value::from)),
    ]);
    Some(Alert {
        incident_type: CHANGE_FAILED,
        decision_id: outcome.decision_id,
        r#loop: outcome.r#loop,
        key: outcome.key.clone(),
        occurred_at: outcome.finished_at,
        once_per: None,
        details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(of: &str, status: &str) -> Vec<u8> {
        json!({
            "decisionId": "0199ffff-0000-8000-8000-000000000001", "loop": of, "key": "c", "sequence": 1,
            "status": status, "reason": "refused: 403", "attempts": 2, "response": {"status": 403},
            "finishedAt": "2026-01-02T03:04:05.678Z"
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn failed_changes_of_dial_rates_are_told_and_nothing_else() {
        let alert = outcome(&value("dial", "failed")).unwrap();
        assert_eq!((alert.incident_type, alert.key.as_str()), ("DIAL_CHANGE_FAILED", "c"));
        assert_eq!(
            Value::Object(alert.details),
            json!({
                "campaign_id": "c", "reason": "refused: 403", "attempts": 2, "http_status": 403
            })
        );
        for (of, status) in [("dial", "applied"), ("dial", "conflicted"), ("rollback", "failed")] {
            assert_eq!(outcome(&value(of, status)), None, "{of} {status}");
        }
        assert_eq!(outcome(b"{"), None);
    }
}
