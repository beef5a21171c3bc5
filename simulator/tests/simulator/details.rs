//! The details query of conversations, in the seed's shape.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use simulator::Settings;

use crate::tenant::{Tenant, assert_refused, settings};

const PATH: &str = "/api/v2/analytics/conversations/details/query";

fn id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// The seed documents' query for conversations `1..=count`.
fn query(count: usize) -> Value {
    json!({
        "interval": "PT1H",
        "groupBy": ["conversationId"],
        "filter": {
            "type": "conversation",
            "conversationIds": (1..=count).map(id).collect::<Vec<_>>(),
            "startTime": "2026-01-02T03:00:00Z",
            "endTime": "2026-01-02T04:00:00Z",
        },
        "metrics": [{ "name": "conversation.duration" }, { "name": "conversation.wrapup" }],
        "pageSize": 10,
    })
}

async fn register(tenant: &Tenant, numbers: std::ops::RangeInclusive<usize>, available_at: Option<&str>) {
    let items: Vec<Value> = numbers
        .map(|number| {
            let mut item = json!({
                "conversationId": id(number),
                "conversationStart": "2026-01-02T03:04:05.678Z",
                "conversationEnd": "2026-01-02T03:05:05.679Z",
                "wrapUpMs": 7_000,
                "flowId": "f",
            });
            if let Some(at) = available_at {
                item["availableAt"] = json!(at);
            }
            item
        })
        .collect();
    tenant.control(Method::POST, "/conversations", json!(items)).await;
}

async fn ask(tenant: &Tenant, query: &Value) -> Response {
    tenant.request(Method::POST, PATH).json(query).send().await.unwrap()
}

/// Ids of all pages, and how many pages there were.
async fn all(tenant: &Tenant, query: &Value) -> (Vec<String>, usize) {
    let mut reply = ask(tenant, query).await;
    let (mut ids, mut pages) = (Vec::new(), 0);
    loop {
        assert_eq!(reply.status().as_u16(), 200);
        let body: Value = reply.json().await.unwrap();
        pages += 1;
        let items = body["data"].as_array().unwrap();
        ids.extend(items.iter().map(|item| item["conversationId"].as_str().unwrap().to_owned()));
        let Some(next) = body.get("nextPageUri") else { return (ids, pages) };
        let next = next.as_str().unwrap();
        assert!(next.starts_with(&tenant.running.api_url()), "absolute: {next}");
        reply = tenant.http.get(next).bearer_auth(&tenant.token).send().await.unwrap();
    }
}

#[tokio::test]
async fn pages_hold_what_is_known_and_leave_the_unknown_out() {
    let tenant = Tenant::start(settings()).await;
    register(&tenant, 1..=25, None).await;
    let mut asked = query(30);
    asked["filter"]["conversationIds"].as_array_mut().unwrap().extend([json!("no uuid"), json!(id(1))]);
    assert_eq!(all(&tenant, &asked).await, ((1..=25).map(id).collect(), 3));

    let body: Value = ask(&tenant, &query(1)).await.json().await.unwrap();
    assert_eq!(
        body,
        json!({"data": [{
            "conversationId": id(1),
            "conversationStart": "2026-01-02T03:04:05.678Z",
            "conversationEnd": "2026-01-02T03:05:05.679Z",
            "mediaType": "voice",
            "originatingDirection": "inbound",
            "flowId": "f",
            "metrics": [
                {"name": "conversation.duration", "value": 60_001},
                {"name": "conversation.wrapup", "value": 7_000},
            ],
        }]})
    );
    let mut elsewhere = query(5);
    elsewhere["filter"]["startTime"] = json!("2026-01-02T03:30:00Z");
    assert_eq!(all(&tenant, &elsewhere).await, (vec![], 1));
}

#[tokio::test]
async fn short_pages_and_a_page_fetched_twice_lose_nothing() {
    let tenant = Tenant::start(settings()).await;
    register(&tenant, 1..=40, None).await;
    tenant.control(Method::PUT, "/details", json!({"shortPageShare": 0.8})).await;
    let (ids, pages) = all(&tenant, &query(40)).await;
    assert_eq!(ids, (1..=40).map(id).collect::<Vec<_>>());
    assert!(pages > 5, "{pages}");

    tenant.control(Method::PUT, "/details", json!({"shortPageShare": 0})).await;
    let first: Value = ask(&tenant, &query(15)).await.json().await.unwrap();
    let next = first["nextPageUri"].as_str().unwrap();
    for _ in 0..2 {
        let reply = tenant.http.get(next).bearer_auth(&tenant.token).send().await.unwrap();
        let body: Value = reply.json().await.unwrap();
        assert_eq!(body["data"].as_array().unwrap().len(), 5);
        assert!(body.get("nextPageUri").is_none());
    }
    for token in ["", "?pageToken=x", "?pageToken=00000000-0000-4000-8000-000000000000"] {
        assert_refused(tenant.get(&format!("{PATH}{token}")).await, 400, "invalid.value").await;
    }
}

