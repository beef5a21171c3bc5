//! The audit from a real broker into a real Postgres, with what goes wrong between.

use std::time::Duration;

use rdkafka::message::{Headers, Message};
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::postgres::{self, Database};
use trunkline::sinks::{audit, outbox};
use trunkline::topics;

use crate::support::postgres::TestDatabase;
use crate::support::postgres_proxy::{Fault, PostgresProxy};
use crate::support::records::{decision, outcome};
use crate::support::{kafka, until};

/// One instance of the audit.
struct Instance {
    health: Health,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Instance {
    fn start(kafka: &KafkaSettings, name: &str, options: &PgConnectOptions) -> Self {
        let kafka = KafkaSettings { instance: name.to_owned(), ..kafka.clone() };
        let database = Database::connect(&postgres::Settings {
            url: options.to_url_lossy().to_string().into(),
            acquire_timeout: Duration::from_secs(1),
            ..postgres::Settings::default()
        })
        .unwrap();
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let settings = audit::Settings {
            batch_records: 50,
            retry: (Duration::from_millis(20), Duration::from_millis(200)),
            ..audit::Settings::default()
        };
        let running = tokio::spawn({
            let (health, shutdown) = (health.clone(), shutdown.clone());
            async move { audit::run(settings, &kafka, database, &health, shutdown).await.unwrap() }
        });
        Self { health, shutdown, running }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.running).await.expect("ends in time").unwrap();
    }
}

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Decisions of five campaigns, and their outcomes.
async fn produce(kafka: &KafkaSettings, sequences: std::ops::RangeInclusive<u64>) {
    let of = |make: fn(&str, u64) -> Value| -> Vec<(&str, String)> {
        let numbers = sequences.clone();
        numbers.flat_map(|n| KEYS.map(|key| (key, make(key, n).to_string()))).collect()
    };
    for (topic, values) in [(&topics::DIAL_DECISIONS, of(decision)), (&topics::OUTCOMES, of(outcome))] {
        let records: Vec<(&str, &[u8])> =
            values.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
        kafka::produce(kafka, topic, None, &records).await;
    }
}

/// Waits until every decision up to `last` has its outcome, then checks that each is
/// there once.
async fn expect_whole(database: &Database, last: u64) {
    until("all decisions and outcomes to be in the ledger", || async {
        let explained: i64 =
            sqlx::query_scalar("SELECT count(*) FROM audit.explained WHERE status IS NOT NULL")
                .fetch_one(database.pool())
                .await
                .unwrap();
        (explained >= 5 * last as i64).then_some(())
    })
    .await;
    let counts: (i64, i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM audit.decisions), (SELECT count(DISTINCT (key, sequence)) FROM audit.decisions),
                (SELECT count(*) FROM audit.outcomes), (SELECT count(*) FROM audit.gaps)",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    let all = 5 * last as i64;
    assert_eq!(counts, (all, all, all, 0));
}

