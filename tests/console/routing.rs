//! Weighted distribution as an Architect flow and its operators meet it.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use trunkline::console::Settings;
use trunkline::health::Health;
use trunkline::model::decision::Mode;
use trunkline::postgres::routing::{Patience, RouteCounters};
use trunkline::routing::{Publisher, Service, Unchanging};
use trunkline::topology::Routed;

use super::support::postgres::TestDatabase;
use super::support::postgres_proxy::PostgresProxy;
use super::{Running, problem};

/// A console with the decision service behind it, patient enough for a busy machine.
async fn start(own: &TestDatabase, database: trunkline::postgres::Database) -> Running {
    let patience =
        Patience { statement: Duration::from_secs(30), idle_in_transaction: Duration::from_secs(30) };
    let counters = RouteCounters::new(&own.settings(), 2, patience).unwrap();
    Running::start_with(Settings::default(), database.clone(), |console, shutdown| {
        let settings = trunkline::routing::Settings {
            patience: Duration::from_secs(30),
            give_up: Duration::from_secs(60),
            ..Default::default()
        };
        let health = Health::default();
        let service = Service::new(settings, counters, Arc::new(Unchanging), &health, shutdown.clone());
        tokio::spawn(service.clone().run());
        let publisher = Publisher::new(database, None, Mode::Shadow, shutdown.clone());
        console.with_routing(Arc::new(Routed::new(service, publisher)))
    })
    .await
}

impl Running {
    async fn put(&self, path: &str, body: &Value) -> Response {
        self.client.put(self.url(path)).json(body).send().await.expect("an answer")
    }

    async fn post(&self, path: &str, body: &Value) -> Response {
        self.client.post(self.url(path)).json(body).send().await.expect("an answer")
    }
}

