//! What people are told about a decision or its outcome.

use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Timestamp;
use super::decision::{DecisionId, Loop};

/// One alert. There is at most one per decision and incident type, or per key, incident type
/// and span of time, however often it is raised.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// In capitals, such as `AUTO_ROLLBACK_TRIGGERED`: receivers choose by it.
    pub incident_type: &'static str,
    pub decision_id: DecisionId,
    pub r#loop: Loop,
    /// The decision's key.
    pub key: String,
    /// When it came to this: decided or finished.
    pub occurred_at: Timestamp,
    /// For what shows in many decisions of one key: told once in each such span of the clock.
    pub once_per: Option<Duration>,
    /// What receivers are sent beside `incident_type`, `decision_id` and `timestamp`.
    pub details: Map<String, Value>,
}

/// What receivers are sent, by name.
pub fn details<const N: usize>(details: [(&str, Value); N]) -> Map<String, Value> {
    details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Alert {
    /// Identifies it to receivers: a UUID of version 8 made from what there is one alert per.
    pub fn id(&self) -> Uuid {
        let mut hasher = Sha256::new();
        match self.once_per.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX).max(1)) {
            None => hasher.update(self.decision_id.0.as_bytes()),
            Some(span_ms) => {
                hasher.update(self.occurred_at.as_millis().div_euclid(span_ms).to_be_bytes());
                hasher.update(&self.key);
                hasher.update([0]);
            }
        }
        hasher.update(self.incident_type);
        let digest = hasher.finalize();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// The body as every receiver gets it, byte for byte.
    pub fn body(&self) -> String {
        let mut body = self.details.clone();
        body.insert("incident_type".to_owned(), self.incident_type.into());
        body.insert("decision_id".to_owned(), self.decision_id.to_string().into());
        body.insert("timestamp".to_owned(), self.occurred_at.to_string().into());
        // Postgres cannot look into a JSON text with U+0000.
        Value::Object(body).to_string().replace("\\u0000", "\\ufffd")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(incident_type: &'static str) -> Alert {
        let at = Timestamp::from_millis(1_767_323_045_678);
        let details = serde_json::json!({"campaign_id": "c", "reason": "\"<ü>\""});
        Alert {
            incident_type,
            decision_id: DecisionId::derive(Loop::Dial, "c", 1, at),
            r#loop: Loop::Dial,
            key: "c".to_owned(),
            occurred_at: at,
            once_per: None,
            details: details.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn identity_follows_decision_and_type_alone() {
        let later = Alert { occurred_at: Timestamp::from_millis(0), ..alert("A") };
        assert_eq!(alert("A").id(), later.id());
        assert_ne!(alert("A").id(), alert("B").id());
    }

    #[test]
    fn what_shows_in_many_decisions_is_one_alert_per_key_and_span() {
        let minute = Duration::from_secs(60);
        let at = |second: i64, sequence: u64, key: &str| {
            let at = Timestamp::from_millis(second * 1_000);
            let decision_id = DecisionId::derive(Loop::Route, key, sequence, at);
            Alert { decision_id, key: key.to_owned(), occurred_at: at, once_per: Some(minute), ..alert("A") }
        };
        assert_eq!(at(60, 1, "c").id(), at(119, 9, "c").id());
        assert_ne!(at(119, 1, "c").id(), at(120, 1, "c").id());
        assert_ne!(at(60, 1, "c").id(), at(60, 1, "d").id());
    }

    #[test]
    fn the_body_names_what_happened() {
        let body: Value = serde_json::from_str(&alert("DIAL_CHANGE_FAILED").body()).unwrap();
        assert_eq!(body["incident_type"], "DIAL_CHANGE_FAILED");
        assert_eq!(body["timestamp"], "2026-01-02T03:04:05.678Z");
        assert_eq!(body["reason"], "\"<ü>\"");
        let mut hostile = alert("A");
        hostile.details.insert("reason".to_owned(), "a\0b".into());
        assert!(hostile.body().contains(r"a\ufffdb"));
        assert_eq!(body["decision_id"], alert("A").decision_id.to_string());
    }
}
