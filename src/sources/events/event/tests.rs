use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::body::Form;
use super::*;

const CONVERSATION: &str = "9f0a7c1e-2b5d-4c3e-8f6a-1d2e3f405162";

fn received_at() -> Timestamp {
    "2026-01-02T03:05:00.000Z".parse().unwrap()
}

/// Events as JSON, or the reasons why they are none, each with its place in the detail.
type Told = Vec<(Option<usize>, Result<Value, String>)>;

fn told_as(form: &Form, body: &[u8]) -> Told {
    let attributes = match form {
        Form::Binary(attributes) => Some(attributes),
        _ => None,
    };
    let mut told = Vec::new();
    for item in form.items(body, 1_000).expect("items") {
        read(&item, attributes, received_at(), |found| {
            let event = found.event.map(|event| serde_json::to_value(&event).expect("JSON"));
            let event = event.map_err(|none| match none {
                NoEvent::Unusable(reason) => reason.to_string(),
                NoEvent::Elsewhere { event_type } => format!("skipped: {event_type}"),
            });
            told.push((found.detail_index, event));
        });
    }
    told
}

fn told(body: &str) -> Told {
    told_as(&Form::Json, body.as_bytes())
}

fn event_of(body: &Value) -> Value {
    let mut told = told(&body.to_string());
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0).1.unwrap_or_else(|reason| panic!("{reason}: {body}"))
}

fn reason_of(body: &str) -> String {
    let mut told = told(body);
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0).1.expect_err(body)
}

fn flow_end() -> Value {
    json!({
        "version": "0", "id": "6d1f", "detail-type": "v2.detail.events.conversation.{id}.flow.end",
        "source": "aws.partner/genesys.com/cloud/o/s", "account": "123456789012", "time": "2026-01-02T03:04:05Z",
        "region": "us-east-1", "resources": [],
        "detail": {
            "topicName": format!("v2.detail.events.conversation.{CONVERSATION}.flow.end"), "version": "2",
            "timestamp": "2026-01-02T03:04:05.700Z",
            "eventBody": {
                "eventTime": 1_767_323_045_678_i64, "conversationId": CONVERSATION, "flowId": "f", "flowVersion": "12.0",
                "exitReason": "FLOW_ERROR_DISCONNECT", "mediaType": "VOICE", "direction": "INBOUND", "queueId": ""
            },
            "metadata": {"CorrelationId": "x"}
        }
    })
}

#[test]
fn an_envelope_of_the_platform_is_told_in_our_words() {
    let envelope = flow_end();
    let expected = json!({
        "eventId": "6d1f", "eventType": "flow.end", "occurredAt": "2026-01-02T03:04:05.678Z",
        "conversationId": CONVERSATION, "flowId": "f", "flowVersion": "12.0", "mediaType": "VOICE",
        "direction": "INBOUND", "outcome": "error", "detail": envelope["detail"],
    });
    assert_eq!(event_of(&envelope), expected);
    assert_eq!(told_as(&Form::Json, envelope.to_string().as_bytes()), [(None, Ok(expected))]);
}

#[test]
fn names_carry_the_literal_id_or_the_real_one() {
    for name in [
        "v2.detail.events.conversation.{id}.customer.end".to_owned(),
        format!("v2.detail.events.conversation.{CONVERSATION}.customer.end"),
        "ConversationEnded".to_owned(),
    ] {
        let envelope = json!({"id": "e", "detail-type": name, "detail": {"conversationId": CONVERSATION}});
        let event = event_of(&envelope);
        assert_eq!(
            (&event["eventType"], &event["conversationId"]),
            (&"customer.end".into(), &CONVERSATION.into())
        );
    }
    let only_in_name = json!({"id": "e", "detail-type": format!("v2.detail.events.conversation.{CONVERSATION}.acd.start"), "detail": {}});
    assert_eq!(event_of(&only_in_name)["conversationId"], CONVERSATION);
    let nowhere =
        json!({"id": "e", "detail-type": "v2.detail.events.conversation.{id}.acd.start", "detail": {}});
    assert!(reason_of(&nowhere.to_string()).starts_with("rejected: conversation_missing"));
}

