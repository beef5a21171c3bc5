//! Every form that is taken, and what stands on the topic afterwards.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde_json::{Value, json};
use trunkline::topics::{CONVERSATION_EVENTS, DEAD_LETTERS, partition_of};

use super::support::kafka::{self, create_topics, read_all};
use super::{Running, TOPICS, envelope, header, receipt, value};

const PARTITIONS: i32 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn every_form_ends_on_the_topic_under_its_conversation() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, PARTITIONS).await;
    let edge = Running::start(&kafka).await;
    let accepted = |events: u64| json!({"accepted": events, "duplicates": 0, "rejected": []});

    assert_eq!(edge.take(envelope("single", "c1").to_string()).await, accepted(1));
    let array = json!([envelope("array-1", "c2"), envelope("array-2", "c3")]);
    assert_eq!(edge.take(serde_json::to_string_pretty(&array).unwrap()).await, accepted(2));
    let lines = format!("{}\n{}\n", envelope("lines-1", "c4"), envelope("lines-2", "c5"));
    assert_eq!(edge.take(lines.replace("lines", "looks")).await, accepted(2));
    assert_eq!(
        receipt(edge.post("application/x-ndjson").body(lines).send().await.unwrap()).await,
        accepted(2)
    );
    let list = json!({
        "id": "list", "detail-type": "ConversationEnded", "time": "2026-01-02T03:04:05Z",
        "detail": [{"id": "seed-1", "conversationId": "c6"}, {"conversationId": "c7"}]
    });
    assert_eq!(edge.take(list.to_string()).await, accepted(2));
    let cloud_event = |id: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "/s", "time": "2026-01-02T03:04:05Z",
            "type": "v2.detail.events.conversation.{id}.acd.end", "data": {"conversationId": "c8"}
        })
    };
    let structured =
        edge.post("application/cloudevents+json; charset=utf-8").body(cloud_event("ce-1").to_string());
    assert_eq!(receipt(structured.send().await.unwrap()).await, accepted(1));
    let batch = json!([cloud_event("ce-2"), cloud_event("ce-3")]).to_string();
    let batch = edge.post("application/cloudevents-batch+json").body(batch);
    assert_eq!(receipt(batch.send().await.unwrap()).await, accepted(2));
    let binary = edge.post("application/json").header("ce-specversion", "1.0").header("ce-id", "ce-4");
    let binary = binary.header("ce-type", "ConversationEnded").header("ce-source", "/s");
    let binary = binary.body(r#"{"conversationId":"c9"}"#).send().await.unwrap();
    assert_eq!(receipt(binary).await, accepted(1));
    assert_eq!(edge.take("[]").await, accepted(0));

    let records = read_all(&kafka, &CONVERSATION_EVENTS);
    assert!(read_all(&kafka, &DEAD_LETTERS).is_empty());
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    for record in &records {
        let event = value(record);
        let conversation = event["conversationId"].as_str().unwrap();
        assert_eq!(record.key(), Some(conversation.as_bytes()));
        assert_eq!(record.partition(), partition_of(conversation.as_bytes(), PARTITIONS));
        assert_eq!(header(record, "content-type").as_deref(), Some("application/json"));
        assert_eq!(header(record, "trunkline-schema").as_deref(), Some(CONVERSATION_EVENTS.name));
        assert_eq!(header(record, "traceparent").map(|trace| trace.len()), Some(55));
        let schema = trunkline::topics::json_schema(&CONVERSATION_EVENTS).unwrap();
        assert!(jsonschema::is_valid(&schema, &event), "{event}");
        types.insert(
            event["eventId"].as_str().unwrap().to_owned(),
            event["eventType"].as_str().unwrap().to_owned(),
        );
    }
    assert_eq!(records.len(), types.len(), "an id twice");
    let derived: Vec<String> = types.keys().filter(|id| id.len() == 64).cloned().collect();
    assert_eq!(derived.len(), 1, "one event had no id");
    for (id, event_type) in [
        ("single", "flow.end"),
        ("array-2", "flow.end"),
        ("looks-1", "flow.end"),
        ("lines-2", "flow.end"),
        ("seed-1", "customer.end"),
        (derived[0].as_str(), "customer.end"),
        ("ce-1", "acd.end"),
        ("ce-3", "acd.end"),
        ("ce-4", "customer.end"),
    ] {
        assert_eq!(types.get(id).map(String::as_str), Some(event_type), "{id}");
    }
    assert_eq!(records.len(), 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_words_and_the_raw_detail_are_kept() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = envelope("e", "c");
    let answer =
        edge.post("application/json").header("traceparent", trace).body(sent.to_string()).send().await;
    receipt(answer.unwrap()).await;
    let records = read_all(&kafka, &CONVERSATION_EVENTS);
    let expected: Value = json!({
        "eventId": "e", "eventType": "flow.end", "occurredAt": "2026-01-02T03:04:05.678Z", "conversationId": "c",
        "flowId": "f", "flowVersion": "12.0", "mediaType": "VOICE", "direction": "INBOUND", "outcome": "success",
        "detail": sent["detail"],
    });
    assert_eq!(value(&records[0]), expected);
    assert_eq!(header(&records[0], "traceparent").as_deref(), Some(trace));
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_within_a_request_are_dropped_and_counted() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let without_id = json!({"detail": {"conversationId": "d"}});
    let same_written_otherwise = r#"{ "detail" : { "conversationId":"\u0064" } }"#;
    let body = format!(
        "[{},{},{},{without_id},{same_written_otherwise}]",
        envelope("e", "c"),
        envelope("e", "c"),
        // Another conversation's event is another event, whatever id its sender gave it.
        envelope("e", "other"),
    );
    assert_eq!(edge.take(body).await, json!({"accepted": 3, "duplicates": 2, "rejected": []}));
    assert_eq!(read_all(&kafka, &CONVERSATION_EVENTS).len(), 3);
}
