//! The event stream: what happens is delivered, at least once, and written down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{EventSettings, Scenario, Settings};

use crate::receiver::Receiver;
use crate::tenant::{Tenant, settings};

async fn organization(events: EventSettings) -> Tenant {
    Tenant::start(Settings { scenario: Scenario::default(), events, ..settings() }).await
}

async fn advance(tenant: &Tenant, seconds: u64) {
    tenant.control(Method::POST, &format!("/clock/advance?seconds={seconds}"), Value::Null).await;
}

async fn log(tenant: &Tenant) -> Vec<Value> {
    let page = tenant.control(Method::GET, "/events/log?limit=100000", Value::Null).await;
    assert_eq!((&page["dropped"], &page["next"]), (&json!(0), &Value::Null));
    page["items"].as_array().unwrap().clone()
}

fn ids(items: &[Value], name: &str) -> BTreeSet<String> {
    items.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_event_arrives_some_twice_and_the_log_says_which() {
    let receiver = Receiver::start().await;
    let events = EventSettings {
        to: Some(receiver.url.clone()),
        key: Some("secret".into()),
        duplicate_share: 0.2,
        duplicate_within_ms: 300,
        disorder_share: 0.5,
        disorder_ms: 300,
        ..EventSettings::default()
    };
    let tenant = organization(events).await;
    advance(&tenant, 900).await;
    let standing = tenant.events_drained().await;
    assert!(standing["settings"].get("key").is_none(), "the key is not shown");

    let (taken, log) = (receiver.taken(), log(&tenant).await);
    assert!(log.len() > 2_000, "{}", log.len());
    assert_eq!(ids(&taken, "id"), ids(&log, "eventId"));
    assert_eq!(ids(&log, "eventId").len(), log.len(), "once each");
    let repeats = taken.len() - log.len();
    assert_eq!(standing["repeats"], repeats);
    assert!(repeats * 10 > log.len(), "{repeats} of {}", log.len());
    assert!(
        receiver.posted.lock().unwrap().iter().all(|it| it.authorization.as_deref() == Some("Bearer secret"))
    );

    let by_id: BTreeMap<&str, &Value> =
        taken.iter().map(|envelope| (envelope["id"].as_str().unwrap(), envelope)).collect();
    let mut kinds = BTreeSet::new();
    let mut spellings = BTreeSet::new();
    for entry in &log {
        let envelope = by_id[entry["eventId"].as_str().unwrap()];
        let (kind, id) = (entry["eventType"].as_str().unwrap(), entry["conversationId"].as_str().unwrap());
        let topic = format!("v2.detail.events.conversation.{id}.{kind}");
        let literal = format!("v2.detail.events.conversation.{{id}}.{kind}");
        let detail_type = envelope["detail-type"].as_str().unwrap();
        assert!(detail_type == topic || detail_type == literal, "{detail_type}");
        spellings.insert(detail_type == literal);
        kinds.insert(kind.to_owned());
        let detail = &envelope["detail"];
        let body = &detail["eventBody"];
        assert_eq!((&detail["topicName"], &body["conversationId"]), (&json!(topic), &json!(id)));
        assert_eq!(detail["timestamp"], entry["eventTime"]);
        assert_eq!((&body["flowId"], &body["flowVersion"]), (&entry["flowId"], &entry["flowVersion"]));
        let reason = if kind == "flow.outcome" { "flowOutcomeValue" } else { "exitReason" };
        assert_eq!(body[reason], entry["reason"]);
    }
    assert_eq!(spellings.len(), 2, "both spellings of the type occur");
    let all = "acd.end acd.start acw customer.end customer.start flow.end flow.outcome flow.start outbound user.end user.start";
    assert_eq!(kinds, all.split(' ').map(str::to_owned).collect());
}

#[tokio::test]
async fn a_receiver_that_asks_for_time_gets_it_and_loses_nothing() {
    let receiver = Receiver::with(Box::new(|n, _| match n {
        0 => (503, Some("1"), json!({})),
        1 => (500, None, json!({})),
        2 => (200, None, json!("no receipt")),
        _ => (200, None, json!({ "accepted": 0, "rejected": [{ "index": 0, "reason": "for the test" }] })),
    }))
    .await;
    let tenant = organization(EventSettings::default()).await;
    advance(&tenant, 120).await;
    assert_eq!(
        tenant.control(Method::GET, "/events", Value::Null).await["happened"],
        0,
        "nobody listens yet"
    );
    let to = json!({"to": receiver.url, "connections": 1, "batch": 50, "campaigns": false});
    tenant.control(Method::PUT, "/events", to).await;
    advance(&tenant, 240).await;
    let standing = tenant.events_drained().await;
    assert_eq!(
        (&standing["retries"], &standing["refused"], &standing["overflowed"]),
        (&json!(3), &json!(0), &json!(0))
    );
    let log = log(&tenant).await;
    assert_eq!(standing["happened"], log.len());
    assert!(log.iter().all(|entry| entry["eventType"] != "outbound"), "campaigns are left out");
    let posted = receiver.posted.lock().unwrap();
    assert!(posted[1].at - posted[0].at >= Duration::from_secs(1), "not before its Retry-After");
    assert_eq!(posted[0].envelopes, posted[3].envelopes, "the same request again");
    let named: BTreeSet<_> = posted[3..].iter().map(|it| it.envelopes[0]["id"].clone().to_string()).collect();
    let rejected: BTreeSet<_> =
        log.iter().filter(|it| it["rejected"] == true).map(|it| it["eventId"].to_string()).collect();
    assert_eq!(named, rejected);
}

#[tokio::test]
async fn the_same_seed_tells_the_same_story_and_its_conversations_are_found() {
    let story = async |seed| {
        let receiver = Receiver::start().await;
        let events = EventSettings { to: Some(receiver.url.clone()), ..EventSettings::default() };
        let tenant =
            Tenant::start(Settings { scenario: Scenario::default(), events, seed, ..settings() }).await;
        advance(&tenant, 600).await;
        tenant.events_drained().await;
        let mut told: Vec<_> = log(&tenant)
            .await
            .iter()
            .map(|it| (it["eventId"].to_string(), it["eventType"].to_string(), it["reason"].to_string()))
            .collect();
        told.sort();
        (told, tenant)
    };
    let (first, tenant) = story(3).await;
    assert_eq!(first, story(3).await.0);
    assert_ne!(first, story(4).await.0);

    let ended: BTreeSet<String> = {
        let log = log(&tenant).await;
        log.iter()
            .filter(|it| it["eventType"] == "customer.end")
            .map(|it| it["conversationId"].as_str().unwrap().to_owned())
            .collect()
    };
    let page = tenant.control(Method::GET, "/conversations?limit=100000", Value::Null).await;
    assert_eq!(ids(page["items"].as_array().unwrap(), "conversationId"), ended);
}

#[tokio::test]
async fn so_many_events_a_second_as_asked_for() {
    let receiver = Receiver::start().await;
    let tenant = organization(EventSettings::default()).await;
    // What happens until people leave as fast as they come is not looked at.
    let asked = json!({"to": receiver.url, "eventsPerSecond": 100, "campaigns": false, "active": false});
    tenant.control(Method::PUT, "/events", asked).await;
    advance(&tenant, 1_200).await;
    let standing = tenant.control(Method::PUT, "/events", json!({"active": true})).await;
    assert_eq!(standing["happened"], 0);
    advance(&tenant, 60).await;
    let happened = tenant.events_drained().await["happened"].as_f64().unwrap();
    assert!((90.0..110.0).contains(&(happened / 60.0)), "{happened} in 60 s");
}

#[tokio::test]
async fn impossible_settings_are_refused_and_change_nothing() {
    let tenant = organization(EventSettings::default()).await;
    for bad in [
        json!({"duplicateShare": 1.5}),
        json!({"to": "ftp://x"}),
        json!({"to": "nowhere"}),
        json!({"batch": 0}),
        json!({"connections": 17}),
        json!({"backlog": 0}),
        json!({"eventsPerSecond": -1}),
        json!({"rate": 1}),
        json!([]),
    ] {
        let put = tenant.http.put(tenant.url("/simulator/events")).json(&bad);
        assert_eq!(put.send().await.unwrap().status().as_u16(), 400, "{bad}");
    }
    let standing = tenant.control(Method::GET, "/events", Value::Null).await;
    assert_eq!(standing["settings"]["batch"], 100);
}