fn seed_configuration(weights: [Value; 2]) -> Value {
    let [first, second] = weights;
    json!({
        "id": "c", "name": "Support", "routingType": "SINGLE_QUEUE", "target": {"type": "QUEUE", "id": "t"},
        "rules": [
            {"id": "r1", "priority": 1, "expression": "true", "destination": {"type": "QUEUE_ID", "id": "a"}, "weight": first},
            {"id": "r2", "priority": 2, "expression": "true", "destination": {"type": "QUEUE_ID", "id": "b"}, "weight": second},
        ],
        "status": "ENABLED",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draft_is_in_force_once_published_and_decided_by() {
    let (own, database) = TestDatabase::migrated().await;
    let console = start(&own, database).await;
    problem(console.get("/v1/routes/c").await, 404, "not-found").await;
    problem(console.post("/v1/routes/c/publish", &json!({})).await, 404, "not-found").await;
    let ask = json!({"conversationId": "v1"});
    problem(console.post("/v1/routes/c/decisions", &ask).await, 404, "not-found").await;

    let saved = console.put("/v1/routes/c", &seed_configuration([json!(70), json!(30)])).await;
    assert_eq!(saved.status(), 200, "{}", saved.text().await.unwrap());
    problem(console.post("/v1/routes/c/decisions", &ask).await, 404, "not-found").await;
    let shown: Value = console.get("/v1/routes/c").await.json().await.unwrap();
    assert_eq!((&shown["revision"], &shown["draft"]["name"]), (&Value::Null, &json!("Support")));

    let published: Value = console.post("/v1/routes/c/publish", &json!({})).await.json().await.unwrap();
    assert_eq!(published, json!({"configurationId": "c", "revision": 1, "platform": "not_configured"}));
    let answer: Value = console.post("/v1/routes/c/decisions", &ask).await.json().await.unwrap();
    let members: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    let mut flat =
        ["conversationId", "configurationId", "destinationId", "revision", "sequence", "source", "decidedAt"];
    flat.sort_unstable();
    assert_eq!(members, flat, "flat, as promised");
    assert_eq!((&answer["source"], &answer["sequence"]), (&json!("exact"), &json!(1)));
    let again: Value = console.post("/v1/routes/c/decisions", &ask).await.json().await.unwrap();
    assert_eq!(again, answer);

    // What GET shows can be changed and sent back.
    let mut shown: Value = console.get("/v1/routes/c").await.json().await.unwrap();
    shown["rules"][0]["drain"] = json!(true);
    assert_eq!(console.put("/v1/routes/c", &shown).await.status(), 200);
    assert_eq!(console.post("/v1/routes/c/publish", &json!({})).await.status(), 200);
    for number in 2..5 {
        let ask = json!({"conversationId": format!("w{number}")});
        let answer: Value = console.post("/v1/routes/c/decisions", &ask).await.json().await.unwrap();
        assert_eq!((&answer["destinationId"], &answer["revision"]), (&json!("b"), &json!(2)));
    }
    let history: Value = console.get("/v1/routes/c/history").await.json().await.unwrap();
    let revisions: Vec<_> =
        history["items"].as_array().unwrap().iter().map(|item| &item["revision"]).collect();
    assert_eq!(revisions, [&json!(2), &json!(1)]);
    assert_eq!(history["items"][0]["publishedBy"], "local");
    let all: Value = console.get("/v1/routes").await.json().await.unwrap();
    assert_eq!(all["items"][0]["id"], "c");
    problem(console.get("/v1/routes/x/history").await, 404, "not-found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_configurations_and_requests_are_refused_and_the_old_one_stays() {
    let (own, database) = TestDatabase::migrated().await;
    let console = start(&own, database).await;
    console.put("/v1/routes/c", &seed_configuration([json!(70), json!(30)])).await;
    console.post("/v1/routes/c/publish", &json!({})).await;
    for wrong in [
        seed_configuration([json!(-5), json!(105)]),
        seed_configuration([json!("70"), json!(30)]),
        seed_configuration([Value::Null, json!(30)]),
        json!({"id": "c"}),
        json!([]),
        json!({"id": "c", "name": "Support", "rules": [["r", null, null, {"type": "QUEUE_ID", "id": "a"}, 1]]}),
        json!({"id": "c", "name": "Support", "rules": [{"id": "r", "destination": ["QUEUE_ID", "a"], "weight": 1}]}),
        seed_configuration([json!(0.1 + 0.2), json!(0.7)]),
    ] {
        let refused = problem(console.put("/v1/routes/c", &wrong).await, 400, "bad-body").await;
        assert!(!refused["detail"].as_str().unwrap().is_empty());
    }
    let mut elsewhere = seed_configuration([json!(1), json!(1)]);
    elsewhere["id"] = json!("other");
    problem(console.put("/v1/routes/c", &elsewhere).await, 400, "bad-body").await;
    for text in [r#"{"id":"c","name":"x","rules":[{"id":"r","weight":NaN}]}"#, "{", r#"{"id":"c","id":"c"}"#]
    {
        let sent = console.client.put(console.url("/v1/routes/c")).body(text).send().await.unwrap();
        problem(sent, 400, "bad-body").await;
    }
    for wrong in [
        json!({}),
        json!({"conversationId": ""}),
        json!({"conversationId": 7}),
        json!({"conversationId": "a\u{0}"}),
    ] {
        problem(console.post("/v1/routes/c/decisions", &wrong).await, 400, "bad-body").await;
    }
    // Two weights of 0: both get half, and what was in force until now stays until it is published.
    assert_eq!(console.put("/v1/routes/c", &seed_configuration([json!(0), json!(0)])).await.status(), 200);
    let shown: Value = console.get("/v1/routes/c").await.json().await.unwrap();
    assert_eq!((&shown["revision"], &shown["rules"][0]["weight"]), (&json!(1), &json!(70.0)));
    assert_eq!(shown["draft"]["rules"][0]["weight"], json!(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_publishes_knows_what_was_published_although_the_counters_cannot_be_asked() {
    let (own, database) = TestDatabase::migrated().await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let url = proxy.through(own.options()).to_url_lossy().to_string();
    let settings = trunkline::postgres::Settings { url: url.into(), ..Default::default() };
    let patience =
        Patience { statement: Duration::from_secs(1), idle_in_transaction: Duration::from_secs(1) };
    let counters = RouteCounters::new(&settings, 2, patience).unwrap();
    let console = Running::start_with(Settings::default(), database.clone(), |console, shutdown| {
        let health = Health::default();
        let settings = trunkline::routing::Settings::default();
        let service = Service::new(settings, counters, Arc::new(Unchanging), &health, shutdown.clone());
        tokio::spawn(service.clone().run());
        let publisher = Publisher::new(database, None, Mode::Shadow, shutdown.clone());
        console.with_routing(Arc::new(Routed::new(service, publisher)))
    })
    .await;
    proxy.set_stalled(true);
    console.put("/v1/routes/c", &seed_configuration([json!(1), json!(2)])).await;
    assert_eq!(console.post("/v1/routes/c/publish", &json!({})).await.status(), 200);
    let asked = console.post("/v1/routes/c/decisions", &json!({"conversationId": "v"})).await;
    assert_eq!(asked.status(), 200);
    let answer: Value = asked.json().await.unwrap();
    assert_eq!((&answer["revision"], &answer["destinationId"]), (&json!(1), &json!("b")));
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_for_run_time_that_cannot_be_counted_in_are_refused_with_the_reason() {
    let (own, database) = TestDatabase::migrated().await;
    let console = start(&own, database).await;
    let weights = |a: f64| json!({"weights": {"a": a}});
    let path = "/v1/settings/route%2Fc";
    // Nothing is known that they could not go with.
    assert_eq!(console.put(path, &weights(0.1 + 0.2)).await.status(), 200);
    console.put("/v1/routes/c", &seed_configuration([json!(70), json!(30)])).await;
    for is_published in [false, true] {
        if is_published {
            assert_eq!(console.post("/v1/routes/c/publish", &json!({})).await.status(), 200);
        }
        let refused = problem(console.put(path, &weights(0.1 + 0.2)).await, 400, "bad-body").await;
        assert!(refused["detail"].as_str().unwrap().contains("too many digits"), "{refused}");
    }
    assert_eq!(console.put(path, &weights(12.5)).await.status(), 200);
    assert_eq!(console.put(path, &Value::Null).await.status(), 200, "withdrawn");
}

#[tokio::test]
async fn an_instance_without_the_role_says_so() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    let asked = console.post("/v1/routes/c/decisions", &json!({"conversationId": "v"})).await;
    problem(asked, 503, "unavailable").await;
}
