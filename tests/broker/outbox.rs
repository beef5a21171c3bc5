//! From the outbox in Postgres to topics: once and in order, whoever publishes and
//! whatever becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::Message as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::series::{Series, SeriesError};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::kafka::subscription::OutboundRecord;
use trunkline::postgres::outbox::{Message, append, append_all};
use trunkline::postgres::{Database, Settings};
use trunkline::sinks::outbox;
use trunkline::topics::{CONVERSATIONS, DEAD_LETTERS, OUTBOX_PROGRESS};

use crate::support::kafka::{self, create_topics};
use crate::support::postgres::TestDatabase;
use crate::support::topics::{Read, read_all};
use crate::support::within;

const PATIENCE: Duration = Duration::from_secs(90);

/// Topics and a database of a test's own.
async fn scene(partitions: i32) -> (KafkaSettings, TestDatabase, Database) {
    let kafka = kafka::settings();
    create_topics(&kafka, &[&CONVERSATIONS, &DEAD_LETTERS, &OUTBOX_PROGRESS], partitions).await;
    let (own, database) = TestDatabase::migrated().await;
    (kafka, own, database)
}

/// An instance that publishes, or stands by.
pub(super) struct Publisher {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Publisher {
    pub(super) fn start(kafka: &KafkaSettings, database: &Database, instance: &str) -> Self {
        let kafka = KafkaSettings { instance: instance.to_owned(), ..kafka.clone() };
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let (database, stop) = (database.clone(), shutdown.clone());
        let task = tokio::spawn({
            let health = health.clone();
            async move { outbox::run(outbox::Settings::default(), kafka, database, &health, stop).await }
        });
        Self { health, shutdown, task }
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.expect("stops").unwrap();
    }
}

/// Appends messages `from..to` of one writer, each in a transaction of its own.
async fn write(database: &Database, writer: &str, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let mut transaction = database.pool().begin().await.unwrap();
        let value = n.to_string();
        let message = Message::new(CONVERSATIONS.name, writer.as_bytes(), value.as_bytes());
        append(&mut transaction, &message).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

pub(super) async fn published(kafka: &KafkaSettings) -> Vec<Read> {
    let (brokers, topic) = (kafka.brokers.clone(), kafka.topic(&CONVERSATIONS));
    tokio::task::spawn_blocking(move || read_all(&brokers, &topic)).await.unwrap()
}

async fn left(database: &Database) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM trunkline.outbox").fetch_one(database.pool()).await.unwrap()
}

pub(super) async fn emptied(database: &Database) {
    within(PATIENCE, "the outbox to be empty", async || (left(database).await == 0).then_some(())).await;
}

/// The numbers of each writer, in the order of the topic.
async fn numbers(kafka: &KafkaSettings) -> BTreeMap<String, Vec<usize>> {
    let mut numbers = BTreeMap::<String, Vec<usize>>::new();
    for record in published(kafka).await {
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap()).unwrap();
        numbers.entry(text(record.key)).or_default().push(text(record.value).parse().unwrap());
    }
    numbers
}

fn counted(to: usize) -> Vec<usize> {
    (0..to).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_arrive_as_they_were_appended_and_are_deleted() {
    let (kafka, _own, database) = scene(3).await;
    let value = b"{\"b\":\"\\u0001\"}";
    let traced = Message::new(CONVERSATIONS.name, b"c-1", value).with_header("traceparent", b"00-trace");
    let exact = Message { described: false, ..traced.clone() };
    let tombstone = Message { value: None, ..Message::new(CONVERSATIONS.name, b"c-1", b"") };
    let unknown = Message::new("no.such.topic", b"k", b"v");
    let mut transaction = database.pool().begin().await.unwrap();
    append_all(&mut transaction, &[traced, exact, tombstone, unknown]).await.unwrap();
    transaction.commit().await.unwrap();
    let publisher = Publisher::start(&kafka, &database, "one");
    emptied(&database).await;
    publisher.stop().await;

    let records = published(&kafka).await;
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record.key.as_deref() == Some(b"c-1")));
    assert_eq!(records[0].value.as_deref(), Some(&value[..]));
    assert_eq!(records[0].header("traceparent"), "00-trace");
    assert_eq!(records[0].header("content-type"), "application/json");
    assert_eq!(records[0].header("trunkline-schema"), CONVERSATIONS.name);
    assert_eq!(records[1].headers, [("traceparent".to_owned(), b"00-trace".to_vec())]);
    assert_eq!(records[2].value, None);

    let set_aside = kafka::read_all(&kafka, &DEAD_LETTERS);
    assert_eq!(set_aside.len(), 1);
    assert_eq!(set_aside[0].payload(), Some(&b"v"[..]));
}

