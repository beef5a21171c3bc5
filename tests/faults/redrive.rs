//! What was set aside, once its cause is gone, goes through exactly once: whoever is
//! killed on the way.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use trunkline::model::Timestamp;

use crate::deployment::{Deployment, ENDED, chance};
use crate::support::topics::{Read, read_all};
use crate::support::within;

const PATIENCE: Duration = Duration::from_secs(90);
const FACTS: &str = "genesys.campaign-stats.v1";
const LETTERS: usize = 40;

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as i64)
}

/// A fact about a campaign of its own, which a stage takes once its time has come.
fn fact(campaign: usize, observed_at: Timestamp) -> (String, Vec<u8>) {
    let key = format!("campaign-{campaign}");
    let value = json!({
        "campaignId": key, "organizationId": "o", "region": "r", "observedAt": observed_at, "answerRate": 0.5,
        "attempts": 10, "answers": 5, "abandoned": 0, "agentsIdle": 1, "agentsBusy": 4, "callsDelivered": 5,
        "dialRate": 2.0, "minDialRate": 1.0, "maxDialRate": 3.0, "revision": "\"1\""
    });
    (key, value.to_string().into_bytes())
}

fn produce(deployment: &Deployment, topic: &str, records: &[(String, Vec<u8>)]) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", &deployment.scene.brokers).create().expect("a producer");
    let topic = format!("{}{topic}", deployment.scene.topic_prefix);
    for (key, value) in records {
        producer
            .send(BaseRecord::to(&topic).key(key).payload(value))
            .map_err(|(error, _)| error)
            .expect("queued");
    }
    producer.flush(Duration::from_secs(30)).expect("produced");
}

async fn read(deployment: &Deployment, topic: &str) -> Vec<Read> {
    let (brokers, name) =
        (deployment.scene.brokers.clone(), format!("{}{topic}", deployment.scene.topic_prefix));
    tokio::task::spawn_blocking(move || read_all(&brokers, &name)).await.expect("read")
}

/// What a command writes to stdout, and whether it succeeded.
fn output(deployment: &Deployment, arguments: &[&str]) -> (String, bool) {
    let mut process = deployment.command(arguments);
    let lines: Vec<String> = std::iter::from_fn(|| process.line()).collect();
    (lines.join("\n"), process.wait(Duration::from_secs(60)).success())
}

fn letters(deployment: &Deployment, filters: &[&str]) -> Vec<Value> {
    let (text, _) = output(deployment, &[&["dead-letters", "list", "--json"], filters].concat());
    let list: Value = serde_json::from_str(&text).expect("JSON");
    list["deadLetters"].as_array().expect("a list").clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redriven_after_the_cause_is_gone_each_goes_through_once() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let roles = ["--stages", "windowing,audit,outbox"];
    let mut instance = deployment.instance_with("a", &roles, &[]);

    // Too far ahead now; in a few seconds they are not.
    let observed_at = now().plus(Duration::from_secs(70));
    let facts: Vec<_> = (0..LETTERS).map(|campaign| fact(campaign, observed_at)).collect();
    produce(&deployment, FACTS, &facts);
    produce(&deployment, FACTS, &[("campaign-x".to_owned(), b"\xff{\x1b[31m".to_vec())]);
    let poison = listed_by_what_is_asked_for(&deployment).await;

    // Nobody confirms, nothing happens.
    let (_, sent) = output(&deployment, &["dead-letters", "redrive", &poison]);
    assert!(!sent);
    let ready = observed_at.minus(Duration::from_secs(59));
    within(PATIENCE, "their time to come", async || (now() > ready).then_some(())).await;
    let (told, sent) = output(&deployment, &ALL);
    assert!(sent && told.contains(&format!("{LETTERS} redriven, 0 refused")), "{told}");
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..400))).await;
        instance.process.kill();
        instance = deployment.instance_with("a", &roles, &[]);
    }

    each_went_through_once(&deployment, &facts, seed).await;
    a_second_time_is_refused(&deployment);
    what_is_still_wrong_comes_back(&deployment).await;
    what_no_topic_brought_is_shown_and_not_sent(&deployment).await;
    instance.process.signal(rustix::process::Signal::TERM);
    assert!(instance.process.wait(ENDED).success());
}

/// Everything that can be sent again by now.
const ALL: [&str; 8] =
    ["dead-letters", "redrive", "--all", "--topic", FACTS, "--reason", "from_the_future", "--yes"];

