//! Details of conversations by query: one filter for all of them, page by page.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::details::{DetailsQuery, Found, read_conversations};
use super::aggregates::interval;
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

const PATH: &str = "/api/v2/analytics/conversations/details/query";
/// The most that a page takes.
pub(super) const PAGE_SIZE: usize = 100;
/// Pages of one answer that are followed at most.
pub(super) const PAGE_LIMIT: usize = 100;
const DAY_MS: i64 = 86_400_000;
const DAY: Duration = Duration::from_millis(DAY_MS as u64);
/// The longest interval of a query that has a filter.
const LONGEST_DAYS: i64 = 31;

/// The days whose conversations are looked through. A query finds what *started* on a UTC day
/// that its interval touches, and events tell when we first heard of a conversation: one that
/// goes over midnight started on the day before.
pub(super) fn days(query: &DetailsQuery<'_>) -> (Timestamp, Timestamp) {
    let midnight = |at: Timestamp| Timestamp::from_millis(at.as_millis().div_euclid(DAY_MS) * DAY_MS);
    let (first, last) = (midnight(query.from), midnight(query.to.max(query.from)));
    let until = last.plus(DAY);
    let earliest = Timestamp::from_millis(until.as_millis() - LONGEST_DAYS * DAY_MS);
    (first.minus(DAY).max(earliest), until)
}

/// Lets through these conversations and no others.
pub(super) fn filters(ids: &[&str]) -> Value {
    let predicate = |id: &&str| json!({ "type": "dimension", "dimension": "conversationId", "operator": "matches", "value": id });
    json!([{ "type": "or", "predicates": ids.iter().map(predicate).collect::<Vec<_>>() }])
}

/// `page` counts from 1.
pub(super) fn query_request(query: &DetailsQuery<'_>, page: usize) -> SentRequest {
    let (from, until) = days(query);
    SentRequest {
        method: "POST".to_owned(),
        path: PATH.to_owned(),
        if_match: None,
        body: json!({
            "interval": interval(from, until),
            "order": "asc",
            "orderBy": "conversationStart",
            "conversationFilters": filters(query.conversation_ids),
            "paging": { "pageSize": PAGE_SIZE, "pageNumber": page },
        }),
    }
}

/// One page of the answer.
#[derive(Debug, PartialEq)]
pub(super) struct Page {
    pub conversations: Found,
    pub goes_on: bool,
}

/// Reads the page with number `page`; nobody found is no member at all. The error says what
/// makes no sense.
pub(super) fn read_page(page: usize, body: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire<'a> {
        #[serde(borrow)]
        conversations: Option<Vec<&'a RawValue>>,
        total_hits: Option<usize>,
    }
    let wire: Wire<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let Some(told) = wire.conversations else {
        return Ok(Page { conversations: Vec::new(), goes_on: false });
    };
    let goes_on = !told.is_empty() && wire.total_hits.is_some_and(|total| page * PAGE_SIZE < total);
    let conversations = read_conversations("conversations", &told)?;
    Ok(Page { conversations: conversations.into_iter().map(without_attributes).collect(), goes_on })
}

/// What callers and flows have said about a person stays where it is.
pub(super) fn without_attributes((id, mut details): (String, Value)) -> (String, Value) {
    for participant in details.get_mut("participants").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(members) = participant.as_object_mut() {
            members.remove("attributes");
        }
    }
    (id, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 2] = ["abc00000-0000-4000-8000-000000000000", "abc00000-0000-4000-8000-000000000001"];

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn query(from: &str, to: &str) -> DetailsQuery<'static> {
        DetailsQuery { conversation_ids: &IDS, from: at(from), to: at(to) }
    }

    #[test]
    fn a_conversation_over_midnight_is_looked_for_on_the_day_before_too() {
        let request = query_request(&query("2026-01-02T00:00:30.000Z", "2026-01-02T00:05:00.000Z"), 1);
        let example: Value = serde_json::from_str(include_str!("fixtures/details_query.json")).unwrap();
        assert_eq!(request.body, example);
        assert_eq!(
            query_request(&query("2026-01-02T00:00:30.000Z", "2026-01-02T00:05:00.000Z"), 3).body["paging"]["pageNumber"],
            3
        );
    }

    #[test]
    fn the_interval_is_whole_days_and_never_longer_than_is_answered() {
        let of = |from: &str, to: &str| {
            let (from, until) = days(&query(from, to));
            (from.to_string()[..10].to_owned(), until.to_string()[..10].to_owned())
        };
        let days = |from: &str, until: &str| (from.to_owned(), until.to_owned());
        assert_eq!(of("2026-01-02T23:59:00Z", "2026-01-03T00:01:00Z"), days("2026-01-01", "2026-01-04"));
        assert_eq!(of("2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z"), days("2026-01-01", "2026-01-03"));
        assert_eq!(of("2026-01-01T12:00:00Z", "2026-01-31T12:00:00Z"), days("2026-01-01", "2026-02-01"));
        assert_eq!(of("2026-01-05T00:00:00Z", "2026-01-01T00:00:00Z"), days("2026-01-04", "2026-01-06"));
    }

    #[test]
    fn pages_are_read_and_nobody_found_is_no_member() {
        let page = read_page(1, include_bytes!("fixtures/details.json")).unwrap();
        assert_eq!(page.conversations.len(), 1);
        assert_eq!(page.conversations[0].0, IDS[0]);
        assert_eq!(page.conversations[0].1["participants"][0]["sessions"][0]["mediaType"], "voice");
        assert!(!page.goes_on, "2 of 100");
        let none = Page { conversations: vec![], goes_on: false };
        assert_eq!(read_page(1, br#"{"totalHits":0}"#).unwrap(), none);
        assert_eq!(
            read_page(2, br#"{"totalHits":900,"conversations":[]}"#).unwrap(),
            none,
            "no end otherwise"
        );
        let more = br#"{"totalHits":101,"conversations":[{"conversationId":"a"}]}"#;
        assert!(read_page(1, more).unwrap().goes_on && !read_page(2, more).unwrap().goes_on);
        assert!(read_page(1, br#"{"conversations":[{}]}"#).is_err());
    }

    #[test]
    fn what_was_said_about_a_person_is_left_out() {
        let told = json!({"participants":[{"purpose":"customer","attributes":{"card":"4111"}},{}]});
        let (_, kept) = without_attributes(("a".to_owned(), told));
        assert_eq!(kept, json!({"participants":[{"purpose":"customer"},{}]}));
    }
}
