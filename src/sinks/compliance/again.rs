//! Looks calls up again when the platform has gone over its analytics.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::genesys::{CallErrorKind, Client, DetailsQuery, Priority, Scope};
use crate::metrics;
use crate::model::Timestamp;
use crate::model::compliance::{Call, Rules};
use crate::model::enriched::EnrichedConversation;
use crate::postgres::compliance::{RecordedCall, Standing};
use crate::postgres::{Database, Error};

/// Calls one query is about: as many as the platform takes at once.
const BATCH: u32 = 50;
/// Queries for one campaign with one look: reads of the loops come first.
const QUERIES: usize = 4;
/// A query may take this long, waiting for the shared budget included.
const QUERY_LIMIT: Duration = Duration::from_secs(60);
/// Calls are looked for so long around the times that are known of them.
const MARGIN: Duration = Duration::from_secs(3_600);

pub(super) struct Again {
    database: Database,
    client: Client,
    rules: Rules,
}

impl Again {
    pub(super) fn new(database: Database, client: Client, rules: Rules) -> Self {
        Self { database, client, rules }
    }

    /// Looks calls up that count before `before`, some of them at a time. Returns up to when all
    /// have been: `before`, or earlier while there is more to do or the platform does not answer.
    pub(super) async fn look_up(
        &self,
        standing: &Standing,
        before: Timestamp,
        shutdown: &CancellationToken,
    ) -> Result<Timestamp, Error> {
        let id = &standing.campaign_id;
        let mut upto = standing.again_upto.clone();
        for _ in 0..QUERIES {
            let calls = self.database.calls_to_look_up_again(id, (upto.0, &upto.1), before, BATCH).await?;
            let Some(last) = calls.last() else { return Ok(before) };
            let Some(found) = self.ask(&calls, shutdown).await else { return Ok(upto.0) };
            let reached = (last.counted_at(), last.conversation_id.clone());
            let changed = self.database.record_calls_again(id, &found, (reached.0, &reached.1)).await?;
            metrics::COMPLIANCE_CALLS.counter(&["looked_up_again"]).increment(calls.len() as u64);
            metrics::COMPLIANCE_CALLS.counter(&["restated"]).increment(changed);
            upto = reached;
        }
        Ok(upto.0)
    }

    /// What the platform says now of those it knows; `None` when it does not answer.
    async fn ask(&self, calls: &[Call], shutdown: &CancellationToken) -> Option<Vec<RecordedCall>> {
        let scope = Scope {
            priority: Priority::Read,
            deadline: Instant::now() + QUERY_LIMIT,
            cancelled: shutdown.clone(),
            withdrawn: CancellationToken::new(),
            waited_ms: Arc::default(),
        };
        let ids: Vec<&str> = calls.iter().map(|call| call.conversation_id.as_str()).collect();
        let from = calls.iter().map(|call| call.placed_at).min()?;
        let to = calls.iter().map(|call| call.ended_at.unwrap_or(call.counted_at())).max()?;
        let query = DetailsQuery { conversation_ids: &ids, from: from.minus(MARGIN), to: to.plus(MARGIN) };
        let found = match self.client.conversation_details(&query, &scope).await {
            Ok(found) => found,
            Err(error) => {
                if !matches!(error.kind, CallErrorKind::Cancelled) {
                    tracing::warn!(reason = error.reason, "calls wait to be looked up again");
                }
                return None;
            }
        };
        let at = clock::now();
        let restated = |call: &Call| {
            let details = found.get(&call.conversation_id)?;
            Some(RecordedCall { call: restated(call, details, at)?, rules: self.rules, looked_up_at: at })
        };
        Some(calls.iter().filter_map(restated).collect())
    }
}

/// The call as new details tell it; what only its events told stays.
fn restated(call: &Call, details: &serde_json::Value, at: Timestamp) -> Option<Call> {
    let parts_told = details.get("participants").is_some();
    let conversation = EnrichedConversation {
        conversation_id: call.conversation_id.as_str().into(),
        first_event_at: call.placed_at,
        last_event_at: call.ended_at.unwrap_or(call.placed_at),
        ended: call.ended_at.is_some(),
        media_type: None,
        direction: None,
        queue_id: None,
        campaign_id: Some(call.campaign_id.as_str().into()),
        flow_id: None,
        flow_version: None,
        outcome: None,
        customer_joined_at: call.answered_at.filter(|_| !parts_told),
        queue_joined_at: call.queued_at.filter(|_| !parts_told),
        agent_joined_at: call.agent_at.filter(|_| !parts_told),
        enriched_at: at,
        enriched_up_to: at,
        details: Some(std::borrow::Cow::Borrowed(details)),
    };
    Call::of(&conversation)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::compliance::{AnsweredBy, Disposition};

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000 + ms)
    }

    fn call() -> Call {
        Call {
            conversation_id: "c".to_owned(),
            campaign_id: "campaign".to_owned(),
            contact_id: None,
            from_number: None,
            to_number: None,
            placed_at: at(0),
            answered_at: Some(at(40)),
            queued_at: None,
            agent_at: Some(at(90)),
            message_at: None,
            ended_at: Some(at(60_000)),
            answered_by: AnsweredBy::Person,
            reached_agent: true,
            abandoned_by_platform: None,
            parts_told: false,
        }
    }

    #[test]
    fn the_same_details_say_the_same_and_times_of_events_stay() {
        let details = json!({"campaignId": "campaign", "userId": "u", "conversationStart": at(0),
            "conversationEnd": at(60_000)});
        assert_eq!(restated(&call(), &details, at(99)), Some(call()));
    }

    #[test]
    fn what_the_platform_says_later_counts() {
        let details = json!({"campaignId": "campaign", "conversationStart": at(0), "conversationEnd": at(60_000),
            "participants": [{"purpose": "customer", "sessions": [{"outboundCampaignId": "campaign",
                "dispositionName": "disposition.classification.callable.machine", "segments": [
                    {"segmentType": "interact", "segmentStart": at(40)}]}]}]});
        let restated = restated(&call(), &details, at(99)).unwrap();
        assert_eq!(restated.disposition(Rules::default()), Disposition::Machine);
    }
}
