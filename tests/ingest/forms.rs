//! Every form that is taken, and what stands on the topic afterwards.

use std::collections::BTreeMap;

use rdkafka::message::Message;
use serde_json::{Value, json};
use trunkline::topics::{CONVERSATION_EVENTS, DEAD_LETTERS, partition_of};

use super::support::kafka::{self, create_topics, read_all};
use super::{Running, TOPICS, envelope, header, problem, receipt, value};

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

/// Senders separate their events in every way there is.
#[tokio::test(flavor = "multi_thread")]
async fn events_one_after_another_are_told_apart_and_a_broken_one_can_be_mended_and_sent_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let mut sent = 0;
    for (number, (separator, media_type)) in [
        ("", "application/json"),
        (" ", "application/json"),
        (",", "application/json"),
        ("\r", "application/x-ndjson"),
        ("\r\n\u{feff}", "application/x-ndjson"),
        ("", "application/x-ndjson"),
        ("\n\u{1e}", "application/json-seq"),
        ("\n", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let events: Vec<String> = (0..3)
            .map(|event| serde_json::to_string_pretty(&envelope(&format!("{number}-{event}"), "c")).unwrap())
            .collect();
        let answer = edge.post(media_type).body(events.join(separator)).send().await.unwrap();
        let expected = json!({"accepted": 3, "duplicates": 0, "rejected": []});
        assert_eq!(receipt(answer).await, expected, "separated by {separator:?}");
        sent += 3;
    }
    let [first, broken, last] = ["first", "broken", "last"].map(|id| envelope(id, "c").to_string());
    let broken = broken[..broken.len() - 1].to_owned();
    let answer = edge.take(format!("{first}{broken}\n{last}")).await;
    assert_eq!(
        (&answer["accepted"], answer["rejected"].as_array().unwrap().len()),
        (&json!(2), 1),
        "{answer}"
    );
    assert_eq!(answer["rejected"][0]["index"], 1);
    let letters = read_all(&kafka, &DEAD_LETTERS);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].payload(), Some(broken.as_bytes()), "its own bytes and no others");
    assert_eq!(edge.take(format!("{broken}}}")).await["accepted"], 1, "mended");
    assert_eq!(read_all(&kafka, &CONVERSATION_EVENTS).len(), sent + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bus_tells_about_other_things_is_skipped_and_counted_by_type() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let on = |id: &str, topic: &str, body: Value| {
        json!({
            "version": "0", "id": id, "detail-type": topic, "time": "2026-01-02T03:04:05Z",
            "detail": {"topicName": topic, "version": "2", "eventBody": body, "timestamp": "2026-01-02T03:04:05.742Z"}
        })
    };
    let conversation = "9f0a7c1e-2b5d-4c3e-8f6a-1d2e3f405162";
    let user = "e2c64139-4757-4100-9ff6-33d5f56512f6";
    let bodies = json!([
        on("1", &format!("v2.conversations.{conversation}"), json!({"id": conversation, "participants": []})),
        on("2", &format!("v2.conversations.{conversation}.transcription"), json!({"transcripts": []})),
        on("3", &format!("v2.users.{user}.presence"), json!({"source": "PURECLOUD"})),
        on("4", "v2.users.{id}.presence", json!({"source": "PURECLOUD"})),
        on("5", "v2.audits.entitytype.{id}.entityid.{id}", json!({"id": "x", "action": "Publish"})),
    ]);
    let expected = json!({"accepted": 2, "duplicates": 0, "rejected": [], "skipped": 3});
    assert_eq!(edge.take(bodies.to_string()).await, expected);
    let records = read_all(&kafka, &CONVERSATION_EVENTS);
    let types: Vec<Value> = records.iter().map(|record| value(record)["eventType"].clone()).collect();
    assert_eq!(types, ["v2.conversations.{id}", "v2.conversations.{id}.transcription"]);
    assert!(records.iter().all(|record| record.key() == Some(conversation.as_bytes())));
    assert!(read_all(&kafka, &DEAD_LETTERS).is_empty());
    let metrics = edge.client.get(format!("http://{}/metrics", edge.address)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for (event_type, count) in [("v2.users.{id}.presence", 2), ("v2.audits.entitytype.{id}.entityid.{id}", 1)]
    {
        let line = format!("trunkline_ingest_skipped_total{{event_type=\"{event_type}\"}} {count}");
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_taken_up_to_the_same_length() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let edge = Running::start(&kafka).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    };
    let send = async |media_type: &str, body: Vec<u8>| {
        edge.post(media_type).header("content-encoding", "gzip").body(body).send().await.unwrap()
    };
    let events = json!([envelope("1", "c"), envelope("2", "c")]).to_string();
    let taken = send("application/vnd.eventbridge+json; charset=utf8", gzip(events.as_bytes())).await;
    assert_eq!(receipt(taken).await["accepted"], 2);
    problem(send("application/json", b"{}".to_vec()).await, 400, "bad-body").await;
    let bomb = gzip(&vec![b' '; 200 * 1_024 * 1_024]);
    assert!(bomb.len() < 1_024 * 1_024);
    problem(send("application/json", bomb).await, 413, "body-too-large").await;
    let letters = read_all(&kafka, &DEAD_LETTERS);
    assert_eq!(header(&letters[0], "trunkline-body-read-bytes").as_deref(), Some("1048576"));
    let reason = header(&letters[0], "trunkline-error-reason").unwrap();
    assert_eq!(reason, "too_large: 1048577 bytes, the limit is 1048576");
    let brotli =
        edge.post("application/json").header("content-encoding", "br").body("x").send().await.unwrap();
    let told = problem(brotli, 415, "unsupported-media-type").await;
    assert!(told["detail"].as_str().unwrap().contains("gzip"), "{told}");
    assert_eq!(read_all(&kafka, &CONVERSATION_EVENTS).len(), 2);
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
