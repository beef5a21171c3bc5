//! The topics as an AsyncAPI 3.0 document: one channel per topic that others may read or write.

use serde_json::{Map, Value, json};

use crate::topics::{self, Topic, Values};

/// Where schemas of the document lie.
const SCHEMAS: &str = "#/components/schemas/";

/// `kept` says how long a topic's records are kept, for people.
pub(super) fn document(kept: impl Fn(&Topic) -> String) -> Value {
    let mut schemas = Map::new();
    let (mut channels, mut operations) = (Map::new(), Map::new());
    for topic in topics::ALL.iter().filter(|topic| !matches!(topic.values, Values::Internal)) {
        let payload = match topics::json_schema(topic) {
            Some(schema) => payload(topic, schema, &mut schemas),
            None => json!({"description": "original bytes"}),
        };
        let name = topic.name.replace('.', "_");
        channels.insert(
            name.clone(),
            json!({
                "address": topic.name,
                "description": format!("{}; key: {}; kept: {}", topic.description, topic.key, kept(topic)),
                "messages": {"record": {"contentType": "application/json", "payload": payload}},
                "bindings": {"kafka": {"topic": topic.name, "bindingVersion": "0.5.0"}},
            }),
        );
        let ours = topic.name.starts_with("trunkline.");
        operations.insert(
            format!("{}_{name}", if ours { "read" } else { "write" }),
            json!({
                "action": if ours { "send" } else { "receive" },
                "channel": {"$ref": format!("#/channels/{name}")},
                "messages": [{"$ref": format!("#/channels/{name}/messages/record")}],
            }),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:trunkline",
        "info": {
            "title": "trunkline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Topics of trunkline. Consumers read with isolation.level=read_committed.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": schemas},
    })
}

/// A topic's schema as part of the document: its definitions move to where references within
/// the document find them, and the dialect is AsyncAPI's own.
fn payload(topic: &Topic, mut schema: Value, schemas: &mut Map<String, Value>) -> Value {
    let definitions = match schema.as_object_mut() {
        Some(fields) => {
            fields.remove("$schema");
            fields.remove("$defs")
        }
        None => None,
    };
    // Types of the same name may differ between topics: each topic has its own.
    let prefix = format!("{SCHEMAS}{}.", topic.name);
    lead_references_to(&prefix, &mut schema);
    if let Some(Value::Object(definitions)) = definitions {
        for (name, mut definition) in definitions {
            lead_references_to(&prefix, &mut definition);
            schemas.insert(format!("{}.{name}", topic.name), definition);
        }
    }
    schemas.insert(topic.name.to_owned(), schema);
    json!({"$ref": format!("{SCHEMAS}{}", topic.name)})
}

fn lead_references_to(prefix: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                let definition = (name == "$ref").then(|| value.as_str()?.strip_prefix("#/$defs/")).flatten();
                match definition {
                    Some(definition) => *value = format!("{prefix}{definition}").into(),
                    None => lead_references_to(prefix, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lead_references_to(prefix, item)),
        _ => {}
    }
}
