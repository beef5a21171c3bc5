//! The load of interactions that ask a decision service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use reqwest::Method;
use serde_json::{Value, json};

use crate::flows::{flow, measures};
use crate::tenant::{Tenant, settings};

/// What came to the service: configuration, conversation, authorization.
type Asked = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

/// Answers every tenth question with 503.
async fn decide(
    State(asked): State<Asked>,
    Path(configuration): Path<String>,
    headers: HeaderMap,
    body: axum::Json<Value>,
) -> Response {
    let conversation = body["conversationId"].as_str().unwrap().to_owned();
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let number = {
        let mut asked = asked.lock().unwrap();
        asked.push((configuration.clone(), conversation.clone(), authorization));
        asked.len()
    };
    if number.is_multiple_of(10) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let destination = if number.is_multiple_of(2) { "north" } else { "south" };
    axum::Json(json!({
        "conversationId": conversation, "configurationId": configuration, "destinationId": destination,
        "revision": 3, "sequence": number, "source": "exact", "decidedAt": "2026-01-02T03:04:05.678Z",
    }))
    .into_response()
}

async fn service() -> (String, Asked) {
    let asked = Asked::default();
    let router = Router::new().route("/v1/routes/{configuration}/decisions", post(decide));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = router.with_state(asked.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, asked)
}

async fn until(tenant: &Tenant, reached: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let standing = tenant.control(Method::GET, "/decisions", Value::Null).await;
        if reached(&standing) {
            return standing;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{standing}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_question_is_asked_and_every_answer_recorded() {
    let tenant = Tenant::start(settings()).await;
    let ((one, asked_one), (other, asked_other)) = (service().await, service().await);
    let load = json!({
        "to": [one, other], "key": "k", "configurationIds": ["a", "b"], "ratePerSecond": 2_000,
        "repeatShare": 0.1, "concurrency": 16, "timeoutMs": 30_000, "limit": 600,
    });
    let started = tenant.control(Method::POST, "/decisions", load.clone()).await;
    assert!(started["settings"].get("key").is_none(), "the key is not shown");
    let standing = until(&tenant, |standing| {
        standing["answered"].as_u64().unwrap() + standing["failed"].as_u64().unwrap() == 600
    })
    .await;
    assert_eq!((&standing["running"], &standing["asked"]), (&json!(false), &json!(600)));
    assert_eq!(standing["sources"]["exact"], standing["answered"]);
    let p99 = standing["latencyMs"]["p99"].as_f64();
    assert!(p99.is_some_and(|p99| p99 > 0.0), "{standing}");

    let asked: Vec<_> = [asked_one, asked_other].iter().flat_map(|it| it.lock().unwrap().clone()).collect();
    assert!(asked.iter().all(|(.., key)| key.as_deref() == Some("Bearer k")));
    let mut by_service: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (configuration, conversation, _) in asked {
        *by_service.entry((configuration, conversation)).or_default() += 1;
    }
    let page = tenant.control(Method::GET, "/decisions/answers", Value::Null).await;
    let answers = page["items"].as_array().unwrap();
    let mut by_load: BTreeMap<(String, String), usize> = BTreeMap::new();
    for answer in answers {
        let text = |name: &str| answer[name].as_str().unwrap().to_owned();
        *by_load.entry((text("configurationId"), text("conversationId"))).or_default() += 1;
    }
    assert_eq!(by_load, by_service);
    let repeats = answers.iter().filter(|answer| answer["repeat"] == true).count();
    assert!((30..95).contains(&repeats), "{repeats}");
    let failed = answers.iter().filter(|answer| answer["problem"] == "status 503").count();
    assert_eq!(standing["failed"], failed);
    assert!(failed >= 59);
    let answered = answers.iter().find(|answer| answer["source"] == "exact").unwrap();
    assert_eq!((&answered["revision"], answered["sequence"].is_u64()), (&json!(3), true));
    let second = tenant.control(Method::GET, "/decisions/answers?since=590&limit=5", Value::Null).await;
    assert_eq!((second["items"].as_array().unwrap().len(), &second["next"]), (5, &json!(595)));
}

#[tokio::test]
async fn a_dispatcher_sends_each_conversation_through_the_flow_it_is_answered() {
    let scenario = simulator::Scenario::default();
    let tenant = Tenant::start(simulator::Settings { scenario, ..settings() }).await;
    let flows = ["Main menu", "Billing"].map(flow);
    let quiet = json!({"interactionsPerMinute": 0.0, "abandonRate": 0.0});
    for flow in &flows {
        tenant.control(Method::PUT, &format!("/flows/{flow}"), quiet.clone()).await;
    }
    // The second one's version in force is bad.
    tenant.control(Method::POST, &format!("/flows/{}/publish", flows[1]), json!({"errorRate": 0.5})).await;
    let (asked, given) = (Asked::default(), flows.clone());
    let decide =
        move |State(asked): State<Asked>, Path(configuration): Path<String>, body: axum::Json<Value>| {
            let number = {
                let mut asked = asked.lock().unwrap();
                let conversation = body["conversationId"].as_str().unwrap().to_owned();
                asked.push((configuration, conversation, None));
                asked.len()
            };
            let destination = given[number % 2].clone();
            async move { axum::Json(json!({"destinationId": destination, "source": "exact"})) }
        };
    let router = Router::new().route("/v1/routes/{configuration}/decisions", post(decide)).with_state(asked);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let load = json!({
        "to": [url], "configurationIds": ["menu"], "ratePerSecond": 2_000, "repeatShare": 0.0,
        "timeoutMs": 30_000, "limit": 400, "dispatch": true, "defaultFlowId": flows[0],
    });
    tenant.control(Method::POST, "/decisions", load).await;
    until(&tenant, |standing| standing["answered"] == 400).await;
    tenant.control(Method::POST, "/clock/advance?seconds=900", Value::Null).await;
    let [(good, few), (bad, many)] = [
        measures(&tenant, json!({"type": "flow", "id": flows[0]})).await,
        measures(&tenant, json!({"type": "flow", "id": flows[1]})).await,
    ];
    assert_eq!((good, bad), (200, 200), "each goes through one flow, once");
    assert!(few <= 20 && (60..140).contains(&many), "{few} and {many} errors");
}

#[tokio::test]
async fn a_load_is_stopped_and_nobody_there_is_a_failure() {
    let tenant = Tenant::start(settings()).await;
    let load = json!({
        "to": ["http://127.0.0.1:9"], "configurationIds": ["a"], "ratePerSecond": 200, "concurrency": 4,
    });
    tenant.control(Method::POST, "/decisions", load.clone()).await;
    let again = tenant.http.post(tenant.url("/simulator/decisions")).json(&load).send().await.unwrap();
    assert_eq!(again.status().as_u16(), 400, "one at a time");
    until(&tenant, |standing| standing["failed"].as_u64().unwrap() > 5).await;
    let stopped = tenant.control(Method::DELETE, "/decisions", Value::Null).await;
    assert_eq!((&stopped["running"], &stopped["answered"]), (&json!(false), &json!(0)));
    assert!(stopped["lastProblem"].is_string());
    tenant.control(Method::POST, "/decisions", load).await;
    for bad in [json!({}), json!({"to": ["x"]}), json!({"rate": 1})] {
        let reply = tenant.http.post(tenant.url("/simulator/decisions")).json(&bad).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 400, "{bad}");
    }
    tokio::time::timeout(Duration::from_secs(10), tenant.running.shutdown()).await.expect("bounded");
}
