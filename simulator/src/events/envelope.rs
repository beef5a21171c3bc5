//! An event as EventBridge delivers it (`docs/platform.md`).

use serde_json::{Value, json};

use super::Event;
use crate::traffic::EventKind;

const ACCOUNT: &str = "123456789012";
const REGION: &str = "us-east-1";
const SOURCE: &str = "aws.partner/genesys.com/cloud/3f4a1c52-8e0b-4d36-9a57-60c2d1b7e9f0/simulated";
const CONTACT_LIST: &str = "5f8c1d3e-2f6a-4c1b-9a63-0d6f1f0f7a11";

/// The whole envelope. Its `detail-type` names the conversation in half of the cases
/// and has the literal `{id}` in the others: both occur.
pub(super) fn of(event: &Event) -> Value {
    let conversation_id = event.journey.conversation_id;
    let name = event.kind.name();
    let topic = format!("v2.detail.events.conversation.{conversation_id}.{name}");
    let detail_type = match event.id.as_u128() & 1 {
        0 => format!("v2.detail.events.conversation.{{id}}.{name}"),
        _ => topic.clone(),
    };
    let timestamp = event.at.to_string();
    json!({
        "version": "0",
        "id": event.id,
        "detail-type": detail_type,
        "source": SOURCE,
        "account": ACCOUNT,
        // Whole seconds only.
        "time": format!("{}Z", &timestamp[..19]),
        "region": REGION,
        "resources": [],
        "detail": {
            "topicName": topic,
            "version": "2",
            "timestamp": timestamp,
            "eventBody": body(event),
            "metadata": { "CorrelationId": event.id },
        },
    })
}

fn body(event: &Event) -> Value {
    let journey = &*event.journey;
    let direction = if journey.is_outbound() { "OUTBOUND" } else { "INBOUND" };
    let mut body = json!({
        "eventTime": event.at.as_millis(),
        "conversationId": journey.conversation_id,
        "participantId": journey.participant_id,
        "sessionId": journey.session_id,
        "mediaType": "VOICE",
        "direction": direction,
        "provider": "Edge",
        "ani": journey.ani,
        "dnis": "tel:+13175550100",
    });
    let mut add = |name: &str, value: Value| body[name] = value;
    match event.kind {
        EventKind::CustomerStart | EventKind::AcdStart | EventKind::UserStart => {}
        EventKind::CustomerEnd => {
            add("disconnectType", json!(if journey.user_id.is_some() { "PEER" } else { "CLIENT" }));
            add("interactingDurationMs", json!(journey.talk_ms));
        }
        EventKind::AcdEnd => {
            add("acdOutcome", json!(journey.acd_outcome()));
            add("answeredUserId", json!(journey.user_id));
        }
        EventKind::UserEnd => add("interactingDurationMs", json!(journey.talk_ms)),
        EventKind::Acw => add("durationMs", json!(journey.wrap_up_ms)),
        EventKind::Outbound => {
            add("outboundCampaignId", json!(journey.campaign_id));
            add("outboundContactId", json!(journey.participant_id));
            add("outboundContactListId", json!(CONTACT_LIST));
        }
        EventKind::FlowStart | EventKind::FlowEnd | EventKind::FlowOutcome => {
            if let Some(visit) = &journey.flow {
                add("flowId", json!(visit.flow_id));
                add("flowVersion", json!(visit.version));
                add("flowType", json!("INBOUNDCALL"));
                match event.kind {
                    EventKind::FlowEnd => add("exitReason", json!(visit.exit_reason)),
                    EventKind::FlowOutcome => add("flowOutcomeValue", json!(visit.outcome_value())),
                    _ => {}
                }
            }
        }
    }
    if matches!(
        event.kind,
        EventKind::AcdStart | EventKind::AcdEnd | EventKind::UserStart | EventKind::UserEnd
    ) {
        add("queueId", json!(journey.queue_id));
    }
    if matches!(event.kind, EventKind::UserStart | EventKind::UserEnd | EventKind::Acw) {
        add("userId", json!(journey.user_id));
    }
    if let Value::Object(members) = &mut body {
        members.retain(|_, value| !value.is_null());
    }
    body
}
