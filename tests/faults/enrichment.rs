//! Enrichment under kills: whole processes that take events in, ask and publish.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rdkafka::message::Message;
use serde_json::{Value, json};
use simulator::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET};
use trunkline::topics;

use crate::deployment::chance;
use crate::rounds;
use crate::support::enrichment::{PATH, PATIENCE, Stand, disordered, id};
use crate::support::process::Process;
use crate::support::{kafka, within};

/// Conversations that begin between two kills.
const BURST: usize = 60;

struct Scene {
    stand: Stand,
    conversations: usize,
}

impl Scene {
    /// A platform that refuses every tenth call, fails now and then and cuts its pages short.
    async fn new() -> Self {
        let stand = Stand::new().await;
        stand.short_pages(0.3).await;
        let on_details = |probability: f64, fault: Value| json!({"match": {"path": PATH}, "probability": probability, "fault": fault});
        let limited = json!({"type": "status", "code": 429, "retryAfter": "float", "seconds": 0.3});
        let failing = json!({"type": "status", "code": 500});
        stand.organization.faults(json!([on_details(0.1, limited), on_details(0.02, failing)])).await;
        Self { stand, conversations: 0 }
    }

    fn start(&self, name: &str, crash_points: &str) -> Process {
        let kafka = &self.stand.kafka;
        let environment = [
            ("FAILPOINTS", crash_points.to_owned()),
            ("TRUNKLINE_KAFKA__BROKERS", kafka.brokers.clone()),
            ("TRUNKLINE_KAFKA__TOPIC_PREFIX", kafka.topic_prefix.clone()),
            ("TRUNKLINE_POSTGRES__URL", self.stand.own.url()),
            ("TRUNKLINE_GENESYS__BASE_URL", self.stand.organization.running.api_url()),
            ("TRUNKLINE_GENESYS__CLIENT_ID", DEMO_CLIENT_ID.to_owned()),
            ("TRUNKLINE_GENESYS__CLIENT_SECRET", DEMO_CLIENT_SECRET.to_owned()),
            ("TRUNKLINE_GENESYS__REQUESTS_PER_MINUTE", "6000".to_owned()),
            ("TRUNKLINE_GENESYS__BUDGET_WINDOW", "6s".to_owned()),
            ("TRUNKLINE_ENRICHMENT__SETTLE", "100ms".to_owned()),
            ("TRUNKLINE_ENRICHMENT__QUIET", "2s".to_owned()),
            ("TRUNKLINE_INSTANCE__NAME", name.to_owned()),
        ];
        let environment: Vec<_> =
            environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Process::start(name, &["run", "--stages", "enrichment,outbox"], &environment)
    }

    /// Another few conversations, and all of their events.
    async fn burst(&mut self) {
        let numbers = self.conversations..self.conversations + BURST;
        self.conversations = numbers.end;
        self.stand.register(numbers.clone()).await;
        let events: Vec<Value> = numbers.flat_map(disordered).collect();
        self.stand.produce(&events).await;
    }

    /// Every conversation is enriched, and told of on the topic: the last word whole, none twice.
    async fn ends_well(&self) {
        self.stand.all_done(self.conversations as i64).await;
        within(PATIENCE, "the outbox to be empty", async || {
            self.stand.appended(&topics::CONVERSATIONS).await.is_empty().then_some(())
        })
        .await;
        let mut told: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for record in kafka::read_all(&self.stand.kafka, &topics::CONVERSATIONS) {
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            told.entry(key).or_default().push(serde_json::from_slice(record.payload().unwrap()).unwrap());
        }
        assert!(told.keys().cloned().eq((0..self.conversations).map(id)), "{} told of", told.len());
        for (key, values) in told {
            let last = values.last().unwrap();
            assert_eq!(
                (&last["details"]["conversationId"], &last["flowVersion"]),
                (&json!(key), &json!("7.0"))
            );
            for (index, value) in values.iter().enumerate() {
                assert!(!values[..index].contains(value), "told twice: {value}");
            }
        }
        let letters = kafka::read_all(&self.stand.kafka, &topics::DEAD_LETTERS).len();
        assert_eq!(letters, 0, "a refused or failed call counts as no attempt");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_survive_kills_and_a_platform_that_fails() {
    let (_, mut chance) = chance();
    let mut scene = Scene::new().await;
    let mut instances = [scene.start("a", ""), scene.start("b", "")];
    for _ in 0..rounds(5, 20) {
        scene.burst().await;
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..2_500))).await;
        let victim = chance.random_range(0..2);
        instances[victim].kill();
        let name = instances[victim].name.clone();
        instances[victim] = scene.start(&name, "");
    }
    scene.ends_well().await;
    for instance in &mut instances {
        instance.signal(rustix::process::Signal::TERM);
        assert!(instance.wait(Duration::from_secs(10)).success());
    }
}

/// Between any two steps: the events' commit, the call, the answer's commit.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_survive_death_at_every_point() {
    use std::os::unix::process::ExitStatusExt;

    let mut scene = Scene::new().await;
    for point in [
        "enrichment-before-intake-commit",
        "enrichment-after-intake-commit",
        "enrichment-after-call",
        "enrichment-before-commit",
        "enrichment-after-commit",
    ] {
        let mut victim = scene.start("a", &format!("{point}=1*off->return"));
        let give_up = std::time::Instant::now() + PATIENCE;
        while !victim.has_ended() {
            assert!(std::time::Instant::now() < give_up, "did not die at {point}");
            scene.burst().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let status = victim.wait(Duration::from_secs(1));
        assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{point}: {status}");
    }
    let mut survivor = scene.start("a", "");
    scene.ends_well().await;
    survivor.kill();
}
