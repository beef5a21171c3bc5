//! Details of conversations: the synchronous query, by ids, and what both and jobs have in common.

use std::cmp::Reverse;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::conversation::shown;
use super::filter::Filter;
use super::interval::Interval;
use super::request::{Request, missing, not_one_of};
use super::vocabulary::{CONVERSATION_DETAIL_DIMENSIONS, SEGMENT_DETAIL_DIMENSIONS};
use super::{Endpoint, Outcome};
use crate::conversations::{Conversation, Conversations};
use crate::input::invalid;
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::time::Timestamp;

const PAGE_SIZE_DEFAULT: usize = 25;
const PAGE_SIZE_MAX: usize = 100;
/// Results no page may lie beyond.
const MAX_RESULTS: usize = 100_000;
/// Longest interval without and with a filter.
const MAX_DAYS_UNFILTERED: i64 = 7;
const MAX_DAYS: i64 = 31;
const MAX_IDS: usize = 100;
const CONVERSATION_DIMENSIONS: &[&str] = &["conversationId", "originatingDirection"];
const SEGMENT_DIMENSIONS: &[&str] = &[
    "direction",
    "flowId",
    "flowVersion",
    "mediaType",
    "outboundCampaignId",
    "queueId",
    "userId",
    "wrapUpCode",
];
pub(super) const PERMISSIONS: &[&str] =
    &["analytics:conversationDetail:view", "analytics:agentConversationDetail:view"];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: "/api/v2/analytics/conversations/details/query",
        permissions: PERMISSIONS,
        perform: query,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/analytics/conversations/details",
        permissions: PERMISSIONS,
        perform: by_ids,
    },
];

/// Which conversations a query or a job is about, and in which order.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Wanted {
    interval: Option<String>,
    conversation_filters: Option<Vec<Filter>>,
    segment_filters: Option<Vec<Filter>>,
    order: Option<String>,
    order_by: Option<String>,
}

impl Wanted {
    /// # Errors
    /// 400 for what the platform would not take, 501 for what is not simulated.
    pub(super) fn checked_interval(&self) -> Result<Interval, Refusal> {
        let interval = Interval::read(self.interval.as_deref().ok_or_else(|| missing("interval"))?)?;
        for filter in self.conversation_filters.iter().flatten() {
            filter.check(CONVERSATION_DETAIL_DIMENSIONS, CONVERSATION_DIMENSIONS)?;
        }
        for filter in self.segment_filters.iter().flatten() {
            filter.check(SEGMENT_DETAIL_DIMENSIONS, SEGMENT_DIMENSIONS)?;
        }
        let orders = ["asc", "desc", "unordered"];
        if let Some(order) = self.order.as_deref().filter(|order| !orders.contains(order)) {
            return Err(not_one_of("order", order, &orders.join(", ")));
        }
        let keys = ["conversationStart", "conversationEnd", "segmentStart", "segmentEnd"];
        if let Some(key) = self.order_by.as_deref().filter(|key| !keys.contains(key)) {
            return Err(not_one_of("orderBy", key, &keys.join(", ")));
        }
        Ok(interval)
    }

    fn is_filtered(&self) -> bool {
        self.conversation_filters.iter().chain(&self.segment_filters).any(|filters| !filters.is_empty())
    }

