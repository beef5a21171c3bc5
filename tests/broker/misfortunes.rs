//! What time and people do to topics and groups: the stage stops and says so, or
//! goes on, but never skips and never repeats.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics::Topic;

use super::exactly_once::{Instance, expect_all, send_numbers};
use crate::support::counting::{CHANGELOG, NUMBERS, SUMS, TOPICS};
use crate::support::kafka::{self, client, create_topics, read_all};
use crate::support::until;

fn admin(kafka: &KafkaSettings) -> AdminClient<DefaultClientContext> {
    client(kafka).create().unwrap()
}

/// Waits until the stage says why it is not ready, in words that contain these.
async fn complains(instance: &Instance, words: &str) {
    until(words, async || {
        instance.health.reasons().into_iter().find(|(_, reason)| reason.contains(words)).map(drop)
    })
    .await;
}

async fn add_partitions(kafka: &KafkaSettings, topic: &Topic, count: usize) {
    let name = kafka.topic(topic);
    let added =
        admin(kafka).create_partitions([&NewPartitions::new(&name, count)], &AdminOptions::new()).await;
    added.unwrap()[0].as_ref().unwrap();
}

/// A stage that has counted a hundred numbers and stopped.
async fn history(partitions: i32) -> KafkaSettings {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, partitions).await;
    send_numbers(&kafka, 0..100).await;
    let instance = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 100).await;
    instance.stop().await;
    kafka
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_retention_took_stop_the_stage() {
    let kafka = history(1).await;
    send_numbers(&kafka, 100..200).await;
    kafka::remove_before(&kafka, &NUMBERS, 200).await;
    send_numbers(&kafka, 200..300).await;
    let instance = Instance::start(&kafka, "one", 1);
    complains(&instance, "Nothing was skipped").await;
    instance.stop().await;
    assert_eq!(read_all(&kafka, &SUMS).len(), 100);
    // What it says to do, does.
    tokio::task::block_in_place(|| kafka::move_group(&kafka, "counting", &NUMBERS, 200));
    let instance = Instance::start(&kafka, "one", 1);
    until("what is left to be counted", || async {
        (tokio::task::block_in_place(|| read_all(&kafka, &SUMS)).len() == 200).then_some(())
    })
    .await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_offsets_are_gone_goes_on_where_its_state_is() {
    let kafka = history(3).await;
    let deleted = admin(&kafka).delete_groups(&[&kafka.group("counting")], &AdminOptions::new()).await;
    deleted.unwrap()[0].as_ref().unwrap();
    send_numbers(&kafka, 100..200).await;
    let instance = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 200).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_deleted_and_made_again_is_read_from_its_beginning() {
    let kafka = history(1).await;
    kafka::replace_topic(&kafka, &NUMBERS, 1).await;
    // Fewer than there were, so that the former place is beyond their end; then more.
    send_numbers(&kafka, 100..150).await;
    let instance = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 150).await;
    send_numbers(&kafka, 150..300).await;
    expect_all(&kafka, 300).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_while_it_stood_still_stop_the_stage() {
    let kafka = history(2).await;
    add_partitions(&kafka, &NUMBERS, 3).await;
    let instance = Instance::start(&kafka, "one", 1);
    complains(&instance, "test.numbers.v1 has 3 partitions and ").await;
    // The same number again, but keys have moved: old state is in the wrong place.
    add_partitions(&kafka, &CHANGELOG, 3).await;
    complains(&instance, "keys have moved").await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_added_while_it_runs_stop_the_stage() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    send_numbers(&kafka, 0..100).await;
    let instance = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 100).await;
    add_partitions(&kafka, &NUMBERS, 4).await;
    complains(&instance, "test.numbers.v1 has 4 partitions and ").await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changelog_of_a_newer_program_stops_the_stage() {
    let kafka = history(1).await;
    kafka::produce(&kafka, &CHANGELOG, Some(0), &[("key-3", br#"{"v":2,"s":{"heap":[]}}"#)]).await;
    send_numbers(&kafka, 100..200).await;
    let instance = Instance::start(&kafka, "one", 1);
    complains(&instance, "state version 2, this program knows up to 1").await;
    instance.stop().await;
    assert_eq!(read_all(&kafka, &SUMS).len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_out_of_reach_are_named_and_do_not_hinder_a_stop() {
    let nowhere = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), ..kafka::settings() };
    let instance = Instance::start(&nowhere, "one", 2);
    complains(&instance, "cannot reach Kafka at 127.0.0.1:1").await;
    tokio::time::timeout(Duration::from_secs(10), instance.stop()).await.expect("stops");
}
