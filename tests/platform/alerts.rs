//! From an outcome on its topic to receivers that behave and that do not.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::clock;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::model::decision::{DecisionId, Loop};
use trunkline::postgres::Database;
use trunkline::sinks::alerts::{self, AlertsError};
use trunkline::topics::{OUTCOMES, ROUTING_DECISIONS};

use crate::support::kafka::{self, create_topics, produce};
use crate::support::postgres::TestDatabase;
use crate::support::receiver::{CANARY, Manner, OTHER_SECRET, Receiver, SECRET};
use crate::support::within;

const PATIENCE: Duration = Duration::from_secs(90);

fn receiver(name: &str, url: &str) -> alerts::Receiver {
    alerts::Receiver {
        name: name.to_owned(),
        url: url.into(),
        secrets: vec![SECRET.into(), OTHER_SECRET.into()],
        incident_types: Vec::new(),
    }
}

fn settings(receivers: Vec<alerts::Receiver>) -> alerts::Settings {
    alerts::Settings { receivers, private_receivers: true, ..alerts::Settings::default() }
}

/// An instance with the role.
struct Instance {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), AlertsError>>,
}

impl Instance {
    fn start(kafka: &KafkaSettings, database: &Database, settings: alerts::Settings) -> Self {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let (kafka, database, stop) = (kafka.clone(), database.clone(), shutdown.clone());
        let task = tokio::spawn({
            let health = health.clone();
            async move { alerts::run(settings, kafka, database, &health, stop).await }
        });
        Self { health, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.expect("stops").unwrap().unwrap();
    }

    /// No chance to clean up.
    fn kill(self) {
        self.task.abort();
    }
}

async fn scene() -> (KafkaSettings, TestDatabase, Database) {
    let kafka = kafka::settings();
    create_topics(&kafka, alerts::ROLE.reads, 2).await;
    let (own, database) = TestDatabase::migrated().await;
    (kafka, own, database)
}

fn outcome(key: &str, sequence: u64, status: &str, at: Timestamp) -> Vec<u8> {
    json!({
        "decisionId": DecisionId::derive(Loop::Dial, key, sequence, at), "loop": "dial", "key": key,
        "sequence": sequence, "status": status, "reason": "refused: 403 \u{0}", "attempts": 1, "finishedAt": at
    })
    .to_string()
    .into_bytes()
}

/// Failed outcomes that raise an alert each, and others that do not.
async fn fail(kafka: &KafkaSettings, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        let failed = outcome("c", sequence, "failed", clock::now());
        let applied = outcome("c", 1_000 + sequence, "applied", clock::now());
        produce(kafka, &OUTCOMES, None, &[("c", &applied), ("c", b"{poison"), ("c", &failed)]).await;
    }
}

/// The ledger's row of the decision behind the first alert, as the audit writes it.
async fn plant_decision(owner: &PgPool) {
    sqlx::raw_sql(
        "INSERT INTO audit.decision_log
         SELECT decision_id, loop, key, 1, 'live', occurred_at, occurred_at, occurred_at, 'set_dial_rate', 'r',
                '{}', '{}', 'p', 1, 'h', 0, '[]', 'decisions', 0, 0
         FROM audit.alert_log ORDER BY occurred_at DESC LIMIT 1",
    )
    .execute(owner)
    .await
    .unwrap();
}