/// Answers the id of the one that is no text.
async fn listed_by_what_is_asked_for(deployment: &Deployment) -> String {
    let found = within(PATIENCE, "all to be in the ledger", async || {
        let found = letters(deployment, &[]);
        (found.len() == LETTERS + 1).then_some(found)
    })
    .await;
    let prefixed = format!("{}{FACTS}", deployment.scene.topic_prefix);
    assert!(found.iter().all(|letter| letter["topic"] == prefixed && letter["stage"] == "windowing"));
    assert_eq!(letters(deployment, &["--reason", "from_the_future", "--topic", FACTS]).len(), LETTERS);
    assert_eq!(letters(deployment, &["--stage", "dialing"]).len(), 0);
    assert_eq!(letters(deployment, &["--to", "2020-01-01T00:00:00Z"]).len(), 0);

    let poison = letters(deployment, &["--reason", "invalid_utf8"]);
    let id = poison[0]["id"].as_str().expect("an id");
    let (shown, _) = output(deployment, &["dead-letters", "show", id]);
    assert!(shown.contains("invalid_utf8") && shown.contains("ff 7b 1b 5b"), "{shown}");
    let (listed, _) = output(deployment, &["dead-letters", "list"]);
    assert!(listed.contains("from_the_future") && listed.contains(id), "{listed}");
    id.to_owned()
}

