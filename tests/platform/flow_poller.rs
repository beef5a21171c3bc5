//! Flows observed on the simulated platform, through a broker.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::sources::Names;
use trunkline::sources::flow_poller::{self, Settings};
use trunkline::topics::{FLOW_HEALTH, FLOW_VERSIONS, Topic};

use crate::rollback_stand::{Stand, flow};
use crate::support::{kafka, within};

async fn values(kafka: &KafkaSettings, topic: &'static Topic) -> Vec<Value> {
    let kafka = kafka.clone();
    let read = tokio::task::spawn_blocking(move || kafka::read_all(&kafka, topic)).await.unwrap();
    read.iter()
        .map(|record| serde_json::from_slice(rdkafka::Message::payload(record).unwrap()).unwrap())
        .collect()
}

async fn at_least(kafka: &KafkaSettings, topic: &'static Topic, count: usize) -> Vec<Value> {
    within(Duration::from_secs(90), topic.name, || async {
        let read = values(kafka, topic).await;
        (read.len() >= count).then_some(read)
    })
    .await
}

fn settings() -> Settings {
    Settings {
        flows: vec![flow(0), flow(1)],
        polled: vec![flow(1)],
        interval: Duration::from_millis(700),
        minute: Duration::from_secs(1),
        settling: Duration::from_millis(166),
        concurrency: 4,
        names: Names::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_and_measures_are_told_and_failed_reads_are_no_minutes_without_errors() {
    let stand = Stand::with(2).await;
    kafka::create_topics(&stand.kafka, &[&FLOW_VERSIONS, &FLOW_HEALTH], 3).await;
    let measures = json!({"path": "/api/v2/analytics/measures/*"});
    let (client, health, stop) = (stand.client(), Health::default(), CancellationToken::new());
    let polling = tokio::spawn({
        let (kafka, health, stop) = (stand.kafka.clone(), health.clone(), stop.clone());
        async move { flow_poller::run(settings(), kafka, client, &health, stop).await }
    });
    let told = at_least(&stand.kafka, &FLOW_VERSIONS, 4).await;
    for id in [flow(0), flow(1)] {
        let timeline = told.iter().find(|fact| fact["flowId"] == *id).expect("both are observed");
        let versions = timeline["versions"].as_array().unwrap();
        let of = |status: &str| -> Vec<&str> {
            let with = versions.iter().filter(|version| version["status"] == status);
            with.map(|version| version["version"].as_str().unwrap()).collect()
        };
        assert_eq!((of("active"), of("published")), (vec!["12.0"], vec!["10.0", "11.0"]));
        assert!(versions.iter().all(|version| version["publishedAt"].is_string()));
    }
    let before = at_least(&stand.kafka, &FLOW_HEALTH, 3).await;
    assert!(before.iter().all(|fact| fact["flowId"] == *flow(1) && fact["complete"] == true));

    stand.faults(json!([{ "match": measures, "fault": {"type": "status", "code": 503} }])).await;
    within(Duration::from_secs(60), "a complaint", || async {
        let reasons = health.reasons();
        reasons.iter().any(|(_, reason)| reason.contains("measures")).then_some(())
    })
    .await;
    // Until the next minute it may still be had.
    within(Duration::from_secs(60), "a minute to be given up", || async {
        let told = values(&stand.kafka, &FLOW_HEALTH).await;
        told.iter().any(|fact| fact["complete"] == false).then_some(())
    })
    .await;
    let known = values(&stand.kafka, &FLOW_HEALTH).await.len();
    stand.faults(json!([])).await;
    let after = within(Duration::from_secs(90), "minutes that are measured again", || async {
        let after = values(&stand.kafka, &FLOW_HEALTH).await;
        after[known..].iter().any(|fact| fact["complete"] == true).then_some(after)
    })
    .await;
    // Nothing was made up for the minutes that could not be measured.
    let unmeasured: Vec<_> = after.iter().filter(|fact| fact["complete"] == false).collect();
    assert!(!unmeasured.is_empty() && unmeasured.iter().all(|fact| fact["total"] == 0), "{after:?}");
    assert!(after.iter().all(|fact| fact["errors"] == 0), "{after:?}");
    let mut minutes: Vec<&str> = after.iter().map(|fact| fact["minute"].as_str().unwrap()).collect();
    let told = minutes.len();
    minutes.dedup();
    assert_eq!(minutes.len(), told, "no minute twice");
    stop.cancel();
    polling.await.unwrap().unwrap();
}
