//! Architect flows: versions, activations one by one, measures, bad publishes.

use std::collections::BTreeMap;

use reqwest::{Method, Response};
use serde_json::{Value, json};
use simulator::{EventSettings, Scenario, Settings};

use crate::receiver::Receiver;
use crate::tenant::{Tenant, assert_refused, settings};

async fn organization() -> Tenant {
    Tenant::start(Settings { scenario: Scenario::default(), ..settings() }).await
}

/// Id of a flow of the built-in scenario.
pub(crate) fn flow(name: &str) -> String {
    Scenario::default().flows.into_iter().find(|flow| flow.name == name).unwrap().id
}

fn versions_path(flow_id: &str) -> String {
    format!("/api/v2/architect/flows/{flow_id}/versions")
}

async fn versions(tenant: &Tenant, flow_id: &str) -> Vec<Value> {
    let reply = tenant.get(&versions_path(flow_id)).await;
    assert_eq!(reply.status().as_u16(), 200);
    reply.json::<Value>().await.unwrap()["entities"].as_array().unwrap().clone()
}

/// Version → status.
async fn statuses(tenant: &Tenant, flow_id: &str) -> BTreeMap<String, String> {
    let text = |version: &Value, name: &str| version[name].as_str().unwrap().to_owned();
    versions(tenant, flow_id).await.iter().map(|it| (text(it, "id"), text(it, "status"))).collect()
}

async fn activate(tenant: &Tenant, flow_id: &str, version: &str) -> Response {
    let path = format!("/api/v2/architect/deployments/{flow_id}/versions/{version}");
    let body = json!({"version": {"id": version, "description": "back again"}, "status": "active"});
    tenant.request(Method::PATCH, &path).json(&body).send().await.unwrap()
}

async fn advance(tenant: &Tenant, seconds: u64) {
    tenant.control(Method::POST, &format!("/clock/advance?seconds={seconds}"), Value::Null).await;
}

/// Interactions and errors of the last hour.
pub(crate) async fn measures(tenant: &Tenant, entity: Value) -> (u64, u64) {
    let now = jiff::Timestamp::now().as_millisecond();
    let question = json!({
        "interval": {"start": now - 3_600_000, "end": now + 60_000},
        "metric": "conversation.errors.total",
        "entity": entity,
    });
    let path = "/api/v2/analytics/measures/conversations";
    let reply = tenant.request(Method::GET, path).json(&question).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    let body: Value = reply.json().await.unwrap();
    let value = |name: &str| body["data"][0]["values"][name].as_u64().unwrap();
    (value("conversation.duration.total") / 60, value("conversation.errors.total"))
}

