//! Events, a simulated organisation and a database for enrichment tests.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::genesys;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::postgres::{self, Database};
use trunkline::sinks::analytics::{self, Waits};
use trunkline::topics;

use super::postgres::TestDatabase;
use super::simulated::{Organization, client, settings};
use super::{kafka, within};

pub(crate) const PATH: &str = "/api/v2/analytics/conversations/details/query";
pub(crate) const PARTITIONS: i32 = 3;
/// Everything happens within this, also where everything runs at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) fn id(number: usize) -> String {
    format!("c0ffee00-0000-4000-8000-{number:012}")
}

/// When the test's conversations began, some minutes before they are asked about.
pub(crate) fn began() -> i64 {
    1_767_323_045_000
}

/// An event `after_ms` after the beginning.
pub(crate) fn event(number: usize, event_type: &str, after_ms: i64) -> Value {
    let mut event = json!({
        "eventId": format!("{number}-{event_type}-{after_ms}"),
        "eventType": event_type,
        "occurredAt": Timestamp::from_millis(began() + after_ms),
        "conversationId": id(number),
        "mediaType": "VOICE",
    });
    if event_type.starts_with("flow.") {
        event["flowId"] = json!(format!("flow-{}", number % 3));
        event["flowVersion"] = json!("7.0");
    }
    event
}

/// What one conversation's events are, the last one first and the first one twice.
pub(crate) fn disordered(number: usize) -> Vec<Value> {
    vec![
        event(number, "customer.end", 4_000),
        event(number, "customer.start", 0),
        event(number, "flow.end", 2_000),
        event(number, "customer.start", 0),
    ]
}

pub(crate) struct Stand {
    pub kafka: KafkaSettings,
    pub own: TestDatabase,
    pub database: Database,
    pub organization: Organization,
    http: reqwest::Client,
}

impl Stand {
    pub(crate) async fn new() -> Self {
        Self::at(settings()).await
    }

    /// With an organisation set up so.
    pub(crate) async fn at(platform: simulator::Settings) -> Self {
        let kafka = kafka::settings();
        let used = [&topics::CONVERSATION_EVENTS, &topics::CONVERSATIONS, &topics::DEAD_LETTERS];
        kafka::create_topics(&kafka, &used, PARTITIONS).await;
        kafka::create_topics(&kafka, &[&topics::OUTBOX_PROGRESS], 1).await;
        let (own, database) = TestDatabase::migrated().await;
        let organization = Organization::start(platform).await;
        Self { kafka, own, database, organization, http: reqwest::Client::new() }
    }

    pub(crate) async fn produce(&self, events: &[Value]) {
        self.produce_with(events, &[]).await;
    }

