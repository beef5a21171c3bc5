//! How consumer groups are, over HTTP.

use serde_json::{Value, json};
use trunkline::console::Settings;
use trunkline::model::Timestamp;
use trunkline::model::lag::LagEvaluation;
use trunkline::postgres::Database;

use super::support::postgres::TestDatabase;
use super::{Running, problem};

fn evaluation(group: &str, observed_at: &str, valid_until: &str) -> LagEvaluation {
    let text = include_str!("../../schemas/examples/trunkline.lag-status.v1/error.json");
    let mut evaluation: LagEvaluation = serde_json::from_str(text).unwrap();
    evaluation.consumer_group = group.to_owned();
    evaluation.observed_at = observed_at.parse().unwrap();
    evaluation.valid_until = valid_until.parse().unwrap();
    evaluation
}

async fn put(database: &Database, evaluations: &[LagEvaluation]) {
    database.put_lag_status("", &[], &evaluations.iter().collect::<Vec<_>>()).await.expect("is written");
}

const FUTURE: &str = "2999-01-01T00:00:00.000Z";

#[tokio::test]
async fn groups_are_told_with_status_lag_age_and_reasons_and_an_autoscaler_gets_its_number() {
    let (_own, database) = TestDatabase::migrated().await;
    let groups = ["a", "b c", "elsewhere:d"];
    let all: Vec<_> =
        groups.iter().map(|group| evaluation(group, "2026-01-02T03:04:05.678Z", FUTURE)).collect();
    put(&database, &all).await;
    let analytics = LagEvaluation {
        replicas: None,
        lag: None,
        ..evaluation("analytics", "2026-01-02T03:04:05.678Z", FUTURE)
    };
    put(&database, &[analytics]).await;
    let console = Running::start(Settings::default(), database).await;

    let page: Value = console.get("/v1/lag?limit=2").await.json().await.unwrap();
    let first = &page["items"][0];
    assert_eq!(
        (&first["group"], &first["status"], &first["lag"]),
        (&json!("a"), &json!("ERROR"), &json!(5400))
    );
    assert_eq!((&first["age_seconds"], &first["replicas"]), (&json!(41.2), &json!(3)));
    assert_eq!(first["reasons"], json!(["age_over_error (2, trunkline.campaign-windows.v1/3)"]));
    let next = page["next"].as_str().expect("another page");
    let rest: Value = console.get(&format!("/v1/lag?cursor={next}")).await.json().await.unwrap();
    let names: Vec<_> = rest["items"].as_array().unwrap().iter().map(|item| item["group"].clone()).collect();
    assert_eq!((names, &rest["next"]), (vec![json!("b c"), json!("elsewhere:d")], &Value::Null));

    let one: Value = console.get("/v1/lag/b%20c").await.json().await.unwrap();
    assert_eq!(one["evaluation"]["consumerGroup"], "b c");
    let replicas: Value = console.get("/v1/lag/elsewhere:d/replicas").await.json().await.unwrap();
    assert_eq!(replicas, json!({"replicas": 3}));
    problem(console.get("/v1/lag/analytics/replicas").await, 404, "not-found").await;
    problem(console.get("/v1/lag/a%00b").await, 400, "bad-parameters").await;
    for unknown in ["/v1/lag/nobody", "/v1/lag/nobody/replicas"] {
        problem(console.get(unknown).await, 404, "not-found").await;
    }
    for wrong in ["/v1/lag?limit=0", "/v1/lag?limit=1001", "/v1/lag?colour=red", "/v1/lag?limit=1&limit=2"] {
        problem(console.get(wrong).await, 400, "bad-parameters").await;
    }
}

#[tokio::test]
async fn what_nobody_hears_of_any_more_is_unknown_and_then_not_listed() {
    let (_own, database) = TestDatabase::migrated().await;
    let minutes_ago = |minutes: u64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let then = now - std::time::Duration::from_secs(60 * minutes);
        Timestamp::from_millis(then.as_millis() as i64).to_string()
    };
    let silent = evaluation("silent", "2026-01-02T03:04:05.678Z", &minutes_ago(5));
    let gone = evaluation("gone", "2026-01-02T03:04:05.678Z", &minutes_ago(120));
    put(&database, &[silent, gone]).await;
    // An older evaluation that comes late changes nothing.
    put(&database, &[evaluation("silent", "2026-01-02T03:04:05.677Z", FUTURE)]).await;
    let console = Running::start(Settings::default(), database.clone()).await;
    let page: Value = console.get("/v1/lag").await.json().await.unwrap();
    let seen: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (item["group"].as_str().unwrap(), item["status"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("silent", "UNKNOWN")]);
    assert!(page["items"][0]["reasons"][0].as_str().unwrap().starts_with("not_observed_since"), "{page}");
    let gone: Value = console.get("/v1/lag/gone").await.json().await.unwrap();
    assert_eq!(gone["status"], "UNKNOWN");
    assert_eq!(database.prune_lag_status().await.unwrap(), 0, "kept for a week");
}

#[tokio::test]
async fn pages_go_on_behind_any_name() {
    let (_own, database) = TestDatabase::migrated().await;
    let long = "x".repeat(600);
    let groups = ["a\nb", "a\"b'c\\", "\u{7f}\t", "ä&cursor=1#%00", "…", &long, &format!("{long}y")];
    let all: Vec<_> =
        groups.iter().map(|group| evaluation(group, "2026-01-02T03:04:05.678Z", FUTURE)).collect();
    put(&database, &all).await;
    let console = Running::start(Settings::default(), database).await;
    let (mut told, mut cursor) = (Vec::new(), String::new());
    for page in 0.. {
        assert!(page <= groups.len(), "it does not end: {told:?}");
        let page: Value = console.get(&format!("/v1/lag?limit=1{cursor}")).await.json().await.unwrap();
        told.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["group"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        assert!(next.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{next}");
        cursor = format!("&cursor={next}");
    }
    told.sort_unstable();
    let mut expected: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
    expected.sort_unstable();
    assert_eq!(told, expected);
    // Not one of ours, not UTF-8, and a NUL in it.
    for wrong in ["a%20b", "_w", "YQBi"] {
        problem(console.get(&format!("/v1/lag?cursor={wrong}")).await, 400, "bad-parameters").await;
    }
}