    /// The conversations analytics know by `now` and `selects` picks, in order.
    pub(super) fn find<'c>(
        &self,
        conversations: &'c Conversations,
        now: Timestamp,
        selects: impl Fn(&Conversation) -> bool,
    ) -> Vec<&'c Conversation> {
        // Ids that are named need no look at all the others.
        let named = self
            .conversation_filters
            .iter()
            .flatten()
            .find_map(|filter| filter.only_values("conversationId"));
        let known: Box<dyn Iterator<Item = &'c Conversation>> = match named {
            Some(ids) => {
                let ids: std::collections::BTreeSet<Uuid> =
                    ids.into_iter().filter_map(|id| Uuid::try_parse(id).ok()).collect();
                Box::new(ids.into_iter().filter_map(|id| conversations.get(id)))
            }
            None => Box::new(conversations.iter()),
        };
        let mut found: Vec<&Conversation> =
            known.filter(|it| it.available_at <= now && selects(it) && self.admits(it)).collect();
        let by_end = self.order_by.as_deref().is_some_and(|key| key.ends_with("End"));
        let key = |it: &&Conversation| {
            (if by_end { it.conversation_end } else { it.conversation_start }, it.conversation_id)
        };
        match self.order.as_deref() {
            Some("desc") => found.sort_by_key(|it| Reverse(key(it))),
            _ => found.sort_by_key(key),
        }
        found
    }

    fn admits(&self, conversation: &Conversation) -> bool {
        let id = conversation.conversation_id.to_string();
        let value = |name: &str| match name {
            "conversationId" => Some(id.as_str()),
            "originatingDirection" | "direction" => Some(&*conversation.originating_direction),
            "mediaType" => Some(&*conversation.media_type),
            "flowId" => conversation.flow_id.as_deref(),
            "flowVersion" => conversation.flow_version.as_deref(),
            "queueId" => conversation.queue_id.as_deref(),
            "outboundCampaignId" => conversation.campaign_id.as_deref(),
            "userId" => conversation.user_id.as_deref(),
            "wrapUpCode" => conversation.wrap_up_code.as_deref(),
            _ => None,
        };
        let filters = self.conversation_filters.iter().flatten().chain(self.segment_filters.iter().flatten());
        filters.into_iter().all(|filter| filter.admits(&value))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Query {
    #[serde(flatten)]
    wanted: Wanted,
    paging: Option<Paging>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Paging {
    page_size: Option<usize>,
    page_number: Option<usize>,
}

/// A conversation is found by the UTC day it started on, whenever it ended.
fn query(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let query: Query = request.body()?;
    let interval = query.wanted.checked_interval()?;
    interval.check_days(if query.wanted.is_filtered() { MAX_DAYS } else { MAX_DAYS_UNFILTERED })?;
    let paging = query.paging.unwrap_or(Paging { page_size: None, page_number: None });
    let (size, number) = (paging.page_size.unwrap_or(PAGE_SIZE_DEFAULT), paging.page_number.unwrap_or(1));
    if !(1..=PAGE_SIZE_MAX).contains(&size) || number == 0 {
        let message = format!(
            "paging.pageSize {size} must be 1 to {PAGE_SIZE_MAX}, paging.pageNumber {number} at least 1"
        );
        return Err(invalid(message).with_detail("invalid.value", "paging"));
    }
    if size.saturating_mul(number) > MAX_RESULTS {
        let message = format!("paging must not go beyond {MAX_RESULTS} results; ask a job for them");
        return Err(invalid(message).with_detail("invalid.value", "paging"));
    }
    let on_day = |it: &Conversation| interval.touches_day_of(it.conversation_start);
    let now = request.moment.wall;
    let found = query.wanted.find(&organization.conversations, now, on_day);
    let page: Vec<Value> =
        found.iter().skip((number - 1) * size).take(size).map(|it| shown(it, organization, now)).collect();
    let mut body = json!({ "totalHits": found.len() });
    if !page.is_empty() {
        body["conversations"] = Value::Array(page);
    }
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn by_ids(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let ids = request.required_query("id")?;
    let ids: Vec<&str> = ids.split(',').collect();
    if ids.len() > MAX_IDS {
        return Err(invalid(format!("id may name {MAX_IDS} conversations, not {}", ids.len())));
    }
    let now = request.moment.wall;
    let known =
        ids.iter().filter_map(|id| organization.conversations.available(Uuid::try_parse(id).ok()?, now));
    let conversations: Vec<Value> = known.map(|it| shown(it, organization, now)).collect();
    Ok((Reply::json(StatusCode::OK, &json!({ "conversations": conversations })), None))
}
