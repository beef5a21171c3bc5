//! Topics are created as declared, and what differs is told.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use trunkline::kafka::admin::{Standing, TopicSettings, apply, list};

use crate::support::counting::{CHANGELOG, NUMBERS, TOPICS};
use crate::support::kafka::{self, client};

#[tokio::test(flavor = "multi_thread")]
async fn missing_topics_are_created_once_and_are_as_declared() {
    let kafka = kafka::settings();
    let settings = TopicSettings { partitions: 3, replication: 1 };
    let before = list(&kafka, &settings, TOPICS).await.unwrap();
    assert!(before.iter().all(|report| report.standing == Standing::Missing));
    let (one, other) = tokio::join!(apply(&kafka, &settings, TOPICS), apply(&kafka, &settings, TOPICS));
    assert!(one.unwrap().iter().chain(&other.unwrap()).all(|report| report.standing != Standing::Missing));
    for report in list(&kafka, &settings, TOPICS).await.unwrap() {
        assert_eq!(report.standing, Standing::Present { partitions: 3, drift: vec![] }, "{}", report.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_told_and_left_alone() {
    let kafka = kafka::settings();
    let admin: AdminClient<DefaultClientContext> = client(&kafka).create().unwrap();
    let name = kafka.topic(&CHANGELOG);
    let other = NewTopic::new(&name, 2, TopicReplication::Fixed(1)).set("cleanup.policy", "delete");
    admin.create_topics([&other], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    let settings = TopicSettings { partitions: 3, replication: 1 };
    for _ in 0..2 {
        let reports = apply(&kafka, &settings, &[&CHANGELOG, &NUMBERS]).await.unwrap();
        let Standing::Present { partitions: 2, drift } = &reports[0].standing else {
            panic!("{:?}", reports[0]);
        };
        let of = |property: &str| {
            let drift = drift.iter().find(|drift| drift.property == property).expect("is told");
            (drift.declared.clone(), drift.found.clone())
        };
        assert_eq!(of("cleanup.policy"), ("compact".to_owned(), "delete".to_owned()));
        assert_eq!(of("partitions"), ("3".to_owned(), "2".to_owned()));
    }
}

/// Whoever is told that topics are there can write to every partition of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn topics_are_usable_when_they_are_said_to_be_there() {
    for _ in 0..3 {
        let kafka = kafka::settings();
        let settings = TopicSettings { partitions: 24, replication: 1 };
        apply(&kafka, &settings, TOPICS).await.unwrap();
        let names: Vec<String> = TOPICS.iter().map(|topic| kafka.topic(topic)).collect();
        // A client of its own, that knows nothing yet and is given one answer.
        let consumer: BaseConsumer = client(&kafka).set("group.id", "t-none").create().unwrap();
        let ends = tokio::task::spawn_blocking(move || {
            names
                .iter()
                .flat_map(|name| (0..24).map(move |partition| (name, partition)))
                .map(|(name, partition)| consumer.fetch_watermarks(name, partition, Duration::from_secs(30)))
                .collect::<Result<Vec<_>, _>>()
        });
        assert_eq!(ends.await.unwrap().expect("every leader answers").len(), 24 * TOPICS.len());
    }
}
