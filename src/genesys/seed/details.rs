//! The query for many conversations' details, page by page.

use reqwest::Url;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::super::details::{DetailsQuery, Found, read_conversations};
use crate::model::outcome::SentRequest;

const PATH: &str = "/api/v2/analytics/conversations/details/query";
/// Conversations on one page, as the seed asks for.
const PAGE_SIZE: usize = 100;
/// Pages of one answer that are followed at most.
pub(crate) const PAGE_LIMIT: usize = 100;
/// Longest path and query of a further page, in bytes.
const NEXT_LIMIT: usize = 4 * 1024;

/// One page of the answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    pub conversations: Found,
    /// Path and query of the next page below the configured base URL.
    pub next: Option<String>,
}

pub(crate) fn query_request(query: &DetailsQuery<'_>) -> SentRequest {
    SentRequest {
        method: "POST".to_owned(),
        path: PATH.to_owned(),
        if_match: None,
        body: json!({
            "interval": "PT1H",
            "groupBy": ["conversationId"],
            "filter": {
                "type": "conversation",
                "conversationIds": query.conversation_ids,
                "startTime": query.from,
                "endTime": query.to,
            },
            "metrics": [{ "name": "conversation.duration" }, { "name": "conversation.wrapup" }],
            "pageSize": PAGE_SIZE,
        }),
    }
}

/// Reads a page, item by item: one that makes no sense is as if it were not there. The error
/// says what makes no sense about the page.
pub(crate) fn read_page(base_url: &str, body: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct WirePage<'a> {
        #[serde(borrow)]
        data: Vec<&'a RawValue>,
        next_page_uri: Option<String>,
    }
    let read: WirePage<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let conversations = read_conversations("data", &read.data)?;
    let next = read.next_page_uri.filter(|uri| !uri.is_empty());
    let next = next.map(|uri| path_below(base_url, &uri)).transpose()?;
    Ok(Page { conversations, next })
}

/// The token goes along with every page: one that is elsewhere is not fetched.
fn path_below(base_url: &str, uri: &str) -> Result<String, String> {
    let shown: String = uri.chars().take(200).collect();
    let base = Url::parse(base_url).map_err(|error| error.to_string())?;
    let next = base.join(uri).map_err(|error| format!("nextPageUri {shown:?} is no URL: {error}"))?;
    let is_ours = next.origin() == base.origin() && next.username().is_empty() && next.password().is_none();
    let below = next.path().strip_prefix(base.path().trim_end_matches('/'));
    let path = below
        .filter(|path| is_ours && path.starts_with('/'))
        .ok_or_else(|| format!("nextPageUri {shown:?} leads away from {base_url}: check genesys.base_url"))?;
    let path = match next.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    if path.len() > NEXT_LIMIT {
        return Err(format!("nextPageUri has {} bytes, the limit is {NEXT_LIMIT}", path.len()));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    const BASE: &str = "https://api.example.com:8443/proxy";

    fn page(body: &str) -> Result<Page, String> {
        read_page(BASE, body.as_bytes())
    }

    #[test]
    fn the_query_is_the_seeds() {
        let query = DetailsQuery {
            conversation_ids: &["a", "b"],
            from: Timestamp::from_millis(0),
            to: Timestamp::from_millis(1),
        };
        let request = query_request(&query);
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", PATH));
        assert_eq!(
            request.body,
            json!({"interval":"PT1H","groupBy":["conversationId"],
                "filter":{"type":"conversation","conversationIds":["a","b"],
                    "startTime":"1970-01-01T00:00:00.000Z","endTime":"1970-01-01T00:00:00.001Z"},
                "metrics":[{"name":"conversation.duration"},{"name":"conversation.wrapup"}],"pageSize":100})
        );
    }

    #[test]
    fn pages_are_read_and_what_else_they_say_is_kept() {
        let read = page(
            r#"{"data":[{"conversationId":"a","x":{"y\u0000":["\u0000z",1.5]}}],"total":9,
                "nextPageUri":"https://api.example.com:8443/proxy/api/v2/q?pageToken=t%20u"}"#,
        )
        .unwrap();
        let expected = json!({"conversationId":"a","x":{"y\u{fffd}":["\u{fffd}z",1.5]}});
        assert_eq!(read.conversations, [("a".to_owned(), expected)]);
        assert_eq!(read.next.as_deref(), Some("/api/v2/q?pageToken=t%20u"));
        for last in [r#"{"data":[]}"#, r#"{"data":[],"nextPageUri":null}"#, r#"{"data":[],"nextPageUri":""}"#]
        {
            assert_eq!(page(last).unwrap(), Page { conversations: vec![], next: None });
        }
        let relative = page(r#"{"data":[],"nextPageUri":"/proxy/next?n=2"}"#).unwrap();
        assert_eq!(relative.next.as_deref(), Some("/next?n=2"));
    }

    #[test]
    fn no_page_is_fetched_from_elsewhere() {
        for uri in [
            "https://evil.example.com/proxy/next",
            "http://api.example.com:8443/proxy/next",
            "https://api.example.com/proxy/next",
            "https://api.example.com:8443/proxy/../admin",
            "https://api.example.com:8443/proxynext",
            "https://user@api.example.com:8443/proxy/next",
            "//evil.example.com/proxy/next",
            "file:///etc/passwd",
            "http://[",
        ] {
            let error = page(&json!({ "data": [], "nextPageUri": uri }).to_string()).unwrap_err();
            assert!(error.contains("nextPageUri"), "{uri}: {error}");
        }
        let long = format!("https://api.example.com:8443/proxy/next?{}", "n".repeat(NEXT_LIMIT));
        assert!(page(&json!({ "data": [], "nextPageUri": long }).to_string()).is_err());
    }

    #[test]
    fn one_odd_item_does_not_cost_its_neighbours() {
        let read = page(
            r#"{"data":[{"conversationId":"a"},{"conversationId":7},7,{"conversationId":"b","n":1e999},{"conversationId":"c"}]}"#,
        );
        let ids: Vec<String> = read.unwrap().conversations.into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["a", "c"]);
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"data":{}}"#,
            r#"{"data":[{}]}"#,
            r#"{"data":[{"conversationId":7}]}"#,
            r#"{"data":[{"conversationId":"a","n":1e999}]}"#,
            r#"{"data":[],"nextPageUri":7}"#,
        ] {
            assert!(page(body).is_err(), "{body}");
        }
    }
}
