//! Genesys Cloud's own interface, family by family.

mod analytics;
mod automation;
mod campaigns;
mod details;
mod examples;
mod flows;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Dialect, Scenario, Settings};

use crate::tenant::{Tenant, settings};

pub(crate) fn platform() -> Settings {
    Settings { dialect: Dialect::Platform, ..settings() }
}

/// The built-in organisation, which has flows and queues too.
pub(crate) async fn organization() -> Tenant {
    Tenant::start(Settings { scenario: Scenario::default(), ..platform() }).await
}

pub(crate) async fn advance(tenant: &Tenant, seconds: u64) {
    tenant.control(Method::POST, &format!("/clock/advance?seconds={seconds}"), Value::Null).await;
}

/// From so many seconds ago until so many from now.
pub(crate) fn around_now(before: i64, after: i64) -> String {
    let now = jiff::Timestamp::now();
    let at = |seconds: i64| now + jiff::SignedDuration::from_secs(seconds);
    format!("{}/{}", at(-before), at(after))
}

pub(crate) async fn send(tenant: &Tenant, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let reply = tenant.request(method, path).json(body).send().await.unwrap();
    let status = reply.status().as_u16();
    let text = reply.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
}

/// What an error of the platform always has, and the code asked for.
#[track_caller]
pub(crate) fn assert_error((status, body): &(u16, Value), expected: u16, code: &str) {
    assert_eq!(
        (*status, &body["status"], &body["code"]),
        (expected, &json!(expected), &json!(code)),
        "{body}"
    );
    for member in ["message", "messageParams", "contextId", "details", "errors"] {
        assert!(body.get(member).is_some(), "{member}: {body}");
    }
}
