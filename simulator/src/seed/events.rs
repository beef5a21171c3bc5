//! `POST /api/v2/analytics/events/details/query`: how consumer groups fare.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::event_filter::EventFilter;
use crate::consumer_groups::Row;
use crate::exchange::Received;
use crate::input::{invalid, json_body};
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::time::Timestamp;

/// Longest window: a day.
const MAX_WINDOW_MS: i64 = 86_400_000;
const PAGE_SIZE_DEFAULT: usize = 100;
const PAGE_SIZE_MAX: usize = 1_000;
const METRICS: [&str; 2] = ["eventCount", "processingLatency"];
const GROUPINGS: [&str; 2] = ["consumerGroup", "eventType"];
/// Before the number of rows already told, in a page token.
const TOKEN_PREFIX: &str = "rows-";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    date_from: Timestamp,
    date_to: Timestamp,
    interval: String,
    metrics: Vec<Metric>,
    groupings: Vec<String>,
    filter: Option<String>,
    page_size: Option<usize>,
    page_token: Option<String>,
}

/// A text, or an object with it: the seed documents have both.
#[derive(Deserialize)]
#[serde(untagged)]
enum Metric {
    Text(String),
    Object { name: String },
}

impl Metric {
    fn name(&self) -> &str {
        let (Self::Text(name) | Self::Object { name }) = self;
        name
    }
}

/// Rows of the groups the filter admits, page by page.
///
/// # Errors
/// 400 for a window of more than a day, a bad filter, and whatever else cannot be asked.
pub(super) fn query(organization: &mut Organization, received: &Received) -> Result<Reply, Refusal> {
    let query: Query = json_body(&received.headers, &received.body)?;
    let window_ms = check(&query)?;
    let filter = match query.filter.as_deref() {
        None | Some("") => EventFilter::default(),
        Some(text) => EventFilter::read(text).map_err(invalid)?,
    };
    let page_size = query.page_size.unwrap_or(PAGE_SIZE_DEFAULT);
    let told = match query.page_token.as_deref() {
        None | Some("") => 0,
        Some(token) => read_token(token)?,
    };
    let groups = &mut organization.consumer_groups;
    let rows = groups.rows(|group, kind| filter.admits(group, kind), window_ms);
    let manners = groups.manners;
    let page: Vec<Value> = rows
        .iter()
        .skip(told)
        .take(page_size)
        .enumerate()
        .map(|(index, row)| shown(row, index < manners.bad_rows))
        .collect();
    let next = (told + page.len() < rows.len()).then(|| match manners.repeat_page_token {
        true => format!("{TOKEN_PREFIX}0"),
        false => format!("{TOKEN_PREFIX}{}", told + page.len()),
    });
    let metrics: Vec<Value> = METRICS
        .iter()
        .map(|name| if manners.metrics_as_objects { json!({ "name": name }) } else { json!(name) })
        .collect();
    let token = next.unwrap_or_default();
    let body = json!({
        "totalCount": rows.len(),
        "pageSize": page_size,
        "pageToken": token,
        "nextPage": token,
        "metrics": metrics,
        "entity": "event",
        "interval": query.interval,
        "dateFrom": query.date_from,
        "dateTo": query.date_to,
        "groupings": GROUPINGS,
        "columns": [
            { "name": "consumerGroup", "type": "string" },
            { "name": "eventType", "type": "string" },
            { "name": "eventCount", "type": "integer" },
            { "name": "processingLatency", "type": "number" },
        ],
        "rows": page,
    });
    Ok(Reply::json(StatusCode::OK, &body))
}

/// The window's length in milliseconds.
fn check(query: &Query) -> Result<i64, Refusal> {
    let window_ms = query.date_to.millis_since(query.date_from);
    if !(1..=MAX_WINDOW_MS).contains(&window_ms) {
        return Err(invalid("dateTo must be after dateFrom by at most 24 hours"));
    }
    if !query.interval.starts_with('P') || query.interval.len() < 3 {
        return Err(invalid(format!("interval {:?} must be a period such as PT1H", query.interval)));
    }
    if query.groupings != GROUPINGS {
        return Err(invalid(format!("groupings must be {GROUPINGS:?}")));
    }
    let unknown = query.metrics.iter().map(Metric::name).find(|name| !METRICS.contains(name));
    if query.metrics.is_empty() || unknown.is_some() {
        return Err(invalid(format!("metrics must be of {METRICS:?}, not {}", unknown.unwrap_or("none"))));
    }
    let page_size = query.page_size.unwrap_or(PAGE_SIZE_DEFAULT);
    if !(1..=PAGE_SIZE_MAX).contains(&page_size) {
        return Err(invalid(format!("pageSize {page_size} must be 1 to {PAGE_SIZE_MAX}")));
    }
    Ok(window_ms)
}

fn read_token(token: &str) -> Result<usize, Refusal> {
    let told = token.strip_prefix(TOKEN_PREFIX).and_then(|number| number.parse().ok());
    told.ok_or_else(|| invalid("pageToken is none of this query's"))
}

fn shown(row: &Row, bad: bool) -> Value {
    let count = if bad { json!(row.event_count.to_string()) } else { json!(row.event_count) };
    json!({
        "consumerGroup": row.consumer_group,
        "eventType": row.event_type,
        "eventCount": count,
        "processingLatency": row.processing_latency_ms,
    })
}
