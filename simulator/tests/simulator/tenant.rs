//! One simulated organisation per test and a client with a token for it.

use std::sync::Once;
use std::time::{Duration, Instant};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use simulator::{
    Answering, CampaignScenario, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Running, Scenario, Settings, Simulator,
};

/// The campaign every test's scenario has.
pub(crate) const CAMPAIGN: &str = "0f9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a11";
/// A second one.
pub(crate) const OTHER: &str = "0f9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a22";

pub(crate) struct Tenant {
    pub running: Running,
    pub http: reqwest::Client,
    pub token: String,
}

/// Speed 0 and free ports: nothing moves but by hand.
pub(crate) fn settings() -> Settings {
    let campaign = |id: &str, name: &str, answering| CampaignScenario {
        id: id.into(),
        name: name.into(),
        answering,
        ..CampaignScenario::default()
    };
    let drifting = CampaignScenario::default().answering;
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        login_listen: Some(([127, 0, 0, 1], 0).into()),
        speed: 0.0,
        scenario: Scenario::of_campaigns(vec![
            campaign(CAMPAIGN, "First", Answering::Constant { rate: 0.5 }),
            campaign(OTHER, "Second", drifting),
        ]),
        requests_per_window: 100_000,
        ..Settings::default()
    }
}

pub(crate) fn http_client() -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap()
}

impl Tenant {
    pub(crate) async fn start(settings: Settings) -> Self {
        let running = Simulator::start(settings).await.unwrap();
        let http = http_client();
        let token = demo_token(&http, &running.login_url()).await;
        Self { running, http, token }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.api_url())
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path)).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    /// The campaign's document and tag.
    pub(crate) async fn campaign(&self, id: &str) -> (Value, String) {
        let reply = self.get(&format!("/api/v2/campaigns/{id}")).await;
        assert_eq!(reply.status(), StatusCode::OK);
        let tag = reply.headers()["etag"].to_str().unwrap().to_owned();
        (reply.json().await.unwrap(), tag)
    }

    /// The write of the seed documents, with this tag.
    pub(crate) fn write(&self, id: &str, tag: &str, rate: f64) -> RequestBuilder {
        self.request(Method::PUT, &format!("/api/v2/campaigns/{id}"))
            .header("if-match", tag)
            .json(&json!({ "dialerSettings": { "predictedDialRate": rate } }))
    }

    /// A call to `/simulator/…` that has to succeed.
    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let request = self.http.request(method, self.url(&format!("/simulator{path}"))).json(&body);
        let reply = request.send().await.unwrap();
        let status = reply.status();
        let body: Value = reply.json().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    pub(crate) async fn set_faults(&self, rules: Value) {
        self.control(Method::PUT, "/faults", rules).await;
    }

    /// Waits until no event is to be delivered any more; answers with the stream's standing.
    pub(crate) async fn events_drained(&self) -> Value {
        let begun = Instant::now();
        loop {
            let standing = self.control(Method::GET, "/events", Value::Null).await;
            if standing["backlog"] == 0 && standing["inFlight"] == 0 {
                return standing;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never drained: {standing}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The request log but for the token this tenant began with.
    pub(crate) async fn log(&self) -> Vec<Value> {
        let page = self.control(Method::GET, "/requests?since=1", Value::Null).await;
        assert_eq!(page["dropped"], 0);
        page["items"].as_array().unwrap().clone()
    }

    /// Effects in the log, as (old rate, new rate).
    pub(crate) async fn effects(&self) -> Vec<(f64, f64)> {
        let effects = self.log().await.into_iter().filter(|entry| !entry["effect"].is_null());
        let rate = |entry: &Value, name: &str| entry["effect"][name].as_f64().unwrap();
        effects.map(|entry| (rate(&entry, "oldRate"), rate(&entry, "newRate"))).collect()
    }
}

pub(crate) async fn demo_token(http: &reqwest::Client, login_url: &str) -> String {
    let reply = http
        .post(format!("{login_url}/oauth/token"))
        .basic_auth(DEMO_CLIENT_ID, Some(DEMO_CLIENT_SECRET))
        .form(&[("grant_type", "client_credentials")])
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    let body: Value = reply.json().await.unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

/// Checks an error of the API: status, code, JSON body and correlation id (`docs/platform.md`).
pub(crate) async fn assert_refused(reply: Response, status: u16, code: &str) -> Value {
    assert_eq!(reply.status().as_u16(), status);
    let correlation_id = reply.headers()["inin-correlation-id"].to_str().unwrap().to_owned();
    assert!(reply.headers()["content-type"].to_str().unwrap().starts_with("application/json"));
    let body: Value = reply.json().await.unwrap();
    assert_eq!(body["status"], status, "{body}");
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["contextId"], correlation_id);
    assert!(!body["message"].as_str().unwrap().is_empty());
    for (member, empty) in [("messageParams", json!({})), ("details", json!([])), ("errors", json!([]))] {
        assert_eq!(body[member], empty);
    }
    body
}
