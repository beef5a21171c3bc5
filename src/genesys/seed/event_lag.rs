//! The query for how far behind consumer groups are, page by page.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::super::event_lag::{EventLagAnswer, EventLagQuery, EventLagRow};
use crate::model::outcome::SentRequest;

const PATH: &str = "/api/v2/analytics/events/details/query";
const PAGE_SIZE: u32 = 100;
/// Pages of one answer that are followed at most.
pub(crate) const PAGE_LIMIT: usize = 100;
/// The longest time that may be asked about.
pub(crate) const LONGEST_WINDOW_MS: i64 = 86_400_000;
/// Rows of a page at most: larger answers are nonsense.
const ROW_LIMIT: usize = 10_000;

/// One page of the answer.
#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    pub answer: EventLagAnswer,
    /// Token of the next page.
    pub next: Option<String>,
}

/// # Errors
/// When the times make no window, or one longer than 24 h.
pub(crate) fn query_request(
    query: &EventLagQuery<'_>,
    page_token: Option<&str>,
) -> Result<SentRequest, String> {
    let window_ms = query.to.millis_since(query.from);
    if !(1..=LONGEST_WINDOW_MS).contains(&window_ms) {
        return Err(format!("the window has {window_ms} ms; 1 to {LONGEST_WINDOW_MS} (24 h) are allowed"));
    }
    let mut body = json!({
        "dateFrom": query.from,
        "dateTo": query.to,
        "interval": "PT1H",
        "metrics": ["eventCount", "processingLatency"],
        "groupings": ["consumerGroup", "eventType"],
        "filter": filter(query.consumer_groups),
        "pageSize": PAGE_SIZE,
    });
    if let Some(token) = page_token {
        body["pageToken"] = token.into();
    }
    Ok(SentRequest { method: "POST".to_owned(), path: PATH.to_owned(), if_match: None, body })
}

/// `consumerGroup IN ['a', 'b']`. Quotes and backslashes in names are escaped, so that a
/// name stays a name.
fn filter(groups: &[String]) -> String {
    let quoted: Vec<String> = groups
        .iter()
        .map(|group| format!("'{}'", group.replace('\\', "\\\\").replace('\'', "\\'")))
        .collect();
    format!("consumerGroup IN [{}]", quoted.join(", "))
}

/// Reads a page, row by row: one that makes no sense does not spoil the others.
///
/// # Errors
/// When it is no page at all.
pub(crate) fn read_page(body: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct WirePage<'a> {
        page_token: Option<String>,
        next_page: Option<Value>,
        #[serde(borrow)]
        rows: Vec<&'a RawValue>,
    }
    let read: WirePage<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if read.rows.len() > ROW_LIMIT {
        return Err(format!("a page of {} rows; at most {ROW_LIMIT} make sense", read.rows.len()));
    }
    let mut answer = EventLagAnswer::default();
    for (index, row) in read.rows.iter().enumerate() {
        let row = serde_json::from_str(row.get()).map_err(|error| format!(" cannot be read: {error}"));
        match row.and_then(|row| read_row(&row).map_err(|problem| format!(".{problem}"))) {
            Ok(row) => answer.rows.push(row),
            Err(problem) => answer.problems.push(format!("rows[{index}]{problem}")),
        }
    }
    // Paging goes on while `nextPage` is not empty, with the reply's `pageToken`.
    let goes_on = match read.next_page {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    };
    let next = match (goes_on, read.page_token.filter(|token| !token.is_empty())) {
        (false, _) => None,
        (true, Some(token)) => Some(token),
        (true, None) => return Err("nextPage is there and pageToken is not".to_owned()),
    };
    Ok(Page { answer, next })
}

