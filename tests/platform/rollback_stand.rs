//! Everything a rollback needs, for real: broker, database, client and simulated flows.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{
    CampaignScenario, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, FlowScenario, Running, Scenario, Settings,
    Simulator, VersionScenario, VersionStatus,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::clock;
use trunkline::genesys::{
    BucketShape, Client, Credentials, Dialect, InProcessPermits, PlatformSettings,
    Settings as GenesysSettings,
};
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::model::outcome::Outcome;
use trunkline::postgres::Database;
use trunkline::sinks::rollback::{
    ActuationError, FlowVersionChange, RollbackActuator, Settings as ActuationSettings,
};
use trunkline::topics::{DEAD_LETTERS, OUTCOMES, ROLLBACK_DECISIONS, ROLLBACK_REFUSALS, Topic};

use crate::support::postgres::TestDatabase;
use crate::support::{kafka, within};

/// A running actuator.
pub(crate) struct Instance {
    pub task: JoinHandle<Result<(), ActuationError>>,
    pub stop: CancellationToken,
}

impl Instance {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("does not panic").expect("ends well");
    }

    /// What a crash leaves behind: nothing more is said to anybody.
    pub(crate) async fn crash(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

pub(crate) struct Stand {
    pub kafka: KafkaSettings,
    pub database: Database,
    pub own_database: TestDatabase,
    pub simulator: Running,
    http: reqwest::Client,
    dialect: Dialect,
}

/// The id of a test's flow, from its number.
pub(crate) fn flow(number: usize) -> String {
    format!("00000000-0000-4000-9000-{number:012}")
}

impl Stand {
    /// With so many flows: versions 10.0 and 11.0 published, 12.0 active.
    pub(crate) async fn with(flows: usize) -> Self {
        Self::speaking(flows, simulator::Dialect::Seed, Dialect::Seed).await
    }

    /// The same, in the platform's own dialect.
    pub(crate) async fn of_the_platform(flows: usize) -> Self {
        let own = Dialect::Platform(PlatformSettings::default());
        Self::speaking(flows, simulator::Dialect::Platform, own).await
    }

    async fn speaking(flows: usize, simulated: simulator::Dialect, dialect: Dialect) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kafka = kafka::settings();
        let topics = [&ROLLBACK_DECISIONS, &OUTCOMES, &ROLLBACK_REFUSALS, &DEAD_LETTERS];
        kafka::create_topics(&kafka, &topics, 3).await;
        let (own_database, database) = TestDatabase::migrated().await;
        let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.0 };
        let flows = (0..flows)
            .map(|number| FlowScenario {
                id: flow(number),
                name: format!("flow {number}"),
                versions: vec![
                    version("10.0", VersionStatus::Published),
                    version("11.0", VersionStatus::Published),
                    version("12.0", VersionStatus::Active),
                ],
                ..FlowScenario::default()
            })
            .collect();
        let campaign = CampaignScenario {
            id: "00000000-0000-4000-8000-000000000001".to_owned(),
            name: "needed".to_owned(),
            ..CampaignScenario::default()
        };
        let settings = Settings {
            listen: "127.0.0.1:0".parse().expect("an address"),
            speed: 0.0,
            scenario: Scenario { flows, ..Scenario::of_campaigns(vec![campaign]) },
            requests_per_window: 60_000,
            dialect: simulated,
            ..Settings::default()
        };
        let simulator = Simulator::start(settings).await.expect("a simulator");
        Self { kafka, database, own_database, simulator, http: reqwest::Client::new(), dialect }
    }

    pub(crate) fn start(&self, instance: &str) -> Instance {
        self.start_with(
            instance,
            Duration::from_secs(900),
            ActuationSettings { lease_idle: Duration::from_secs(12), ..settings() },
        )
    }

    /// A client with a budget nobody reaches.
    pub(crate) fn client(&self) -> Client {
        let platform = GenesysSettings {
            dialect: self.dialect.clone(),
            base_url: self.simulator.api_url(),
            credentials: Credentials::fixed(DEMO_CLIENT_ID, DEMO_CLIENT_SECRET),
            requests_per_minute: 60_000,
            breaker_pause: Duration::from_millis(500),
            total_timeout: Duration::from_secs(5),
            ..GenesysSettings::default()
        };
        let permits = Arc::new(InProcessPermits::new(BucketShape::new(60_000, platform.budget_window)));
        Client::new(&platform, permits, &Health::default()).expect("a client")
    }

    pub(crate) fn start_with(
        &self,
        instance: &str,
        lockout: Duration,
        settings: ActuationSettings,
    ) -> Instance {
        let change = FlowVersionChange::new(self.client(), lockout);
        let kafka = KafkaSettings { instance: instance.to_owned(), ..self.kafka.clone() };
        let actuator = RollbackActuator::new(kafka, settings, change, self.database.clone());
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { actuator.run(&Health::default(), stop).await }
        });
        Instance { task, stop }
    }

    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/simulator{path}", self.simulator.api_url());
        let reply = self.http.request(method, url).json(&body).send().await.expect("the simulator answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        reply.json().await.unwrap_or(Value::Null)
    }

    pub(crate) async fn faults(&self, rules: Value) {
        self.control(Method::PUT, "/faults", rules).await;
    }

    /// Activations that took place, of one flow or of all, in their order.
    pub(crate) async fn activations(&self, flow: Option<&str>) -> Vec<Value> {
        let log = self.control(Method::GET, "/requests?limit=100000", Value::Null).await;
        let entries = log["items"].as_array().expect("a list").iter();
        let effects =
            entries.filter(|entry| entry["origin"] == "api" && entry["effect"]["toVersion"].is_string());
        effects
            .map(|entry| entry["effect"].clone())
            .filter(|effect| flow.is_none_or(|flow| effect["flowId"] == flow))
            .collect()
    }

    /// Decides a rollback of `version` on each of these flows; returns nothing, as stages do.
    pub(crate) async fn decide(&self, flows: &[String], version: &str, sequence: u64) {
        let values: Vec<(String, Vec<u8>)> =
            flows.iter().map(|flow| (flow.clone(), decision(flow, version, sequence))).collect();
        let records: Vec<(&str, &[u8])> =
            values.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        kafka::produce(&self.kafka, &ROLLBACK_DECISIONS, None, &records).await;
    }

    /// Waits for so many outcomes.
    pub(crate) async fn outcomes(&self, count: usize) -> Vec<Outcome> {
        within(Duration::from_secs(90), "outcomes", || async {
            let read = self.read(&OUTCOMES).await;
            (read.len() >= count).then_some(read)
        })
        .await
    }

    /// What was told back to the stage so far.
    pub(crate) async fn refusals(&self) -> Vec<Outcome> {
        self.read(&ROLLBACK_REFUSALS).await
    }

    async fn read(&self, topic: &'static Topic) -> Vec<Outcome> {
        let kafka = self.kafka.clone();
        let read = tokio::task::spawn_blocking(move || kafka::read_all(&kafka, topic)).await.unwrap();
        let outcome = |record| {
            let value = rdkafka::Message::payload(record).expect("a value");
            serde_json::from_slice(value).expect("an outcome")
        };
        read.iter().map(outcome).collect()
    }
}

/// Quick ones, for tests.
pub(crate) fn settings() -> ActuationSettings {
    ActuationSettings {
        lease_poll: Duration::from_millis(50),
        claim_lifetime: Duration::from_secs(5),
        in_flight_time: Duration::from_secs(1),
        ..ActuationSettings::default()
    }
}

fn decision(flow: &str, version: &str, sequence: u64) -> Vec<u8> {
    let text = include_str!("../../schemas/examples/trunkline.rollback-decisions.v1/rollback.json");
    let mut decision: Value = serde_json::from_str(text).expect("JSON");
    let now: Timestamp = clock::now();
    decision["decisionId"] = json!(uuid::Uuid::now_v7());
    decision["sequence"] = json!(sequence);
    decision["key"] = json!(flow);
    let candidates = ["11.0", "10.0"].map(|id| json!({"flowVersion": id, "reason": "in_force_before"}));
    decision["parameters"]["flowVersion"] = json!(version);
    decision["parameters"]["candidates"] = json!(candidates);
    decision["decidedAt"] = json!(now);
    decision["expiresAt"] = json!(now.plus(Duration::from_secs(600)));
    decision.to_string().into_bytes()
}