#[test]
fn times_are_taken_from_the_nearest_place_that_tells_one() {
    let with = |detail: Value| {
        let mut detail = detail;
        detail["conversationId"] = "c".into();
        event_of(&json!({"id": "e", "time": "2026-01-02T03:04:05Z", "detail": detail}))["occurredAt"].clone()
    };
    assert_eq!(with(json!({"eventTime": 1_767_323_045_001_i64})), "2026-01-02T03:04:05.001Z");
    assert_eq!(with(json!({"eventTime": 1_767_323_045_001.0})), "2026-01-02T03:04:05.001Z");
    assert_eq!(with(json!({"eventTime": "2026-01-02T03:04:01Z"})), "2026-01-02T03:04:01.000Z");
    assert_eq!(with(json!({"timestamp": "2026-01-02T03:04:02Z"})), "2026-01-02T03:04:02.000Z");
    assert_eq!(with(json!({"eventTime": "1767323045001"})), "2026-01-02T03:04:05.001Z");
    assert_eq!(with(json!({})), "2026-01-02T03:04:05.000Z");
    for nothing in
        [json!({"eventTime": ""}), json!({"eventTime": null}), json!({"eventTime": "", "timestamp": ""})]
    {
        assert_eq!(with(nothing), "2026-01-02T03:04:05.000Z", "the envelope's");
    }
    let nowhere = event_of(&json!({"time": "", "detail": {"conversationId": "c", "eventTime": ""}}));
    assert_eq!(nowhere["occurredAt"], received_at().to_string());
    let without = event_of(&json!({"detail": {"conversationId": "c"}}));
    assert_eq!(without["occurredAt"], received_at().to_string());
    for (detail, code) in [
        (json!({"conversationId": "c", "eventTime": 1_767_323_045}), "rejected: time_out_of_range"),
        (json!({"conversationId": "c", "eventTime": 1_767_333_045_678_i64}), "from_the_future"),
        (json!({"conversationId": "c", "eventTime": "today"}), "rejected: bad_time: eventTime \"today\""),
        (json!({"conversationId": "c", "eventTime": {}}), "rejected: bad_time"),
        (json!({"conversationId": "c", "eventTime": true}), "rejected: bad_time"),
        (json!({"conversationId": "c", "eventTime": "2026-01-02T03:04:01"}), "rejected: bad_time"),
        (json!({"conversationId": "c", "timestamp": "today"}), "rejected: bad_time"),
    ] {
        let reason = reason_of(&json!({"id": "e", "detail": detail}).to_string());
        assert!(reason.starts_with(code), "{reason}");
    }
}

/// As the platform's partner bus brings them beside the events of conversations.
#[test]
fn other_topics_belong_to_their_conversation_or_are_skipped_by_type() {
    let on = |topic: &str, event_body: Value| {
        json!({
            "version": "0", "id": "e", "detail-type": topic, "time": "2026-01-02T03:04:05Z",
            "detail": {"topicName": topic, "version": "2", "eventBody": event_body, "timestamp": "2026-01-02T03:04:05.742Z"}
        })
    };
    let told_of = |topic: &str, event_body: Value| {
        let event = event_of(&on(topic, event_body));
        [&event["eventType"], &event["conversationId"], &event["eventId"], &event["occurredAt"]]
            .map(|value| value.as_str().unwrap().to_owned())
    };
    let at = "2026-01-02T03:04:05.742Z";
    for topic in [format!("v2.conversations.{CONVERSATION}"), "v2.conversations.{id}".to_owned()] {
        let snapshot = json!({"id": CONVERSATION, "maxParticipants": 2, "participants": []});
        assert_eq!(told_of(&topic, snapshot), ["v2.conversations.{id}", CONVERSATION, "e", at]);
    }
    for topic in [
        format!("v2.conversations.{CONVERSATION}.transcription"),
        "v2.conversations.{id}.transcription".to_owned(),
    ] {
        let transcript = json!({"conversationId": CONVERSATION, "transcripts": []});
        assert_eq!(
            told_of(&topic, transcript),
            ["v2.conversations.{id}.transcription", CONVERSATION, "e", at]
        );
    }
    let flat =
        json!({"topicName": format!("v2.conversations.{CONVERSATION}"), "id": CONVERSATION, "timestamp": at});
    let flat = event_of(&json!({"detail": flat}));
    assert_eq!(flat["conversationId"], CONVERSATION);
    assert_ne!(flat["eventId"], CONVERSATION, "each snapshot is an event of its own");

    for (topic, skipped) in [
        ("v2.users.{id}.presence".to_owned(), "skipped: v2.users.{id}.presence"),
        (format!("v2.users.{CONVERSATION}.presence"), "skipped: v2.users.{id}.presence"),
        (
            "v2.audits.entitytype.{id}.entityid.{id}".to_owned(),
            "skipped: v2.audits.entitytype.{id}.entityid.{id}",
        ),
    ] {
        assert_eq!(reason_of(&on(&topic, json!({"id": "x", "source": "PURECLOUD"})).to_string()), skipped);
    }
    assert_eq!(
        told_of("v2.routing.queues.{id}.conversations", json!({"conversationId": CONVERSATION}))[1],
        CONVERSATION
    );
}

