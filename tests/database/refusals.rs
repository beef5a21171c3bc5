//! What Postgres refuses becomes a dead letter in every sink, once, and those behind it go on.

use std::future::Future;
use std::time::Duration;

use rdkafka::message::{Headers, Message, OwnedMessage};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::clock;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::decision::{DecisionId, Loop};
use trunkline::postgres::Database;
use trunkline::sinks::{alerts, audit, lag_status, outbox};
use trunkline::topics::{self, Cleanup, DEAD_LETTERS, LAG_STATUS, OUTBOX_PROGRESS, OUTCOMES};

use crate::support::kafka::{self, committed, create_topics, produce, read_all};
use crate::support::postgres::TestDatabase;
use crate::support::records;
use crate::support::until;

/// Roles of one instance; each ends well when it is asked to.
struct Roles {
    kafka: KafkaSettings,
    database: Database,
    health: Health,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    own: TestDatabase,
}

impl Roles {
    /// With the outbox, which publishes what is set aside.
    async fn new(topics: &[&'static topics::Topic]) -> Self {
        let kafka = kafka::settings();
        let (own, database) = TestDatabase::migrated().await;
        create_topics(&kafka, topics, 1).await;
        create_topics(&kafka, &[&OUTBOX_PROGRESS], 1).await;
        let mut roles = Self {
            kafka,
            database,
            health: Health::default(),
            shutdown: CancellationToken::new(),
            tasks: Vec::new(),
            own,
        };
        roles.start(|kafka, database, health, stop| async move {
            outbox::run(outbox::Settings::default(), kafka, database, &health, stop).await;
        });
        roles
    }

    fn start<F>(&mut self, role: impl FnOnce(KafkaSettings, Database, Health, CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (kafka, database) = (self.kafka.clone(), self.database.clone());
        self.tasks.push(tokio::spawn(role(kafka, database, self.health.clone(), self.shutdown.clone())));
    }

    fn start_alerts(&mut self) {
        self.start(|kafka, database, health, stop| async move {
            alerts::run(alerts::Settings::default(), kafka, database, &health, stop).await.unwrap();
        });
    }

    fn start_lag_status(&mut self) {
        self.start(|kafka, database, health, stop| async move {
            lag_status::run(&kafka, database, &health, stop).await.unwrap();
        });
    }

    /// The first so many dead letters, once they are there.
    async fn letters(&self, count: usize) -> Vec<OwnedMessage> {
        until("the dead letters", || async {
            let letters = tokio::task::block_in_place(|| read_all(&self.kafka, &DEAD_LETTERS));
            (letters.len() >= count).then_some(letters)
        })
        .await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            tokio::time::timeout(Duration::from_secs(10), task).await.expect("ends in time").unwrap();
        }
    }
}

fn header(letter: &OwnedMessage, name: &str) -> String {
    let headers = letter.headers().expect("headers");
    let found = headers.iter().filter(|header| header.key == name).last().expect("the header");
    String::from_utf8(found.value.expect("a value").to_vec()).unwrap()
}

fn failed(key: &str, sequence: u64) -> Vec<u8> {
    let at = clock::now();
    json!({
        "decisionId": DecisionId::derive(Loop::Dial, key, sequence, at), "loop": "dial", "key": key,
        "sequence": sequence, "status": "failed", "reason": "refused: 403", "attempts": 1, "finishedAt": at
    })
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_no_alert_can_be_made_of_stops_no_other_alert() {
    let mut roles = Roles::new(&[&DEAD_LETTERS]).await;
    create_topics(&roles.kafka, alerts::ROLE.reads, 1).await;
    let (poison, good) = (failed("c\u{0}", 1), failed("c", 2));
    let all: Vec<(&str, &[u8])> =
        vec![("c", &good), ("c", &poison), ("c", &poison), ("c", &good), ("c", b"{no outcome")];
    produce(&roles.kafka, &OUTCOMES, None, &all).await;
    roles.start_alerts();

    let letters = roles.letters(2).await;
    let told: Vec<_> = letters
        .iter()
        .map(|letter| (letter.payload().unwrap().to_vec(), header(letter, "trunkline-error-offset")))
        .collect();
    assert_eq!(told, [(poison.clone(), "1".to_owned()), (poison, "2".to_owned())]);
    assert_eq!(header(&letters[0], "trunkline-error-stage"), "alerts");
    assert_eq!(header(&letters[0], "trunkline-error-topic"), roles.kafka.topic(&OUTCOMES));
    let reason = header(&letters[0], "trunkline-error-reason");
    assert!(reason.starts_with("rejected: Postgres refuses the row"), "{reason}");

    let raised = || async {
        let keys: Vec<String> = sqlx::query_scalar("SELECT key FROM audit.alert_log")
            .fetch_all(roles.database.pool())
            .await
            .unwrap();
        (!keys.is_empty()).then_some(keys)
    };
    assert_eq!(until("the alert", raised).await, ["c"]);
    // Its own group shows how far it is, as every other does.
    until("the group's offset", || async {
        let at = tokio::task::block_in_place(|| committed(&roles.kafka, alerts::ROLE.name, &OUTCOMES, 0));
        (at == Some(5)).then_some(())
    })
    .await;
    until("readiness", || async { roles.health.reasons().is_empty().then_some(()) }).await;
    roles.stop().await;
}

fn evaluation(group: &str) -> Vec<u8> {
    let text = include_str!("../../schemas/examples/trunkline.lag-status.v1/error.json");
    let mut evaluation: Value = serde_json::from_str(text).unwrap();
    evaluation["consumerGroup"] = group.into();
    evaluation["observedAt"] = json!(clock::now());
    evaluation["validUntil"] = json!(clock::now().plus(Duration::from_secs(3_600)));
    evaluation.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_kept_beside_one_whose_name_no_index_takes() {
    let mut roles = Roles::new(&[&DEAD_LETTERS, &LAG_STATUS]).await;
    let incompressible: String =
        (0..1_000u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    let poisons = [evaluation(&incompressible), evaluation("a\u{0}b"), b"{no evaluation".to_vec()];
    let (first, last) = (evaluation("first"), evaluation("last"));
    let mut all: Vec<(&str, &[u8])> = vec![("k", &first)];
    all.extend(poisons.iter().map(|poison| ("k", &poison[..])));
    all.push(("k", &last));
    produce(&roles.kafka, &LAG_STATUS, None, &all).await;
    roles.start_lag_status();

    let letters = roles.letters(3).await;
    let mut values: Vec<_> = letters.iter().map(|letter| letter.payload().unwrap().to_vec()).collect();
    let mut expected = poisons.to_vec();
    values.sort();
    expected.sort();
    assert_eq!(values, expected);
    until("both groups", || async {
        let groups = roles.database.lag_statuses(None, 10).await.unwrap();
        let names: Vec<_> = groups.into_iter().map(|status| status.group).collect();
        (names == ["first", "last"]).then_some(())
    })
    .await;
    until("readiness", || async { roles.health.reasons().is_empty().then_some(()) }).await;
    roles.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_audit_cannot_keep_leaves_with_its_headers_and_the_reason() {
    let mut roles = Roles::new(&[&DEAD_LETTERS]).await;
    let read = [
        &topics::DIAL_DECISIONS,
        &topics::ROLLBACK_DECISIONS,
        &topics::LAG_EVALUATIONS,
        &topics::ROUTING_DECISIONS,
        &topics::OUTCOMES,
        &topics::SETTINGS,
        &topics::FLOW_VERSIONS,
        &topics::QUEUE_AVAILABILITY,
    ];
    create_topics(&roles.kafka, &read, 1).await;
    let mut escaped_nul = records::decision("a", 2);
    escaped_nul["inputs"]["campaignId"] = "a\u{0}b".into();
    let (good, bad) = (records::decision("a", 1).to_string(), escaped_nul.to_string());
    let all: [(&str, &[u8]); 2] = [("a", good.as_bytes()), ("a", bad.as_bytes())];
    produce(&roles.kafka, &topics::DIAL_DECISIONS, None, &all).await;
    roles.start(|kafka, database, health, stop| async move {
        audit::run(audit::Settings::default(), &kafka, database, &health, stop).await.unwrap();
    });
    let letters = roles.letters(1).await;
    assert_eq!((letters[0].key(), letters[0].payload()), (Some(&b"a"[..]), Some(bad.as_bytes())));
    assert_eq!(header(&letters[0], "trunkline-error-stage"), "audit");
    assert_eq!(header(&letters[0], "trunkline-error-offset"), "1");
    assert_eq!(header(&letters[0], "trunkline-error-topic"), roles.kafka.topic(&topics::DIAL_DECISIONS));
    // Itself a dead letter among those that the audit keeps.
    until("the dead letter in the ledger", || async {
        let kept: Option<(String, i64)> =
            sqlx::query_as("SELECT stage, source_offset FROM audit.dead_letter_log")
                .fetch_optional(roles.database.pool())
                .await
                .unwrap();
        (kept == Some(("audit".to_owned(), 1))).then_some(())
    })
    .await;
    roles.stop().await;
}

fn copied(topic: &topics::Topic) -> topics::Topic {
    let topics::Topic { name, key, description, cleanup, values, max_message_bytes } = *topic;
    topics::Topic { name, key, description, cleanup, values, max_message_bytes }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_position_that_is_lost_is_told_with_a_remedy_that_works() {
    // Of a compacted topic nobody can remove records.
    let by_time = Cleanup::Delete { retention: Duration::from_secs(3_600) };
    let lag_status = topics::Topic { cleanup: by_time, ..copied(&LAG_STATUS) };
    let mut roles = Roles::new(&[&DEAD_LETTERS, Box::leak(Box::new(lag_status))]).await;
    let groups = ["first", "lost", "last"].map(evaluation);
    let database = roles.database.clone();
    let kept = async |names: &[&str]| {
        let groups = database.lag_statuses(None, 10).await.unwrap();
        let found: Vec<_> = groups.into_iter().map(|status| status.group).collect();
        (found == names).then_some(())
    };
    produce(&roles.kafka, &LAG_STATUS, None, &[("k", &groups[0])]).await;
    let (kafka, own, health) = (roles.kafka.clone(), database.clone(), roles.health.clone());
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let before = tokio::spawn(async move { lag_status::run(&kafka, own, &health, stopping).await });
    until("the first group", || kept(&["first"])).await;
    stop.cancel();
    before.await.unwrap().unwrap();
    produce(&roles.kafka, &LAG_STATUS, None, &[("k", &groups[1]), ("k", &groups[2])]).await;
    kafka::remove_before(&roles.kafka, &LAG_STATUS, 2).await;

    roles.start_lag_status();
    let told = until("the lost position to be told", || async {
        roles.health.reasons().into_iter().find(|(_, reason)| reason.contains("no longer has the records"))
    })
    .await;
    assert!(told.1.contains("delete the rows of consumer"), "{told:?}");
    sqlx::query("DELETE FROM audit.positions WHERE consumer = $1 AND topic = $2 AND partition = 0")
        .bind(roles.kafka.group(lag_status::ROLE.name))
        .bind(roles.kafka.topic(&LAG_STATUS))
        .execute(&roles.own.owner().await)
        .await
        .unwrap();
    until("what is left", || kept(&["first", "last"])).await;
    until("readiness", || async { roles.health.reasons().is_empty().then_some(()) }).await;
    roles.stop().await;
}