async fn each_went_through_once(deployment: &Deployment, facts: &[(String, Vec<u8>)], seed: u64) {
    let windows = within(PATIENCE, "every fact to go through", async || {
        let windows = read(deployment, "trunkline.campaign-windows.v1").await;
        (windows.len() >= LETTERS).then_some(windows)
    })
    .await;
    let mut keys: Vec<_> = windows.iter().map(|window| window.json()["campaignId"].to_string()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((windows.len(), keys.len()), (LETTERS, LETTERS), "seed {seed}");
    let records = read(deployment, FACTS).await;
    let again: Vec<_> =
        records.iter().filter(|record| !record.header("trunkline-redriven-from").is_empty()).collect();
    assert_eq!(again.len(), LETTERS, "seed {seed}");
    for record in &again {
        assert_eq!(record.headers.len(), 1, "the original ones, which were none, and ours");
        assert!(facts.iter().any(|(key, value)| {
            record.key.as_deref() == Some(key.as_bytes()) && record.value.as_deref() == Some(value)
        }));
    }
}

/// By id and as all.
fn a_second_time_is_refused(deployment: &Deployment) {
    let marked = letters(deployment, &["--reason", "from_the_future"]);
    assert!(marked.iter().all(|letter| letter["redrivenAt"].is_string()), "{marked:?}");
    let first = marked[0]["id"].as_str().expect("an id");
    let (told, sent) = output(deployment, &["dead-letters", "redrive", first, "--yes"]);
    assert!(!sent && told.contains("sent again before"), "{told}");
    let (told, sent) = output(deployment, &ALL);
    assert!(sent && told.contains("0 redriven, 0 refused"), "{told}");
}

/// As a new one, which may be sent again.
async fn what_is_still_wrong_comes_back(deployment: &Deployment) {
    for times in 1..=2 {
        let open = within(PATIENCE, "the poison to come back", async || {
            let poison = letters(deployment, &["--reason", "invalid_utf8"]);
            (poison.len() == times).then(|| letters(deployment, &["--reason", "invalid_utf8", "--open"]))
        })
        .await;
        assert_eq!(open.len(), 1);
        let id = open[0]["id"].as_str().expect("an id");
        let (told, sent) = output(deployment, &["dead-letters", "redrive", id, "--yes"]);
        assert!(sent, "{told}");
    }
}

async fn what_no_topic_brought_is_shown_and_not_sent(deployment: &Deployment) {
    deployment.plant_foreign_letter().await;
    let foreign = within(PATIENCE, "the foreign one to be in the ledger", async || {
        letters(deployment, &["--stage", "edge"]).first().cloned()
    })
    .await;
    let id = foreign["id"].as_str().expect("an id");
    let (told, sent) = output(deployment, &["dead-letters", "redrive", id, "--yes"]);
    assert!(!sent && told.contains("POST /v1/events") && told.contains("--raw"), "{told}");
    let (raw, _) = output(deployment, &["dead-letters", "show", id, "--raw"]);
    assert_eq!(raw, "{\"detail\":1}");
    let mut reader = deployment.database.as_role("trunkline_reader").await;
    let readable: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit.dead_letters WHERE topic = 'POST /v1/events'")
            .fetch_one(&mut reader)
            .await
            .expect("the reader reads");
    assert_eq!(readable, 1);
}

const EVENTS: &str = "genesys.conversation-events.v1";
const CONVERSATIONS: &str = "trunkline.conversations.v1";

fn conversation(number: usize) -> String {
    format!("c0ffee00-0000-4000-8000-{number:012}")
}

fn conversation_event(number: usize, kind: &str, at: Timestamp) -> (String, Vec<u8>) {
    let id = conversation(number);
    let value = json!({
        "eventId": format!("{number}-{kind}"), "eventType": kind, "occurredAt": at, "conversationId": id,
    });
    (id, value.to_string().into_bytes())
}

/// The conversations on their compacted topic, every word of each in order.
async fn published(deployment: &Deployment) -> BTreeMap<String, Vec<Value>> {
    let mut published: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in read(deployment, CONVERSATIONS).await {
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("text");
        published.entry(key).or_default().push(record.json());
    }
    published
}

/// Conversations by state, and how many of them have details of their own.
async fn conversations(deployment: &Deployment) -> Vec<(String, i64, i64)> {
    let sql = "SELECT state, count(*), count(*) FILTER (WHERE details ->> 'conversationId' = conversation_id)
         FROM audit.conversations GROUP BY state";
    sqlx::query_as(sql).fetch_all(&deployment.scene.owner).await.expect("the owner reads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_was_given_up_is_enriched_and_told_of_once_when_it_is_redriven() {
    const GIVEN_UP: usize = 6;
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let roles = ["--stages", "enrichment,outbox,audit"];
    let setting = |name: &'static str, value: &str| (name, value.to_owned());
    let settings = [
        setting("TRUNKLINE_ENRICHMENT__SETTLE", "100ms"),
        setting("TRUNKLINE_ENRICHMENT__QUIET", "1s"),
        setting("TRUNKLINE_ENRICHMENT__PATIENCE", "1200ms"),
    ];
    let mut instance = deployment.instance_with("a", &roles, &settings);
    let ended = now().minus(Duration::from_secs(60));
    let events: Vec<_> = (0..GIVEN_UP)
        .flat_map(|number| {
            let began = conversation_event(number, "customer.start", ended.minus(Duration::from_secs(60)));
            [conversation_event(number, "customer.end", ended), began]
        })
        .collect();
    produce(&deployment, EVENTS, &events);
    let of_them = ["--topic", EVENTS, "--reason", "not_available", "--stage", "enrichment"];
    within(PATIENCE, "all to be given up", async || {
        (letters(&deployment, &of_them).len() == GIVEN_UP).then_some(())
    })
    .await;
    assert_eq!(conversations(&deployment).await, [("not_available".to_owned(), GIVEN_UP as i64, 0)]);
    assert!(published(&deployment).await.is_empty());

    // The platform knows them after all.
    let known: Vec<Value> = (0..GIVEN_UP)
        .map(|number| {
            json!({
                "conversationId": conversation(number), "conversationEnd": ended,
                "conversationStart": ended.minus(Duration::from_secs(60)),
            })
        })
        .collect();
    let register = format!("{}/simulator/conversations", deployment.scene.simulator);
    let reply = reqwest::Client::new().post(register).json(&known).send().await.expect("a reply");
    reply.error_for_status().expect("accepted");
    let all = [&["dead-letters", "redrive", "--all", "--yes"], &of_them[..]].concat();
    let (told, sent) = output(&deployment, &all);
    assert!(sent && told.contains(&format!("{GIVEN_UP} redriven, 0 refused")), "{told}");
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..400))).await;
        instance.process.kill();
        instance = deployment.instance_with("a", &roles, &settings);
    }
    within(PATIENCE, "all to be enriched and told of", async || {
        let done = [("done".to_owned(), GIVEN_UP as i64, GIVEN_UP as i64)];
        (conversations(&deployment).await == done && published(&deployment).await.len() == GIVEN_UP)
            .then_some(())
    })
    .await;
    let (told, sent) = output(&deployment, &all);
    assert!(sent && told.contains("0 redriven, 0 refused"), "{told}");

    // What happens to one of them from now on is told behind anything that was told twice.
    produce(&deployment, EVENTS, &[conversation_event(0, "wrapup", ended.plus(Duration::from_secs(5)))]);
    let published = within(PATIENCE, "the newer event to be told of", async || {
        let published = published(&deployment).await;
        (published[&conversation(0)].len() > 1).then_some(published)
    })
    .await;
    for number in 0..GIVEN_UP {
        let id = conversation(number);
        let told = &published[&id];
        assert_eq!(told.len(), if number == 0 { 2 } else { 1 }, "seed {seed}: {told:?}");
        assert!(told.iter().all(|word| word["details"]["conversationId"] == *id), "{told:?}");
    }
    assert_eq!(letters(&deployment, &of_them).len(), GIVEN_UP, "none came back");
    assert_eq!(read(&deployment, EVENTS).await.len(), events.len() + GIVEN_UP + 1);
    instance.process.signal(rustix::process::Signal::TERM);
    assert!(instance.process.wait(ENDED).success());
}

impl Deployment {
    /// A dead letter as the HTTP edge writes it.
    async fn plant_foreign_letter(&self) {
        use rdkafka::message::{Header, OwnedHeaders};
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &self.scene.brokers).create().expect("a producer");
        let topic = format!("{}trunkline.dead-letters.v1", self.scene.topic_prefix);
        let at = now().to_string();
        let headers = [
            ("stage", "edge"),
            ("reason", "rejected: no conversation"),
            ("topic", "POST /v1/events"),
            ("partition", "0"),
            ("offset", "0"),
            ("time", &at),
        ];
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: &format!("trunkline-error-{name}"), value: Some(*value) })
        });
        let record = BaseRecord::<str, str>::to(&topic).payload("{\"detail\":1}").headers(headers);
        producer.send(record).map_err(|(error, _)| error).expect("queued");
        producer.flush(Duration::from_secs(30)).expect("produced");
    }
}
