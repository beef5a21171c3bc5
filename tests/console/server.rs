//! Limits, the description of the interface, and the end.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use trunkline::console::{ROUTES, Settings, openapi_document};
use trunkline::metrics;

use super::support::postgres::TestDatabase;
use super::support::records::{decision, decision_id, fill, outcome};
use super::{Running, problem};

#[tokio::test]
async fn the_description_names_every_route_and_answers_follow_it() {
    let (_own, database) = TestDatabase::migrated().await;
    fill(&database, &[decision("a", 1), decision("a", 2)], &[outcome("a", 1)]).await;
    let console = Running::start(Settings::default(), database).await;
    let document: Value = console.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document, openapi_document());
    assert_eq!(document["openapi"], "3.1.0");

    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for route in ROUTES.iter() {
        let operation = &document["paths"][route.path][route.method.name()];
        assert!(operation["summary"].is_string(), "{} is not described", route.path);
        let path = route.path.replace("{id}", &decision_id("a", 1).to_string());
        let answer = console.ask(route, &path).send().await.unwrap();
        let described = &operation["responses"][answer.status().as_str()];
        let content_type =
            answer.headers()["content-type"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let schema = &described["content"][&content_type]["schema"];
        assert!(schema.is_object(), "{path} answers {} {content_type}", answer.status());
        if content_type == "application/json" {
            let schema = with_components(schema, &document);
            let answer: Value = answer.json().await.unwrap();
            let errors: Vec<_> = jsonschema::validator_for(&schema)
                .unwrap()
                .iter_errors(&answer)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{path}: {errors:?}");
        }
    }
    let refused: Value = console.get("/v1/decisions?limit=x").await.json().await.unwrap();
    let schema = &document["components"]["schemas"]["Problem"];
    assert!(jsonschema::is_valid(&with_components(schema, &document), &refused), "{refused}");
    assert!(!jsonschema::is_valid(&with_components(schema, &document), &serde_json::json!({"title": 1})));
}

fn collect_references<'d>(value: &'d Value, into: &mut Vec<&'d str>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect_references(value, into));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}

/// The schema in a document of its own in which its references lead somewhere.
fn with_components(schema: &Value, document: &Value) -> Value {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    schema
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    problem(console.get("/v2/decisions").await, 404, "not-found").await;
    let post = console.client.post(console.url("/v1/decisions")).send().await.unwrap();
    problem(post, 405, "method-not-allowed").await;
    let head = console.client.head(console.url("/v1/decisions")).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["x-content-type-options"], "nosniff");
    let large =
        console.client.get(console.url("/v1/decisions")).body(vec![b'x'; 100_000]).send().await.unwrap();
    problem(large, 413, "body-too-large").await;
}

#[tokio::test]
async fn metrics_come_with_their_help_texts_and_buckets() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    metrics::AUDIT_ROWS.counter(&["decision", "stored"]).increment(3);
    metrics::AUDIT_SECONDS.histogram(&[]).record(0.02);
    // Of the kind that comes and goes, which the recorder does not hold.
    metrics::LAG_GROUP_STATUS.show(&["shown on the page"], Some(2.0));
    let page = console.get("/metrics").await;
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let page = page.text().await.unwrap();
    assert!(
        page.contains(&format!("# HELP {} {}", metrics::AUDIT_ROWS.name, metrics::AUDIT_ROWS.help)),
        "{page}"
    );
    assert!(page.contains("trunkline_audit_write_seconds_bucket{le=\"0.025\"}"), "{page}");
    assert!(page.contains("trunkline_lag_group_status{group=\"shown on the page\"} 2"), "{page}");
}

#[tokio::test]
async fn readiness_gives_its_reasons() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    assert_eq!(console.get("/readyz").await.status(), 200);
    let part = console.health.part("broker");
    part.not_ready("127.0.0.1:9092 refused the connection");
    let answer = console.get("/readyz").await;
    assert_eq!(answer.status(), 503);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["reasons"][0]["part"], "broker");
    assert_eq!(answer["reasons"][0]["reason"], "127.0.0.1:9092 refused the connection");
    part.ready();
    assert_eq!(console.get("/readyz").await.status(), 200);
}

#[tokio::test]
async fn a_busy_console_says_so_and_still_lives() {
    let (own, database) = TestDatabase::migrated().await;
    let settings =
        Settings { max_concurrent: 1, request_timeout: Duration::from_secs(2), ..Settings::default() };
    let console = Running::start(settings, database).await;
    let owner = own.owner().await;
    let mut lock = owner.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE audit.decision_log IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();

    let waiting = tokio::spawn(console.client.get(console.url("/v1/decisions")).send());
    super::support::until("the first request to wait for the table", || async {
        sqlx::query_scalar::<_, i32>(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'audit.decision_log'::regclass",
        )
        .fetch_optional(&owner)
        .await
        .unwrap()
    })
    .await;
    problem(console.get("/v1/decisions").await, 503, "overloaded").await;
    for vital in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(console.get(vital).await.status(), 200, "{vital}");
    }
    problem(waiting.await.unwrap().unwrap(), 503, "timed-out").await;
    lock.rollback().await.unwrap();
    super::support::until("requests to be answered again", || async {
        (console.get("/v1/decisions").await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off_and_does_not_hold_up_the_end() {
    let (_own, database) = TestDatabase::migrated().await;
    let settings = Settings { request_timeout: Duration::from_millis(200), ..Settings::default() };
    let console = Running::start(settings, database.clone()).await;
    let mut slow = TcpStream::connect(console.address).await.unwrap();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: local").await.unwrap();
    let mut rest = Vec::new();
    let cut_off = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(cut_off.is_ok(), "still open");

    // With a patient console neither an idle nor an unfinished connection holds up the end.
    let patient = Running::start(Settings::default(), database).await;
    let mut unfinished = TcpStream::connect(patient.address).await.unwrap();
    unfinished.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert_eq!(patient.get("/healthz").await.status(), 200);
    patient.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), patient.served).await.expect("ends in time").unwrap();
    assert!(TcpStream::connect(patient.address).await.is_err());
}

#[tokio::test]
async fn slow_connections_keep_nobody_out_and_do_not_cut_off_who_is_being_answered() {
    let (own, database) = TestDatabase::migrated().await;
    let settings =
        Settings { max_connections: 20, request_timeout: Duration::from_secs(60), ..Settings::default() };
    let console = Running::start(settings, database).await;
    // One request is under way, on the oldest connection of all.
    let owner = own.owner().await;
    let mut lock = owner.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE audit.decision_log IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let under_way = tokio::spawn(console.client.get(console.url("/v1/decisions")).send());
    super::support::until("the request to wait for the table", || async {
        sqlx::query_scalar::<_, i32>(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'audit.decision_log'::regclass",
        )
        .fetch_optional(&owner)
        .await
        .unwrap()
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut connection = TcpStream::connect(console.address).await.unwrap();
        connection.write_all(b"GET /v1/decisions HTTP/1.1\r\nHost: local").await.unwrap();
        slow.push(connection);
    }
    for path in ["/healthz", "/metrics", "/readyz", "/openapi.json"] {
        let fresh = reqwest::Client::new().get(console.url(path)).send();
        let answer = tokio::time::timeout(Duration::from_secs(20), fresh).await.expect(path).unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    lock.rollback().await.unwrap();
    assert_eq!(under_way.await.unwrap().unwrap().status(), 200);
    drop(slow);
}