#[tokio::test]
async fn a_version_is_activated_and_the_log_says_from_when_to_when() {
    let tenant = organization().await;
    let id = flow("Main menu");
    let listed = versions(&tenant, &id).await;
    assert!(listed.iter().all(|version| version.get("errorRate").is_none()), "clients are not told");
    assert!(
        listed.windows(2).all(|pair| pair[0]["datePublished"].as_str() < pair[1]["datePublished"].as_str())
    );

    tenant.set_faults(json!([{ "match": {"method": "PATCH"}, "fault": {"type": "delay", "ms": 60} }])).await;
    let reply: Value = activate(&tenant, &id, "11.0").await.json().await.unwrap();
    assert_eq!(
        (&reply["id"], &reply["status"], &reply["description"]),
        (&json!("11.0"), &json!("active"), &json!("back again"))
    );
    let expected = [
        ("8.0", "deleted"),
        ("9.0", "archived"),
        ("10.0", "published"),
        ("11.0", "active"),
        ("12.0", "published"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(id, status)| (id.to_owned(), status.to_owned())).into();
    assert_eq!(statuses(&tenant, &id).await, expected);

    for (version, status, code) in
        [("8.0", 404, "not.found"), ("9.0", 409, "general.conflict"), ("99.0", 404, "not.found")]
    {
        assert_refused(activate(&tenant, &id, version).await, status, code).await;
    }
    assert_refused(activate(&tenant, "nothing", "1.0").await, 404, "not.found").await;
    let log = tenant.log().await;
    let effects: Vec<&Value> =
        log.iter().filter(|entry| !entry["effect"].is_null()).map(|entry| &entry["effect"]).collect();
    let [effect] = effects[..] else { panic!("one activation, not {effects:?}") };
    assert_eq!(
        (&effect["flowId"], &effect["fromVersion"], &effect["toVersion"]),
        (&json!(id), &json!("12.0"), &json!("11.0"))
    );
    let at = |name: &str| effect[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert!(at("endedAt") - at("startedAt") >= 59, "{effect}");
}

#[tokio::test]
async fn what_an_activation_must_not_say_is_refused() {
    let tenant = organization().await;
    let id = flow("Billing");
    let path = format!("/api/v2/architect/deployments/{id}/versions/1.0");
    for bad in [
        json!({"version": {"id": "2.0"}, "status": "active"}),
        json!({"version": {"id": "1.0"}, "status": "published"}),
        json!({"version": {"id": "1.0", "description": "x".repeat(2_001)}, "status": "active"}),
    ] {
        let reply = tenant.request(Method::PATCH, &path).json(&bad).send().await.unwrap();
        assert_refused(reply, 400, "invalid.value").await;
    }
    let reply = tenant.request(Method::PATCH, &path).json(&json!({})).send().await.unwrap();
    assert_refused(reply, 400, "bad.request").await;
    assert_eq!(statuses(&tenant, &id).await["2.0"], "active");
}

#[tokio::test]
async fn a_bad_version_shows_in_measures_and_events_until_it_is_taken_back() {
    let receiver = Receiver::start().await;
    let events =
        EventSettings { to: Some(receiver.url.clone()), campaigns: false, ..EventSettings::default() };
    let tenant = Tenant::start(Settings { scenario: Scenario::default(), events, ..settings() }).await;
    let id = flow("Main menu");
    let entity = json!({"type": "flow", "id": id});
    advance(&tenant, 900).await;
    let (total, errors) = measures(&tenant, entity.clone()).await;
    assert!((550..800).contains(&total) && errors < 25, "{errors} of {total}");

    let publish = json!({"errorRate": 0.5, "afterSeconds": 60});
    tenant.control(Method::POST, &format!("/flows/{id}/publish"), publish).await;
    advance(&tenant, 59).await;
    assert_eq!(statuses(&tenant, &id).await["12.0"], "active");
    advance(&tenant, 841).await;
    assert_eq!(statuses(&tenant, &id).await["13.0"], "active");
    let (total_later, errors_later) = measures(&tenant, entity.clone()).await;
    let (bad_total, bad_errors) = (total_later - total, errors_later - errors);
    assert!((0.35..0.55).contains(&(bad_errors as f64 / bad_total as f64)), "{bad_errors} of {bad_total}");

    assert_eq!(activate(&tenant, &id, "12.0").await.status().as_u16(), 200);
    advance(&tenant, 900).await;
    let (total_at_last, errors_at_last) = measures(&tenant, entity).await;
    assert!(errors_at_last - errors_later < 35, "{}", errors_at_last - errors_later);
    let org = measures(&tenant, json!({"type": "org", "id": "all"})).await;
    assert!(org.0 > total_at_last && org.1 >= errors_at_last);

    // The events tell the same: version by version.
    tenant.events_drained().await;
    let page = tenant.control(Method::GET, "/events/log?limit=100000", Value::Null).await;
    let ends: Vec<&Value> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["eventType"] == "flow.end" && entry["flowId"] == *id)
        .collect();
    let failed = |entry: &&&Value| entry["reason"].as_str().unwrap().starts_with("FLOW_ERROR");
    assert_eq!(
        (ends.len() as u64, ends.iter().filter(failed).count() as u64),
        (total_at_last, errors_at_last)
    );
    let of_bad = ends.iter().filter(|entry| entry["flowVersion"] == "13.0").count();
    assert!(of_bad > 400, "{of_bad}");
    let origins: Vec<_> = tenant
        .log()
        .await
        .into_iter()
        .filter(|entry| entry["effect"]["flowId"] == *id)
        .map(|entry| (entry["origin"].clone(), entry["effect"]["toVersion"].clone()))
        .collect();
    assert_eq!(origins, [(json!("control"), json!("13.0")), (json!("api"), json!("12.0"))]);
}

#[tokio::test]
async fn the_platform_can_be_unwell_with_its_flows() {
    let tenant = organization().await;
    let id = flow("Billing");
    let unwell = json!({"endpoints": ["versions", "deployments"], "aboveErrorRate": 0.05, "status": 503});
    tenant.control(Method::PUT, "/unwell", unwell).await;
    versions(&tenant, &id).await;
    tenant.control(Method::POST, &format!("/flows/{id}/publish"), json!({"errorRate": 0.2})).await;
    assert_refused(tenant.get(&versions_path(&id)).await, 503, "service.unavailable").await;
    assert_refused(activate(&tenant, &id, "2.0").await, 503, "service.unavailable").await;
    measures(&tenant, json!({"type": "org", "id": "all"})).await;
    tenant.control(Method::PUT, &format!("/flows/{id}/versions/3.0"), json!({"errorRate": 0.01})).await;
    versions(&tenant, &id).await;
    tenant.control(Method::PUT, &format!("/flows/{id}/versions/3.0"), json!({"errorRate": 0.3})).await;
    tenant.control(Method::PUT, "/unwell", Value::Null).await;
    assert_eq!(activate(&tenant, &id, "2.0").await.status().as_u16(), 200);
}

#[tokio::test]
async fn scopes_faults_and_the_control_routes_limits() {
    let id = flow("Billing");
    for (scope, method, path) in [
        ("view:configuration", Method::GET, versions_path(&id)),
        ("write:configuration", Method::PATCH, format!("/api/v2/architect/deployments/{id}/versions/1.0")),
        ("view:metrics", Method::GET, "/api/v2/analytics/measures/conversations".to_owned()),
    ] {
        let mut lacking = Settings { scenario: Scenario::default(), ..settings() };
        lacking.clients[0].scopes.remove(scope);
        let tenant = Tenant::start(lacking).await;
        let reply = tenant.request(method, &path).json(&json!({})).send().await.unwrap();
        let body = assert_refused(reply, 403, "missing.permissions").await;
        assert!(body["message"].as_str().unwrap().contains(scope));
    }
    let tenant = organization().await;
    let fault = json!({"type": "status", "code": 429, "retryAfter": "int", "seconds": 7});
    tenant.set_faults(json!([{ "match": {"path": "/api/v2/architect/deployments"}, "fault": fault }])).await;
    let reply = activate(&tenant, &id, "1.0").await;
    assert_eq!(reply.headers()["retry-after"], "7");
    assert_eq!(statuses(&tenant, &id).await["2.0"], "active");

    let refused = async |method: Method, path: String, body: Value| {
        let url = tenant.url(&format!("/simulator{path}"));
        let status = tenant.http.request(method, url).json(&body).send().await.unwrap().status().as_u16();
        assert!([400, 404, 409].contains(&status), "{path} {body}: {status}");
    };
    refused(Method::POST, format!("/flows/{id}/publish"), json!({"errorRate": 1.1})).await;
    refused(Method::POST, format!("/flows/{id}/publish"), json!({"errorRate": 0.1, "version": "1.0"})).await;
    refused(Method::POST, format!("/flows/{id}/publish"), json!({"errorRate": 0.1, "version": "a/b"})).await;
    refused(Method::POST, "/flows/nothing/publish".into(), json!({"errorRate": 0.1})).await;
    refused(Method::PUT, format!("/flows/{id}"), json!({"interactionsPerMinute": -1})).await;
    refused(Method::PUT, format!("/flows/{id}"), json!({"nonsense": 1})).await;
    refused(Method::PUT, format!("/flows/{id}/versions/2.0"), json!({"status": "archived"})).await;
    refused(Method::PUT, "/unwell".into(), json!({"endpoints": [], "aboveErrorRate": 2, "status": 503}))
        .await;
    let flows = tenant.control(Method::GET, "/flows", Value::Null).await;
    assert_eq!(flows["items"].as_array().unwrap().len(), 6);
    let changed = json!({"interactionsPerMinute": 600, "talkSeconds": 5});
    let shown = tenant.control(Method::PUT, &format!("/flows/{id}"), changed).await;
    assert_eq!((&shown["interactionsPerMinute"], &shown["waitSeconds"]), (&json!(600.0), &json!(15.0)));
    advance(&tenant, 60).await;
    let (total, _) = measures(&tenant, json!({"type": "flow", "id": id})).await;
    assert!(total > 250, "{total}");
}
