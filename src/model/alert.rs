//! What people are told about a decision or its outcome.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Timestamp;
use super::decision::{DecisionId, Loop};

/// One alert. There is at most one per decision and incident type, however often it
/// is raised.
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
    /// What receivers are sent beside `incident_type`, `decision_id` and `timestamp`.
    pub details: Map<String, Value>,
}

impl Alert {
    /// Identifies it to receivers: a UUID of version 8 made from decision and incident type.
    pub fn id(&self) -> Uuid {
        let mut hasher = Sha256::new();
        hasher.update(self.decision_id.0.as_bytes());
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
