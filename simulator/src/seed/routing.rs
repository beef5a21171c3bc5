//! Queues' availability, and publishing a routing configuration.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::exchange::Received;
use crate::input::{invalid, json_body};
use crate::journal::{Effect, RoutingPublication};
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};

const MAX_NAME_BYTES: usize = 200;

/// Nothing but a percentage, as the seed documents have it.
///
/// # Errors
/// 404 for an unknown queue.
pub(super) fn availability(organization: &Organization, queue_id: &str) -> Result<Reply, Refusal> {
    let percentage = organization.queues.percentage(queue_id)?;
    let body = json!({ "queueId": queue_id, "availabilityPercentage": percentage });
    Ok(Reply::json(StatusCode::OK, &body))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    name: String,
    routing_type: String,
    target: Target,
    /// Kept as it is: weights are for the external service.
    #[serde(default)]
    rules: Vec<Value>,
}

#[derive(Deserialize)]
struct Target {
    #[serde(rename = "type")]
    kind: String,
    id: String,
}

/// Puts a configuration in force.
///
/// # Errors
/// 400 for what cannot be one.
pub(super) fn publish(configuration_id: &str, received: &Received) -> Result<(Reply, Effect), Refusal> {
    let Configuration { name, routing_type, target, rules } = json_body(&received.headers, &received.body)?;
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(invalid(format!("name must have 1 to {MAX_NAME_BYTES} bytes")));
    }
    if routing_type != "SINGLE_QUEUE" || target.kind != "QUEUE_ID" || target.id.is_empty() {
        return Err(invalid("routingType must be \"SINGLE_QUEUE\" and target a \"QUEUE_ID\" with its id"));
    }
    let body = json!({
        "id": configuration_id,
        "name": name,
        "routingType": routing_type,
        "target": { "type": target.kind, "id": target.id },
        "rules": rules,
        "status": "ENABLED",
    });
    let effect =
        RoutingPublication { configuration_id: configuration_id.to_owned(), name, target_id: target.id };
    Ok((Reply::json(StatusCode::OK, &body), Effect::Routing(effect)))
}
