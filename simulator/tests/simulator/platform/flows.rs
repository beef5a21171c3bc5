//! Architect flows: versions, and publishing that takes a while, fails, or is refused.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{DEMO_CLIENT_ID, Scenario};

use super::{advance, assert_error, organization, send};
use crate::tenant::Tenant;

fn flow_id(name: &str) -> String {
    Scenario::default().flows.into_iter().find(|flow| flow.name == name).unwrap().id
}

async fn flow(tenant: &Tenant, id: &str) -> Value {
    let (status, flow) = send(tenant, Method::GET, &format!("/api/v2/flows/{id}"), &Value::Null).await;
    assert_eq!(status, 200, "{flow}");
    flow
}

async fn publish(tenant: &Tenant, id: &str, version: &str) -> (u16, Value) {
    send(
        tenant,
        Method::POST,
        &format!("/api/v2/flows/actions/publish?flow={id}&version={version}"),
        &Value::Null,
    )
    .await
}

/// Asks until the flow's operation is complete.
async fn completed(tenant: &Tenant, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let flow = flow(tenant, id).await;
        if flow["currentOperation"]["complete"] == true {
            return flow;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never complete: {flow}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn versions_come_in_pages_newest_first_without_those_that_are_deleted() {
    let tenant = organization().await;
    let id = flow_id("Main menu");
    let path = format!("/api/v2/flows/{id}/versions");
    let (status, first) =
        send(&tenant, Method::GET, &format!("{path}?pageSize=3&pageNumber=1"), &Value::Null).await;
    let ids = |page: &Value| -> Vec<String> {
        page["entities"].as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((status, ids(&first)), (200, vec!["12.0".into(), "11.0".into(), "10.0".into()]));
    assert_eq!(
        (&first["total"], &first["pageCount"], &first["pageNumber"], &first["pageSize"]),
        (&json!(4), &json!(2), &json!(1), &json!(3))
    );
    let next = first["nextUri"].as_str().unwrap().to_owned();
    let (_, second) = send(&tenant, Method::GET, &next, &Value::Null).await;
    assert_eq!(ids(&second), ["9.0"]);
    assert!(second.get("nextUri").is_none());
    let (in_force, never) = (&first["entities"][0], &second["entities"][0]);
    assert!(in_force["dateCreated"].is_i64() && in_force["datePublished"].is_string());
    assert!(
        in_force.get("datePublishedEnd").is_none() && first["entities"][1]["datePublishedEnd"].is_string()
    );
    assert_eq!((&never["type"], never.get("datePublished")), (&json!("CHECKIN"), None));
    for wrong in ["pageSize=101", "pageSize=0", "pageNumber=0", "pageSize=x"] {
        let refused = send(&tenant, Method::GET, &format!("{path}?{wrong}"), &Value::Null).await;
        assert_error(&refused, 400, "invalid.value");
    }
    let (status, one) = send(&tenant, Method::GET, &format!("{path}/11.0"), &Value::Null).await;
    assert_eq!((status, &one), (200, &first["entities"][1]));
    assert_error(&send(&tenant, Method::GET, &format!("{path}/8.0"), &Value::Null).await, 404, "not.found");
}

#[tokio::test]
async fn a_publish_is_an_operation_that_takes_its_time_and_is_logged_when_it_has_ended() {
    let tenant = organization().await;
    let id = flow_id("Main menu");
    tenant.control(Method::PUT, "/platform", json!({"publishMs": 0, "publishSimulatedSeconds": 3})).await;
    let (status, operation) = publish(&tenant, &id, "11.0").await;
    assert_eq!(
        (status, &operation["complete"], &operation["actionStatus"]),
        (200, &json!(false), &json!("STARTED"))
    );
    assert_eq!(
        (&operation["actionName"], &operation["client"]["id"]),
        (&json!("PUBLISH"), &json!(DEMO_CLIENT_ID))
    );
    advance(&tenant, 2).await;
    let running = flow(&tenant, &id).await;
    assert_eq!(
        (&running["currentOperation"], &running["publishedVersion"]["id"]),
        (&operation, &json!("12.0"))
    );
    assert_error(&publish(&tenant, &id, "10.0").await, 409, "general.conflict");
    advance(&tenant, 1).await;
    let done = flow(&tenant, &id).await;
    assert_eq!(
        (&done["currentOperation"]["actionStatus"], &done["currentOperation"]["id"]),
        (&json!("SUCCESS"), &operation["id"])
    );
    assert_eq!(
        (&done["publishedVersion"]["id"], &done["checkedInVersion"]["id"]),
        (&json!("11.0"), &json!("12.0"))
    );
    let log = tenant.log().await;
    let effects: Vec<&Value> = log.iter().filter(|entry| !entry["effect"].is_null()).collect();
    let [entry] = effects[..] else { panic!("one publish, not {effects:?}") };
    assert_eq!((&entry["origin"], &entry["client"]), (&json!("operation"), &json!(DEMO_CLIENT_ID)));
    assert_eq!(
        (&entry["effect"]["fromVersion"], &entry["effect"]["toVersion"]),
        (&json!("12.0"), &json!("11.0"))
    );
}

#[tokio::test]
async fn a_publish_by_the_machines_clock_may_lose_its_reply_or_fail() {
    let tenant = organization().await;
    let id = flow_id("Billing");
    tenant.control(Method::PUT, "/platform", json!({"publishMs": 30})).await;
    tenant.set_faults(json!([{"match": {"path": "/api/v2/flows/actions"}, "times": 1, "fault": {"type": "drop_after_effect"}}])).await;
    let path = format!("/api/v2/flows/actions/publish?flow={id}&version=1.0");
    assert!(tenant.request(Method::POST, &path).send().await.is_err());
    assert_eq!(completed(&tenant, &id).await["publishedVersion"]["id"], "1.0");

    tenant.control(Method::PUT, "/platform", json!({"publishFails": true})).await;
    assert_eq!(publish(&tenant, &id, "2.0").await.0, 200);
    let failed = completed(&tenant, &id).await;
    assert_eq!(
        (&failed["publishedVersion"]["id"], &failed["currentOperation"]["actionStatus"]),
        (&json!("1.0"), &json!("FAILURE"))
    );
    for member in ["errorCode", "errorMessage", "errorDetails"] {
        assert!(!failed["currentOperation"][member].is_null(), "{member}: {failed}");
    }
}

#[tokio::test]
async fn a_publish_is_refused_while_it_cannot_be() {
    let tenant = organization().await;
    let id = flow_id("Main menu");
    let lock = format!("/flows/{id}/lock");
    tenant
        .control(
            Method::PUT,
            &lock,
            json!({"userId": "5f0e1d2c-3b4a-4958-8776-655443322107", "name": "A Person"}),
        )
        .await;
    let refused = publish(&tenant, &id, "11.0").await;
    assert_error(&refused, 409, "general.conflict");
    assert_eq!(
        (&refused.1["message"], &refused.1["entityId"]),
        (&json!("Flow is locked by another user"), &json!(id))
    );
    assert_eq!(flow(&tenant, &id).await["lockedUser"]["name"], "A Person");
    let (status, unlocked) =
        send(&tenant, Method::POST, &format!("/api/v2/flows/actions/unlock?flow={id}"), &Value::Null).await;
    assert_eq!((status, unlocked.get("lockedUser")), (200, None));
    tenant.control(Method::PUT, &lock, json!({"clientId": "somebody-else"})).await;
    assert_error(&publish(&tenant, &id, "11.0").await, 409, "general.conflict");
    tenant.control(Method::PUT, &lock, json!({"clientId": DEMO_CLIENT_ID})).await;
    assert_eq!(flow(&tenant, &id).await["lockedClient"]["id"], DEMO_CLIENT_ID);
    for (version, status, code) in
        [("9.0", 405, "flow.not.publishable"), ("8.0", 404, "not.found"), ("99.0", 404, "not.found")]
    {
        assert_error(&publish(&tenant, &id, version).await, status, code);
    }
    assert_error(&publish(&tenant, "nothing", "1.0").await, 404, "not.found");
    let nameless =
        send(&tenant, Method::POST, "/api/v2/flows/actions/publish?version=11.0", &Value::Null).await;
    assert_error(&nameless, 400, "bad.request");
    assert_eq!(publish(&tenant, &id, "11.0").await.0, 200, "one's own lock is no hindrance");
    tenant.control(Method::PUT, &format!("/flows/{}/deleted", flow_id("Billing")), json!(true)).await;
    assert_error(&publish(&tenant, &flow_id("Billing"), "1.0").await, 410, "flow.deleted");
}