async fn statuses(pool: &PgPool, receiver: &str) -> Vec<String> {
    sqlx::query_scalar("SELECT status FROM audit.alerts WHERE receiver = $1 ORDER BY status")
        .bind(receiver)
        .fetch_all(pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_alert_reaches_each_receiver_once_and_signed() {
    let (kafka, own, database) = scene().await;
    let (one, two) = (Receiver::start(Manner::Takes).await, Receiver::start(Manner::Takes).await);
    let choosy = alerts::Receiver { incident_types: vec!["OTHER".into()], ..receiver("choosy", &two.url) };
    let wanted = settings(vec![receiver("one", &one.url), receiver("two", &two.url), choosy]);
    let first = Instance::start(&kafka, &database, wanted.clone());
    let second = Instance::start(&kafka, &database, wanted);
    fail(&kafka, 0..5).await;
    // Long past: kept, and nobody is woken.
    let old = outcome("c", 99, "failed", clock::now().minus(Duration::from_secs(2 * 86_400)));
    produce(&kafka, &OUTCOMES, None, &[("c", &old)]).await;
    within(PATIENCE, "all to be delivered", async || {
        (one.taken().len() == 5 && two.taken().len() == 5).then_some(())
    })
    .await;
    within(PATIENCE, "the old one to be kept", async || {
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM audit.alerts WHERE status = 'not_sent'")
            .fetch_one(database.pool())
            .await
            .unwrap();
        (kept == 1).then_some(())
    })
    .await;
    within(PATIENCE, "the deliveries to be on record", async || {
        (statuses(database.pool(), "two").await == ["delivered"; 5]).then_some(())
    })
    .await;
    first.stop().await;
    second.stop().await;
    assert!(one.taken().values().all(|times| *times == 1), "{:?}", one.taken());
    assert_eq!(one.taken(), two.taken());
    assert!(statuses(database.pool(), "choosy").await.is_empty());
    let body: Value = serde_json::from_str(&one.messages()[0].body).unwrap();
    assert_eq!((&body["incident_type"], &body["campaign_id"]), (&json!("DIAL_CHANGE_FAILED"), &json!("c")));

    let mut reader = own.as_role("trunkline_reader").await;
    let (seen, body): (i64, Value) =
        sqlx::query_as("SELECT count(*) OVER (), body FROM audit.alerts WHERE receiver = 'one' LIMIT 1")
            .fetch_one(&mut reader)
            .await
            .unwrap();
    assert_eq!((seen, &body["loop"]), (5, &Value::Null));
    plant_decision(&own.owner().await).await;
    let told: Vec<Value> =
        sqlx::query_scalar("SELECT alert FROM audit.explained").fetch_all(&mut reader).await.unwrap();
    assert_eq!(told.len(), 1, "one row per decision");
    let of = |nth: usize, field: &str| told[0][nth][field].clone();
    assert_eq!((of(0, "receiver"), of(1, "receiver")), (json!("one"), json!("two")));
    assert_eq!((of(0, "incident_type"), of(1, "status")), (json!("DIAL_CHANGE_FAILED"), json!("delivered")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shows_in_hundreds_of_routing_decisions_is_told_once() {
    let (kafka, _own, database) = scene().await;
    let ops = Receiver::start(Manner::Takes).await;
    let instance = Instance::start(&kafka, &database, settings(vec![receiver("ops", &ops.url)]));
    // Anywhere but at the edge of a quarter of an hour.
    let quarter_ms = 900_000;
    let at = Timestamp::from_millis(clock::now().as_millis() / quarter_ms * quarter_ms + 1);
    let decided = |sequence: u64, reason: &str, source: &str| {
        let example = include_str!("../../schemas/examples/trunkline.routing-decisions.v1/share.json");
        let mut decision: Value = serde_json::from_str(example).unwrap();
        decision["decisionId"] = json!(DecisionId::derive(Loop::Route, "c", sequence, at));
        (decision["key"], decision["sequence"]) = (json!("c"), json!(sequence));
        (decision["reason"], decision["decidedAt"]) = (json!(reason), json!(at));
        decision["parameters"]["source"] = json!(source);
        decision.to_string().into_bytes()
    };
    for batch in 0..3 {
        let records: Vec<Vec<u8>> = (0..100)
            .map(|number| match number % 3 {
                0 => decided(batch * 100 + number, "nobody_available", "exact"),
                1 => decided(batch * 100 + number, "share", "cached"),
                _ => decided(batch * 100 + number, "share", "exact"),
            })
            .collect();
        let records: Vec<(&str, &[u8])> = records.iter().map(|value| ("c", value.as_slice())).collect();
        produce(&kafka, &ROUTING_DECISIONS, None, &records).await;
    }
    // The last record: whatever comes before it has been read then.
    fail(&kafka, 0..1).await;
    within(PATIENCE, "all to be read and told", async || {
        let read: i64 = sqlx::query_scalar(
            "SELECT coalesce(sum(next_offset), 0)::bigint FROM audit.positions WHERE topic LIKE '%routing-decisions%'",
        )
        .fetch_one(database.pool())
        .await
        .unwrap();
        (read >= 300 && ops.taken().len() >= 3).then_some(())
    })
    .await;
    let mut told: Vec<String> = ops
        .messages()
        .iter()
        .map(|message| serde_json::from_str::<Value>(&message.body).unwrap())
        .map(|body| body["incident_type"].as_str().unwrap().to_owned())
        .collect();
    told.sort();
    assert_eq!(told, ["DIAL_CHANGE_FAILED", "ROUTE_ANSWERED_WITHOUT_COUNTERS", "ROUTE_NOBODY_AVAILABLE"]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_or_redirects_delays_nobody_else() {
    let (kafka, _own, database) = scene().await;
    let hanging = Receiver::start(Manner::Hangs).await;
    let redirecting = Receiver::start(Manner::Redirects).await;
    let good = Receiver::start(Manner::Takes).await;
    let all = [("hanging", &hanging), ("redirecting", &redirecting), ("good", &good)];
    let receivers = all.iter().map(|(name, to)| receiver(name, &to.url)).collect();
    let instance = Instance::start(&kafka, &database, settings(receivers));
    fail(&kafka, 0..12).await;
    within(PATIENCE, "the good one to have all", async || (good.taken().len() == 12).then_some(())).await;
    within(PATIENCE, "the others to be named", async || {
        let told: Vec<_> = instance.health.impairments().into_iter().map(|(_, reason)| reason).collect();
        let redirect = told.iter().any(|reason| reason.contains("redirects are not followed"));
        let hang = told.iter().any(|reason| reason.contains("receiver hanging does not take alerts"));
        (redirect && hang && instance.health.reasons().is_empty()).then_some(())
    })
    .await;
    assert!(redirecting.messages().iter().all(|message| !message.taken));
    instance.stop().await;
    assert_eq!(statuses(database.pool(), "hanging").await, ["queued"; 12]);
}

/// How a receiver is, as the view says.
async fn standing(pool: &PgPool, receiver: &str) -> Option<String> {
    sqlx::query_scalar("SELECT status FROM audit.alert_receivers WHERE receiver = $1")
        .bind(receiver)
        .fetch_optional(pool)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_asks_for_time_is_left_alone_with_every_alert_and_probed_with_one() {
    let (kafka, own, database) = scene().await;
    let busy = Receiver::start(Manner::Throttles).await;
    let good = Receiver::start(Manner::Takes).await;
    let both = settings(vec![receiver("busy", &busy.url), receiver("good", &good.url)]);
    let first = Instance::start(&kafka, &database, both.clone());
    let waiting = async || {
        within(PATIENCE, "the receiver to be left alone", async || {
            let left: bool = sqlx::query_scalar(
                "SELECT paused_until > now() + interval '10 minutes' FROM trunkline.alert_receivers WHERE receiver = 'busy'",
            )
            .fetch_optional(database.pool())
            .await
            .unwrap()
            .flatten()
            .unwrap_or_default();
            left.then_some(())
        })
        .await;
    };
    fail(&kafka, 0..1).await;
    waiting().await;
    // Other alerts wait as well, at every instance: what the good receiver has, the busy one would have had.
    let second = Instance::start(&kafka, &database, both);
    fail(&kafka, 1..12).await;
    within(PATIENCE, "the good one to have all", async || (good.taken().len() == 12).then_some(())).await;
    assert_eq!(busy.messages().len(), 1, "asked to wait an hour");
    assert_eq!(standing(database.pool(), "busy").await.as_deref(), Some("waiting"));
    // When the time is over one message finds out, not all of them at once.
    let over = "UPDATE trunkline.alert_receivers SET paused_until = now() WHERE receiver = 'busy'";
    sqlx::raw_sql(over).execute(&own.owner().await).await.unwrap();
    within(PATIENCE, "the probe", async || (busy.messages().len() > 1).then_some(())).await;
    waiting().await;
    assert_eq!(busy.messages().len(), 2);
    busy.set(Manner::Takes);
    sqlx::raw_sql(over).execute(&own.owner().await).await.unwrap();
    // Those that were sent to it in vain have their own hour left.
    within(PATIENCE, "the others to follow", async || (busy.taken().len() == 10).then_some(())).await;
    within(PATIENCE, "it to be as others are", async || {
        (standing(database.pool(), "busy").await.as_deref() == Some("on")).then_some(())
    })
    .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_asked_no_more_until_somebody_enables_it() {
    let (kafka, _own, database) = scene().await;
    let gone = Receiver::start(Manner::IsGone).await;
    let good = Receiver::start(Manner::Takes).await;
    let wanted = settings(vec![receiver("gone", &gone.url), receiver("good", &good.url)]);
    let instance = Instance::start(&kafka, &database, wanted.clone());
    fail(&kafka, 0..1).await;
    let told = within(PATIENCE, "it to be told", async || {
        let told = instance.health.impairments().into_iter().map(|(_, reason)| reason);
        told.into_iter().find(|reason| reason.contains("trunkline alerts enable gone"))
    })
    .await;
    assert!(told.contains("HTTP 410: nothing at /[secret]") && !told.contains(CANARY), "{told}");
    fail(&kafka, 1..6).await;
    within(PATIENCE, "the good one to have all", async || (good.taken().len() == 6).then_some(())).await;
    instance.stop().await;
    // Neither a restart nor another alert asks it again.
    gone.set(Manner::Takes);
    let instance = Instance::start(&kafka, &database, wanted.clone());
    fail(&kafka, 6..7).await;
    within(PATIENCE, "the good one to have it", async || (good.taken().len() == 7).then_some(())).await;
    assert_eq!(gone.messages().len(), 1);
    assert_eq!(standing(database.pool(), "gone").await.as_deref(), Some("off"));
    let kept = format!("{:?}", database.receivers().await.unwrap());
    assert!(kept.contains("410") && !kept.contains(CANARY), "{kept}");

    assert!(database.enable_receiver("gone").await.unwrap());
    assert!(!database.enable_receiver("nobody").await.unwrap());
    within(PATIENCE, "what was kept for it", async || (gone.taken().len() == 7).then_some(())).await;
    instance.stop().await;

    // Another address under the same name is another receiver.
    let switched = Receiver::start(Manner::IsGone).await;
    let elsewhere = |to: &Receiver| settings(vec![receiver("gone", &to.url)]);
    let instance = Instance::start(&kafka, &database, elsewhere(&switched));
    fail(&kafka, 7..8).await;
    within(PATIENCE, "it to be switched off", async || {
        (standing(database.pool(), "gone").await.as_deref() == Some("off")).then_some(())
    })
    .await;
    instance.stop().await;
    let instance = Instance::start(&kafka, &database, elsewhere(&good));
    within(PATIENCE, "the new address to have it", async || (good.taken().len() == 8).then_some(())).await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_and_restarts_end_in_one_delivery() {
    let (kafka, _own, database) = scene().await;
    let failing = Receiver::start(Manner::Refuses).await;
    let wanted = settings(vec![receiver("failing", &failing.url)]);
    for round in 0..2 {
        let before = failing.messages().len();
        let instance = Instance::start(&kafka, &database, wanted.clone());
        fail(&kafka, round..round + 1).await;
        within(PATIENCE, "an attempt", async || (failing.messages().len() > before).then_some(())).await;
        within(PATIENCE, "it to be on record", async || {
            let recorded: i64 =
                sqlx::query_scalar("SELECT count(*) FROM audit.alerts WHERE http_status = 500 AND last_error LIKE 'HTTP 500: not today%'")
                    .fetch_one(database.pool())
                    .await
                    .unwrap();
            (recorded > round as i64).then_some(())
        })
        .await;
        if round == 0 { instance.kill() } else { instance.stop().await }
    }
    failing.set(Manner::Takes);
    let instance = Instance::start(&kafka, &database, wanted);
    within(PATIENCE, "both to be delivered", async || {
        (statuses(database.pool(), "failing").await == ["delivered"; 2]).then_some(())
    })
    .await;
    instance.stop().await;
    assert!(failing.taken().len() == 2 && failing.taken().values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_takes_for_too_long_becomes_a_dead_letter() {
    let (kafka, own, database) = scene().await;
    let failing = Receiver::start(Manner::Refuses).await;
    let wanted = settings(vec![receiver("failing", &failing.url), receiver("gone", "http://127.0.0.1:1/")]);
    let instance = Instance::start(&kafka, &database, wanted.clone());
    fail(&kafka, 0..1).await;
    within(PATIENCE, "an attempt", async || (!failing.messages().is_empty()).then_some(())).await;
    instance.stop().await;
    // One of them is not even configured any more.
    let mut fewer = wanted;
    fewer.receivers.truncate(1);
    fewer.give_up_after = Duration::from_secs(1);
    let instance = Instance::start(&kafka, &database, fewer);
    within(PATIENCE, "both to be given up", async || {
        let gone = statuses(database.pool(), "gone").await == ["given_up"];
        (gone && statuses(database.pool(), "failing").await == ["given_up"]).then_some(())
    })
    .await;
    instance.stop().await;
    let letters: Vec<(String, Value)> = sqlx::query_as("SELECT topic, headers FROM trunkline.outbox")
        .fetch_all(&own.owner().await)
        .await
        .unwrap();
    assert_eq!(letters.len(), 2);
    assert!(letters.iter().all(|(topic, _)| topic == "trunkline.dead-letters.v1"));
    let told = json!(letters).to_string();
    assert!(told.contains("receiver failing did not take it") && told.contains("webhook:gone"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_by_name_and_by_number() {
    let (kafka, _own, database) = scene().await;
    let refused = |url: &str| {
        let wanted = alerts::Settings { private_receivers: false, ..settings(vec![receiver("inside", url)]) };
        Instance::start(&kafka, &database, wanted)
    };
    for url in [
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://169.254.169.254/latest",
        "https://0x7f.1/",
        "https://168.63.129.16/",
        "https://:p@example.com/",
    ] {
        let ended = tokio::time::timeout(PATIENCE, refused(url).task).await.expect("ends at once").unwrap();
        assert!(matches!(&ended, Err(AlertsError::Receiver(_))), "{url}: {ended:?}");
    }
    let instance = refused("https://localhost/");
    fail(&kafka, 0..1).await;
    within(PATIENCE, "the refusal", async || {
        let told = instance.health.impairments();
        told.into_iter().find(|(_, reason)| reason.contains("is not a public one")).map(drop)
    })
    .await;
    instance.stop().await;
}
