//! The ledger over HTTP.

use std::time::Duration;

use serde_json::Value;
use trunkline::console::Settings;
use trunkline::postgres;

use super::support::postgres::TestDatabase;
use super::support::records::{decision, decision_id, fill, outcome};
use super::{Running, problem};

#[tokio::test]
async fn lists_are_paged_newest_first_until_next_is_null() {
    let (_own, database) = TestDatabase::migrated().await;
    let all: Vec<Value> = (1..=23).flat_map(|n| [decision("a", n), decision("b", n)]).collect();
    fill(&database, &all, &[outcome("a", 23)]).await;
    let console = Running::start(Settings::default(), database).await;

    let mut seen: Vec<Value> = Vec::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = console.get(&format!("/v1/decisions?limit=10{cursor}")).await;
        assert_eq!(page.status(), 200);
        let page: Value = page.json().await.unwrap();
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        pages += 1;
        match &page["next"] {
            Value::Null => break,
            next => cursor = format!("&cursor={}", next.as_str().unwrap()),
        }
    }
    assert_eq!((pages, seen.len()), (5, 46));
    let order: Vec<_> = seen.iter().map(|item| item["decidedAt"].as_str().unwrap()).collect();
    assert!(order.is_sorted_by(|newer, older| newer >= older));

    // An item is the decision as on its topic, with its outcome or null.
    let newest = seen.iter().find(|item| item["key"] == "a").unwrap();
    let mut expected = decision("a", 23);
    expected["outcome"] = outcome("a", 23);
    assert_eq!(newest, &expected);
    assert!(seen.iter().filter(|item| item["key"] == "b").all(|item| item["outcome"].is_null()));

    let some = "/v1/decisions?loop=dial&key=b&from=2026-01-02T03:04:05.678Z&to=2026-01-02T04:05:00%2B01:00";
    let some: Value = console.get(some).await.json().await.unwrap();
    let sequences: Vec<_> =
        some["items"].as_array().unwrap().iter().map(|i| i["sequence"].as_u64()).collect();
    assert_eq!(sequences, [Some(2), Some(1)]);
}

#[tokio::test]
async fn everything_wrong_with_a_query_is_told_at_once() {
    let (_own, database) = TestDatabase::migrated().await;
    let console = Running::start(Settings::default(), database).await;
    let query = "/v1/decisions?limit=0&from=yesterday&cursor=xyz&colour=red&key=&loop=a%00b&to=2026-01-02T00:00:00Z\
                 &to=2026-01-03T00:00:00Z";
    let document = problem(console.get(query).await, 400, "bad-parameters").await;
    let named: Vec<_> =
        document["errors"].as_array().unwrap().iter().map(|e| e["parameter"].as_str().unwrap()).collect();
    assert_eq!(named, ["limit", "from", "cursor", "colour", "key", "loop", "to"]);
    let backwards = "/v1/decisions?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z";
    problem(console.get(backwards).await, 400, "bad-parameters").await;
    problem(console.get("/v1/decisions?limit=501").await, 400, "bad-parameters").await;
    problem(console.get("/v1/decisions/not-an-id").await, 400, "bad-parameters").await;
    let unknown = format!("/v1/decisions/{}", decision_id("nobody", 1));
    problem(console.get(&unknown).await, 404, "not-found").await;
}

#[tokio::test]
async fn without_the_database_finished_decisions_are_still_shown_and_the_rest_says_when_to_come_back() {
    let (own, database) = TestDatabase::migrated().await;
    fill(&database, &[decision("a", 1), decision("a", 2)], &[outcome("a", 1)]).await;
    let console = Running::start(Settings::default(), database).await;
    let finished = format!("/v1/decisions/{}", decision_id("a", 1));
    let open = format!("/v1/decisions/{}", decision_id("a", 2));
    let before: Value = console.get(&finished).await.json().await.unwrap();
    assert_eq!(before["outcome"]["status"], "applied");
    assert_eq!(console.get(&open).await.json::<Value>().await.unwrap()["outcome"], Value::Null);

    drop(own);
    let after = console.get(&finished).await;
    assert_eq!(after.status(), 200);
    assert_eq!(after.headers()["content-type"], "application/json");
    assert_eq!(after.json::<Value>().await.unwrap(), before);
    problem(console.get(&open).await, 503, "database-unavailable").await;
    problem(console.get("/v1/decisions").await, 503, "database-unavailable").await;
}

#[tokio::test]
async fn a_server_that_was_never_there_is_a_problem_of_the_request_not_of_the_process() {
    // A port nobody listens on: bound and let go.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = postgres::Settings {
        url: format!("postgres://nobody@127.0.0.1:{free}/nothing").into(),
        acquire_timeout: Duration::from_millis(300),
        ..postgres::Settings::default()
    };
    let database = postgres::Database::connect(&settings).unwrap();
    let console = Running::start(Settings::default(), database.clone()).await;
    let part = console.health.part("database");
    let watching = tokio::spawn(database.watch(part, console.shutdown.clone()));
    problem(console.get("/v1/decisions").await, 503, "database-unavailable").await;
    let reasons = super::support::until("the reason to be told", || async {
        let readiness: Value = console.get("/readyz").await.json().await.unwrap();
        let reason = readiness["reasons"][0]["reason"].as_str().unwrap().to_owned();
        (reason != "starting").then_some((readiness["ready"].clone(), reason))
    })
    .await;
    assert_eq!(reasons.0, false);
    assert!(reasons.1.contains(&format!("127.0.0.1:{free}")) && reasons.1.contains("refused"), "{reasons:?}");
    assert_eq!(console.get("/healthz").await.status(), 200);
    console.shutdown.cancel();
    watching.await.unwrap();
}
