//! Who changed something: the platform's own audit.

use serde::Deserialize;
use serde_json::json;

use super::super::writers::Changed;
use super::aggregates::interval;
use super::flows::{WireActor, actor};
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

/// Asks for changes of one object; answered at once.
pub(super) fn request(what: Changed, id: &str, from: Timestamp, until: Timestamp) -> SentRequest {
    let service = match what {
        Changed::Campaign => "Outbound",
        Changed::Flow => "Architect",
    };
    SentRequest {
        method: "POST".to_owned(),
        path: "/api/v2/audits/query/realtime".to_owned(),
        if_match: None,
        body: json!({
            "interval": interval(from, until),
            "serviceName": service,
            "filters": [{ "property": "EntityId", "value": id }],
        }),
    }
}

/// The last who changed it and is no OAuth client that `is_ours`. The error says what makes no sense.
pub(super) fn read(is_ours: impl Fn(&str) -> bool, body: &[u8]) -> Result<Option<String>, String> {
    #[derive(Deserialize)]
    struct Reply {
        #[serde(default)]
        entities: Vec<Change>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Change {
        user: Option<WireActor>,
        client: Option<WireActor>,
        event_date: Option<Timestamp>,
    }
    let reply: Reply = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let by_us = |change: &Change| change.client.as_ref().is_some_and(|client| client.is(&is_ours));
    let others = reply.entities.into_iter().filter(|change| !by_us(change));
    let last = others.max_by_key(|change| change.event_date);
    Ok(last.and_then(|change| match (change.user, change.client) {
        (Some(user), _) => Some(actor("user", user)),
        (None, Some(client)) => Some(actor("OAuth client", client)),
        (None, None) => None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(client: &str) -> bool {
        client == "ours"
    }

    #[test]
    fn the_last_who_is_not_us_is_named() {
        let body = br#"{"entities":[
            {"user":{"id":"u1","name":"Early"},"eventDate":"2026-01-02T03:00:00.000Z"},
            {"user":{"id":"u2","name":"Late"},"eventDate":"2026-01-02T03:05:00.000Z","action":"Update"},
            {"client":{"id":"ours"},"eventDate":"2026-01-02T03:06:00.000Z"}]}"#;
        assert_eq!(read(ours, body).unwrap().as_deref(), Some("Late (user u2)"));
        let client = br#"{"entities":[{"client":{"id":"other"}},{"client":{"id":"ours"}}]}"#;
        assert_eq!(read(ours, client).unwrap().as_deref(), Some("OAuth client other"));
        for nobody in
            [r#"{"entities":[]}"#, "{}", r#"{"entities":[{"client":{"id":"ours"}}]}"#, r#"{"entities":[{}]}"#]
        {
            assert_eq!(read(ours, nobody.as_bytes()), Ok(None), "{nobody}");
        }
        assert!(read(ours, b"<html>").is_err());
    }

    #[test]
    fn the_question_names_object_and_service() {
        let at = |text: &str| text.parse().unwrap();
        let request = request(Changed::Campaign, "c", at("2026-01-02T03:00:00Z"), at("2026-01-02T04:00:00Z"));
        let expected = json!({
            "interval": "2026-01-02T03:00:00.000Z/2026-01-02T04:00:00.000Z",
            "serviceName": "Outbound",
            "filters": [{ "property": "EntityId", "value": "c" }],
        });
        assert_eq!(request.body, expected);
    }
}
