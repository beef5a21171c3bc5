//! The HTTP tier: the console over a real socket and a real Postgres.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

mod access;
mod browser;
mod decisions;
mod lag;
mod pages;
mod parameters;
mod routing;
mod server;
mod settings;

use std::net::SocketAddr;
use std::sync::OnceLock;

use reqwest::{Client, RequestBuilder, Response};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::console::{Console, Method, Metrics, Route, Settings};
use trunkline::health::Health;
use trunkline::postgres::Database;

/// A console on a free port of this machine.
struct Running {
    address: SocketAddr,
    health: Health,
    client: Client,
    shutdown: CancellationToken,
    served: JoinHandle<()>,
}

impl Running {
    async fn start(settings: Settings, database: Database) -> Self {
        Self::start_with(settings, database, |console, _| console).await
    }

    async fn start_with(
        settings: Settings,
        database: Database,
        change: impl FnOnce(Console, &CancellationToken) -> Console,
    ) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let health = Health::default();
        let settings = Settings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..settings };
        let console = Console::bind(settings, database, health.clone(), metrics(), None).expect("listens");
        let (address, shutdown) = (console.address(), CancellationToken::new());
        let console = change(console, &shutdown);
        let served = tokio::spawn(console.serve(shutdown.clone()));
        Self { address, health, client: Client::new(), shutdown, served }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Asks as the route says; where it takes a body, with an empty object.
    fn ask(&self, route: &Route, path: &str) -> RequestBuilder {
        match route.method {
            Method::Get => self.client.get(self.url(path)),
            Method::Post => self.client.post(self.url(path)).json(&serde_json::json!({})),
            Method::Put => self.client.put(self.url(path)).json(&serde_json::json!({})),
            Method::Delete => self.client.delete(self.url(path)),
        }
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.expect("an answer")
    }
}

/// The process's recorder; there can be one only.
fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::install().expect("the first")).clone()
}

/// Checks that an answer is a problem document of this kind, and hands it over.
async fn problem(response: Response, status: u16, kind: &str) -> serde_json::Value {
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    if status == 503 {
        assert!(response.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
    }
    let document: serde_json::Value = response.json().await.expect("JSON");
    assert_eq!(document["type"], format!("urn:trunkline:problem:{kind}"));
    assert_eq!(document["status"], status);
    for field in ["title", "detail", "remedy"] {
        assert!(document[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {document}");
    }
    document
}
