//! Everything an actuator works with, for real: broker, database, client and a
//! simulated platform, each a test's own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{
    Answering, CampaignScenario, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Running, Scenario, Settings, Simulator,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::genesys::{
    BucketShape, CallError, Campaign, Client, Credentials, Dialect, InProcessPermits, PlatformSettings,
    Reply, Scope, Settings as GenesysSettings,
};
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::model::outcome::{Outcome, OutcomeStatus, SentRequest};
use trunkline::model::pause::Pauses;
use trunkline::postgres::Database;
use trunkline::sinks::actuator::Settings as ActuationSettings;
use trunkline::sinks::actuator::{ActuationError, Actuator, DialChange, Platform, Redecide, Redecision};
use trunkline::topics::{DEAD_LETTERS, DIAL_DECISIONS, DialDecision, OUTCOMES};

use crate::support::postgres::TestDatabase;
use crate::support::{kafka, until};

/// What a test does around the calls of a platform.
pub(crate) type Hook = Arc<dyn Fn(&str, Moment) -> Then + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    BeforeSending,
    AfterSending,
}

pub(crate) type Then = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The real client with a test's hooks around its changes.
pub(crate) struct Hooked {
    client: Client,
    hook: Hook,
}

impl Platform for Hooked {
    async fn campaign(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        self.client.campaign(id, scope).await
    }

    fn prepare(&self, campaign: &Campaign, rate: f64) -> SentRequest {
        self.client.prepare_dial_rate(campaign, rate)
    }

    async fn send(&self, request: &SentRequest, id: &str, scope: &Scope) -> Result<Reply, CallError> {
        (self.hook)(id, Moment::BeforeSending).await;
        let reply = self.client.send_dial_rate(request, id, scope).await;
        (self.hook)(id, Moment::AfterSending).await;
        reply
    }

    async fn other_writer(&self, id: &str, scope: &Scope) -> Option<String> {
        Platform::other_writer(&self.client, id, scope).await
    }
}

pub(crate) fn nothing() -> Hook {
    Arc::new(|_, _| Box::pin(std::future::ready(())))
}

/// A running actuator.
pub(crate) struct Instance {
    pub task: JoinHandle<Result<(), ActuationError>>,
    pub stop: CancellationToken,
    pub health: Health,
}

impl Instance {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("does not panic").expect("ends well");
    }

    /// What a crash leaves behind: nothing more is said to anybody.
    pub(crate) async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.is_err_and(|ended| ended.is_cancelled()));
    }
}

pub(crate) struct Stand {
    pub kafka: KafkaSettings,
    pub database: Database,
    pub own_database: TestDatabase,
    pub simulator: Running,
    pub http: reqwest::Client,
    dialect: Dialect,
    rule: Redecide,
}

