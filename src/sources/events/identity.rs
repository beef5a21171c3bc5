//! The id of an event that has none: made from its content, so that a redelivery keeps it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 over the event's type and the canonical JSON of its detail, in hexadecimal.
/// `detail` must be JSON.
pub(super) fn of(event_type: &str, detail: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(event_type);
    hasher.update([0]);
    hasher.update(canonical(detail));
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Keys sorted at every level, no white space: the same value is the same text however it was written.
fn canonical(json: &str) -> String {
    let value: Value = serde_json::from_str(json).unwrap_or_default();
    let mut text = String::with_capacity(json.len());
    write_canonical(&value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            text.push('{');
            for (index, (key, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                let _ = write!(text, "{}:", Value::from(key.as_str()));
                write_canonical(member, text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        scalar => {
            let _ = write!(text, "{scalar}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_has_the_same_id_however_it_is_written() {
        let id = of("a", r#"{"b":[1,{"y":"ü","x":null}],"a":true}"#);
        assert_eq!(id, of("a", " {\"a\" : true, \"b\":[1, {\"x\":null,\"y\":\"\\u00fc\"}]}\n"));
        assert_eq!(id.len(), 64);
        assert_ne!(id, of("a", r#"{"b":[{"y":"ü","x":null},1],"a":true}"#), "lists have an order");
        assert_ne!(id, of("b", r#"{"b":[1,{"y":"ü","x":null}],"a":true}"#));
        assert_eq!(canonical(r#"{"b":1,"a":"\u0061"}"#), r#"{"a":"a","b":1}"#);
    }
}
