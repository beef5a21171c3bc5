//! A conversation as analytics tell it: participants, their sessions, segments and metrics.

use serde_json::{Value, json};

use super::flows::FLOW_TYPE;
use crate::conversations::Conversation;
use crate::organization::Organization;
use crate::scenario::id_of_name;
use crate::time::Timestamp;

/// Without an end while it goes on.
pub(super) fn shown(conversation: &Conversation, organization: &Organization, now: Timestamp) -> Value {
    let has_ended = conversation.conversation_end <= now;
    let participants = [customer(conversation), flow(conversation, organization), agent(conversation)];
    let mut body = json!({
        "conversationId": conversation.conversation_id,
        "conversationStart": conversation.conversation_start,
        "originatingDirection": conversation.originating_direction,
        "divisionIds": [id_of_name("division", "simulated")],
        "participants": participants.into_iter().flatten().collect::<Vec<_>>(),
    });
    if has_ended {
        body["conversationEnd"] = json!(conversation.conversation_end);
    }
    body
}

/// An id of a part, the same each time it is told.
fn part(conversation: &Conversation, name: &str) -> String {
    id_of_name(name, &conversation.conversation_id.to_string())
}

fn metric(name: &str, value: i64, at: Timestamp) -> Value {
    json!({ "name": name, "value": value, "emitDate": at })
}

fn segment(kind: &str, start: Timestamp, end: Timestamp) -> Value {
    json!({ "segmentType": kind, "segmentStart": start, "segmentEnd": end, "conference": false })
}

fn customer(conversation: &Conversation) -> Option<Value> {
    let (start, end) = (conversation.conversation_start, conversation.conversation_end);
    let mut session = json!({
        "sessionId": part(conversation, "customer session"),
        "mediaType": conversation.media_type,
        "direction": conversation.originating_direction,
        "segments": [segment("interact", start, end)],
    });
    session["segments"][0]["disconnectType"] = json!("peer");
    if let Some(campaign_id) = &conversation.campaign_id {
        session["outboundCampaignId"] = json!(campaign_id);
        session["dispositionName"] = json!("disposition.classification.callable.person");
        let reached =
            if conversation.user_id.is_some() { "nOutboundConnected" } else { "nOutboundAbandoned" };
        session["metrics"] = json!([metric("nOutboundAttempted", 1, start), metric(reached, 1, start)]);
    }
    Some(json!({
        "participantId": part(conversation, "customer"),
        "purpose": "customer",
        "sessions": [session],
    }))
}

fn flow(conversation: &Conversation, organization: &Organization) -> Option<Value> {
    let flow_id = conversation.flow_id.as_deref()?;
    let start = conversation.conversation_start;
    let mut flow = json!({ "flowId": flow_id, "flowType": FLOW_TYPE, "entryType": "dnis" });
    if let Ok(known) = organization.flows.get(flow_id) {
        flow["flowName"] = json!(known.habits.name);
    }
    if let Some(version) = &conversation.flow_version {
        flow["flowVersion"] = json!(version);
    }
    if let Some(reason) = conversation.exit_reason {
        flow["exitReason"] = json!(reason);
    }
    Some(json!({
        "participantId": part(conversation, "ivr"),
        "purpose": "ivr",
        "sessions": [{
            "sessionId": part(conversation, "ivr session"),
            "mediaType": conversation.media_type,
            "direction": "inbound",
            "flow": flow,
            "metrics": [metric("nFlow", 1, start)],
            "segments": [],
        }],
    }))
}

fn agent(conversation: &Conversation) -> Option<Value> {
    let user_id = conversation.user_id.as_deref()?;
    let (start, end) = (conversation.conversation_start, conversation.conversation_end);
    let wrapped_up = end.plus(std::time::Duration::from_millis(conversation.wrap_up_ms));
    let (mut talk, mut wrap_up) = (segment("interact", start, end), segment("wrapup", end, wrapped_up));
    for segment in [&mut talk, &mut wrap_up] {
        if let Some(queue_id) = &conversation.queue_id {
            segment["queueId"] = json!(queue_id);
        }
    }
    if let Some(code) = &conversation.wrap_up_code {
        wrap_up["wrapUpCode"] = json!(code);
    }
    let mut metrics = vec![metric("tTalk", end.millis_since(start), end)];
    let mut segments = vec![talk];
    if conversation.wrap_up_ms > 0 || conversation.wrap_up_code.is_some() {
        metrics.push(metric("tAcw", i64::try_from(conversation.wrap_up_ms).unwrap_or(i64::MAX), wrapped_up));
        segments.push(wrap_up);
    }
    Some(json!({
        "participantId": part(conversation, "agent"),
        "userId": user_id,
        "purpose": "agent",
        "sessions": [{
            "sessionId": part(conversation, "agent session"),
            "mediaType": conversation.media_type,
            "direction": conversation.originating_direction,
            "metrics": metrics,
            "segments": segments,
        }],
    }))
}
