//! Canaries through whole processes that are killed: exact shares of every step, and after an abort
//! not one further conversation for the candidate.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use sqlx::PgPool;
use trunkline::model::Timestamp;

use crate::deployment::{Deployment, Instance, chance, free_port};
use crate::rounds;
use crate::support::within;

const INSTANCES: usize = 3;
const ROLES: &str = "routing,console,canary-minutes,delivery,canary-shares,outbox,audit";
const PATIENCE: Duration = Duration::from_secs(300);
/// A killed member keeps its partitions for six seconds: more often, and little but taking over is done.
const KILL_EVERY: Duration = Duration::from_secs(8);
/// Conversations a second, and of how many interactions each stands in the minutes.
const PER_SECOND: u64 = 60;
const EACH: u64 = 40;
/// A group's decisions may be so far from its share by the rule, where weights change.
const DEVIATION: f64 = 1.5 + 1e-6;

fn start(deployment: &Deployment, number: usize, port: u16, journal: &str) -> Instance {
    deployment.instance_with(
        &format!("canary-{number}"),
        &["--stages", ROLES],
        &[
            ("TRUNKLINE_HTTP__LISTEN", format!("127.0.0.1:{port}")),
            ("TRUNKLINE_DIAL__MODE", "off".to_owned()),
            ("TRUNKLINE_ROUTE__MODE", "shadow".to_owned()),
            ("TRUNKLINE_ROUTE__JOURNAL", journal.to_owned()),
            ("TRUNKLINE_DELIVERY__MODE", "live".to_owned()),
            // A minute takes a second.
            ("TRUNKLINE_EVENTS__WINDOW", "1s".to_owned()),
            ("TRUNKLINE_ROLLBACK__MODE", "off".to_owned()),
        ],
    )
}

fn second() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the year 292 million")
}

/// A dispatcher that asks routing, and the minutes of both flows that follow from its answers.
struct Dispatcher {
    over: Arc<AtomicBool>,
    /// The candidate's errors, one in so many.
    one_in: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

type Met = Arc<Mutex<BTreeMap<i64, [u64; 2]>>>;

impl Dispatcher {
    fn start(deployment: &Deployment, ports: &[u16], seed: u64) -> Self {
        let (over, one_in) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(100)));
        let met = Met::default();
        let asking = tokio::spawn(dispatch(ports.to_vec(), Arc::clone(&met), Arc::clone(&over), seed));
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &deployment.scene.brokers)
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        let topic = format!("{}trunkline.flow-minutes.v1", deployment.scene.topic_prefix);
        let telling = tokio::spawn(tell(producer, topic, met, Arc::clone(&one_in), Arc::clone(&over)));
        Self { over, one_in, tasks: vec![asking, telling] }
    }

    async fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.expect("the dispatcher ends by itself");
        }
    }
}

/// One conversation after the other, each at an instance by chance, at the next where it is gone.
async fn dispatch(ports: Vec<u16>, met: Met, over: Arc<AtomicBool>, seed: u64) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
    let mut chance: rand_chacha::ChaCha8Rng = rand::SeedableRng::seed_from_u64(seed);
    let mut number = 0u64;
    while !over.load(Ordering::SeqCst) {
        number += 1;
        let mut turn = chance.random_range(0..ports.len());
        while !over.load(Ordering::SeqCst) {
            turn = (turn + 1) % ports.len();
            let url = format!("http://127.0.0.1:{}/v1/routes/c/decisions", ports[turn]);
            let sent = client.post(url).json(&json!({"conversationId": format!("v{number}")})).send().await;
            if let Ok(reply) = sent
                && reply.status().is_success()
                && let Ok(answer) = reply.json::<Value>().await
            {
                let arm = usize::from(answer["destinationId"] == "menu-next");
                met.lock().expect("whole").entry(second()).or_default()[arm] += 1;
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(1_000 / PER_SECOND)).await;
    }
}

