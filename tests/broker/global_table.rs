//! A compacted topic read whole, by everyone who asks.

use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::global_consumer::GlobalConsumer;
use trunkline::kafka::global_table::GlobalTable;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics::{Cleanup, Topic, Values};

use crate::support::kafka::{self, client, create_topics};
use crate::support::until;

static PRICES: Topic = Topic {
    name: "test.prices.v1",
    key: "what",
    description: "prices",
    cleanup: Cleanup::Compact,
    values: Values::Internal,
    max_message_bytes: 4 * 1_024,
};

static STOCKS: Topic = Topic { name: "test.stocks.v1", key: "which", description: "stocks", ..PRICES };

fn open(kafka: &KafkaSettings, health: &Health, most: usize, stop: &CancellationToken) -> GlobalTable<u64> {
    table_of(&PRICES, &GlobalConsumer::new(kafka, stop), health, most)
}

fn table_of(
    topic: &'static Topic,
    global: &GlobalConsumer,
    health: &Health,
    most: usize,
) -> GlobalTable<u64> {
    GlobalTable::open(global, topic, most, health.part(topic.key))
}

async fn write(kafka: &KafkaSettings, records: &[(&str, Option<&str>)]) {
    write_to(&PRICES, kafka, records).await;
}

/// Writes values and tombstones, one after the other.
async fn write_to(topic: &Topic, kafka: &KafkaSettings, records: &[(&str, Option<&str>)]) {
    let (config, topic) = (client(kafka).set("partitioner", "murmur2_random").clone(), kafka.topic(topic));
    let records: Vec<(String, Option<String>)> =
        records.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect();
    let write = move || {
        let producer: BaseProducer = config.create().expect("a producer");
        for (key, value) in &records {
            let mut record = BaseRecord::<str, str>::to(&topic).key(key);
            record.payload = value.as_deref();
            producer.send(record).map_err(|(error, _)| error).expect("is queued");
        }
        producer.flush(Duration::from_secs(30)).expect("is written");
    };
    tokio::task::spawn_blocking(write).await.expect("is written");
}

fn seen(table: &GlobalTable<u64>) -> Vec<(String, u64)> {
    let entries = table.entries();
    let mut seen: Vec<_> = entries.iter().map(|(key, value)| (key.to_string(), **value)).collect();
    seen.sort();
    seen
}

