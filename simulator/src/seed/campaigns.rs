//! Campaigns, their statistics, and the one change clients make to them.

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use crate::input::{json_body, text_of};
use crate::journal::Effect;
use crate::organization::{Moment, Organization, unknown_campaign};
use crate::reply::{Refusal, Reply, refusal_for_status};

pub(super) fn document(organization: &Organization, id: &str) -> Result<Reply, Refusal> {
    let definition = organization.definitions.get(id).ok_or_else(|| unknown_campaign(id))?;
    let body = Value::Object(definition.document().clone());
    Ok(Reply::json(StatusCode::OK, &body).with_header(header::ETAG, &definition.etag()))
}

pub(super) fn stats(organization: &Organization, id: &str) -> Result<Reply, Refusal> {
    let snapshot = organization.world.snapshot(id).ok_or_else(|| unknown_campaign(id))?;
    let mut body = json!({
        "answerRate": snapshot.answer_rate,
        "agentAvailable": snapshot.agents.idle,
        "agentBusy": snapshot.agents.talking + snapshot.agents.wrapping_up,
        "callsDelivered": snapshot.calls.delivered,
    });
    if organization.manners.counters_in_stats {
        body["attempts"] = json!(snapshot.calls.attempts);
        body["answers"] = json!(snapshot.calls.answers);
        body["abandoned"] = json!(snapshot.calls.abandoned);
    }
    Ok(Reply::json(StatusCode::OK, &body))
}

/// The effect tells the rate before and after.
pub(super) fn change(
    organization: &mut Organization,
    id: &str,
    headers: &HeaderMap,
    body: &[u8],
    moment: Moment,
) -> Result<(Reply, Effect), Refusal> {
    let manners = organization.manners;
    let definition = organization.definitions.get(id).ok_or_else(|| unknown_campaign(id))?;
    let partial: Value = json_body(headers, body)?;
    let if_match = text_of(headers, header::IF_MATCH)
        .ok_or_else(|| refusal_for_status(StatusCode::PRECONDITION_REQUIRED).about(id))?;
    if !definition.matches(if_match) {
        return Err(refusal_for_status(manners.stale).about(id));
    }
    let modified_at = moment.wall.to_string();
    let effect = organization
        .change_campaign(id, |definition| definition.amend(&partial, &modified_at))
        .map_err(|refusal| refusal.about(id))?;
    // No ETag here: a partial body is not what is stored (RFC 9110 §9.3.4).
    Ok((Reply::empty(manners.written), Effect::Campaign(effect)))
}
