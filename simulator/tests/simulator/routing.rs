//! Queues' availability and the publish of a routing configuration.

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Scenario, Settings};

use crate::tenant::{Tenant, assert_refused, settings};

async fn organization() -> Tenant {
    Tenant::start(Settings { scenario: Scenario::default(), ..settings() }).await
}

fn path(queue_id: &str) -> String {
    format!("/api/v2/analytics/queues/{queue_id}/availability")
}

async fn percentage(tenant: &Tenant, queue_id: &str) -> f64 {
    let body: Value = tenant.get(&path(queue_id)).await.json().await.unwrap();
    assert_eq!(body["queueId"], *queue_id);
    body["availabilityPercentage"].as_f64().unwrap()
}

#[tokio::test]
async fn availability_changes_by_itself_and_by_hand() {
    let tenant = organization().await;
    let id = Scenario::default().queues[0].id.clone();
    let mut seen = Vec::new();
    for _ in 0..30 {
        tenant.control(Method::POST, "/clock/advance?seconds=60", Value::Null).await;
        seen.push(percentage(&tenant, &id).await);
    }
    assert!(seen.iter().all(|it| (0.0..=100.0).contains(it)));
    assert!(seen.iter().any(|it| *it != seen[0]), "{seen:?}");
    let pin = json!({"availabilityPercentage": 0});
    tenant.control(Method::PUT, &format!("/queues/{id}"), pin).await;
    tenant.control(Method::POST, "/clock/advance?seconds=600", Value::Null).await;
    assert_eq!(percentage(&tenant, &id).await, 0.0);
    let listed = tenant.control(Method::GET, "/queues", Value::Null).await;
    let queue = listed["items"].as_array().unwrap().iter().find(|queue| queue["id"] == *id).unwrap();
    assert_eq!((&queue["pinned"], &queue["name"]), (&json!(true), &json!("Service")));
    tenant.control(Method::PUT, &format!("/queues/{id}"), json!({"availabilityPercentage": null})).await;
    assert!(percentage(&tenant, &id).await > 0.0);
    assert_refused(tenant.get(&path("nothing")).await, 404, "not.found").await;
    let without_token = tenant.http.get(tenant.url(&path(&id))).send().await.unwrap();
    assert_refused(without_token, 401, "authentication.required").await;
}

#[tokio::test]
async fn a_configuration_is_published_with_all_scopes_and_logged() {
    let publish = "/api/v2/routing/configuration/weighted/publish";
    let body = json!({
        "name": "Weighted sales", "routingType": "SINGLE_QUEUE", "target": {"type": "QUEUE_ID", "id": "q"},
    });
    for scope in ["routing:read", "routing:write", "apps:read"] {
        let mut lacking = settings();
        lacking.clients[0].scopes.remove(scope);
        let tenant = Tenant::start(lacking).await;
        let reply = tenant.request(Method::POST, publish).json(&body).send().await.unwrap();
        let refused = assert_refused(reply, 403, "missing.permissions").await;
        assert!(refused["message"].as_str().unwrap().contains(scope));
    }
    let tenant = organization().await;
    let reply = tenant.request(Method::POST, publish).json(&body).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    let shown: Value = reply.json().await.unwrap();
    assert_eq!(
        (&shown["id"], &shown["status"], &shown["target"]),
        (&json!("weighted"), &json!("ENABLED"), &body["target"])
    );
    for (member, value) in [
        ("name", json!("")),
        ("routingType", json!("BULLSEYE")),
        ("target", json!({"type": "USER_ID", "id": "q"})),
        ("target", json!({"type": "QUEUE_ID", "id": ""})),
    ] {
        let mut bad = body.clone();
        bad[member] = value;
        let reply = tenant.request(Method::POST, publish).json(&bad).send().await.unwrap();
        assert_refused(reply, 400, "invalid.value").await;
    }
    let fault = json!({"type": "drop_after_effect"});
    tenant.set_faults(json!([{ "match": {"path": "/api/v2/routing"}, "fault": fault }])).await;
    assert!(tenant.request(Method::POST, publish).json(&body).send().await.is_err());
    let effects: Vec<Value> = tenant
        .log()
        .await
        .into_iter()
        .map(|entry| entry["effect"].clone())
        .filter(|it| !it.is_null())
        .collect();
    let effect = json!({"configurationId": "weighted", "name": "Weighted sales", "targetId": "q"});
    assert_eq!(effects, [effect.clone(), effect]);
}