/// Several write at once, two publish, one of them leaves and another comes.
#[tokio::test(flavor = "multi_thread")]
async fn order_and_number_hold_with_many_writers_and_changing_publishers() {
    const WRITERS: usize = 4;
    const EACH: usize = 250;
    let (kafka, _own, database) = scene(3).await;
    let first = Publisher::start(&kafka, &database, "one");
    let second = Publisher::start(&kafka, &database, "two");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let database = database.clone();
            tokio::spawn(async move { write(&database, &format!("w{writer}"), 0..EACH).await })
        })
        .collect();
    within(PATIENCE, "some to be out", async || (!published(&kafka).await.is_empty()).then_some(())).await;
    first.stop().await;
    let third = Publisher::start(&kafka, &database, "three");
    second.stop().await;
    for writer in writers {
        writer.await.unwrap();
    }
    emptied(&database).await;
    third.stop().await;
    let numbers = numbers(&kafka).await;
    assert_eq!(numbers.len(), WRITERS);
    for (writer, numbers) in numbers {
        assert_eq!(numbers, counted(EACH), "{writer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_was_thought_dead_publishes_nothing_twice() {
    let kafka = kafka::settings();
    create_topics(&kafka, &[&CONVERSATIONS, &OUTBOX_PROGRESS], 2).await;
    let record = |n: u8| OutboundRecord {
        topic: &CONVERSATIONS,
        key: Some(b"k".to_vec()),
        value: Some(vec![b'0' + n]),
        headers: Vec::new(),
    };
    let series = || {
        let stop = CancellationToken::new();
        Series::new(&kafka, "outbox", "series".to_owned(), &OUTBOX_PROGRESS, stop)
    };
    let (zombie, other) = (series(), series());
    assert_eq!(zombie.mark().await.unwrap(), 0);
    zombie.publish(0, vec![record(0), record(1)], 2).await.unwrap();
    assert_eq!(other.mark().await.unwrap(), 2, "what the first committed");
    other.publish(2, vec![record(2)], 3).await.unwrap();
    // It still believes in its mark, and is fenced.
    assert_eq!(zombie.mark().await.unwrap(), 2);
    let fenced = zombie.publish(2, vec![record(2)], 3).await;
    assert!(matches!(fenced, Err(SeriesError::Transaction(_))), "{fenced:?}");
    // Connected again it knows better.
    assert_eq!(zombie.mark().await.unwrap(), 3);
    let moved = zombie.publish(2, vec![record(2)], 3).await;
    assert!(matches!(moved, Err(SeriesError::Moved { expected: 2, found: 3 })), "{moved:?}");
    zombie.publish(3, vec![record(3)], 4).await.unwrap();
    assert!(other.publish(3, vec![record(3)], 4).await.is_err());
    assert_eq!(other.mark().await.unwrap(), 4);
    zombie.close().await;
    other.close().await;
    assert_eq!(numbers(&kafka).await["k"], counted(4));
}

/// A mark far behind the end, and marks of another series, are found as well.
#[tokio::test(flavor = "multi_thread")]
async fn the_mark_is_found_among_many_of_others() {
    let kafka = kafka::settings();
    create_topics(&kafka, &[&CONVERSATIONS, &OUTBOX_PROGRESS], 1).await;
    let series = |name: &str| {
        Series::new(&kafka, "outbox", name.to_owned(), &OUTBOX_PROGRESS, CancellationToken::new())
    };
    let old = series("old");
    assert_eq!(old.mark().await.unwrap(), 0);
    old.publish(0, Vec::new(), 41).await.unwrap();
    old.close().await;
    let new = series("new");
    assert_eq!(new.mark().await.unwrap(), 0, "another outbox's mark counts for nothing");
    for n in 0..60 {
        new.publish(n, Vec::new(), n + 1).await.unwrap();
    }
    new.close().await;
    assert_eq!(series("old").mark().await.unwrap(), 41);
    assert_eq!(series("new").mark().await.unwrap(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_and_topics_out_of_reach_are_named_and_waited_for() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = kafka::settings();
    write(&database, "w", 0..3).await;
    let complains = async |publisher: &Publisher, words: &str| {
        within(PATIENCE, words, async || {
            publisher.health.reasons().into_iter().find(|(_, reason)| reason.contains(words)).map(drop)
        })
        .await;
    };
    let nowhere = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), ..kafka.clone() };
    let publisher = Publisher::start(&nowhere, &database, "one");
    complains(&publisher, "init_transactions failed").await;
    publisher.stop().await;

    let publisher = Publisher::start(&kafka, &database, "one");
    complains(&publisher, "trunkline.outbox-progress.v1 does not exist").await;
    create_topics(&kafka, &[&OUTBOX_PROGRESS], 1).await;
    complains(&publisher, "trunkline.conversations.v1 does not exist").await;
    create_topics(&kafka, &[&CONVERSATIONS], 1).await;
    emptied(&database).await;
    publisher.stop().await;
    assert_eq!(numbers(&kafka).await["w"], counted(3));

    // A database set back to before what was published is not taken at its word.
    let owner = own.owner().await;
    sqlx::raw_sql("ALTER TABLE trunkline.outbox ALTER COLUMN id RESTART").execute(&owner).await.unwrap();
    write(&database, "w", 3..4).await;
    let publisher = Publisher::start(&kafka, &database, "one");
    complains(&publisher, "restored from a backup").await;
    assert_eq!(left(&database).await, 1);
    let remedy = "UPDATE trunkline.outbox_identity SET id = gen_random_uuid()";
    sqlx::raw_sql(remedy).execute(&owner).await.unwrap();
    emptied(&database).await;
    publisher.stop().await;
    assert_eq!(numbers(&kafka).await["w"], counted(4));
}

/// The mark is no position in its topic but the number of a row that is deleted after it: made
/// again, the topic says nothing, and nothing is left to be sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_of_marks_that_is_made_again_costs_nothing() {
    let (kafka, _own, database) = scene(1).await;
    let publisher = Publisher::start(&kafka, &database, "one");
    write(&database, "w", 0..20).await;
    emptied(&database).await;
    // While it publishes, and while it does not.
    kafka::replace_topic(&kafka, &OUTBOX_PROGRESS, 1).await;
    write(&database, "w", 20..40).await;
    emptied(&database).await;
    publisher.stop().await;
    kafka::replace_topic(&kafka, &OUTBOX_PROGRESS, 1).await;
    write(&database, "w", 40..60).await;
    let publisher = Publisher::start(&kafka, &database, "two");
    emptied(&database).await;
    publisher.stop().await;
    assert_eq!(numbers(&kafka).await["w"], counted(60));
}

