//! `POST /api/v2/analytics/conversations/details/query` and its further pages.

use axum::http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::conversations::Conversation;
use crate::details::OpenQuery;
use crate::exchange::Received;
use crate::input::{invalid, json_body, text_of};
use crate::organization::{Moment, Organization};
use crate::reply::{Refusal, Reply};
use crate::time::Timestamp;

/// Conversations one query may name.
const MAX_IDS: usize = 100;
const PAGE_SIZE_DEFAULT: usize = 25;
const PAGE_SIZE_MAX: usize = 100;
/// Longest span of `startTime` to `endTime`: 31 days.
const MAX_WINDOW_MS: i64 = 31 * 86_400_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    group_by: Vec<String>,
    filter: Filter,
    metrics: Vec<Metric>,
    page_size: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(rename = "type")]
    kind: String,
    conversation_ids: Vec<String>,
    start_time: Timestamp,
    end_time: Timestamp,
}

#[derive(Deserialize)]
struct Metric {
    name: String,
}

/// What is known about the conversations asked for, in the order asked. Unknown ones, those
/// analytics do not know yet and those outside the filter's time are left out.
///
/// # Errors
/// 400 for what the query must not say.
pub(super) fn query(
    organization: &mut Organization,
    received: &Received,
    moment: Moment,
) -> Result<Reply, Refusal> {
    let query: Query = json_body(&received.headers, &received.body)?;
    let page_size = checked_page_size(&query)?;
    let Filter { start_time, end_time, .. } = query.filter;
    let mut found: Vec<Uuid> = Vec::new();
    for id in query.filter.conversation_ids.iter().filter_map(|id| Uuid::try_parse(id).ok()) {
        let known = organization.conversations.available(id, moment.wall).is_some_and(|conversation| {
            conversation.conversation_start <= end_time && conversation.conversation_end >= start_time
        });
        if known && !found.contains(&id) {
            found.push(id);
        }
    }
    let metrics = query.metrics.into_iter().map(|metric| metric.name).collect();
    Ok(reply(organization, received, OpenQuery { left: found, page_size, metrics }))
}

/// The page `pageToken` names.
///
/// # Errors
/// 400 for a token that names no open query.
pub(super) fn page(organization: &mut Organization, received: &Received) -> Result<Reply, Refusal> {
    let query = received.query.as_deref().unwrap_or_default();
    let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "pageToken");
    let token = token.and_then(|(_, token)| Uuid::try_parse(&token).ok());
    let open = token.and_then(|token| organization.details.open(token)).cloned();
    let open = open.ok_or_else(|| invalid("pageToken names no open query; ask the query again"))?;
    Ok(reply(organization, received, open))
}

fn checked_page_size(query: &Query) -> Result<usize, Refusal> {
    let Filter { kind, conversation_ids, start_time, end_time } = &query.filter;
    if kind != "conversation" {
        return Err(invalid(format!("filter.type {kind:?} must be \"conversation\"")));
    }
    if query.group_by != ["conversationId"] {
        return Err(invalid("groupBy must be [\"conversationId\"]"));
    }
    if !(1..=MAX_IDS).contains(&conversation_ids.len()) {
        let held = conversation_ids.len();
        return Err(invalid(format!("filter.conversationIds must hold 1 to {MAX_IDS} ids, not {held}")));
    }
    if !(0..=MAX_WINDOW_MS).contains(&end_time.millis_since(*start_time)) {
        return Err(invalid("filter.endTime must be within 31 days after filter.startTime"));
    }
    let page_size = query.page_size.unwrap_or(PAGE_SIZE_DEFAULT);
    if !(1..=PAGE_SIZE_MAX).contains(&page_size) {
        return Err(invalid(format!("pageSize {page_size} must be 1 to {PAGE_SIZE_MAX}")));
    }
    Ok(page_size)
}

fn reply(organization: &mut Organization, received: &Received, query: OpenQuery) -> Reply {
    let metrics = query.metrics.clone();
    let (page, next) = organization.details.cut(query);
    let known = &organization.conversations;
    // Availability was settled when the query was asked; a later page cannot lose it.
    let data = page.iter().filter_map(|id| known.get(*id));
    let mut body = json!({ "data": data.map(|found| item(found, &metrics)).collect::<Vec<_>>() });
    if let Some(token) = next {
        let host = text_of(&received.headers, header::HOST).unwrap_or("localhost");
        let path = &received.path;
        body["nextPageUri"] = json!(format!("http://{host}{path}?pageToken={token}"));
    }
    Reply::json(StatusCode::OK, &body)
}

fn item(conversation: &Conversation, metrics: &[String]) -> Value {
    let duration_ms = conversation.conversation_end.millis_since(conversation.conversation_start);
    let mut item = serde_json::to_value(conversation).expect("a conversation has text keys only");
    if let Value::Object(members) = &mut item {
        members.remove("availableAt");
        members.remove("wrapUpMs");
    }
    let measured = metrics.iter().filter_map(|name| match name.as_str() {
        "conversation.duration" => Some(json!({ "name": name, "value": duration_ms })),
        "conversation.wrapup" => Some(json!({ "name": name, "value": conversation.wrap_up_ms })),
        _ => None,
    });
    item["metrics"] = measured.collect();
    item
}