async fn topics_of(partitions: i32) -> KafkaSettings {
    let kafka = kafka::settings();
    kafka::create_topics(
        &kafka,
        &[
            &topics::DIAL_DECISIONS,
            &topics::LAG_EVALUATIONS,
            &topics::ROLLBACK_DECISIONS,
            &topics::ROUTING_DECISIONS,
            &topics::OUTCOMES,
            &topics::DEAD_LETTERS,
            &topics::OUTBOX_PROGRESS,
            &topics::SETTINGS,
            &topics::FLOW_VERSIONS,
            &topics::QUEUE_AVAILABILITY,
        ],
        partitions,
    )
    .await;
    kafka
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_come_and_go_and_every_row_is_there_once() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(4).await;
    produce(&kafka, 1..=40).await;
    let first = Instance::start(&kafka, "one", &own.options());
    expect_whole(&database, 40).await;

    let second = Instance::start(&kafka, "two", &own.options());
    produce(&kafka, 41..=80).await;
    expect_whole(&database, 80).await;
    first.stop().await;
    produce(&kafka, 81..=100).await;
    expect_whole(&database, 100).await;
    second.stop().await;

    // A ledger that begins anew gets everything, whatever the group has committed.
    let (own, database) = TestDatabase::migrated().await;
    let third = Instance::start(&kafka, "three", &own.options());
    expect_whole(&database, 100).await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_or_request_is_lost_leaves_every_row_once() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(1).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let instance = Instance::start(&kafka, "one", &proxy.through(own.options()));
    let mut last = 0;
    for (round, fault) in
        [Fault::LoseNextReply, Fault::LoseNextCommit, Fault::LoseNextReply, Fault::LoseNextCommit]
            .into_iter()
            .enumerate()
    {
        proxy.prepare(fault);
        produce(&kafka, last + 1..=last + 12).await;
        last += 12;
        until("the fault to happen", || async { (proxy.happened() > round).then_some(()) }).await;
        expect_whole(&database, last).await;
    }
    until("the audit to be ready again", || async { instance.health.reasons().is_empty().then_some(()) })
        .await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_the_audit_says_so_and_waits() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(2).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    proxy.set_away(true);
    let instance = Instance::start(&kafka, "one", &proxy.through(own.options()));
    produce(&kafka, 1..=10).await;
    let says_why = || async {
        let reasons = instance.health.reasons();
        reasons.into_iter().find(|(part, reason)| part == "audit" && reason != "starting")
    };
    until("the audit to say why it waits", says_why).await;
    proxy.set_away(false);
    expect_whole(&database, 10).await;

    proxy.set_away(true);
    produce(&kafka, 11..=30).await;
    until("the audit to say why it waits", says_why).await;
    proxy.set_away(false);
    expect_whole(&database, 30).await;
    until("the audit to be ready again", || async { instance.health.reasons().is_empty().then_some(()) })
        .await;

    // Stopping does not wait for a database that is away.
    proxy.set_away(true);
    produce(&kafka, 31..=32).await;
    until("the audit to say why it waits", says_why).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_goes_to_the_dead_letters_and_holds_nothing_up() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(1).await;
    let mut nul = decision("z", 1);
    nul["inputs"]["campaignId"] = "a\u{0}b".into();
    let nul = nul.to_string();
    produce(&kafka, 1..=3).await;
    let poison: [(&str, &[u8]); 3] = [("z", nul.as_bytes()), ("z", b"{\"broken\":"), ("z", b"\xff")];
    kafka::produce(&kafka, &topics::DIAL_DECISIONS, None, &poison).await;
    produce(&kafka, 4..=6).await;
    let instance = Instance::start(&kafka, "one", &own.options());
    expect_whole(&database, 6).await;
    instance.stop().await;

    let stop = CancellationToken::new();
    let outbox = tokio::spawn({
        let (kafka, stop) = (kafka.clone(), stop.clone());
        async move {
            outbox::run(outbox::Settings::default(), kafka, database, &Health::default(), stop).await;
        }
    });
    let letters = until("the dead letters", || async {
        let letters = kafka::read_all(&kafka, &topics::DEAD_LETTERS);
        (letters.len() >= poison.len()).then_some(letters)
    })
    .await;
    stop.cancel();
    outbox.await.unwrap();
    let told: Vec<(&[u8], String, String)> = letters
        .iter()
        .map(|letter| {
            let header = |name: &str| {
                let headers = letter.headers().expect("headers");
                let found = headers.iter().find(|header| header.key == name).expect("the header");
                String::from_utf8(found.value.expect("a value").to_vec()).unwrap()
            };
            let reason = header("trunkline-error-reason");
            (
                letter.payload().unwrap(),
                reason.split(':').next().unwrap().to_owned(),
                header("trunkline-error-offset"),
            )
        })
        .collect();
    let mut values: Vec<_> = told.iter().map(|(value, ..)| *value).collect();
    values.sort();
    let mut expected: Vec<_> = poison.iter().map(|(_, value)| *value).collect();
    expected.sort();
    assert_eq!(values, expected, "{told:?}");
    let of_nul = told.iter().find(|(value, ..)| *value == nul.as_bytes()).unwrap();
    assert_eq!((of_nul.1.as_str(), of_nul.2.as_str()), ("rejected", "15"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_and_made_again_is_kept_whole_beside_the_former() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(1).await;
    produce(&kafka, 1..=4).await;
    let instance = Instance::start(&kafka, "one", &own.options());
    expect_whole(&database, 4).await;
    for topic in [&topics::DIAL_DECISIONS, &topics::OUTCOMES] {
        kafka::replace_topic(&kafka, topic, 1).await;
    }
    // The same offsets, and some beyond those that were stored.
    produce(&kafka, 5..=12).await;
    expect_whole(&database, 12).await;
    until("the audit to be ready again", || async { instance.health.reasons().is_empty().then_some(()) })
        .await;
    instance.stop().await;
    let set_aside: i64 =
        sqlx::query_scalar("SELECT count(*) FROM trunkline.outbox").fetch_one(database.pool()).await.unwrap();
    assert_eq!(set_aside, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_nothing_to_do_is_ready() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(1).await;
    let instances = ["one", "two"].map(|name| Instance::start(&kafka, name, &own.options()));
    produce(&kafka, 1..=2).await;
    expect_whole(&database, 2).await;
    for instance in &instances {
        until("readiness", || async { instance.health.reasons().is_empty().then_some(()) }).await;
    }
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_table_can_read_is_set_aside_once_whoever_reads_the_table() {
    let (own, database) = TestDatabase::migrated().await;
    let kafka = topics_of(1).await;
    for topic in [&topics::SETTINGS, &topics::FLOW_VERSIONS, &topics::QUEUE_AVAILABILITY] {
        kafka::produce(&kafka, topic, None, &[("k", b"{broken"), ("k", b"[]")]).await;
    }
    for name in ["one", "two"] {
        let instance = Instance::start(&kafka, name, &own.options());
        until("the positions to be past them", || async {
            let past: i64 = sqlx::query_scalar("SELECT count(*) FROM audit.positions WHERE next_offset = 2")
                .fetch_one(database.pool())
                .await
                .unwrap();
            (past == 3).then_some(())
        })
        .await;
        instance.stop().await;
    }
    let letters = database.outbox_after(0, 20, 1 << 20).await.unwrap();
    assert_eq!(letters.len(), 6, "{letters:?}");
    assert!(letters.iter().all(|letter| letter.topic == topics::DEAD_LETTERS.name), "{letters:?}");
}