fn prices(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
    expected.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_once_caught_up_and_changes_follow() {
    let kafka = kafka::settings();
    create_topics(&kafka, &[&PRICES], 3).await;
    let old = [("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("a", Some("4")), ("b", None)];
    write(&kafka, &old).await;
    let (health, stop) = (Health::default(), CancellationToken::new());
    let table = open(&kafka, &health, 100, &stop);
    assert!(table.caught_up().await);
    assert_eq!(seen(&table), prices(&[("a", 4), ("c", 3)]));
    assert!(health.reasons().is_empty());

    // What is in the caller's hands stays as it was.
    let before = table.entries();
    write(&kafka, &[("d", Some("5")), ("c", None), ("e", Some("no number")), ("a", Some("{"))]).await;
    let after = prices(&[("a", 4), ("d", 5)]);
    until("the changes", async || (seen(&table) == after).then_some(())).await;
    assert_eq!(before.len(), 2);
    assert_eq!(table.get("d").as_deref(), Some(&5));
    assert_eq!(table.get("e"), None, "unreadable values are passed over");

    // Another reader sees the same from the start.
    let other = open(&kafka, &Health::default(), 100, &stop);
    assert!(other.caught_up().await);
    assert_eq!(seen(&other), after);
    stop.cancel();
    table.stopped().await;
    other.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_committed_is_not_seen() {
    let kafka = kafka::settings();
    create_topics(&kafka, &[&PRICES], 1).await;
    write(&kafka, &[("a", Some("1"))]).await;
    let producer: BaseProducer = client(&kafka)
        .set("transactional.id", kafka.transactional_id("prices", 0))
        .create()
        .expect("a producer");
    let topic = kafka.topic(&PRICES);
    let producer = tokio::task::spawn_blocking(move || {
        producer.init_transactions(Duration::from_secs(30)).expect("takes the id");
        for value in ["2", "3"] {
            producer.begin_transaction().expect("begins");
            let record = BaseRecord::to(&topic).key("a").payload(value);
            producer.send(record).map_err(|(error, _)| error).expect("is queued");
            producer.flush(Duration::from_secs(30)).expect("is written");
            if value == "2" {
                producer.abort_transaction(Duration::from_secs(30)).expect("aborts");
            }
        }
        producer
    })
    .await
    .expect("a transaction is open");
    let (health, stop) = (Health::default(), CancellationToken::new());
    let mut table = open(&kafka, &health, 100, &stop);
    assert!(table.caught_up().await, "an open transaction is not waited for");
    assert_eq!(seen(&table), prices(&[("a", 1)]));
    tokio::task::spawn_blocking(move || {
        producer.commit_transaction(Duration::from_secs(30)).expect("commits");
    })
    .await
    .expect("is committed");
    while seen(&table) != prices(&[("a", 3)]) {
        assert_eq!(seen(&table), prices(&[("a", 1)]), "nothing in between");
        assert!(table.changed().await);
    }
    stop.cancel();
    // The shutdown ends every wait.
    while table.changed().await {}
    table.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_and_too_many_keys_are_said() {
    let kafka = kafka::settings();
    let (health, stop) = (Health::default(), CancellationToken::new());
    let table = open(&kafka, &health, 2, &stop);
    until("a reason", async || {
        let reasons = health.reasons();
        reasons.iter().any(|(_, reason)| reason.contains("trunkline topics apply")).then_some(())
    })
    .await;
    create_topics(&kafka, &[&PRICES], 1).await;
    write(&kafka, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("a", Some("4"))]).await;
    let expected = prices(&[("a", 4), ("b", 2)]);
    until("the first two", async || (seen(&table) == expected).then_some(())).await;
    until("the reason", async || {
        let reasons = health.reasons();
        reasons.iter().any(|(_, reason)| reason.contains("more than 2 keys")).then_some(())
    })
    .await;
    drop(table);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_share_a_consumer_do_not_share_their_troubles() {
    let kafka = kafka::settings();
    create_topics(&kafka, &[&PRICES, &STOCKS], 2).await;
    write(&kafka, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3"))]).await;
    let (health, stop) = (Health::default(), CancellationToken::new());
    let global = GlobalConsumer::new(&kafka, &stop);
    // The one holds too little: it is read again once there is room.
    let narrow = table_of(&PRICES, &global, &health, 2);
    let stocks = table_of(&STOCKS, &global, &health, 100);
    assert!(narrow.caught_up().await && stocks.caught_up().await);
    assert_eq!(narrow.entries().len(), 2);
    let reasons = health.reasons();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert_eq!(reasons[0].0, PRICES.key);

    for round in 1..=20_u64 {
        let value = round.to_string();
        write_to(&STOCKS, &kafka, &[("x", Some(value.as_str()))]).await;
        if round == 5 {
            write(&kafka, &[("a", None), ("b", None)]).await;
        }
        until("the stocks", async || (stocks.get("x").as_deref() == Some(&round)).then_some(())).await;
    }
    until("all that fits", async || (seen(&narrow) == prices(&[("c", 3)])).then_some(())).await;
    until("no more troubles", async || health.reasons().is_empty().then_some(())).await;
    write(&kafka, &[("d", Some("4"))]).await;
    until("what follows", async || (seen(&narrow) == prices(&[("c", 3), ("d", 4)])).then_some(())).await;

    // What is dropped is followed no more, and can be opened again.
    drop(narrow);
    write_to(&STOCKS, &kafka, &[("x", Some("21"))]).await;
    until("the stocks", async || (stocks.get("x").as_deref() == Some(&21)).then_some(())).await;
    let wide = table_of(&PRICES, &global, &health, 100);
    assert!(wide.caught_up().await);
    write(&kafka, &[("e", Some("5"))]).await;
    until("all of it", async || (seen(&wide) == prices(&[("c", 3), ("d", 4), ("e", 5)])).then_some(())).await;
    assert!(health.reasons().is_empty());
    stop.cancel();
    wide.stopped().await;
    stocks.stopped().await;
    assert!(!stocks.caught_up().await);
}
