//! Events in bursts, doubled and in disorder, through edge, counting and enrichment, while
//! the platform's analytics stumble and processes are killed: nothing is lost, minutes are
//! what the log says, every conversation is enriched.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand::RngExt;
use reqwest::Method;
use serde_json::{Value, json};

use crate::deployment::{Deployment, ENDED, Instance, chance};
use crate::rounds;
use crate::support::evidence::get_json;
use crate::support::flow_checker::{Economy, EventRun, Recorded, Request, Sent, Told, violations};
use crate::support::topics::{Read, read_all};
use crate::support::within;

/// Minutes as long as this, so that they end while somebody waits.
const MINUTE: Duration = Duration::from_secs(2);
const EDGE: &[&str] = &["--stages", "ingest,console"];
const WORK: &[&str] = &["--stages", "flow-counting,flow-summing,enrichment,outbox"];
/// Each instance asks analytics this many things at once at most.
const QUERIES_AT_ONCE: usize = 4;

/// Queries of conversations and their further pages.
const DETAILS: &str = "/api/v2/analytics/conversations/details";

/// One that is due waits so long for others to fill its query.
const LINGER: Duration = Duration::from_secs(1);

fn kills() -> usize {
    rounds(3, 20)
}

/// The longest that the rest may take once nothing new comes.
fn drained() -> Duration {
    Duration::from_secs(rounds(300, 900) as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_counted_and_conversations_enriched_whatever_is_killed() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let run = Run::new(&deployment);
    let mut instances: Vec<Instance> = (0..3).map(|which| run.start(which)).collect();
    run.stumble().await;
    run.emit(json!({
        "to": format!("http://127.0.0.1:{}/v1/events", run.port), "campaigns": false,
        "eventsPerSecond": rounds(100, 1_000), "duplicateShare": 0.03, "duplicateWithinMs": 2_000,
        "disorderShare": 0.03, "disorderMs": 1_500,
    }))
    .await;
    within(drained(), "the first events to be taken", async || (run.logged().await > 0).then_some(())).await;

    let length = Duration::from_secs(rounds(12, 600) as u64);
    for round in 0..kills() {
        tokio::time::sleep(length / kills() as u32).await;
        let victim = chance.random_range(0..instances.len());
        instances[victim].process.kill();
        instances[victim] = run.start(victim);
        println!("round {round}: killed {}", NAMES[victim]);
    }
    run.emit(json!({"active": false})).await;
    within(drained(), "every event to be acknowledged", async || {
        let standing = get_json(&run.control("/events")).await;
        (standing["backlog"] == 0 && standing["inFlight"] == 0).then_some(())
    })
    .await;

    let end = Instant::now() + drained();
    let found = loop {
        let left_behind = run.left_behind().await;
        let found = violations(&left_behind);
        // What was asked too much stays so: only the rest may still come.
        if found.iter().all(|violation| violation.invariant == "I7") || Instant::now() > end {
            let conversations: BTreeSet<_> = left_behind.sent.iter().map(|sent| &sent.conversation).collect();
            println!(
                "{} events of {} conversations, {} records, {} late, {} minutes told, {} requests",
                left_behind.sent.len(),
                conversations.len(),
                left_behind.recorded.len(),
                left_behind.late.len(),
                left_behind.minutes.len(),
                left_behind.requests.len()
            );
            println!("{:?}", Economy::of(&left_behind));
            assert!(left_behind.sent.len() > 500, "hardly anything happened");
            assert!(left_behind.recorded.len() > left_behind.sent.len(), "no duplicate came");
            assert!(left_behind.late.len() * 2 < left_behind.recorded.len(), "most was late");
            assert!(left_behind.dead.is_empty(), "{:?}", left_behind.dead);
            assert!(
                left_behind.requests.iter().any(|request| request.wait_ms.is_some()),
                "nobody was told to wait"
            );
            break found;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let told: Vec<_> = found.iter().take(30).map(ToString::to_string).collect();
    assert!(found.is_empty(), "seed {seed}: {} violations\n{}", found.len(), told.join("\n"));
    for instance in &mut instances {
        instance.process.signal(rustix::process::Signal::TERM);
        assert!(instance.process.wait(ENDED).success());
    }
}

const NAMES: [&str; 3] = ["edge", "left", "right"];

struct Run<'d> {
    deployment: &'d Deployment,
    /// Where the edge listens, before and after a kill.
    port: u16,
    http: reqwest::Client,
}

impl<'d> Run<'d> {
    fn new(deployment: &'d Deployment) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        Self { deployment, port, http: reqwest::Client::new() }
    }

    fn start(&self, which: usize) -> Instance {
        let setting = |name: &'static str, value: &str| (name, value.to_owned());
        let mut settings = vec![
            setting("TRUNKLINE_DIAL__MODE", "off"),
            setting("TRUNKLINE_EVENTS__WINDOW", &format!("{}s", MINUTE.as_secs())),
            setting("TRUNKLINE_EVENTS__LATENESS", "8s"),
            setting("TRUNKLINE_ENRICHMENT__QUIET", "3s"),
            setting("TRUNKLINE_ENRICHMENT__SETTLE", "500ms"),
            setting("TRUNKLINE_ENRICHMENT__PATIENCE", "120s"),
        ];
        if which == 0 {
            settings.push(setting("TRUNKLINE_HTTP__LISTEN", &format!("127.0.0.1:{}", self.port)));
        }
        self.deployment.instance_with(NAMES[which], if which == 0 { EDGE } else { WORK }, &settings)
    }

    fn control(&self, path: &str) -> String {
        format!("{}/simulator{path}", self.deployment.scene.simulator)
    }

    async fn put(&self, path: &str, body: Value) {
        let reply = self.http.request(Method::PUT, self.control(path)).json(&body).send().await;
        reply.expect("the simulator answers").error_for_status().expect("accepted");
    }

    async fn emit(&self, settings: Value) {
        self.put("/events", settings).await;
    }

    /// 10 % of the queries are told to wait, 2 % fail, and so do pages.
    async fn stumble(&self) {
        let rule = |method: &str, probability: f64, fault: Value| json!({"match": {"method": method, "path": DETAILS}, "probability": probability, "fault": fault});
        let rules = json!([
            rule("POST", 0.10, json!({"type": "status", "code": 429, "retryAfter": "int", "seconds": 1})),
            rule("POST", 0.02, json!({"type": "status", "code": 500})),
            rule("GET", 0.05, json!({"type": "status", "code": 500})),
        ]);
        self.put("/faults", rules).await;
        self.put("/details", json!({"shortPageShare": 0.3, "lateShare": 0.05, "lateMs": 3_000})).await;
    }

    async fn logged(&self) -> u64 {
        get_json(&self.control("/events")).await["logged"].as_u64().expect("a count")
    }

    /// All items of one of the simulator's logs.
    async fn log(&self, path: &str) -> Vec<Value> {
        let (mut items, mut since) = (Vec::new(), 0);
        loop {
            let page = get_json(&self.control(&format!("{path}?since={since}&limit=20000"))).await;
            assert_eq!(
                page["dropped"], 0,
                "the simulator forgot some of {path}: the run was too long to judge"
            );
            items.extend(page["items"].as_array().expect("a list").iter().cloned());
            match page["next"].as_u64() {
                Some(next) => since = next,
                None => return items,
            }
        }
    }

    async fn topic(&self, name: &str) -> Vec<Read> {
        let brokers = self.deployment.scene.brokers.clone();
        let name = format!("{}{name}", self.deployment.scene.topic_prefix);
        tokio::task::spawn_blocking(move || read_all(&brokers, &name)).await.expect("the reader ends well")
    }

    async fn left_behind(&self) -> EventRun {
        let sent = self.log("/events/log").await;
        let sent = sent.iter().filter(|event| event["rejected"] == false).map(|event| Sent {
            event_id: text(&event["eventId"]),
            conversation: text(&event["conversationId"]),
        });
        let published = self.topic("trunkline.conversations.v1").await;
        let mut newest = std::collections::BTreeMap::new();
        for record in &published {
            newest.insert(record.key.clone().unwrap_or_default(), record.value.is_some());
        }
        let rows = "SELECT conversation_id, enriched_at IS NOT NULL FROM audit.conversations";
        let requests = self.log("/requests").await;
        let known = self.log("/conversations").await;
        EventRun {
            minute_ms: MINUTE.as_millis() as i64,
            sent: sent.collect(),
            recorded: self.topic("genesys.conversation-events.v1").await.iter().map(recorded).collect(),
            late: self.topic("trunkline.late-events.v1").await.iter().map(origin).collect(),
            dead: self.topic("trunkline.dead-letters.v1").await.iter().map(origin).collect(),
            minutes: self.topic("trunkline.flow-minutes.v1").await.iter().map(told).collect(),
            rows: sqlx::query_as(rows).fetch_all(&self.deployment.scene.owner).await.expect(rows),
            published: newest
                .into_iter()
                .filter(|(_, there)| *there)
                .map(|(key, _)| String::from_utf8(key).expect("text"))
                .collect(),
            requests: requests.iter().filter(|entry| entry["origin"] == "api").map(request).collect(),
            on_their_way: 2 * QUERIES_AT_ONCE,
            known_from: known
                .iter()
                .map(|known| (text(&known["conversationId"]), millis(&known["availableAt"])))
                .collect(),
            linger_ms: LINGER.as_millis() as i64,
            few: rounds(0, 1) == 0,
            lost_answers: kills() * QUERIES_AT_ONCE,
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}")).to_owned()
}

fn millis(value: &Value) -> i64 {
    text(value).parse::<trunkline::model::Timestamp>().expect("a time").as_millis()
}

fn origin(record: &Read) -> (i32, i64) {
    let number = |header| record.header(header).parse::<i64>().expect("a number");
    (number("trunkline-error-partition") as i32, number("trunkline-error-offset"))
}

/// Time, flow and ending are taken from the platform's own words, not from ours.
fn recorded(record: &Read) -> Recorded {
    let event = record.json();
    let body = &event["detail"]["eventBody"];
    let words = |name: &str| body[name].as_str().map(str::to_owned);
    Recorded {
        place: (record.partition, record.offset),
        event_id: text(&event["eventId"]),
        // v2.detail.events.conversation.<id>.<type>
        event_type: text(&event["detail"]["topicName"])
            .splitn(6, '.')
            .last()
            .map(str::to_owned)
            .expect("a type"),
        at_ms: body["eventTime"].as_i64().expect("milliseconds"),
        flow: words("flowId").map(|flow| (flow, words("flowVersion").unwrap_or_default())),
        ending: words("exitReason").or_else(|| words("flowOutcomeValue")),
    }
}

fn told(record: &Read) -> Told {
    let minute = record.json();
    Told {
        minute: (text(&minute["flowId"]), text(&minute["flowVersion"]), millis(&minute["minute"])),
        total: minute["total"].as_u64().expect("a count"),
        errors: minute["errors"].as_u64().expect("a count"),
        complete: minute["complete"].as_bool().expect("yes or no"),
    }
}

fn request(entry: &Value) -> Request {
    let wait_s = entry["retryAfter"].as_str().and_then(|text| text.parse::<f64>().ok());
    let is_429 = entry["status"] == 429;
    let is_details = text(&entry["path"]).starts_with(DETAILS);
    let query = entry["body"].as_str().filter(|_| is_details && entry["method"] == "POST");
    let asked = query.map_or_else(Vec::new, |body| {
        let query: Value = serde_json::from_str(body).expect("the log holds the whole query");
        query["filter"]["conversationIds"].as_array().expect("ids").iter().map(text).collect()
    });
    Request {
        at_ms: millis(&entry["at"]),
        wait_ms: wait_s.filter(|_| is_429).map(|wait| (wait * 1e3) as i64),
        answered: entry["status"] == 200,
        asked,
        is_page: is_details && entry["method"] == "GET",
    }
}
