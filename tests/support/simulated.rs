//! A simulated organisation of a test's own, and clients for it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{
    Answering, CampaignScenario, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Running, Scenario, Settings, Simulator,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline::genesys::{
    self, BucketShape, Client, Credentials, InProcessPermits, PermitStore, Priority, Scope,
};
use trunkline::health::Health;

/// A campaign whose people answer every other call.
pub(crate) const CAMPAIGN: &str = "0f9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a11";
pub(crate) const OTHER: &str = "0f9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a22";

/// Two campaigns, a world that stands still, a budget nobody reaches.
pub(crate) fn settings() -> Settings {
    let campaign = |id: &str| CampaignScenario {
        id: id.into(),
        name: format!("Campaign {}", &id[34..]),
        answering: Answering::Constant { rate: 0.5 },
        ..CampaignScenario::default()
    };
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        speed: 0.0,
        scenario: Scenario::of_campaigns(vec![campaign(CAMPAIGN), campaign(OTHER)]),
        requests_per_window: 100_000,
        ..Settings::default()
    }
}

pub(crate) struct Organization {
    pub running: Running,
    http: reqwest::Client,
}

impl Organization {
    pub(crate) async fn start(settings: Settings) -> Self {
        let running = Simulator::start(settings).await.expect("the simulator starts");
        // Another one may have been installed by the client under test.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { running, http: reqwest::Client::new() }
    }

    /// How to call it, with room for thousands of calls and short patience.
    pub(crate) fn client_settings(&self) -> genesys::Settings {
        genesys::Settings {
            base_url: self.running.api_url(),
            credentials: Credentials::fixed(DEMO_CLIENT_ID, DEMO_CLIENT_SECRET),
            requests_per_minute: 100_000,
            connect_timeout: Duration::from_secs(2),
            read_timeout: Duration::from_secs(1),
            total_timeout: Duration::from_secs(2),
            ..genesys::Settings::default()
        }
    }

    pub(crate) fn client(&self) -> Client {
        client(&self.client_settings())
    }

    /// Has the simulator do something that no client can.
    pub(crate) async fn control(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let mut request = self.http.request(method, format!("{}/simulator{path}", self.running.api_url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let reply =
            request.send().await.expect("the simulator answers").error_for_status().expect("accepted");
        reply.json().await.expect("JSON")
    }

    /// Replaces the fault rules.
    pub(crate) async fn faults(&self, rules: Value) {
        self.control(reqwest::Method::PUT, "/faults", Some(rules)).await;
    }

    /// One fault for one method and path, for ever.
    pub(crate) async fn fault(&self, method: &str, path: &str, fault: Value) {
        self.faults(json!([{ "match": { "method": method, "path": path }, "fault": fault }])).await;
    }

    /// Whether any fault rule has acted on a request yet.
    pub(crate) async fn fault_applied(&self) -> bool {
        let rules = self.control(reqwest::Method::GET, "/faults", None).await;
        rules["items"].as_array().expect("a list").iter().any(|rule| rule["applied"] != 0)
    }

    pub(crate) async fn expire_tokens(&self) {
        self.control(reqwest::Method::POST, "/tokens/expire", None).await;
    }

    pub(crate) async fn delete_campaign(&self, id: &str) {
        self.control(reqwest::Method::DELETE, &format!("/campaigns/{id}"), None).await;
    }

    /// Reads a campaign so often, with the same OAuth client but past its budget.
    pub(crate) async fn call_as_somebody_else(&self, times: usize) {
        let api = self.running.api_url();
        let credentials = [
            ("grant_type", "client_credentials"),
            ("client_id", DEMO_CLIENT_ID),
            ("client_secret", DEMO_CLIENT_SECRET),
        ];
        let reply =
            self.http.post(format!("{api}/oauth/token")).form(&credentials).send().await.expect("a reply");
        let token: Value = reply.json().await.expect("JSON");
        for _ in 0..times {
            let read = self.http.get(format!("{api}/api/v2/campaigns/{CAMPAIGN}"));
            let reply = read.bearer_auth(token["access_token"].as_str().expect("a token")).send().await;
            reply.expect("a reply").error_for_status().expect("within the budget");
        }
    }

    /// The log of requests so far, oldest first.
    pub(crate) async fn requests(&self) -> Vec<Value> {
        let page = self.control(reqwest::Method::GET, "/requests?limit=100000", None).await;
        page["items"].as_array().expect("a list").clone()
    }

    /// Logged requests with this method whose path begins so.
    pub(crate) async fn requests_of(&self, method: &str, path: &str) -> Vec<Value> {
        let mut requests = self.requests().await;
        requests.retain(|entry| {
            entry["method"] == method && entry["path"].as_str().is_some_and(|found| found.starts_with(path))
        });
        requests
    }
}

/// A client with a budget of its own.
pub(crate) fn client(settings: &genesys::Settings) -> Client {
    let shape = BucketShape::new(settings.requests_per_minute, settings.budget_window);
    client_with(settings, Arc::new(InProcessPermits::new(shape)), &Health::default())
}

pub(crate) fn client_with(
    settings: &genesys::Settings,
    permits: Arc<dyn PermitStore>,
    health: &Health,
) -> Client {
    Client::new(settings, permits, health).expect("settings make a client")
}

/// A read with half a minute.
pub(crate) fn scope() -> Scope {
    Scope {
        priority: Priority::Read,
        deadline: Instant::now() + Duration::from_secs(30),
        cancelled: CancellationToken::new(),
        withdrawn: CancellationToken::new(),
        waited_ms: Arc::default(),
    }
}
