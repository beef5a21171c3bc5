//! Conversations registered by hand, and the manners of the query that finds them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{Answer, PageQuery, bad, done, parse, patched};
use crate::conversations::Conversation;
use crate::server::Shared;
use crate::time::Timestamp;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/conversations", get(list).post(register))
        .route("/details", get(show_manners).put(set_manners))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Registration {
    conversation_id: Uuid,
    conversation_start: Timestamp,
    conversation_end: Timestamp,
    available_at: Option<Timestamp>,
    media_type: Option<String>,
    originating_direction: Option<String>,
    flow_id: Option<String>,
    flow_version: Option<String>,
    queue_id: Option<String>,
    campaign_id: Option<String>,
    user_id: Option<String>,
    wrap_up_code: Option<String>,
    #[serde(default)]
    wrap_up_ms: u64,
}

impl Registration {
    fn conversation(self, available_at: Timestamp) -> Conversation {
        Conversation {
            conversation_id: self.conversation_id,
            conversation_start: self.conversation_start,
            conversation_end: self.conversation_end,
            available_at,
            media_type: self.media_type.map_or("voice".into(), Into::into),
            originating_direction: self.originating_direction.map_or("inbound".into(), Into::into),
            flow_id: self.flow_id.map(Into::into),
            flow_version: self.flow_version.map(Into::into),
            exit_reason: None,
            queue_id: self.queue_id.map(Into::into),
            campaign_id: self.campaign_id.map(Into::into),
            user_id: self.user_id.map(Into::into),
            wrap_up_code: self.wrap_up_code.map(Into::into),
            wrap_up_ms: self.wrap_up_ms,
        }
    }
}

async fn register(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let registrations: Vec<Registration> = parse(&body)?;
    for (index, registration) in registrations.iter().enumerate() {
        if registration.conversation_end < registration.conversation_start {
            return Err(bad(format!("item {index}: conversationEnd is before conversationStart")));
        }
    }
    let registered = registrations.len();
    shared.with(|organization, _| {
        for registration in registrations {
            let available_at = registration
                .available_at
                .unwrap_or_else(|| organization.details.appearance(registration.conversation_end));
            organization.conversations.register(registration.conversation(available_at));
        }
    });
    done(json!({ "registered": registered }))
}

async fn list(State(shared): State<Arc<Shared>>, query: Query<PageQuery>) -> Answer {
    let page = shared.with(|organization, _| organization.conversations.page(query.since, query.limit()));
    done(json!(page))
}

async fn show_manners(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!(shared.with(|organization, _| organization.details.manners())))
}

async fn set_manners(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let manners = shared.with(|organization, _| {
        let manners = patched(&organization.details.manners(), &body)?;
        organization.details.set_manners(manners).map_err(bad)?;
        Ok(manners)
    });
    done(json!(manners?))
}
