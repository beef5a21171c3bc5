//! Publishing a routing configuration.

use serde_json::json;

use super::super::path::PathSegment;
use crate::model::outcome::SentRequest;
use crate::model::routing::RouteConfiguration;

pub(crate) fn publish_path(configuration_id: &str) -> String {
    format!("/api/v2/routing/configuration/{}/publish", PathSegment(configuration_id))
}

/// Asks the platform to put the configuration in force. The same request twice leaves the
/// same state.
pub(crate) fn publish_request(configuration: &RouteConfiguration) -> SentRequest {
    let mut body = json!({ "name": configuration.name, "routingType": configuration.routing_type });
    // The platform wants a target, and sends everything there while it is not asked otherwise.
    let first = || configuration.rules.first().map(|rule| &rule.destination);
    let target = configuration.target.as_ref().or(configuration.default_destination.as_ref());
    if let Some(target) = target.or_else(first) {
        body["target"] = json!({ "type": target.r#type, "id": target.id });
    }
    SentRequest { method: "POST".to_owned(), path: publish_path(&configuration.id), if_match: None, body }
}
