//! The seed dialect's routing: publishing a configuration, and who is available in a queue.

use serde::Deserialize;
use serde_json::{Value, json};

use super::seed::PathSegment;
use crate::model::outcome::SentRequest;
use crate::model::routing::RouteConfiguration;

/// How many of a queue's agents could take a conversation, as the platform has it now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Available {
    /// Share of the queue's agents, 0–1.
    pub availability: f64,
    pub agents: Option<u32>,
}

pub fn availability_path(queue_id: &str) -> String {
    format!("/api/v2/analytics/queues/{}/availability", PathSegment(queue_id))
}

pub fn publish_path(configuration_id: &str) -> String {
    format!("/api/v2/routing/configuration/{}/publish", PathSegment(configuration_id))
}

/// Asks the platform to put the configuration in force. The same request twice leaves the
/// same state.
pub fn publish_request(configuration: &RouteConfiguration) -> SentRequest {
    let mut body = json!({ "name": configuration.name, "routingType": configuration.routing_type });
    // The platform wants a target, and sends everything there while it is not asked otherwise.
    let first = || configuration.rules.first().map(|rule| &rule.destination);
    let target = configuration.target.as_ref().or(configuration.default_destination.as_ref());
    if let Some(target) = target.or_else(first) {
        body["target"] = json!({ "type": target.r#type, "id": target.id });
    }
    SentRequest { method: "POST".to_owned(), path: publish_path(&configuration.id), if_match: None, body }
}

/// Reads an availability. The error says which value is impossible.
pub fn read_availability(body: &[u8]) -> Result<Available, String> {
    let read: WireAvailability = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if !(0.0..=100.0).contains(&read.percentage) {
        return Err(format!("a percentage of {}", read.percentage));
    }
    let agents = match read.agents {
        None | Some(Value::Null) => None,
        Some(count) => {
            let count = count.as_u64().and_then(|count| u32::try_from(count).ok());
            Some(count.ok_or("an impossible number of agents")?)
        }
    };
    Ok(Available { availability: read.percentage / 100.0, agents })
}

/// The seed says no more than that there is a percentage; these are the names it goes by.
#[derive(Deserialize)]
struct WireAvailability {
    #[serde(alias = "availabilityPercentage", alias = "availabilityPercent", alias = "availability")]
    percentage: f64,
    #[serde(default, rename = "availableAgents", alias = "agentsAvailable")]
    agents: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_become_fractions_and_impossible_ones_are_told() {
        let read = |text: &str| read_availability(text.as_bytes());
        assert_eq!(read(r#"{"percentage":42}"#), Ok(Available { availability: 0.42, agents: None }));
        assert_eq!(
            read(r#"{"availability":0,"availableAgents":0,"queueId":"q"}"#),
            Ok(Available { availability: 0.0, agents: Some(0) })
        );
        for wrong in
            [r#"{"percentage":100.5}"#, r#"{"percentage":-1}"#, "{}", r#"{"percentage":"4"}"#, "<html>"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(r#"{"percentage":1,"availableAgents":-1}"#).is_err());
    }
}
