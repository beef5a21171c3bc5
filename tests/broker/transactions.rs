//! Transactions end as they were told to, on a network that keeps requests back.

use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::kafka::transaction::{Producer, TransactionSettings, Verdict};
use trunkline::topics::Topic;

use crate::support::counting::{SUMS, TOPICS};
use crate::support::kafka::{self, create_topics, read_all};
use crate::support::proxy::{END_TXN, Proxy};
use crate::support::until;

fn producer(kafka: &KafkaSettings, settings: &TransactionSettings) -> Producer {
    Producer::new(kafka, "test", 0, settings, CancellationToken::new())
}

/// One transaction with one record, committed.
fn publish(producer: &mut Producer, topic: &str, value: &str) {
    let mut transaction = producer.begin().unwrap();
    transaction.send(topic, 0, None, Some(value.as_bytes()), None, None).unwrap();
    transaction.commit().unwrap();
}

fn visible(kafka: &KafkaSettings) -> Vec<String> {
    let records = read_all(kafka, &SUMS);
    records.iter().map(|record| String::from_utf8(record.payload().unwrap().to_vec()).unwrap()).collect()
}

/// A commit is held back on the wire and its connection dies. librdkafka commits
/// again on another connection. Then the late commit arrives, in the middle of the
/// next transaction, which is to be aborted. Answers what readers see in the end.
async fn tear(proxy: &Proxy, heed_doubts: bool) -> Vec<String> {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let behind_proxy = KafkaSettings { brokers: proxy.address.clone(), ..kafka.clone() };
    let topic = kafka.topic(&SUMS);
    let mut producer = producer(&behind_proxy, &TransactionSettings::default());
    if !heed_doubts {
        producer.ignore_doubts();
    }
    let (mut producer, topic) = tokio::task::spawn_blocking(move || {
        publish(&mut producer, &topic, "settled");
        (producer, topic)
    })
    .await
    .unwrap();
    let caught = proxy.catch_next(END_TXN);
    let (sent, send) = std::sync::mpsc::channel();
    let (finish, finished) = std::sync::mpsc::channel();
    let working = tokio::task::spawn_blocking(move || {
        publish(&mut producer, &topic, "committed");
        let mut doomed = producer.begin().unwrap();
        doomed.send(&topic, 0, None, Some(b"aborted"), None, None).unwrap();
        doomed.flush().unwrap();
        sent.send(()).unwrap();
        finished.recv().unwrap();
        doomed.abort();
        producer.replaced()
    });
    let held = caught.await.unwrap();
    tokio::task::spawn_blocking(move || send.recv().unwrap()).await.unwrap();
    held.deliver().await;
    finish.send(()).unwrap();
    let replaced = working.await.unwrap();
    assert_eq!(replaced > 0, heed_doubts);
    // A new client under the id ends what may still be open.
    let mut last = self::producer(&kafka, &TransactionSettings::default());
    tokio::task::spawn_blocking(move || last.settle().unwrap()).await.unwrap();
    visible(&kafka)
}

/// The first half shows that the danger is real and that this test would see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_commit_cannot_commit_the_next_transaction() {
    let proxy = Proxy::start().await;
    assert_eq!(tear(&proxy, false).await, ["settled", "committed", "aborted"], "torn without the cure");
    assert_eq!(tear(&proxy, true).await, ["settled", "committed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_transaction_is_aborted() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let topic = kafka.topic(&SUMS);
    let mut producer = producer(&kafka, &TransactionSettings::default());
    tokio::task::spawn_blocking(move || {
        let mut transaction = producer.begin().unwrap();
        transaction.send(&topic, 0, None, Some(b"dropped"), None, None).unwrap();
        drop(transaction);
        publish(&mut producer, &topic, "kept");
    })
    .await
    .unwrap();
    assert_eq!(visible(&kafka), ["kept"]);
}

/// The broker gives up on a transaction left open; only a new client helps, and is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_past_its_timeout_is_fenced_and_the_next_one_works() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let topic = kafka.topic(&SUMS);
    let settings = TransactionSettings { timeout: Duration::from_secs(1), ..TransactionSettings::default() };
    let mut producer = producer(&kafka, &settings);
    let (opened, open) = std::sync::mpsc::channel();
    let (expire, expired) = std::sync::mpsc::channel();
    let working = tokio::task::spawn_blocking(move || {
        let mut transaction = producer.begin().unwrap();
        transaction.send(&topic, 0, None, Some(b"expired"), None, None).unwrap();
        transaction.flush().unwrap();
        opened.send(()).unwrap();
        expired.recv().unwrap();
        let refused = transaction.commit().unwrap_err();
        publish(&mut producer, &topic, "next");
        (refused.verdict, producer.replaced())
    });
    tokio::task::spawn_blocking(move || open.recv().unwrap()).await.unwrap();
    // Readers wait at an open transaction; once they get past, the broker has aborted it.
    let stable = end_offset(&kafka, &SUMS, "read_committed").await;
    until("the broker to give up", async || {
        (end_offset(&kafka, &SUMS, "read_committed").await > stable).then_some(())
    })
    .await;
    expire.send(()).unwrap();
    let (verdict, replaced) = working.await.unwrap();
    assert_eq!((verdict, replaced), (Verdict::Fenced, 1));
    assert_eq!(visible(&kafka), ["next"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_producer_of_the_same_name_fences_the_first() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let topic = kafka.topic(&SUMS);
    let settings = TransactionSettings::default();
    let (mut first, mut second) = (producer(&kafka, &settings), producer(&kafka, &settings));
    let verdict = tokio::task::spawn_blocking(move || {
        let mut transaction = first.begin().unwrap();
        transaction.send(&topic, 0, None, Some(b"zombie"), None, None).unwrap();
        transaction.flush().unwrap();
        publish(&mut second, &topic, "heir");
        transaction.commit().unwrap_err().verdict
    })
    .await
    .unwrap();
    assert_eq!(verdict, Verdict::Fenced);
    assert_eq!(visible(&kafka), ["heir"]);
}

/// Where a topic's partition 0 ends for readers of this isolation level.
async fn end_offset(kafka: &KafkaSettings, topic: &Topic, isolation: &'static str) -> i64 {
    let (mut config, name) = (kafka::client(kafka), kafka.topic(topic));
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.set("isolation.level", isolation).create().unwrap();
        consumer.fetch_watermarks(&name, 0, Duration::from_secs(10)).unwrap().1
    })
    .await
    .unwrap()
}
