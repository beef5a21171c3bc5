//! The token endpoint on both hosts, lives of tokens, scopes.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::Value;
use simulator::{Client, DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, SCOPE_READ, SCOPE_WRITE, Settings};

use crate::tenant::{CAMPAIGN, Tenant, assert_refused, demo_token, settings};

#[tokio::test]
async fn both_hosts_give_tokens_for_basic_and_form_credentials() {
    let tenant = Tenant::start(settings()).await;
    let form = [
        ("client_id", DEMO_CLIENT_ID),
        ("client_secret", DEMO_CLIENT_SECRET),
        ("grant_type", "client_credentials"),
    ];
    for host in [tenant.running.api_url(), tenant.running.login_url()] {
        let post = || tenant.http.post(format!("{host}/oauth/token"));
        let basic = post().basic_auth(DEMO_CLIENT_ID, Some(DEMO_CLIENT_SECRET)).form(&form[2..]);
        for request in [basic, post().form(&form)] {
            let reply = request.send().await.unwrap();
            assert_eq!(reply.status().as_u16(), 200);
            assert!(reply.headers().contains_key("inin-correlation-id"));
            let body: Value = reply.json().await.unwrap();
            assert_eq!(
                (body["token_type"].as_str(), body["expires_in"].as_u64()),
                (Some("bearer"), Some(86_400))
            );
            let token = body["access_token"].as_str().unwrap();
            let stats = tenant.http.get(tenant.url(&format!("/api/v2/campaigns/{CAMPAIGN}/stats")));
            assert_eq!(stats.bearer_auth(token).send().await.unwrap().status().as_u16(), 200);
        }
    }
}

#[tokio::test]
async fn wrong_credentials_get_the_token_endpoints_own_error() {
    let tenant = Tenant::start(settings()).await;
    let post = || tenant.http.post(format!("{}/oauth/token", tenant.running.login_url()));
    let grant = [("grant_type", "client_credentials")];
    let expect = async |request: RequestBuilder, status: u16, error: &str| {
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status().as_u16(), status, "{error}");
        let body: Value = reply.json().await.unwrap();
        assert_eq!(body["error"], error);
        assert_eq!(body["description"], body["error_description"]);
        assert!(body["code"].is_null(), "not the API's error body");
    };
    expect(post().basic_auth(DEMO_CLIENT_ID, Some("wrong")).form(&grant), 401, "invalid_client").await;
    expect(post().basic_auth("nobody", Some(DEMO_CLIENT_SECRET)).form(&grant), 401, "invalid_client").await;
    expect(post().form(&grant), 401, "invalid_client").await;
    let right = || post().basic_auth(DEMO_CLIENT_ID, Some(DEMO_CLIENT_SECRET));
    expect(right().form(&[("grant_type", "password")]), 400, "unsupported_grant_type").await;
    expect(right().form(&[("grant_type", "client_credentials ")]), 400, "unsupported_grant_type").await;
    expect(right(), 400, "unsupported_grant_type").await;
    expect(post().header("authorization", "Basic ???").form(&grant), 400, "invalid_request").await;
    for entry in tenant.log().await {
        assert_eq!(entry["path"], "/oauth/token");
        assert!(entry["body"].is_null(), "the log holds no secrets: {entry}");
    }
}

#[tokio::test]
async fn the_login_host_has_nothing_but_tokens() {
    let tenant = Tenant::start(settings()).await;
    for path in [format!("/api/v2/campaigns/{CAMPAIGN}"), "/simulator/faults".into(), "/".into()] {
        let request =
            tenant.http.get(format!("{}{path}", tenant.running.login_url())).bearer_auth(&tenant.token);
        assert_refused(request.send().await.unwrap(), 404, "not.found").await;
    }
}

#[tokio::test]
async fn expired_revoked_unknown_and_missing_tokens_are_refused() {
    let lifetime = Duration::from_millis(400);
    let tenant = Tenant::start(Settings { token_lifetime: lifetime, ..settings() }).await;
    let path = format!("/api/v2/campaigns/{CAMPAIGN}/stats");
    let with =
        async |token: &str| tenant.http.get(tenant.url(&path)).bearer_auth(token).send().await.unwrap();

    let begun = std::time::Instant::now();
    while with(&tenant.token).await.status().as_u16() == 200 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the token never expired");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_refused(with(&tenant.token).await, 401, "credentials.expired").await;
    assert_refused(with("nonsense").await, 401, "bad.credentials").await;
    let nothing = tenant.http.get(tenant.url(&path)).send().await.unwrap();
    assert_refused(nothing, 401, "authentication.required").await;

    let long_lived = Tenant::start(settings()).await;
    long_lived.control(Method::POST, "/tokens/expire", Value::Null).await;
    assert_refused(long_lived.get(&path).await, 401, "bad.credentials").await;
    let token = demo_token(&long_lived.http, &long_lived.running.api_url()).await;
    let again = long_lived.http.get(long_lived.url(&path)).bearer_auth(token).send().await.unwrap();
    assert_eq!(again.status().as_u16(), 200);
}

#[tokio::test]
async fn a_token_that_expires_while_the_request_is_held_up_does_nothing() {
    let tenant = Tenant::start(settings()).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    tenant
        .set_faults(
            serde_json::json!([{ "match": { "method": "PUT" }, "fault": { "type": "delay", "ms": 600 } }]),
        )
        .await;
    let write = tokio::spawn(tenant.write(CAMPAIGN, &tag, 2.0).send());
    // The rule has acted once the request is admitted, and then it waits.
    let begun = std::time::Instant::now();
    while tenant.control(Method::GET, "/faults", Value::Null).await["items"][0]["applied"] != 1 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the request never came");
    }
    tenant.control(Method::POST, "/tokens/expire", Value::Null).await;
    assert_refused(write.await.unwrap().unwrap(), 401, "bad.credentials").await;
    assert_eq!(tenant.effects().await, []);
}

#[tokio::test]
async fn scopes_are_looked_at() {
    let client = |id: &str, scope: &str| Client {
        id: id.into(),
        secret: "secret".into(),
        scopes: [scope.to_owned()].into(),
    };
    let mut settings = settings();
    settings.clients.extend([client("reader", SCOPE_READ), client("writer", SCOPE_WRITE)]);
    let mut tenant = Tenant::start(settings).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    let path = format!("/api/v2/campaigns/{CAMPAIGN}");
    for (id, may_read, may_write) in [("reader", true, false), ("writer", false, true)] {
        let post = tenant.http.post(tenant.url("/oauth/token")).basic_auth(id, Some("secret"));
        let reply = post.form(&[("grant_type", "client_credentials")]).send().await.unwrap();
        let body: Value = reply.json().await.unwrap();
        tenant.token = body["access_token"].as_str().unwrap().to_owned();
        for (allowed, reply) in [
            (may_read, tenant.get(&path).await),
            (may_read, tenant.get(&format!("{path}/stats")).await),
            (may_write, tenant.write(CAMPAIGN, &tag, 2.0).send().await.unwrap()),
        ] {
            if allowed {
                assert!(reply.status().is_success());
            } else {
                assert_refused(reply, 403, "missing.permissions").await;
            }
        }
    }
}