/// The id of a test's campaign, from its number.
pub(crate) fn campaign(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

impl Stand {
    /// With so many campaigns at 2.00 lines per agent, from 1 to 5.
    pub(crate) async fn with(campaigns: usize, partitions: i32, settings: Settings) -> Self {
        // The first HTTP client of the process; others only find it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kafka = kafka::settings();
        kafka::create_topics(&kafka, &[&DIAL_DECISIONS, &OUTCOMES, &DEAD_LETTERS], partitions).await;
        let (own_database, database) = TestDatabase::migrated().await;
        let campaigns = (0..campaigns)
            .map(|number| CampaignScenario {
                id: campaign(number),
                name: format!("campaign {number}"),
                dial_rate: 2.0,
                min_dial_rate: 1.0,
                max_dial_rate: 5.0,
                answering: Answering::Constant { rate: 0.5 },
                ..CampaignScenario::default()
            })
            .collect();
        let settings = Settings {
            listen: "127.0.0.1:0".parse().expect("an address"),
            speed: 0.0,
            scenario: Scenario::of_campaigns(campaigns),
            requests_per_window: 60_000,
            ..settings
        };
        let dialect = match settings.dialect {
            simulator::Dialect::Platform => Dialect::Platform(PlatformSettings::default()),
            _ => Dialect::Seed,
        };
        let simulator = Simulator::start(settings).await.expect("a simulator");
        let rule = Arc::new(|decision: &DialDecision<'_, Vec<String>>, _: &Campaign| {
            Redecision::Set(decision.parameters.dial_rate)
        });
        Self { kafka, database, own_database, simulator, http: reqwest::Client::new(), dialect, rule }
    }

    /// Decides again as the program does.
    pub(crate) fn deciding_by_the_record(self) -> Self {
        Self { rule: trunkline::topology::redecide::from_the_record(), ..self }
    }

    pub(crate) fn start(&self, instance: &str, hook: Hook) -> Instance {
        self.start_heeding(instance, hook, None)
    }

    /// An actuator that hears of pauses.
    pub(crate) fn start_heeding(
        &self,
        instance: &str,
        hook: Hook,
        pauses: Option<watch::Receiver<Pauses>>,
    ) -> Instance {
        let health = Health::default();
        let settings = GenesysSettings {
            dialect: self.dialect.clone(),
            base_url: self.simulator.api_url(),
            credentials: Credentials::fixed(DEMO_CLIENT_ID, DEMO_CLIENT_SECRET),
            requests_per_minute: 60_000,
            breaker_pause: Duration::from_millis(500),
            total_timeout: Duration::from_secs(5),
            ..GenesysSettings::default()
        };
        let permits = Arc::new(InProcessPermits::new(BucketShape::new(60_000, settings.budget_window)));
        let client = Client::new(&settings, permits, &health).expect("a client");
        let change = DialChange::new(Hooked { client, hook }, self.rule.clone());
        let settings = ActuationSettings { in_flight_time: Duration::from_secs(3), ..Default::default() };
        let kafka = KafkaSettings { instance: instance.to_owned(), ..self.kafka.clone() };
        let actuator = Actuator::new(kafka, settings, change, self.database.clone());
        let actuator = match pauses {
            Some(pauses) => actuator.heeding(pauses),
            None => actuator,
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (health, stop) = (health.clone(), stop.clone());
            async move { actuator.run(&health, stop).await }
        });
        Instance { task, stop, health }
    }

    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/simulator{path}", self.simulator.api_url());
        let reply = self.http.request(method, url).json(&body).send().await.expect("the simulator answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        reply.json().await.unwrap_or(Value::Null)
    }

    pub(crate) async fn faults(&self, rules: Value) {
        self.control(Method::POST, "/faults", rules).await;
    }

    /// Rates set on a campaign through the API.
    pub(crate) async fn effects(&self, campaign: &str) -> Vec<f64> {
        let log = self.control(Method::GET, "/requests?limit=100000", Value::Null).await;
        log["items"]
            .as_array()
            .expect("a list")
            .iter()
            .filter(|entry| entry["origin"] == "api" && entry["effect"]["campaignId"] == *campaign)
            .map(|entry| entry["effect"]["newRate"].as_f64().expect("a rate"))
            .collect()
    }

    /// Changing requests that arrived for a campaign.
    pub(crate) async fn changes_asked(&self, campaign: &str) -> usize {
        let log = self.control(Method::GET, "/requests?limit=100000", Value::Null).await;
        let items = log["items"].as_array().expect("a list");
        let asked = |entry: &&Value| {
            entry["origin"] == "api"
                && (entry["method"] == "PUT" || entry["method"] == "PATCH")
                && entry["path"].as_str().is_some_and(|path| path.ends_with(campaign))
        };
        items.iter().filter(asked).count()
    }

    pub(crate) async fn decide(&self, decisions: &[Value]) {
        let texts: Vec<(String, Vec<u8>)> = decisions
            .iter()
            .map(|decision| {
                let key = decision["key"].as_str().expect("a key").to_owned();
                (key, serde_json::to_vec(decision).expect("JSON"))
            })
            .collect();
        let records: Vec<(&str, &[u8])> = texts.iter().map(|(key, value)| (&**key, &**value)).collect();
        kafka::produce(&self.kafka, &DIAL_DECISIONS, None, &records).await;
    }

    /// Outcomes published so far, in order of partition and offset.
    pub(crate) async fn outcomes_now(&self) -> Vec<Outcome> {
        let kafka = self.kafka.clone();
        tokio::task::spawn_blocking(move || {
            use rdkafka::message::Message;
            kafka::read_all(&kafka, &OUTCOMES)
                .iter()
                .map(|message| {
                    serde_json::from_slice(message.payload().expect("a value")).expect("an outcome")
                })
                .collect()
        })
        .await
        .expect("reads")
    }

    /// Waits for so many outcomes, then looks that there are no more.
    pub(crate) async fn outcomes(&self, count: usize) -> BTreeMap<(String, u64), Outcome> {
        let all = until(&format!("{count} outcomes"), || async {
            let outcomes = self.outcomes_now().await;
            (outcomes.len() >= count).then_some(outcomes)
        })
        .await;
        let of: BTreeMap<_, _> =
            all.iter().map(|outcome| ((outcome.key.clone(), outcome.sequence), outcome.clone())).collect();
        assert_eq!((all.len(), of.len()), (count, count), "each decision has exactly one outcome");
        of
    }

    /// Rows in `trunkline.intents` for a campaign's decisions, by attempts' requests.
    pub(crate) async fn intents(&self, campaign: &str) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM trunkline.intents WHERE request ->> 'path' LIKE '%' || $1")
            .bind(campaign)
            .fetch_one(&self.own_database.owner().await)
            .await
            .expect("counts")
    }
}

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as i64)
}

/// A live decision that gives a campaign this rate and has a minute for it.
pub(crate) fn decision(campaign: &str, sequence: u64, dial_rate: f64) -> Value {
    let at = now();
    let id = trunkline::model::decision::DecisionId::derive(
        trunkline::model::decision::Loop::Dial,
        campaign,
        sequence,
        at,
    );
    json!({
        "decisionId": id, "sequence": sequence, "loop": "dial", "key": campaign, "mode": "live",
        "decidedAt": at, "eventTime": at, "action": "set_dial_rate", "reason": "towards_target",
        "parameters": {"previousDialRate": 2.0, "dialRate": dial_rate},
        "inputs": {
            "campaignId": campaign, "firstObservedAt": at, "observedAt": at, "answerRates": [0.5],
            "meanAnswerRate": 0.5, "agentsIdle": 3, "agentsBusy": 4, "dialRate": 2.0,
            "minDialRate": 1.0, "maxDialRate": 5.0, "revision": "\"0\""
        },
        "policy": {"name": "proportional", "version": 1, "hash": "0123456789abcdef"},
        "settingsRevision": 0, "causeIds": ["trunkline.campaign-windows.v1/0/1"],
        "expiresAt": at.plus(Duration::from_secs(60))
    })
}

/// The same decision with other members.
pub(crate) fn with(mut decision: Value, members: Value) -> Value {
    for (name, value) in members.as_object().expect("members") {
        decision[name] = value.clone();
    }
    decision
}

pub(crate) fn assert_ended(outcome: &Outcome, status: OutcomeStatus, reason: &str) {
    assert_eq!(outcome.status, status, "{outcome:#?}");
    assert!(outcome.reason.starts_with(reason), "{outcome:#?}");
}
