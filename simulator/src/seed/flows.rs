//! Architect flows: versions, activation, and measures by a GET that has a body.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::{Received, Span};
use crate::flows::{Endpoint, Version};
use crate::input::{invalid, json_body};
use crate::journal::Effect;
use crate::measures::Total;
use crate::organization::{Moment, Organization};
use crate::publishes::version_change;
use crate::reply::{Refusal, Reply};
use crate::time::Timestamp;

const ERRORS: &str = "conversation.errors.total";
const DURATION: &str = "conversation.duration.total";
/// Clients of the seed documents take the duration ÷ 60 for the number of interactions.
const DURATION_PER_INTERACTION: u64 = 60;
const MAX_DESCRIPTION_BYTES: usize = 2_000;
/// Longest interval measures are told for: a day.
const MAX_INTERVAL_MS: i64 = 86_400_000;

/// All versions, oldest first, deleted ones too.
///
/// # Errors
/// 404 for an unknown flow; whatever fails while a flow is unwell.
pub(super) fn versions(organization: &Organization, flow_id: &str) -> Result<Reply, Refusal> {
    organization.flows.check_well(Endpoint::Versions)?;
    let versions = organization.flows.get(flow_id)?.versions();
    let entities: Vec<Value> = versions.iter().map(|version| shown(flow_id, version)).collect();
    Ok(Reply::json(StatusCode::OK, &json!({ "total": entities.len(), "entities": entities })))
}

#[derive(Deserialize)]
struct Activation {
    version: WantedVersion,
    status: String,
}

#[derive(Deserialize)]
struct WantedVersion {
    id: String,
    description: Option<String>,
}

/// Makes a version the active one.
///
/// # Errors
/// 404, 409 for a version that cannot be activated, 400 for a body that asks for something
/// else; whatever fails while a flow is unwell.
pub(super) fn activate(
    organization: &mut Organization,
    (flow_id, version): (&str, &str),
    received: &Received,
    span: Span,
    moment: Moment,
) -> Result<(Reply, Effect), Refusal> {
    organization.flows.check_well(Endpoint::Deployments)?;
    let flow = organization.flows.get_mut(flow_id)?;
    let asked: Activation = json_body(&received.headers, &received.body)?;
    if asked.status != "active" {
        return Err(invalid(format!("status {:?} must be \"active\"", asked.status)));
    }
    if asked.version.id != version {
        return Err(invalid(format!("version.id {:?} is not the path's {version:?}", asked.version.id)));
    }
    if asked.version.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION_BYTES) {
        return Err(invalid(format!("version.description must have at most {MAX_DESCRIPTION_BYTES} bytes")));
    }
    let switch = flow.activate(version, asked.version.description, moment.wall)?;
    let reply = Reply::json(StatusCode::OK, &shown(flow_id, flow.active()));
    let change = version_change(flow_id.to_owned(), &switch, span.started_at, span.ended_at);
    Ok((reply, Effect::Version(change)))
}

fn shown(flow_id: &str, version: &Version) -> Value {
    let mut shown = json!(version);
    if let Value::Object(members) = &mut shown {
        members.remove("errorRate");
    }
    let id = &version.id;
    shown["selfUri"] = json!(format!("/api/v2/architect/flows/{flow_id}/versions/{id}"));
    shown
}

#[derive(Deserialize)]
struct Question {
    interval: Interval,
    metric: String,
    entity: Entity,
}

/// Epoch milliseconds.
#[derive(Deserialize)]
struct Interval {
    start: i64,
    end: i64,
}

#[derive(Deserialize)]
struct Entity {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// Interactions and errors of all flows (`org`, `all`) or of one (`flow` and its id).
///
/// # Errors
/// 400 for what cannot be asked, 404 for an unknown flow; whatever fails while one is unwell.
pub(super) fn measures(organization: &Organization, received: &Received) -> Result<Reply, Refusal> {
    organization.flows.check_well(Endpoint::Measures)?;
    let Question { interval, metric, entity } = json_body(&received.headers, &received.body)?;
    if metric != ERRORS {
        return Err(invalid(format!("metric {metric:?} must be {ERRORS:?}")));
    }
    if !(1..=MAX_INTERVAL_MS).contains(&interval.end.saturating_sub(interval.start)) {
        return Err(invalid("interval.end must be after interval.start by at most a day"));
    }
    let (start, end) = (Timestamp::from_millis(interval.start), Timestamp::from_millis(interval.end));
    let total = match (entity.kind.as_str(), entity.id.as_str()) {
        ("org", "all") => {
            let totals = organization.flows.iter().map(|flow| flow.measures.between(start, end));
            totals.fold(Total::default(), |sum, total| Total {
                interactions: sum.interactions + total.interactions,
                errors: sum.errors + total.errors,
            })
        }
        ("flow", id) => organization.flows.get(id)?.measures.between(start, end),
        (kind, id) => {
            let message = format!(
                "entity {kind:?} {id:?} must be type \"org\", id \"all\", or type \"flow\" and its id"
            );
            return Err(invalid(message));
        }
    };
    let body = json!({
        "interval": { "start": interval.start, "end": interval.end },
        "entity": { "type": entity.kind, "id": entity.id },
        "data": [{ "values": { ERRORS: total.errors, DURATION: total.interactions * DURATION_PER_INTERACTION } }],
    });
    Ok(Reply::json(StatusCode::OK, &body))
}
