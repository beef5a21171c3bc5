//! The analytics poller against the simulated platform, on a real broker.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::message::Message;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::lag::{LagSample, Observation};
use trunkline::sources::analytics_poller;
use trunkline::topics::CONSUMER_LAG;

use crate::support::simulated::{Organization, client, settings};
use crate::support::{kafka, within};

const PATIENCE: Duration = Duration::from_secs(90);
/// Long enough for each poll to be looked at while it is the newest.
const INTERVAL: Duration = Duration::from_secs(2);

async fn put(organization: &Organization, path: &str, body: Value) {
    let url = format!("{}/simulator/{path}", organization.running.api_url());
    let reply = reqwest::Client::new().put(url).json(&body).send().await.expect("an answer");
    assert!(reply.status().is_success(), "{path}: {}", reply.text().await.unwrap_or_default());
}

async fn group(organization: &Organization, name: &str, types: usize, latency_ms: f64) {
    let types: Vec<_> = (0..types)
        .map(|number| json!({"name": format!("e{number}"), "eventsPerMinute": 60, "latencyMs": latency_ms}))
        .collect();
    put(organization, &format!("consumer-groups/{name}"), json!({ "eventTypes": types })).await;
}

/// The newest poll of each group that passes `wanted`.
async fn polled(
    kafka: &KafkaSettings,
    what: &str,
    wanted: impl Fn(&BTreeMap<String, Vec<LagSample>>) -> bool,
) -> BTreeMap<String, Vec<LagSample>> {
    within(PATIENCE, what, || async {
        let mut groups: BTreeMap<String, Vec<LagSample>> = BTreeMap::new();
        for record in tokio::task::block_in_place(|| kafka::read_all(kafka, &CONSUMER_LAG)) {
            let sample: LagSample = serde_json::from_slice(record.payload().unwrap()).unwrap();
            assert_eq!(record.key(), Some(sample.consumer_group.as_bytes()));
            let held = groups.entry(sample.consumer_group.clone()).or_default();
            if held.first().is_some_and(|first| first.observed_at < sample.observed_at) {
                held.clear();
            }
            held.push(sample);
        }
        let complete = groups.values().all(|held| held.len() == held[0].poll_samples as usize);
        (complete && wanted(&groups)).then_some(groups)
    })
    .await
}

fn all_failed(groups: &BTreeMap<String, Vec<LagSample>>, reason: &str) -> bool {
    groups.values().flatten().all(
        |sample| matches!(&sample.observation, Observation::Failed { reason: told } if told.contains(reason)),
    )
}

/// Whether asking about this group failed, by the newest sample seen: the answer about another may still be on its way.
fn failed(groups: &BTreeMap<String, Vec<LagSample>>, name: &str) -> bool {
    matches!(groups[name][0].observation, Observation::Failed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_are_one_answer_and_what_is_wrong_with_it_is_told() {
    let organization = Organization::start(settings()).await;
    // More rows together than a page holds.
    group(&organization, "wide", 80, 40.0).await;
    group(&organization, "agent's-desk", 60, 31_000.0).await;
    group(&organization, "stranger", 1, 1.0).await;
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&CONSUMER_LAG], 3).await;
    let shutdown = CancellationToken::new();
    let poller = {
        let settings = analytics_poller::Settings {
            groups: ["wide", "agent's-desk", "absent"].map(str::to_owned).to_vec(),
            interval: INTERVAL,
            window: Duration::from_secs(1_800),
        };
        let (kafka, client, stop) =
            (kafka.clone(), client(&organization.client_settings()), shutdown.clone());
        tokio::spawn(async move {
            analytics_poller::run(settings, kafka, client, &Health::default(), stop).await.expect("polls");
        })
    };

    let groups = polled(&kafka, "a whole answer", |groups| groups.len() == 3).await;
    assert_eq!((groups["wide"].len(), groups["agent's-desk"].len()), (80, 60), "two pages");
    assert_eq!(groups["absent"][0].observation, Observation::Missing {}, "on none of them");
    let Observation::EventType(desk) = &groups["agent's-desk"][0].observation else {
        panic!("{:?}", groups["agent's-desk"]);
    };
    assert_eq!((desk.event_count, desk.interval_seconds), (1_800, 1_800.0), "60 a minute for half an hour");
    assert_eq!(desk.processing_latency_ms, 31_000.0);

    // The platform refuses the question about all, and then the one about the first alone.
    let question = json!({"method": "POST", "path": "/api/v2/analytics/events/details/query"});
    let refusing = json!([{"match": question, "times": 2, "fault": {"type": "status", "code": 400}}]);
    organization.faults(refusing).await;
    let groups = polled(&kafka, "one group to be refused", |groups| {
        groups
            .values()
            .flatten()
            .filter(|sample| matches!(sample.observation, Observation::Failed { .. }))
            .count()
            == 1
    })
    .await;
    assert!(matches!(groups["wide"][0].observation, Observation::Failed { .. }), "{:?}", groups["wide"]);
    assert_eq!(groups["agent's-desk"].len(), 60, "its neighbours are told");
    assert_eq!(groups["absent"][0].observation, Observation::Missing {});

    put(&organization, "event-analytics", json!({"badRows": 1})).await;
    let groups = polled(&kafka, "the wrong row to be told", |groups| {
        failed(groups, "absent") && !failed(groups, "wide")
    })
    .await;
    let Observation::Failed { reason } = &groups["absent"][0].observation else { unreachable!() };
    assert!(reason.contains("rows[0].eventCount"), "{reason}");
    assert!(groups["wide"].len() >= 78, "its neighbours are read");

    put(&organization, "event-analytics", json!({"badRows": 0, "repeatPageToken": true})).await;
    polled(&kafka, "the circle to be found", |groups| all_failed(groups, "came twice")).await;

    put(&organization, "event-analytics", json!({"repeatPageToken": false})).await;
    organization
        .faults(json!([{"match": {"path": "/api/v2/analytics/events/details/query"}, "fault": {"type": "status", "code": 503}}]))
        .await;
    polled(&kafka, "the failure to be told", |groups| all_failed(groups, "503")).await;
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), poller).await.expect("ends in time").expect("and well");
}
