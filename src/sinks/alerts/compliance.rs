//! Campaigns whose abandonment nears its cap.

use serde_json::json;

use crate::model::alert::{Alert, details};
use crate::model::compliance::ComplianceWarning;
use crate::model::decision::{DecisionId, Loop};

/// The share of the cap that people are to be warned at is reached in a window.
pub(super) const NEAR_CAP: &str = "ABANDONMENT_NEAR_CAP";

/// From a warning's record. No single decision has led to it: its `decision_id` stands for the
/// campaign's window, so that there is one alert for each.
pub(super) fn warning(value: &[u8]) -> Option<Alert> {
    let warning: ComplianceWarning = serde_json::from_slice(value).ok()?;
    let decision_id = DecisionId::derive(Loop::Dial, &warning.identity(), 0, window_time(&warning));
    let details = details([
        ("campaign_id", json!(warning.campaign_id)),
        ("window", json!(warning.window)),
        ("window_start", json!(warning.window_start)),
        ("window_end", json!(warning.window_end)),
        ("answered", json!(warning.answered)),
        ("abandoned", json!(warning.abandoned)),
        ("abandonment_rate", json!(warning.abandonment_rate)),
        ("cap", json!(warning.cap)),
        ("over_cap", json!(warning.over_cap)),
    ]);
    Some(Alert {
        incident_type: NEAR_CAP,
        decision_id,
        r#loop: Loop::Dial,
        key: warning.campaign_id,
        occurred_at: warning.observed_at,
        once_per: None,
        details,
    })
}

/// A time that is the same for all warnings of one window.
fn window_time(warning: &ComplianceWarning) -> crate::model::Timestamp {
    let midnight = format!("{}T00:00:00.000Z", warning.day);
    midnight.parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const DAY: &str = include_str!("../../../schemas/examples/trunkline.compliance-warnings.v1/day.json");

    fn changed(name: &str, value: Value) -> Alert {
        let mut warning_value: Value = serde_json::from_str(DAY).unwrap();
        warning_value[name] = value;
        warning(warning_value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn there_is_one_alert_per_campaign_and_window() {
        let alert = warning(DAY.as_bytes()).unwrap();
        assert_eq!((alert.incident_type, alert.details["answered"].clone()), (NEAR_CAP, json!(1_250)));
        assert_eq!(changed("observedAt", json!("2026-01-02T15:04:05.678Z")).id(), alert.id());
        assert_eq!(changed("abandoned", json!(36)).id(), alert.id());
        assert_ne!(changed("campaignId", json!("other")).id(), alert.id());
        assert_ne!(changed("window", json!("rolling_24h")).id(), alert.id());
        let rolling = |start: &str| {
            let mut value: Value = serde_json::from_str(DAY).unwrap();
            (value["window"], value["windowStart"]) = (json!("rolling_24h"), json!(start));
            warning(value.to_string().as_bytes()).unwrap().id()
        };
        assert_eq!(rolling("2026-01-01T12:00:00.000Z"), rolling("2026-01-01T12:01:00.000Z"));
        assert_eq!(warning(b"{"), None);
    }
}
