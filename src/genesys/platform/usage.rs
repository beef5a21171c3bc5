//! How many calls were made, as the platform counts them.

use serde::Deserialize;
use serde_json::json;

use super::super::organization::CallsMade;
use super::super::path::PathSegment;
use super::aggregates::interval;
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

const PATH: &str = "/api/v2/usage/query";

/// Asks for all calls of the organisation between two times.
pub(super) fn request(from: Timestamp, until: Timestamp) -> SentRequest {
    SentRequest {
        method: "POST".to_owned(),
        path: PATH.to_owned(),
        if_match: None,
        body: json!({ "interval": interval(from, until), "granularity": "Month" }),
    }
}

pub(super) fn results_path(execution: &str) -> String {
    format!("{PATH}/{}/results", PathSegment(execution))
}

/// The id of the query that was begun.
pub(super) fn read_begun(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        execution_id: String,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(wire.execution_id)
}

/// All calls, once the query has run; `None` while it runs.
pub(super) fn read_results(is_ours: impl Fn(&str) -> bool, body: &[u8]) -> Result<Option<CallsMade>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        query_status: String,
        #[serde(default)]
        results: Vec<Row>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        client_id: Option<String>,
        #[serde(default)]
        requests: u64,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match wire.query_status.as_str() {
        "Complete" => {
            let mut made = CallsMade::default();
            for row in &wire.results {
                let ours = row.client_id.as_deref().is_some_and(&is_ours);
                let of = if ours { &mut made.own } else { &mut made.others };
                *of = of.saturating_add(row.requests);
            }
            Ok(Some(made))
        }
        "Running" => Ok(None),
        other => Err(format!("the query ended {:?}", other.chars().take(40).collect::<String>())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_added_up_once_the_query_has_run() {
        let results = |text: &str| read_results(|client| client == "a", text.as_bytes());
        assert_eq!(results(r#"{"queryStatus":"Running"}"#), Ok(None));
        let complete =
            r#"{"queryStatus":"Complete","results":[{"clientId":"a","requests":7},{"requests":5},{}]}"#;
        assert_eq!(results(complete), Ok(Some(CallsMade { own: 7, others: 5 })));
        assert!(results(r#"{"queryStatus":"Failed"}"#).is_err() && results("{}").is_err());
        assert_eq!(read_begun(br#"{"executionId":"x","resultsUri":"/y"}"#).as_deref(), Ok("x"));
        assert_eq!(results_path("x/y"), "/api/v2/usage/query/x%2Fy/results");
    }
}
