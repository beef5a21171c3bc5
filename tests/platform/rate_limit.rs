//! The budget against the simulator's true one.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::Settings;
use tokio::task::JoinSet;
use tokio::time::Instant;
use trunkline::genesys::{self, BucketShape, CallErrorKind as Kind, InProcessPermits};
use trunkline::health::Health;
use trunkline::model::Timestamp;
use trunkline::postgres::Database;
use trunkline::topology::SharedBudget;

use crate::support::postgres::TestDatabase;
use crate::support::simulated::{CAMPAIGN, Organization, client_with, scope, settings};

fn at(entry: &Value) -> Timestamp {
    entry["at"].as_str().expect("a time").parse().expect("RFC 3339")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_calls_before_retry_after_however_it_is_spelled() {
    for (spelling, least_ms, most_seconds) in
        [("int", 1_000, 1.0), ("float", 1_000, 1.0), ("date", 0, 2.0), ("missing", 2_000, 4.0)]
    {
        let organization = Organization::start(settings()).await;
        let settings = organization.client_settings();
        let shape = BucketShape::new(settings.requests_per_minute, settings.budget_window);
        let permits = Arc::new(InProcessPermits::new(shape));
        let refused = client_with(&settings, permits.clone(), &Health::default());
        let other = client_with(&settings, permits, &Health::default());
        other.campaign(CAMPAIGN, &scope()).await.unwrap();
        organization
            .faults(json!([{ "match": { "path": "/api" }, "times": 1,
                "fault": { "type": "status", "code": 429, "retryAfter": spelling, "seconds": 1.0 } }]))
            .await;
        let asked = Instant::now();
        let error = refused.campaign(CAMPAIGN, &scope()).await.unwrap_err();
        let Kind::RateLimited { until } = error.kind else { panic!("{spelling}: {error}") };
        let told = Instant::now();
        assert!(until <= told + Duration::from_secs_f64(most_seconds), "{spelling}");
        assert!(until >= asked + Duration::from_millis(least_ms), "{spelling}");
        let patient = scope();
        tokio::try_join!(other.campaign(CAMPAIGN, &patient), refused.campaign(CAMPAIGN, &patient)).unwrap();

        let calls = organization.requests_of("GET", "/api").await;
        let limited = calls.iter().position(|entry| entry["status"] == 429).expect("a 429");
        assert_eq!(calls.len(), limited + 3);
        for later in &calls[limited + 1..] {
            let waited = at(later).millis_since(at(&calls[limited]));
            // The log cuts to milliseconds on both sides.
            assert!(waited >= least_ms as i64 - 1, "{spelling}: called after {waited} ms");
        }
    }
}

/// Two instances, one row in Postgres, one platform that counts truly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_stay_within_the_platforms_budget() {
    let window = Duration::from_secs(1);
    let organization =
        Organization::start(Settings { requests_per_window: 40, budget_window: window, ..settings() }).await;
    let (own, database) = TestDatabase::migrated().await;
    let other = Database::connect(&own.settings()).expect("a good URL");
    let settings = genesys::Settings {
        requests_per_minute: 40,
        budget_window: window,
        ..organization.client_settings()
    };
    let mut calls = JoinSet::new();
    for database in [database, other] {
        let permits = Arc::new(SharedBudget::new(database, &settings));
        let client = client_with(&settings, permits, &Health::default());
        for _ in 0..60 {
            let client = client.clone();
            calls.spawn(async move { client.campaign(CAMPAIGN, &scope()).await });
        }
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().expect("within the budget");
    }
    let calls = organization.requests_of("GET", "/api").await;
    assert_eq!(calls.len(), 120);
    assert!(calls.iter().all(|entry| entry["status"] == 200));
}

/// Every reply is a 429 that does not say how long to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_refusals_are_asked_about_one_call_at_a_time_over_three_instances() {
    let organization = Organization::start(settings()).await;
    let (own, _) = TestDatabase::migrated().await;
    let settings = genesys::Settings { requests_per_minute: 300, ..organization.client_settings() };
    let refusing = json!([{ "match": { "path": "/api" }, "fault": { "type": "status", "code": 429, "retryAfter": "missing" } }]);
    organization.faults(refusing).await;
    let instance = || {
        let database = Database::connect(&own.settings()).expect("a good URL");
        client_with(&settings, Arc::new(SharedBudget::new(database, &settings)), &Health::default())
    };
    let clients: Vec<_> = (0..3).map(|_| instance()).collect();
    let end = Instant::now() + Duration::from_secs(8);
    let mut calls = JoinSet::new();
    for client in clients.iter().flat_map(|client| std::iter::repeat_n(client.clone(), 8)) {
        calls.spawn(async move {
            // As pollers do: each again and again.
            while Instant::now() < end {
                let patient = genesys::Scope { deadline: end, ..scope() };
                let _ = client.campaign(CAMPAIGN, &patient).await;
            }
        });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    let asked = organization.requests_of("GET", "/api").await;
    let began = at(&asked[0]);
    let probes: Vec<i64> =
        asked.iter().map(|entry| at(entry).millis_since(began)).filter(|after| *after > 1_500).collect();
    assert!(!probes.is_empty(), "nobody asked again");
    // The first pause lasts 2 to 4 s, the second 4 to 8 s, and so on.
    for pair in probes.windows(2) {
        assert!(pair[1] - pair[0] >= 3_500, "a burst after a pause: {probes:?}");
    }
    organization.faults(json!([])).await;
    for client in clients {
        client.campaign(CAMPAIGN, &scope()).await.expect("let through again");
    }
}

/// Somebody else uses the same OAuth client: the headers tell, before a 429 has to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_platforms_headers_slow_us_down_before_it_refuses() {
    let window = Duration::from_secs(4);
    let organization =
        Organization::start(Settings { requests_per_window: 60, budget_window: window, ..settings() }).await;
    let settings = genesys::Settings {
        requests_per_minute: 60,
        budget_window: window,
        ..organization.client_settings()
    };
    let permits = Arc::new(InProcessPermits::new(BucketShape::new(60, window)));
    let client = client_with(&settings, permits, &Health::default());
    client.authenticate(&scope()).await.unwrap();
    organization.call_as_somebody_else(45).await;
    for _ in 0..20 {
        client.campaign(CAMPAIGN, &scope()).await.expect("slowed down, not refused");
    }
    let refused = organization.requests().await.iter().filter(|entry| entry["status"] == 429).count();
    assert_eq!(refused, 0);
}

#[tokio::test]
async fn without_the_database_no_call_is_made() {
    let organization = Organization::start(settings()).await;
    let settings = organization.client_settings();
    // A port that refuses: one that was just free.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let database = Database::connect(&trunkline::postgres::Settings {
        url: format!("postgres://nobody@{closed}/nothing").into(),
        ..trunkline::postgres::Settings::default()
    })
    .expect("a good URL");
    let health = Health::default();
    let client = client_with(&settings, Arc::new(SharedBudget::new(database, &settings)), &health);
    let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Paused { .. }), "{error}");
    assert!(error.reason.contains("budget"), "{error}");
    assert!(health.reasons().iter().any(|(part, _)| part == "genesys.budget"), "{:?}", health.reasons());
    assert!(organization.requests_of("GET", "/api").await.is_empty());
}