#[tokio::test]
async fn conversations_appear_when_their_time_has_come() {
    let tenant = Tenant::start(settings()).await;
    register(&tenant, 1..=1, Some("2026-01-02T03:06:00Z")).await;
    register(&tenant, 2..=2, Some("2999-01-02T03:06:00Z")).await;
    assert_eq!(all(&tenant, &query(2)).await.0, [id(1)]);

    let manners = json!({"appearsAfterMs": 60_000, "lateShare": 0.5, "lateMs": 240_000});
    let set = tenant.control(Method::PUT, "/details", manners).await;
    assert_eq!((&set["lateMs"], &set["shortPageShare"]), (&json!(240_000), &json!(0.0)));
    register(&tenant, 3..=60, None).await;
    let page = tenant.control(Method::GET, "/conversations?since=2&limit=100", Value::Null).await;
    let late =
        |at: &str| page["items"].as_array().unwrap().iter().filter(|item| item["availableAt"] == at).count();
    let (soon, later) = (late("2026-01-02T03:06:05.679Z"), late("2026-01-02T03:09:05.679Z"));
    assert_eq!(soon + later, 58);
    assert!(soon > 10 && later > 10, "{soon} {later}");
    let http = &tenant.http;
    let refused =
        http.put(tenant.url("/simulator/details")).json(&json!({"lateShare": 2})).send().await.unwrap();
    assert_eq!(refused.status().as_u16(), 400);
}

#[tokio::test]
async fn queries_that_make_no_sense_are_refused() {
    let tenant = Tenant::start(settings()).await;
    for (pointer, value) in [
        ("/filter/type", json!("campaign")),
        ("/groupBy", json!(["queueId"])),
        ("/pageSize", json!(0)),
        ("/pageSize", json!(101)),
        ("/filter/conversationIds", json!([])),
        ("/filter/conversationIds", json!((0..101).map(id).collect::<Vec<_>>())),
        ("/filter/endTime", json!("2026-01-02T02:00:00Z")),
        ("/filter/endTime", json!("2026-03-02T02:00:00Z")),
    ] {
        let mut bad = query(1);
        *bad.pointer_mut(pointer).unwrap() = value;
        assert_refused(ask(&tenant, &bad).await, 400, "invalid.value").await;
    }
    assert_refused(ask(&tenant, &json!({})).await, 400, "bad.request").await;
    let reply = tenant.request(Method::PUT, PATH).json(&query(1)).send().await.unwrap();
    assert_refused(reply, 405, "method.not.allowed").await;
}

#[tokio::test]
async fn scopes_budget_and_faults_hold_here_too() {
    for scope in ["analytics:conversation:read", "analytics:details:read"] {
        let mut lacking = settings();
        lacking.clients[0].scopes.remove(scope);
        let tenant = Tenant::start(lacking).await;
        let body = assert_refused(ask(&tenant, &query(1)).await, 403, "missing.permissions").await;
        assert!(body["message"].as_str().unwrap().contains(scope));
    }
    let tenant = Tenant::start(Settings { requests_per_window: 3, ..settings() }).await;
    let fault = json!({"type": "status", "code": 500});
    tenant
        .set_faults(json!([{ "match": { "method": "POST", "path": PATH }, "times": 1, "fault": fault }]))
        .await;
    assert_refused(ask(&tenant, &query(1)).await, 500, "internal.server.error").await;
    assert_eq!(ask(&tenant, &query(1)).await.status().as_u16(), 200);
    assert_refused(tenant.get(PATH).await, 400, "invalid.value").await;
    assert_refused(ask(&tenant, &query(1)).await, 429, "too.many.requests").await;
    let lines: Vec<_> = tenant.log().await.iter().map(|entry| entry["status"].clone()).collect();
    assert_eq!(lines, [500, 200, 400, 429]);
}
