//! The ingest tier: events over a real socket to a real broker.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

#[path = "../cost/allocations.rs"]
mod allocations;
mod brokers;
mod cost;
mod forms;
mod limits;
mod poison;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rdkafka::message::{Headers, Message, OwnedMessage};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::console::{Console, EventLimits, Metrics, Settings};
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::postgres::{self, Database};
use trunkline::sources::events::{self, Edge};
use trunkline::topics::{CONVERSATION_EVENTS, DEAD_LETTERS, Topic};

/// What the edge writes.
const TOPICS: &[&Topic] = &[&CONVERSATION_EVENTS, &DEAD_LETTERS];

/// A console with the edge behind it, on a free port of this machine.
struct Running {
    address: SocketAddr,
    health: Health,
    client: Client,
    shutdown: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Running {
    async fn start(kafka: &KafkaSettings) -> Self {
        Self::with(kafka, events::Settings::default(), EventLimits::default()).await
    }

    async fn with(kafka: &KafkaSettings, settings: events::Settings, limits: EventLimits) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let edge = Arc::new(Edge::new(settings, kafka, &health).expect("a producer"));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let console = Settings { listen, events: limits, ..Settings::default() };
        let console = Console::bind(console, no_database(), health.clone(), metrics(), Some(edge.clone()));
        let console = console.expect("listens");
        let address = console.address();
        tokio::spawn(edge.run(shutdown.clone()));
        tokio::spawn(console.serve(shutdown.clone()));
        Self { address, health, client: Client::new(), shutdown }
    }

    fn post(&self, content_type: &str) -> RequestBuilder {
        let request = self.client.post(format!("http://{}/v1/events", self.address));
        request.header("content-type", content_type)
    }

    async fn send(&self, body: impl Into<reqwest::Body>) -> Response {
        self.post("application/json").body(body).send().await.expect("an answer")
    }

    /// Sends what must be taken, and answers the receipt.
    async fn take(&self, body: impl Into<reqwest::Body>) -> Value {
        receipt(self.send(body).await).await
    }
}

async fn receipt(response: Response) -> Value {
    let (status, text) = (response.status(), response.text().await.expect("a body"));
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// Checks that an answer is a problem document of this kind, and hands it over.
async fn problem(response: Response, status: u16, kind: &str) -> Value {
    let found = response.status().as_u16();
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let document: Value = response.json().await.expect("JSON");
    assert_eq!(found, status, "{document}");
    assert_eq!(document["type"], format!("urn:trunkline:problem:{kind}"));
    if status == 503 {
        assert!(retry_after.is_some_and(|seconds| seconds.parse::<u32>().unwrap() > 0), "{document}");
    }
    document
}

/// The edge needs none; the console connects when it is asked for the ledger.
fn no_database() -> Database {
    let url = "postgres://nobody@127.0.0.1:9/nowhere".to_owned().into();
    Database::connect(&postgres::Settings { url, ..postgres::Settings::default() }).expect("a good URL")
}

/// The process's recorder; there can be one only.
fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::install().expect("the first")).clone()
}

/// An envelope as the platform sends it.
fn envelope(id: &str, conversation: &str) -> Value {
    json!({
        "version": "0", "id": id, "detail-type": "v2.detail.events.conversation.{id}.flow.end",
        "source": "aws.partner/genesys.com/cloud/o/s", "account": "123456789012", "time": "2026-01-02T03:04:05Z",
        "region": "us-east-1", "resources": [],
        "detail": {
            "topicName": format!("v2.detail.events.conversation.{conversation}.flow.end"), "version": "2",
            "timestamp": "2026-01-02T03:04:05.678Z",
            "eventBody": {
                "eventTime": 1_767_323_045_678_i64, "conversationId": conversation, "flowId": "f", "flowVersion": "12.0",
                "exitReason": "TRANSFER", "mediaType": "VOICE", "direction": "INBOUND"
            },
            "metadata": {"CorrelationId": "x"}
        }
    })
}

fn value(message: &OwnedMessage) -> Value {
    serde_json::from_slice(message.payload().expect("a value")).expect("JSON")
}

fn header(message: &OwnedMessage, name: &str) -> Option<String> {
    let headers = message.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    Some(String::from_utf8(found.value?.to_vec()).expect("text"))
}

/// Longest wait for a broker of the test's own.
const BROKER_WAIT: Duration = Duration::from_secs(120);
