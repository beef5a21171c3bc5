//! Interactions and errors of flows, by version: the flows' own aggregates.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::flows::{ErrorMeasure, Measured};
use super::aggregates;
use crate::model::Timestamp;
use crate::model::conversation::{InteractionOutcome, outcome_of};
use crate::model::outcome::SentRequest;

const FLOWS: &str = "nFlow";
const OUTCOMES: &str = "nFlowOutcome";
const FAILED: &str = "nFlowOutcomeFailed";

/// Asks about one flow between two times, all versions of it.
pub(crate) fn request(
    flow_id: &str,
    from: Timestamp,
    until: Timestamp,
    measure: ErrorMeasure,
) -> SentRequest {
    let (group_by, metrics) = match measure {
        ErrorMeasure::ExitReason => (json!(["flowId", "flowVersion", "exitReason"]), json!([FLOWS])),
        ErrorMeasure::Outcome => (json!(["flowId", "flowVersion"]), json!([FLOWS, OUTCOMES, FAILED])),
    };
    SentRequest {
        method: "POST".to_owned(),
        path: "/api/v2/analytics/flows/aggregates/query".to_owned(),
        if_match: None,
        body: json!({
            "interval": aggregates::interval(from, until),
            "groupBy": group_by,
            "filter": { "type": "and", "predicates": [{ "dimension": "flowId", "value": flow_id }] },
            "metrics": metrics,
        }),
    }
}

/// Reads measures by version; nothing at all is that nobody was in the flow.
pub(crate) fn read(flow_id: &str, body: &[u8], measure: ErrorMeasure) -> Result<Vec<Measured>, String> {
    let mut found: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in aggregates::read(body)? {
        if row.of("flowId").is_some_and(|id| id != flow_id) {
            continue;
        }
        let (total, errors) = match measure {
            ErrorMeasure::ExitReason => {
                let total = row.count(FLOWS)?;
                let outcome = outcome_of("flow.end", row.of("exitReason"));
                (total, if outcome == Some(InteractionOutcome::Error) { total } else { 0 })
            }
            ErrorMeasure::Outcome => (row.count(OUTCOMES)?, row.count(FAILED)?),
        };
        if errors > total {
            return Err(format!("{FAILED} is {errors}, more than the {total} of {OUTCOMES}"));
        }
        let of = found.entry(row.of("flowVersion").unwrap_or_default().to_owned()).or_default();
        let sum = |held: u64, more: u64| held.checked_add(more).ok_or("counts come to more than is possible");
        *of = (sum(of.0, total)?, sum(of.1, errors)?);
    }
    Ok(found.into_iter().map(|(version, (total, errors))| Measured { version, total, errors }).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const FLOW: &str = "c3a8e9b4-5f7d-4a26-8f10-9e2b4d6a7c03";
    const BY_EXIT: &[u8] = include_bytes!("fixtures/flow_measures_by_exit.json");
    const BY_OUTCOME: &[u8] = include_bytes!("fixtures/flow_measures_by_outcome.json");

    fn measured(total: u64, errors: u64) -> Vec<Measured> {
        vec![Measured { version: "12.0".to_owned(), total, errors }]
    }

    #[test]
    fn errors_are_bad_exits_or_failed_outcomes_as_configured() {
        assert_eq!(read(FLOW, BY_EXIT, ErrorMeasure::ExitReason), Ok(measured(40, 3)));
        assert_eq!(read(FLOW, BY_OUTCOME, ErrorMeasure::Outcome), Ok(measured(38, 2)));
        assert_eq!(read(FLOW, br#"{"results":[]}"#, ErrorMeasure::ExitReason), Ok(vec![]));
        assert_eq!(read("another", BY_EXIT, ErrorMeasure::ExitReason), Ok(vec![]));
    }

    #[test]
    fn versions_are_told_apart() {
        let text = std::str::from_utf8(BY_EXIT).unwrap().replacen("12.0", "11.0", 1);
        let read = read(FLOW, text.as_bytes(), ErrorMeasure::ExitReason).unwrap();
        let versions: Vec<_> = read.iter().map(|it| (&*it.version, it.total, it.errors)).collect();
        assert_eq!(versions, [("11.0", 31, 0), ("12.0", 9, 3)]);
    }

    #[test]
    fn the_query_names_what_it_groups_by() {
        let (from, until): (Timestamp, Timestamp) =
            ("2026-01-02T03:00:00.000Z".parse().unwrap(), "2026-01-02T03:05:00.000Z".parse().unwrap());
        for (measure, example) in [
            (ErrorMeasure::ExitReason, include_str!("fixtures/flow_measures_by_exit_query.json")),
            (ErrorMeasure::Outcome, include_str!("fixtures/flow_measures_by_outcome_query.json")),
        ] {
            let mut example: Value = serde_json::from_str(example).unwrap();
            example.as_object_mut().unwrap().remove("granularity");
            assert_eq!(request(FLOW, from, until, measure).body, example);
        }
    }

    #[test]
    fn more_errors_than_interactions_are_refused() {
        let text = std::str::from_utf8(BY_OUTCOME).unwrap().replace(r#""count":2}"#, r#""count":39}"#);
        assert!(read(FLOW, text.as_bytes(), ErrorMeasure::Outcome).is_err());
    }
}