    pub(crate) async fn produce_with(&self, events: &[Value], headers: &[(&str, &str)]) {
        let records: Vec<(String, String)> = events
            .iter()
            .map(|event| (event["conversationId"].as_str().unwrap_or_default().to_owned(), event.to_string()))
            .collect();
        let named = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(*value) })
        });
        let config = kafka::client(&self.kafka).set("partitioner", "murmur2_random").clone();
        let topic = self.kafka.topic(&topics::CONVERSATION_EVENTS);
        let produce = move || {
            let producer: BaseProducer = config.create().expect("a producer");
            for (key, value) in &records {
                let record = BaseRecord::to(&topic).key(key).payload(value).headers(named.clone());
                producer.send(record).map_err(|(error, _)| error).expect("is queued");
            }
            producer.flush(Duration::from_secs(60)).expect("is produced");
        };
        tokio::task::spawn_blocking(produce).await.expect("is produced");
    }

    async fn control(&self, method: reqwest::Method, path: &str, body: Value) {
        let url = format!("{}/simulator{path}", self.organization.running.api_url());
        let reply = self.http.request(method, url).json(&body).send().await.expect("the simulator answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.text().await.unwrap());
    }

    /// Makes analytics know these conversations.
    pub(crate) async fn register(&self, numbers: impl IntoIterator<Item = usize>) {
        let items: Vec<Value> = numbers
            .into_iter()
            .map(|number| {
                json!({
                    "conversationId": id(number),
                    "conversationStart": Timestamp::from_millis(began()),
                    "conversationEnd": Timestamp::from_millis(began() + 4_000),
                    "wrapUpMs": 1_000,
                })
            })
            .collect();
        for part in items.chunks(500) {
            self.control(reqwest::Method::POST, "/conversations", json!(part)).await;
        }
    }

    pub(crate) async fn short_pages(&self, share: f64) {
        let manners = json!({"appearsAfterMs": 0, "lateShare": 0.0, "lateMs": 0, "shortPageShare": share});
        self.control(reqwest::Method::PUT, "/details", manners).await;
    }

    /// Requests for details, first pages and further ones, that got this kind of answer.
    pub(crate) async fn asked(&self, method: &str, good: bool) -> usize {
        let requests = self.organization.requests_of(method, PATH).await;
        requests.iter().filter(|entry| (entry["status"] == 200) == good).count()
    }

    pub(crate) fn client_settings(&self) -> genesys::Settings {
        genesys::Settings {
            breaker_pause: Duration::from_millis(200),
            read_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(20),
            ..self.organization.client_settings()
        }
    }

    pub(crate) fn start(&self, name: &str) -> Instance {
        self.start_with(name, fast(), &self.own.options())
    }

    pub(crate) fn start_with(
        &self,
        name: &str,
        settings: analytics::Settings,
        to: &PgConnectOptions,
    ) -> Instance {
        self.start_as(name, settings, to, &self.client_settings())
    }

    pub(crate) fn start_as(
        &self,
        name: &str,
        settings: analytics::Settings,
        to: &PgConnectOptions,
        caller: &genesys::Settings,
    ) -> Instance {
        let kafka = KafkaSettings { instance: name.to_owned(), ..self.kafka.clone() };
        let database = Database::connect(&postgres::Settings {
            url: to.to_url_lossy().to_string().into(),
            ..postgres::Settings::default()
        })
        .expect("a good URL");
        let client = client(caller);
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let running = tokio::spawn({
            let (health, shutdown) = (health.clone(), shutdown.clone());
            async move {
                analytics::run(settings, &kafka, database, client, &health, shutdown)
                    .await
                    .expect("good settings")
            }
        });
        Instance { health, shutdown, running }
    }

    /// Conversations by state.
    pub(crate) async fn states(&self) -> BTreeMap<String, i64> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM audit.conversations GROUP BY state")
                .fetch_all(self.database.pool())
                .await
                .expect("the database answers");
        rows.into_iter().collect()
    }

    pub(crate) async fn state(&self, number: usize) -> Option<String> {
        sqlx::query_scalar("SELECT state FROM audit.conversations WHERE conversation_id = $1")
            .bind(id(number))
            .fetch_optional(self.database.pool())
            .await
            .expect("the database answers")
    }

    /// Waits until exactly so many conversations are done and nothing else is there.
    pub(crate) async fn all_done(&self, count: i64) {
        within(PATIENCE, &format!("{count} conversations to be done"), || async {
            (self.states().await == BTreeMap::from([("done".to_owned(), count)])).then_some(())
        })
        .await;
        let whole: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM audit.conversations WHERE details ->> 'conversationId' = conversation_id
                 AND enriched_up_to = last_event_at",
        )
        .fetch_one(self.database.pool())
        .await
        .expect("the database answers");
        assert_eq!(whole, count);
    }

    /// What was appended for a topic so far, in order.
    pub(crate) async fn appended(&self, topic: &topics::Topic) -> Vec<(String, Option<Value>)> {
        let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> =
            sqlx::query_as("SELECT key, value FROM trunkline.outbox WHERE topic = $1 ORDER BY id")
                .bind(topic.name)
                .fetch_all(self.database.pool())
                .await
                .expect("the database answers");
        rows.into_iter()
            .map(|(key, value)| {
                let value = value.map(|value| serde_json::from_slice(&value).expect("JSON"));
                (String::from_utf8(key).expect("text"), value)
            })
            .collect()
    }
}

/// Short waits, and a patience of some seconds.
pub(crate) fn fast() -> analytics::Settings {
    analytics::Settings {
        waits: Waits {
            quiet: Duration::from_millis(400),
            settle: Duration::from_millis(100),
            patience: Duration::from_millis(1_200),
        },
        linger: Duration::from_millis(200),
        pauses: (Duration::from_millis(20), Duration::from_millis(200)),
        retry: (Duration::from_millis(20), Duration::from_millis(200)),
        ..analytics::Settings::default()
    }
}

/// One instance of the role.
pub(crate) struct Instance {
    pub health: Health,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Instance {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.running).await.expect("ends in time").expect("no panic");
    }

    /// Ends it wherever it is, as a kill does.
    pub(crate) async fn crash(self) {
        self.running.abort();
        let _ = self.running.await;
    }

    pub(crate) async fn ready(&self) {
        within(PATIENCE, "the instance to be ready", || async {
            self.health.reasons().is_empty().then_some(())
        })
        .await;
    }
}
