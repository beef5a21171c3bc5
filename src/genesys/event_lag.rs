//! How far behind the platform's own consumer groups are. The seed dialect alone knows.

use std::collections::BTreeSet;

use super::client::{Client, Scope};
use super::details::malformed;
use super::dialect::Spoken;
use super::error::{CallError, CallErrorKind as Kind};
use super::seed::event_lag;
use super::transport::RawReply;
use crate::model::Timestamp;

/// A question about consumer groups.
#[derive(Clone, Copy, Debug)]
pub struct EventLagQuery<'a> {
    pub consumer_groups: &'a [String],
    /// At most 24 h before `to`.
    pub from: Timestamp,
    pub to: Timestamp,
}

/// One row: a group and an event type.
#[derive(Clone, Debug, PartialEq)]
pub struct EventLagRow {
    pub consumer_group: String,
    pub event_type: String,
    pub event_count: u64,
    /// Finite, not negative.
    pub processing_latency_ms: f64,
}

/// All rows of an answer, and what was wrong with others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventLagAnswer {
    pub rows: Vec<EventLagRow>,
    /// One line per row that makes no sense: which, and why.
    pub problems: Vec<String>,
}

impl Client {
    /// How far behind the platform's consumer groups are: all pages of the answer, or an error.
    pub async fn event_lag(
        &self,
        query: &EventLagQuery<'_>,
        scope: &Scope,
    ) -> Result<EventLagAnswer, CallError> {
        if let Spoken::Platform(_) = self.inner.spoken {
            let reason = "not sent: the platform has no analytics of consumer groups; leave \
                lag.analytics_groups empty and measure at the broker";
            return Err(CallError::without_reply(Kind::Rejected, reason));
        }
        let mut found = EventLagAnswer::default();
        let mut tokens = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let request = event_lag::query_request(query, token.as_deref()).map_err(|problem| {
                CallError::without_reply(Kind::Rejected, format!("not sent: {problem}"))
            })?;
            let read = |_: &RawReply, body: &[u8]| event_lag::read_page(body);
            let page = self.inner.read(&self.inner.event_lag, "", &request, scope, read).await?;
            found.rows.extend(page.answer.rows);
            let number = tokens.len() + 1;
            let problems = page.answer.problems;
            found.problems.extend(problems.into_iter().map(|problem| format!("page {number}: {problem}")));
            let Some(next) = page.next else { return Ok(found) };
            let problem = if number >= event_lag::PAGE_LIMIT {
                format!("the answer has more than {} pages", event_lag::PAGE_LIMIT)
            } else if !tokens.insert(next.clone()) {
                format!("the answer's pages go in a circle: page token {next:?} came twice")
            } else {
                token = Some(next);
                continue;
            };
            return Err(malformed(&request, &problem));
        }
    }
}
