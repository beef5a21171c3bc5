//! The event analytics query, in the seed's shape with its quirks.

use reqwest::{Method, Response};
use serde_json::{Value, json};
use simulator::{Scenario, Settings};

use crate::tenant::{Tenant, assert_refused, settings};

const PATH: &str = "/api/v2/analytics/events/details/query";

async fn organization() -> Tenant {
    let tenant = Tenant::start(Settings { scenario: Scenario::default(), ..settings() }).await;
    for number in 1..=4 {
        let types = json!({"eventTypes": [
            {"name": "customer.end", "eventsPerMinute": 10 * number, "latencyMs": 100 * number},
            {"name": "flow.end", "eventsPerMinute": 1, "latencyMs": 40_000.5},
        ]});
        tenant.control(Method::PUT, &format!("/consumer-groups/group-{number}"), types).await;
    }
    tenant
}

fn query(filter: &str) -> Value {
    json!({
        "dateFrom": "2026-01-02T03:00:00Z", "dateTo": "2026-01-02T04:00:00Z", "interval": "PT1H",
        "metrics": ["eventCount", "processingLatency"], "groupings": ["consumerGroup", "eventType"],
        "filter": filter,
    })
}

async fn ask(tenant: &Tenant, query: &Value) -> Response {
    tenant.request(Method::POST, PATH).json(query).send().await.unwrap()
}

async fn answer(tenant: &Tenant, query: &Value) -> Value {
    let reply = ask(tenant, query).await;
    assert_eq!(reply.status().as_u16(), 200);
    reply.json().await.unwrap()
}

#[tokio::test]
async fn the_reply_is_the_seeds_and_follows_what_was_set() {
    let tenant = organization().await;
    let body = answer(&tenant, &query("consumerGroup IN ['group-2']")).await;
    assert_eq!(
        body,
        json!({
            "totalCount": 2, "pageSize": 100, "pageToken": "", "nextPage": "",
            "metrics": ["eventCount", "processingLatency"], "entity": "event", "interval": "PT1H",
            "dateFrom": "2026-01-02T03:00:00.000Z", "dateTo": "2026-01-02T04:00:00.000Z",
            "groupings": ["consumerGroup", "eventType"],
            "columns": [
                {"name": "consumerGroup", "type": "string"}, {"name": "eventType", "type": "string"},
                {"name": "eventCount", "type": "integer"}, {"name": "processingLatency", "type": "number"},
            ],
            "rows": [
                {"consumerGroup": "group-2", "eventType": "customer.end", "eventCount": 1_200, "processingLatency": 200.0},
                {"consumerGroup": "group-2", "eventType": "flow.end", "eventCount": 60, "processingLatency": 40_000.5},
            ],
        })
    );
    let types = json!({"eventTypes": [{"name": "customer.end", "eventsPerMinute": 5, "latencyMs": 31_000}]});
    tenant.control(Method::PUT, "/consumer-groups/group-2", types).await;
    let body = answer(&tenant, &query("consumerGroup IN [{'group-2', 'unknown'}]")).await;
    assert_eq!((&body["totalCount"], &body["rows"][0]["processingLatency"]), (&json!(1), &json!(31_000.0)));
    tenant.control(Method::DELETE, "/consumer-groups/group-2", Value::Null).await;
    assert_eq!(answer(&tenant, &query("consumerGroup IN ['group-2']")).await["rows"], json!([]));
    let quoted = answer(&tenant, &query(r"consumerGroup IN ['agent\'s-desktop']")).await;
    assert_eq!(quoted["totalCount"], 3);
    let mut all = query("");
    all.as_object_mut().unwrap().remove("filter");
    assert_eq!(answer(&tenant, &all).await["totalCount"], 15 + 6);
}

#[tokio::test]
async fn pages_go_on_while_there_is_a_next_one_and_can_go_wrong() {
    let tenant = organization().await;
    let filter = "consumerGroup IN ['group-1', 'group-2', 'group-3', 'group-4']";
    let mut asked = query(filter);
    asked["pageSize"] = json!(3);
    let (mut rows, mut pages) = (Vec::new(), 0);
    loop {
        let body = answer(&tenant, &asked).await;
        rows.extend(body["rows"].as_array().unwrap().clone());
        pages += 1;
        assert_eq!(body["totalCount"], 8);
        if body["nextPage"] == "" {
            break;
        }
        asked["pageToken"] = body["pageToken"].clone();
    }
    assert_eq!((rows.len(), pages), (8, 3));
    assert_eq!(rows, answer(&tenant, &query(filter)).await["rows"].as_array().unwrap().clone());

    let manners = json!({"repeatPageToken": true, "metricsAsObjects": true, "badRows": 1});
    tenant.control(Method::PUT, "/event-analytics", manners).await;
    let first = answer(&tenant, &asked).await;
    assert_eq!(first["metrics"], json!([{"name": "eventCount"}, {"name": "processingLatency"}]));
    assert!(first["rows"][0]["eventCount"].is_string() && first["rows"][1]["eventCount"].is_u64());
    asked["pageToken"] = json!("");
    let token = answer(&tenant, &asked).await["pageToken"].clone();
    asked["pageToken"] = token.clone();
    assert_eq!(answer(&tenant, &asked).await["pageToken"], token, "the same for ever");
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused() {
    let tenant = organization().await;
    for (member, value) in [
        ("dateTo", json!("2026-01-03T03:00:00.001Z")),
        ("dateTo", json!("2026-01-02T03:00:00Z")),
        ("interval", json!("1h")),
        ("metrics", json!([])),
        ("metrics", json!(["errors"])),
        ("groupings", json!(["eventType"])),
        ("filter", json!("consumerGroup = 'a'")),
        ("filter", json!("consumerGroup IN ['agent's-desktop']")),
        ("pageSize", json!(1_001)),
        ("pageToken", json!("nonsense")),
    ] {
        let mut bad = query("");
        bad[member] = value;
        assert_refused(ask(&tenant, &bad).await, 400, "invalid.value").await;
    }
    let mut objects = query("");
    objects["metrics"] = json!([{"name": "eventCount"}]);
    answer(&tenant, &objects).await;
    for bad in [
        json!({}),
        json!({"eventTypes": [{"name": ""}]}),
        json!({"eventTypes": [{"name": "a"}, {"name": "a"}]}),
        json!({"eventTypes": [{"name": "a", "latencyMs": -1}]}),
    ] {
        let put = tenant.http.put(tenant.url("/simulator/consumer-groups/x")).json(&bad);
        assert_eq!(put.send().await.unwrap().status().as_u16(), 400, "{bad}");
    }
    for scope in ["analytics:events:read", "platform:eventstream:read"] {
        let mut lacking = settings();
        lacking.clients[0].scopes.remove(scope);
        let tenant = Tenant::start(lacking).await;
        let body = assert_refused(ask(&tenant, &query("")).await, 403, "missing.permissions").await;
        assert!(body["message"].as_str().unwrap().contains(scope));
    }
    let fault = json!({"type": "status", "code": 429, "retryAfter": "int", "seconds": 5});
    tenant.set_faults(json!([{ "match": {"path": PATH}, "fault": fault }])).await;
    let reply = ask(&tenant, &query("")).await;
    assert_eq!(reply.headers()["retry-after"], "5");
}
