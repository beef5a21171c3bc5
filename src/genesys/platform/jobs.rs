//! Details of many or old conversations: a job that analytics work through beside.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::details::{DetailsQuery, Found, read_conversations};
use super::super::path::PathSegment;
use super::aggregates::interval;
use super::details::{filters, without_attributes};
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

const PATH: &str = "/api/v2/analytics/conversations/details/jobs";
pub(super) const AVAILABILITY_PATH: &str = "/api/v2/analytics/conversations/details/jobs/availability";
const PAGE_SIZE: usize = 1_000;
/// Pages of one answer that are followed at most.
pub(super) const PAGE_LIMIT: usize = 100;

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Working,
    Done,
    /// It will bring nothing, and why.
    Failed(String),
}

/// Asks for conversations that were going on between two times. Unlike a query's, the interval
/// is about activity and needs no widening.
pub(super) fn job_request(query: &DetailsQuery<'_>) -> SentRequest {
    SentRequest {
        method: "POST".to_owned(),
        path: PATH.to_owned(),
        if_match: None,
        body: json!({
            "interval": interval(query.from, query.to),
            "order": "asc",
            "orderBy": "conversationStart",
            "conversationFilters": filters(query.conversation_ids),
        }),
    }
}

pub(super) fn job_path(job: &str) -> String {
    format!("{PATH}/{}", PathSegment(job))
}

pub(super) fn results_path(job: &str, cursor: Option<&str>) -> String {
    let path = format!("{}/results?pageSize={PAGE_SIZE}", job_path(job));
    match cursor {
        Some(cursor) => format!("{path}&cursor={}", PathSegment(cursor)),
        None => path,
    }
}

/// The id of the job that was begun.
pub(super) fn read_begun(body: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        job_id: String,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Some(wire.job_id).filter(|id| !id.is_empty()).ok_or_else(|| "jobId is empty".to_owned())
}

pub(super) fn read_state(body: &[u8]) -> Result<State, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        state: String,
        error_message: Option<String>,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(match wire.state.as_str() {
        "QUEUED" | "PENDING" => State::Working,
        "FULFILLED" => State::Done,
        state => {
            let why: String = wire.error_message.unwrap_or_default().chars().take(200).collect();
            let state: String = state.chars().take(40).collect();
            State::Failed(format!("the job ended {state}: {why}").trim_end_matches([':', ' ']).to_owned())
        }
    })
}

/// Up to when jobs have data; what is newer is not in them.
pub(super) fn read_availability(body: &[u8]) -> Result<Timestamp, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        data_availability_date: Timestamp,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    Ok(wire.data_availability_date)
}

/// One page of results and the cursor of the next.
pub(super) fn read_results(body: &[u8]) -> Result<(Found, Option<String>), String> {
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(borrow)]
        conversations: Option<Vec<&'a RawValue>>,
        cursor: Option<String>,
    }
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let told = wire.conversations.unwrap_or_default();
    let found = read_conversations("conversations", &told)?;
    let cursor = wire.cursor.filter(|cursor| !cursor.is_empty());
    Ok((found.into_iter().map(without_attributes).collect(), cursor))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_job_asks_about_activity_without_paging() {
        let ids = ["abc00000-0000-4000-8000-000000000000", "abc00000-0000-4000-8000-000000000001"];
        let query = DetailsQuery {
            conversation_ids: &ids,
            from: "2025-12-01T00:00:00.000Z".parse().unwrap(),
            to: "2025-12-02T00:00:00.000Z".parse().unwrap(),
        };
        let example: Value = serde_json::from_str(include_str!("fixtures/details_job_query.json")).unwrap();
        assert_eq!(job_request(&query).body, example);
    }

    #[test]
    fn a_job_goes_on_until_it_ends_well_or_badly() {
        let state = |state: &str| read_state(format!(r#"{{"state":"{state}"}}"#).as_bytes()).unwrap();
        assert_eq!(read_state(include_bytes!("fixtures/details_job.json")), Ok(State::Done));
        assert_eq!((state("QUEUED"), state("PENDING")), (State::Working, State::Working));
        for (ended, text) in [
            (r#"{"state":"FAILED","errorMessage":"too much"}"#, "the job ended FAILED: too much"),
            (r#"{"state":"EXPIRED"}"#, "the job ended EXPIRED"),
        ] {
            assert_eq!(read_state(ended.as_bytes()), Ok(State::Failed(text.to_owned())));
        }
        assert!(read_state(b"{}").is_err());
        assert_eq!(read_begun(br#"{"jobId":"j"}"#).as_deref(), Ok("j"));
        assert!(read_begun(br#"{"jobId":""}"#).is_err());
    }

    #[test]
    fn results_go_on_while_there_is_a_cursor() {
        let page = br#"{"conversations":[{"conversationId":"a","participants":[{"attributes":{"x":"y"}}]}],
            "cursor":"eyJuIjoxfQ==","dataAvailabilityDate":"2026-01-02T00:00:00.000Z"}"#;
        let (found, cursor) = read_results(page).unwrap();
        assert_eq!(found, [("a".to_owned(), json!({"conversationId":"a","participants":[{}]}))]);
        assert_eq!(
            results_path("j", cursor.as_deref()),
            format!("{PATH}/j/results?pageSize=1000&cursor=eyJuIjoxfQ%3D%3D")
        );
        assert_eq!(read_results(b"{}"), Ok((vec![], None)));
        let available = read_availability(br#"{"dataAvailabilityDate":"2026-01-02T00:00:00.000Z"}"#);
        assert_eq!(available, Ok("2026-01-02T00:00:00.000Z".parse().unwrap()));
    }
}