fn read_row(row: &Value) -> Result<EventLagRow, String> {
    let text = |name: &str| match row.get(name) {
        Some(Value::String(text)) if !text.is_empty() && !text.contains('\0') => Ok(text.clone()),
        other => Err(wrong(name, other, "text that is not empty")),
    };
    let event_count = match row.get("eventCount") {
        Some(Value::Number(number)) if number.as_u64().is_some() => number.as_u64().unwrap_or_default(),
        other => return Err(wrong("eventCount", other, "a whole number, 0 or more")),
    };
    let latency = row.get("processingLatency").and_then(Value::as_f64);
    let processing_latency_ms = latency
        .filter(|latency| latency.is_finite() && *latency >= 0.0)
        .ok_or_else(|| wrong("processingLatency", row.get("processingLatency"), "a number, 0 or more"))?;
    Ok(EventLagRow {
        consumer_group: text("consumerGroup")?,
        event_type: text("eventType")?,
        event_count,
        processing_latency_ms,
    })
}

fn wrong(name: &str, found: Option<&Value>, allowed: &str) -> String {
    let found = found.map_or_else(|| "missing".to_owned(), |value| value.to_string());
    let shown: String = found.chars().take(80).collect();
    format!("{name} is {shown}; it must be {allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    const GROUPS: &[&str] = &["plain", "agent's-desk", "back\\slash", "'] OR x IN ['"];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_678 + seconds * 1_000)
    }

    #[test]
    fn names_cannot_leave_their_quotes() {
        let groups: Vec<String> = GROUPS.iter().map(|group| (*group).to_owned()).collect();
        let query = EventLagQuery { consumer_groups: &groups, from: at(0), to: at(3_600) };
        let request = query_request(&query, Some("t-2")).unwrap();
        assert_eq!(
            request.body["filter"],
            r"consumerGroup IN ['plain', 'agent\'s-desk', 'back\\slash', '\'] OR x IN [\'']"
        );
        assert_eq!(request.body["pageToken"], "t-2");
        assert_eq!(request.body["dateFrom"], "2026-01-02T03:04:05.678Z");
    }

    #[test]
    fn a_window_is_at_most_a_day_and_not_empty() {
        let query = |seconds| {
            query_request(&EventLagQuery { consumer_groups: &[], from: at(0), to: at(seconds) }, None)
        };
        assert!(query(86_400).is_ok());
        for seconds in [86_401, 0, -1] {
            assert!(query(seconds).unwrap_err().contains("24 h"), "{seconds}");
        }
    }

    #[test]
    fn each_row_that_makes_no_sense_is_told_and_its_neighbours_are_read() {
        let row = |group: Value, count: Value, latency: Value| json!({"consumerGroup": group, "eventType": "e", "eventCount": count, "processingLatency": latency});
        let body = json!({"pageToken": "", "nextPage": "", "rows": [
            row("a".into(), 5.into(), json!(12.5)),
            row("".into(), 5.into(), 1.into()),
            row("b".into(), (-5).into(), 1.into()),
            row("c".into(), json!(2.5), 1.into()),
            row("d".into(), 1.into(), "12".into()),
            row("e".into(), 1.into(), json!(-1)),
            json!({"consumerGroup": "f"}),
            json!(7),
            row("g".into(), 0.into(), 0.into()),
        ]});
        let page = read_page(body.to_string().as_bytes()).unwrap();
        let groups: Vec<_> = page.answer.rows.iter().map(|row| row.consumer_group.as_str()).collect();
        assert_eq!(groups, ["a", "g"]);
        assert_eq!(page.answer.problems.len(), 7);
        assert!(page.answer.problems[1].starts_with("rows[2].eventCount is -5"), "{:?}", page.answer);
        assert!(page.answer.problems[3].contains("processingLatency is \"12\""), "{:?}", page.answer);
        assert_eq!(page.next, None);
    }

    #[test]
    fn pages_go_on_while_there_is_a_next_one() {
        let next = |next_page: Value, token: Value| {
            read_page(json!({"nextPage": next_page, "pageToken": token, "rows": []}).to_string().as_bytes())
                .map(|page| page.next)
        };
        assert_eq!(next("/p2".into(), "t".into()), Ok(Some("t".to_owned())));
        assert_eq!(next("".into(), "t".into()), Ok(None));
        assert_eq!(next(Value::Null, "t".into()), Ok(None));
        assert!(next("/p2".into(), Value::Null).is_err());
        assert!(read_page(b"{}").is_err());
    }
}