const PREFIX: &str = "TRUNKLINE_TEST_OUTBOX_PREFIX";
const URL: &str = "TRUNKLINE_TEST_OUTBOX_URL";

/// A process of its own that publishes until it is killed, or its parent is gone.
struct Mortal(Child);

impl Mortal {
    fn start(kafka: &KafkaSettings, own: &TestDatabase, crash_points: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "outbox::child", "--nocapture"])
            .env(PREFIX, &kafka.topic_prefix)
            .env(URL, own.url())
            .env("FAILPOINTS", crash_points)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "runs as a child of the tests here"]
fn child() {
    let (Ok(topic_prefix), Ok(url)) = (std::env::var(PREFIX), std::env::var(URL)) else { return };
    let scenario = fail::FailScenario::setup();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _publisher = runtime.block_on(async {
        let database = Database::connect(&Settings { url: url.into(), ..Settings::default() }).unwrap();
        let kafka = KafkaSettings { topic_prefix, instance: "mortal".to_owned(), ..kafka::settings() };
        Publisher::start(&kafka, &database, "mortal")
    });
    let _ = std::io::stdin().read(&mut [0]);
    scenario.teardown();
}

async fn ends_well(kafka: &KafkaSettings, database: &Database, sent: usize) {
    emptied(database).await;
    assert_eq!(numbers(kafka).await["w"], counted(sent));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_again_and_again() {
    let (kafka, own, database) = scene(2).await;
    let mut sent = 0;
    let mut seen = BTreeSet::new();
    for _ in 0..4 {
        let mortal = Mortal::start(&kafka, &own, "");
        let before = published(&kafka).await.len();
        write(&database, "w", sent..sent + 200).await;
        sent += 200;
        within(PATIENCE, "some to be out", async || (published(&kafka).await.len() > before).then_some(()))
            .await;
        drop(mortal);
        seen.insert(left(&database).await);
    }
    println!("left in the table after the kills: {seen:?}");
    let publisher = Publisher::start(&kafka, &database, "mortal");
    ends_well(&kafka, &database, sent).await;
    publisher.stop().await;
}

/// `cargo test --features failpoints`: between any two steps of publishing.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn dies_at_every_point() {
    let (kafka, own, database) = scene(2).await;
    let mut sent = 0;
    for (point, passes) in [
        ("transaction-after-produce", 7),
        ("transaction-before-commit", 2),
        ("transaction-after-commit", 2),
        ("outbox-before-delete", 2),
    ] {
        let mut mortal = Mortal::start(&kafka, &own, &format!("{point}={passes}*off->return"));
        let give_up = std::time::Instant::now() + PATIENCE;
        while mortal.0.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < give_up, "did not crash at {point}");
            write(&database, "w", sent..sent + 10).await;
            sent += 10;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if point.contains("commit") || point.contains("delete") {
            assert!(left(&database).await > 0, "{point}: nothing was between commit and delete");
        }
    }
    let publisher = Publisher::start(&kafka, &database, "mortal");
    ends_well(&kafka, &database, sent).await;
    publisher.stop().await;
}
