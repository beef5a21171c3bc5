//! Interactions that nobody was available for, and answers given without the counters.

use std::time::Duration;

use serde_json::json;

use crate::model::alert::{Alert, details};
use crate::model::routing::{RouteReason, RouteSource};
use crate::topics::RouteDecision;

/// Every group was unavailable: interactions go to the default group.
pub(super) const NOBODY_AVAILABLE: &str = "ROUTE_NOBODY_AVAILABLE";
/// The counters did not answer in time. It is told once they do again: decisions given
/// meanwhile are recorded then.
pub(super) const WITHOUT_COUNTERS: &str = "ROUTE_ANSWERED_WITHOUT_COUNTERS";

/// As long as it lasts, people are told once in a quarter of an hour.
const AGAIN_AFTER: Duration = Duration::from_secs(900);

/// From a decision's record. Answers are real in shadow, too.
pub(super) fn decision(value: &[u8]) -> Option<Alert> {
    let decision: RouteDecision<'_, Vec<String>> = serde_json::from_slice(value).ok()?;
    let source = decision.parameters.source;
    let incident_type = if decision.reason == RouteReason::NobodyAvailable.name() {
        NOBODY_AVAILABLE
    } else if source != RouteSource::Exact {
        WITHOUT_COUNTERS
    } else {
        return None;
    };
    let details = details([
        ("configuration_id", json!(decision.key)),
        ("destination_id", json!(decision.parameters.destination_id)),
        ("reason", json!(decision.reason)),
        ("source", json!(source)),
    ]);
    Some(Alert {
        incident_type,
        decision_id: decision.decision_id,
        r#loop: decision.r#loop,
        key: decision.key.into_owned(),
        occurred_at: decision.decided_at,
        once_per: Some(AGAIN_AFTER),
        details,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: &str = include_str!("../../../schemas/examples/trunkline.routing-decisions.v1/share.json");
    const NOBODY: &str =
        include_str!("../../../schemas/examples/trunkline.routing-decisions.v1/nobody-available.json");

    #[test]
    fn people_hear_when_nobody_is_available_or_counters_are_away_and_of_nothing_else() {
        let alert = decision(NOBODY.as_bytes()).unwrap();
        assert_eq!(alert.incident_type, NOBODY_AVAILABLE);
        assert_eq!(alert.details["configuration_id"], "d3a8e1f4-0c5b-4b7e-9a61-5e2f7c8d9b10");
        assert_eq!(alert.details["reason"], "nobody_available");
        let cached = SHARE.replace("\"exact\"", "\"cached\"");
        assert_eq!(decision(cached.as_bytes()).unwrap().incident_type, WITHOUT_COUNTERS);
        assert_eq!(decision(SHARE.as_bytes()), None);
        assert_eq!(decision(b"{"), None);
    }
}
