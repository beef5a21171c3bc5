//! How soon a maintenance window is in force on every instance: within two seconds of the
//! reply to whoever opened or closed it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use sqlx::PgPool;
use trunkline::model::Timestamp;

use crate::deployment::{Deployment, ENDED, Instance};
use crate::support::within;

/// What is asked for.
const IN_FORCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(90);
/// So many that both instances have some.
const FLOWS: usize = 12;
const ROLES: &[&str] = &["--stages", "rollback,audit,outbox,console"];
/// How often each flow has a new minute, whose times are long past.
const PACE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_is_in_force_everywhere_within_two_seconds_however_it_is_opened_and_closed() {
    let deployment = Deployment::prepare().await;
    let traffic = Traffic::start(&deployment);
    let mut instances = [instance(&deployment, "a"), instance(&deployment, "b")];
    for instance in &instances {
        within(PATIENCE, "both to judge minutes", async || {
            let judged = instance.counted("trunkline_stage_records_total{stage=\"rollback\"").await;
            (judged > 100.0).then_some(())
        })
        .await;
    }
    let (http, owner) = (reqwest::Client::new(), &deployment.scene.owner);
    everywhere(owner, "within_threshold", Timestamp::MIN).await;

    let url = format!("{}/v1/maintenance-windows", instances[0].url());
    let opened = http.post(&url).json(&json!({"reason": "by HTTP"})).send().await.expect("a reply");
    let replied = now();
    let opened: Value = opened.error_for_status().expect("opened").json().await.expect("JSON");
    in_force(owner, "maintenance_window", replied, "opened by HTTP").await;

    // The other instance closes it.
    let url = format!("{}/v1/maintenance-windows", instances[1].url());
    let closed = http.delete(format!("{url}/{}", opened["id"].as_str().expect("an id"))).send().await;
    let replied = now();
    closed.expect("a reply").error_for_status().expect("closed");
    in_force(owner, "within_threshold", replied, "closed by HTTP").await;

    let mut process = deployment.command(&["maintenance", "open", "--for", "10m", "--reason", "by hand"]);
    let id = process.line().expect("an id");
    let replied = now();
    assert!(process.wait(PATIENCE).success());
    in_force(owner, "maintenance_window", replied, "opened by the command").await;

    let mut process = deployment.command(&["maintenance", "close", &id]);
    assert!(process.wait(PATIENCE).success());
    let replied = now();
    in_force(owner, "within_threshold", replied, "closed by the command").await;

    traffic.end();
    for instance in &mut instances {
        instance.process.signal(rustix::process::Signal::TERM);
        assert!(instance.process.wait(ENDED).success());
    }
}

fn instance(deployment: &Deployment, name: &str) -> Instance {
    let setting = |name: &'static str, value: &str| (name, value.to_owned());
    let settings = [
        setting("TRUNKLINE_DIAL__MODE", "off"),
        setting("TRUNKLINE_EVENTS__WINDOW", "1s"),
        setting("TRUNKLINE_ROLLBACK__MODE", "live"),
    ];
    deployment.instance_with(name, ROLES, &settings)
}

/// Every flow's newest decision has this reason and is younger than `since`; the youngest.
async fn everywhere(owner: &PgPool, reason: &str, since: Timestamp) -> Timestamp {
    const NEWEST: &str = "SELECT (extract(epoch FROM decided_at) * 1000)::bigint FROM (
            SELECT DISTINCT ON (key) key, reason, decided_at FROM audit.decisions
            WHERE loop = 'rollback' ORDER BY key, sequence DESC
        ) newest WHERE reason = $1";
    within(PATIENCE, reason, async || {
        let newest: Vec<i64> = sqlx::query_scalar(NEWEST).bind(reason).fetch_all(owner).await.expect(NEWEST);
        let all = newest.len() == FLOWS && newest.iter().all(|at| *at >= since.as_millis() - 1_000);
        newest.into_iter().max().filter(|_| all).map(Timestamp::from_millis)
    })
    .await
}

/// From the reply to the decision of the flow that was last to obey.
async fn in_force(owner: &PgPool, reason: &str, replied: Timestamp, what: &str) {
    let took = everywhere(owner, reason, replied).await.as_millis() - replied.as_millis();
    println!("{what}: in force everywhere {took} ms after the reply");
    assert!(took < IN_FORCE.as_millis() as i64, "{what}: in force after {took} ms");
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as i64)
}

/// Minutes without errors of every flow, one after the other without end.
struct Traffic {
    end: Arc<AtomicBool>,
    producing: std::thread::JoinHandle<()>,
}

impl Traffic {
    fn start(deployment: &Deployment) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &deployment.scene.brokers)
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "1")
            .create()
            .expect("a producer");
        let topic = format!("{}trunkline.flow-minutes.v1", deployment.scene.topic_prefix);
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let producing = std::thread::spawn(move || {
            let mut minute = now().minus(Duration::from_secs(7_200));
            while !told.load(Ordering::Relaxed) {
                for flow in 0..FLOWS {
                    let key = format!("flow-{flow}");
                    let value = json!({
                        "flowId": key, "flowVersion": "1", "minute": minute, "total": 100, "errors": 0,
                        "errorRate": 0.0, "complete": true, "source": "events",
                    })
                    .to_string();
                    let queued = producer.send(BaseRecord::to(&topic).key(&key).payload(&value));
                    queued.map_err(|(error, _)| error).expect("queued");
                }
                producer.flush(Duration::from_secs(30)).expect("produced");
                minute = minute.plus(Duration::from_secs(1));
                std::thread::sleep(PACE);
            }
        });
        Self { end, producing }
    }

    fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        self.producing.join().expect("ends well");
    }
}