/// Each second, once it is over, as a complete minute of both flows.
async fn tell(
    producer: BaseProducer,
    topic: String,
    met: Met,
    one_in: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
) {
    let mut counted = [0u64; 2];
    while !over.load(Ordering::SeqCst) {
        let before = second() - 1;
        let done: Vec<(i64, [u64; 2])> = {
            let mut met = met.lock().expect("whole");
            let open = met.split_off(&before);
            std::mem::replace(&mut *met, open).into_iter().collect()
        };
        for (at, totals) in done {
            for (arm, flow) in ["menu", "menu-next"].into_iter().enumerate() {
                let total = totals[arm] * EACH;
                if total == 0 {
                    continue;
                }
                let one_in = if arm == 0 { 100 } else { one_in.load(Ordering::SeqCst) };
                let rest = counted[arm] + total;
                let errors = (rest / one_in).min(total);
                counted[arm] = rest % one_in;
                let minute = json!({
                    "flowId": flow, "flowVersion": "1", "minute": Timestamp::from_millis(at * 1_000),
                    "total": total, "errors": errors, "errorRate": errors as f64 / total as f64,
                    "complete": true, "source": "events",
                })
                .to_string();
                producer.send(BaseRecord::to(&topic).key(flow).payload(&minute)).expect("room in the queue");
            }
        }
        producer.poll(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    producer.flush(Duration::from_secs(10)).expect("everything is sent");
}

async fn state(owner: &PgPool) -> Option<(String, String)> {
    let newest = "SELECT state, reason FROM trunkline.canaries ORDER BY started_at DESC LIMIT 1";
    sqlx::query_as(newest).fetch_optional(owner).await.unwrap()
}

async fn decisions(owner: &PgPool) -> i64 {
    let sql = "SELECT decisions FROM trunkline.route_counters WHERE configuration_id = 'c'";
    sqlx::query_scalar(sql).fetch_one(owner).await.unwrap()
}

/// Sends a command to whichever instance takes it.
async fn command(ports: &[u16], path: &str, body: &Value) -> Value {
    let client = reqwest::Client::new();
    let turn = std::sync::atomic::AtomicUsize::new(0);
    within(PATIENCE, "an instance to take the command", async || {
        let port = ports[turn.fetch_add(1, Ordering::SeqCst) % ports.len()];
        let sent = client.post(format!("http://127.0.0.1:{port}{path}")).json(body).send().await.ok()?;
        let status = sent.status();
        let text = sent.text().await.ok()?;
        assert!(!status.is_client_error(), "{path}: {status} {text}");
        status.is_success().then(|| serde_json::from_str(&text).expect("JSON"))
    })
    .await
}

/// Rows for the candidate after `until`: none that was decided after the canary was taken away.
async fn none_after(owner: &PgPool, until: i64, seed: u64) {
    let later: Vec<(i64, String)> = sqlx::query_as(
        "SELECT a.sequence, a.source FROM trunkline.route_answers a
         JOIN trunkline.route_counters c USING (configuration)
         WHERE c.configuration_id = 'c' AND a.destination_id = 'menu-next' AND a.sequence > $1
           AND (a.source = 'exact' OR a.decided_at_ms > (SELECT extract(epoch FROM max(changed_at)) * 1000
                FROM trunkline.canaries WHERE state = 'aborted'))",
    )
    .bind(until)
    .fetch_all(owner)
    .await
    .unwrap();
    assert!(later.is_empty(), "seed {seed}: {later:?} after {until}");
}

type GivenRow = (i64, String, String, sqlx::types::Json<Vec<(String, i64, i64)>>, i64);

/// Every prefix is what its own shares asked for, over all steps.
async fn shares_are_exact(owner: &PgPool, seed: u64) {
    let rows: Vec<GivenRow> = sqlx::query_as(
        "SELECT a.sequence, a.destination_id, a.source, t.groups, t.unit FROM trunkline.route_answers a
         JOIN LATERAL (SELECT groups, unit FROM trunkline.route_turns t
              WHERE t.configuration = a.configuration AND t.first_sequence <= a.sequence
              ORDER BY t.first_sequence DESC LIMIT 1) t ON true
         ORDER BY a.sequence",
    )
    .fetch_all(owner)
    .await
    .unwrap();
    let (mut off, mut inexact, mut worst) = (0.0f64, 0u32, 0.0f64);
    for (sequence, destination, source, groups, unit) in &rows {
        let share = groups.0.iter().find(|(id, ..)| id == "menu-next").map_or(0, |(_, share, _)| *share);
        off += f64::from(u8::from(destination == "menu-next")) - share as f64 / *unit as f64;
        inexact += u32::from(source != "exact");
        worst = worst.max(off.abs());
        assert!(
            off.abs() <= DEVIATION + f64::from(inexact),
            "seed {seed}: {off} at {sequence}, {inexact} inexact"
        );
    }
    println!(
        "{} conversations, worst prefix {worst:.3} off its share, {inexact} without the counters",
        rows.len()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_instances_keep_every_share_exact_and_an_abort_final() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let journal = tempfile::tempdir().unwrap();
    let journal = journal.path().to_str().expect("UTF-8").to_owned();
    let ports: Vec<u16> = (0..INSTANCES).map(|_| free_port()).collect();
    let owner = deployment.scene.owner.clone();
    let mut instances: Vec<Instance> =
        (0..INSTANCES).map(|number| start(&deployment, number, ports[number], &journal)).collect();
    let client = reqwest::Client::new();
    within(PATIENCE, "the first instance to serve", async || {
        client.get(format!("http://127.0.0.1:{}/healthz", ports[0])).send().await.is_ok().then_some(())
    })
    .await;
    let url = format!("http://127.0.0.1:{}/v1/routes/c", ports[0]);
    let rule = json!({"id": "r", "destination": {"type": "FLOW_ID", "id": "menu"}, "weight": 1});
    let wanted = json!({"id": "c", "name": "Menu", "rules": [rule]});
    assert!(client.put(&url).json(&wanted).send().await.unwrap().status().is_success());
    assert!(client.post(format!("{url}/publish")).send().await.unwrap().status().is_success());

    let dispatcher = Dispatcher::start(&deployment, &ports, seed);
    let order = json!({
        "flowId": "menu", "candidateId": "menu-next", "configurationId": "c",
        "steps": [0.05, 0.2, 0.5, 1.0], "holdMinutes": 3,
    });
    let mut kills = 0;
    for round in 0..rounds(1, 5) {
        dispatcher.one_in.store(100, Ordering::SeqCst);
        command(&ports, "/v1/canaries", &order).await;
        let end = std::time::Instant::now() + PATIENCE;
        // One that is as good gets everything.
        while state(&owner).await.is_none_or(|(state, _)| state != "done") {
            assert!(std::time::Instant::now() < end, "seed {seed}, round {round}: {:?}", state(&owner).await);
            tokio::time::sleep(KILL_EVERY).await;
            let number = chance.random_range(0..INSTANCES);
            instances[number].process.kill();
            kills += 1;
            instances[number] = start(&deployment, number, ports[number], &journal);
        }
        // One that is worse is taken away by what the minutes say.
        command(&ports, "/v1/canaries", &order).await;
        dispatcher.one_in.store(3, Ordering::SeqCst);
        within(PATIENCE, "the bad candidate to be taken away", async || {
            state(&owner).await.filter(|(state, _)| state == "aborted").map(|(_, reason)| {
                assert_eq!(reason, "candidate_worse", "seed {seed}");
            })
        })
        .await;
        let until = decisions(&owner).await;
        let number = chance.random_range(0..INSTANCES);
        instances[number].process.kill();
        kills += 1;
        instances[number] = start(&deployment, number, ports[number], &journal);
        within(PATIENCE, "further conversations", async || {
            (decisions(&owner).await > until + 200).then_some(())
        })
        .await;
        none_after(&owner, until, seed).await;
        // And one that people take away, by their word alone.
        dispatcher.one_in.store(100, Ordering::SeqCst);
        command(&ports, "/v1/canaries", &order).await;
        within(PATIENCE, "the candidate to get something", async || {
            state(&owner).await.filter(|(state, _)| state == "running").map(drop)
        })
        .await;
        let aborted = command(&ports, "/v1/canaries/c/abort", &json!({"reason": "no longer wanted"})).await;
        assert_eq!((&aborted["state"], &aborted["share"]), (&json!("aborted"), &json!(0.0)));
        let until = decisions(&owner).await;
        within(PATIENCE, "further conversations", async || {
            (decisions(&owner).await > until + 200).then_some(())
        })
        .await;
        none_after(&owner, until, seed).await;
    }
    dispatcher.end().await;
    shares_are_exact(&owner, seed).await;
    println!("{kills} kills");
    within(PATIENCE, "the ledger to have every decision with its outcome, without a gap", async || {
        let (missing, gaps): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM audit.decisions d WHERE d.loop = 'delivery' AND NOT EXISTS
                        (SELECT FROM audit.outcomes o WHERE o.decision_id = d.decision_id)),
                    (SELECT count(*) FROM audit.gaps)",
        )
        .fetch_one(&owner)
        .await
        .unwrap();
        (missing == 0 && gaps == 0).then_some(())
    })
    .await;
}