#[test]
fn a_list_is_told_element_by_element_with_ids_of_their_own() {
    let list = json!({
        "id": "envelope", "detail-type": "ConversationEnded", "time": "2026-01-02T03:04:05Z",
        "detail": [{"id": "a", "conversationId": "c1"}, {"conversationId": "c2"}, 7, {"conversationId": ""}]
    });
    let told_once = told(&list.to_string());
    assert_eq!(
        told_once.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2), Some(3)]
    );
    assert_eq!(told_once[0].1.as_ref().unwrap()["eventId"], "a");
    let derived = told_once[1].1.as_ref().unwrap();
    assert_eq!(derived["eventId"].as_str().unwrap().len(), 64);
    assert_eq!(derived["detail"], json!({"conversationId": "c2"}));
    assert!(told_once[2].1.as_ref().unwrap_err().starts_with("rejected: detail_not_object"));
    assert!(told_once[3].1.as_ref().unwrap_err().starts_with("rejected: empty: conversationId"));
    assert_eq!(told(&list.to_string()), told_once, "a redelivery keeps every id");
}

#[test]
fn what_is_set_aside_of_a_list_can_be_sent_again_as_it_is() {
    let body = r#"{"id":"e","detail-type":"ConversationEnded", "detail":[{"conversationId":"c"},{"a":1,"a":2}],"x":0}"#;
    let items = Form::Json.items(body.as_bytes(), 10).unwrap();
    let mut originals = Vec::new();
    read(&items[0], None, received_at(), |found| {
        if found.event.is_err() {
            originals.push(String::from_utf8(found.original.into_owned()).unwrap());
        }
    });
    assert_eq!(originals, [r#"{"id":"e","detail-type":"ConversationEnded", "detail":{"a":1,"a":2},"x":0}"#]);
}

#[test]
fn cloud_events_come_in_three_modes() {
    let data = json!({"conversationId": "c", "eventTime": 1_767_323_045_678_i64});
    let event = json!({
        "specversion": "1.0", "id": "ce-1", "source": "/a", "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json",
        "type": "v2.detail.events.conversation.{id}.acd.end", "data": data,
    });
    let expected = json!({
        "eventId": "ce-1", "eventType": "acd.end", "occurredAt": "2026-01-02T03:04:05.678Z", "conversationId": "c",
        "detail": data,
    });
    let structured = told_as(&Form::Json, event.to_string().as_bytes());
    assert_eq!(structured, [(None, Ok(expected.clone()))]);
    let batch = told_as(&Form::CloudEventBatch, json!([event, event]).to_string().as_bytes());
    assert_eq!(batch, [(None, Ok(expected.clone())), (None, Ok(expected.clone()))]);

    let mut encoded = event.clone();
    encoded.as_object_mut().unwrap().remove("data");
    encoded["data_base64"] = STANDARD.encode(data.to_string()).into();
    assert_eq!(told(&encoded.to_string()), [(None, Ok(expected.clone()))]);

    let attributes = CloudAttributes {
        specversion: "1.0".into(),
        id: Some("ce-1".into()),
        r#type: Some("v2.detail.events.conversation.{id}.acd.end".into()),
        time: Some("2026-01-02T03:04:05Z".into()),
        source: None,
    };
    let binary = Form::Binary(attributes.clone());
    assert_eq!(told_as(&binary, data.to_string().as_bytes()), [(None, Ok(expected))]);

    let older = Form::Binary(CloudAttributes { specversion: "0.3".into(), ..attributes });
    let refused = told_as(&older, data.to_string().as_bytes());
    assert!(refused[0].1.as_ref().unwrap_err().starts_with("rejected: cloudevents_version"), "{refused:?}");
    let neither = json!({"specversion": "1.0", "id": "e", "type": "t"}).to_string();
    assert!(reason_of(&neither).starts_with("rejected: no_data"));
}

#[test]
fn poison_has_a_clear_reason() {
    let with = |detail: &str| format!(r#"{{"id":"e","detail-type":"ConversationEnded","detail":{detail}}}"#);
    let deep = format!(r#"{{"conversationId":"c","x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for (body, code) in [
        (with(r#"{"conversationId":"c","#), "bad_json"),
        (
            with(r#"{"conversationId":"c","conversationId":"d"}"#),
            "rejected: duplicate_key: \"conversationId\"",
        ),
        (with(r#"{"conversationId":"c","x":{"y":1,"y":2}}"#), "rejected: duplicate_key: \"y\""),
        (with(r#"{"conversationId":"c\u0000"}"#), "nul_character"),
        (with("{\"conversationId\":\"c\0\"}"), "nul_character"),
        (with(r#"{"conversationId":"c","x":"\ud800"}"#), "rejected: lone_surrogate"),
        (with(r#"{"conversationId":"c","x":1e999}"#), "rejected: number_out_of_range"),
        (with(&deep), "too_deep"),
        (with(r#""{}""#), "rejected: detail_not_object"),
        (with(r#"{"conversationId":5}"#), "bad_json"),
        (r#"{"id":"e"}"#.to_owned(), "rejected: no_detail"),
        (
            "{\"id\":\"e\",\"id\":\"f\",\"detail\":{\"conversationId\":\"c\"}}".to_owned(),
            "rejected: duplicate_key",
        ),
        ("7".to_owned(), "bad_json"),
        ("null".to_owned(), "bad_json"),
        ("\0\0\0\0\u{1}{}".to_owned(), "schema_registry_framing"),
        (
            with(&format!(r#"{{"conversationId":"{}"}}"#, "c".repeat(200))),
            "rejected: too_long: conversationId",
        ),
        (with(&format!(r#"{{"conversationId":"c","x":"{}"}}"#, "x".repeat(300_000))), "too_large"),
    ] {
        let reason = reason_of(&body);
        let shown: String = body.chars().take(120).collect();
        assert!(reason.starts_with(code), "{reason} for {shown}");
    }
    let mut broken = with(r#"{"conversationId":"c?"}"#).into_bytes();
    let at = broken.iter().position(|byte| *byte == b'?').unwrap();
    broken[at] = 0xff;
    let told = told_as(&Form::Json, &broken);
    assert_eq!(told, [(None, Err(format!("invalid_utf8: at byte {at}")))]);
}

proptest! {
    #[test]
    fn one_bad_neighbour_changes_nothing(
        good in prop::collection::vec("[a-z0-9]{1,12}", 1..6),
        bad in "([,:0-9a-z]|\\[\\]|\\{\\}|\"x\"){1,12}",
        at in any::<prop::sample::Index>(),
    ) {
        let envelope = |id: &String| json!({"id": id, "detail": {"conversationId": id}}).to_string();
        let bad = format!("{{{bad}}}");
        let mut bodies: Vec<String> = good.iter().map(envelope).collect();
        let at = at.index(bodies.len() + 1);
        bodies.insert(at, bad);
        let told = told(&format!("[{}]", bodies.join(",")));
        prop_assert_eq!(told.len(), bodies.len());
        for (index, (_, event)) in told.iter().enumerate() {
            prop_assert_eq!(event.is_ok(), index != at);
        }
    }
}

#[test]
fn ids_of_a_further_organisations_event_are_spelled_as_its_own() {
    let text = flow_end().to_string();
    let told = |organization: &str| {
        let names = BTreeMap::from([(organization.to_owned(), "emea".to_owned())]);
        let mut ids = Vec::new();
        for item in Form::Json.items(text.as_bytes(), 10).expect("items") {
            read(&item, None, received_at(), |mut found| {
                found.belongs_to(&names);
                let event = found.event.expect("an event");
                ids = vec![event.conversation_id.into_owned(), event.flow_id.expect("a flow").into_owned()];
            });
        }
        ids
    };
    assert_eq!(told("o"), [format!("emea:{CONVERSATION}"), "emea:f".to_owned()]);
    assert_eq!(told("another"), [CONVERSATION, "f"]);
}
