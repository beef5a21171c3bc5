//! Tokens: fetched once for all, renewed before their end, replaced when refused or when the
//! OAuth client's secret was changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::json;
use simulator::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Settings, StaleReply};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trunkline::genesys::{self, CallErrorKind as Kind, Credentials, OauthClient, Reread};
use trunkline::health::Health;

use crate::support::simulated::{CAMPAIGN, Organization, client, client_with, scope, settings};
use crate::support::until;

const TOKEN: &str = "/oauth/token";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_with_a_refused_token_cost_one_refresh() {
    let organization = Organization::start(settings()).await;
    let client = organization.client();
    client.campaign(CAMPAIGN, &scope()).await.unwrap();
    organization.expire_tokens().await;
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move { client.campaign_statistics(CAMPAIGN, &scope()).await });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().expect("made once more with a fresh token");
    }
    let requests = organization.requests_of("POST", TOKEN).await;
    assert_eq!(requests.len(), 2, "the first token and one refresh");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_first_calls_wait_for_one_token() {
    let organization = Organization::start(settings()).await;
    organization.fault("POST", TOKEN, json!({"type":"delay","ms":200})).await;
    let client = organization.client();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let client = client.clone();
        calls.spawn(async move { client.campaign(CAMPAIGN, &scope()).await });
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap().unwrap();
    }
    assert_eq!(organization.requests_of("POST", TOKEN).await.len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_before_it_ends() {
    let token_lifetime = Duration::from_secs(2);
    let organization = Organization::start(Settings { token_lifetime, ..settings() }).await;
    let client = organization.client();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        client.campaign(CAMPAIGN, &scope()).await.expect("always a token");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(organization.requests_of("POST", TOKEN).await.len() >= 3);
    let refused = organization.requests().await.iter().filter(|entry| entry["status"] == 401).count();
    assert_eq!(refused, 0, "no call met an expired token");
}

#[tokio::test]
async fn a_token_that_ends_while_a_write_is_on_its_way_costs_no_second_effect() {
    let organization = Organization::start(settings()).await;
    let client = organization.client();
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    // The simulator looks at the token again after the delay.
    organization
        .faults(
            json!([{ "match": { "method": "PUT" }, "times": 1, "fault": { "type": "delay", "ms": 500 } }]),
        )
        .await;
    let sending = tokio::spawn({
        let client = client.clone();
        let request = client.prepare_dial_rate(&campaign, 2.0);
        async move { client.send_dial_rate(&request, CAMPAIGN, &scope()).await }
    });
    until("the write", async || organization.fault_applied().await.then_some(())).await;
    organization.expire_tokens().await;
    sending.await.unwrap().expect("made once more with a fresh token");
    let writes = organization.requests_of("PUT", "/").await;
    let statuses: Vec<_> = writes.iter().map(|entry| entry["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [401, 204]);
    assert_eq!(writes.iter().filter(|entry| !entry["effect"].is_null()).count(), 1);
}

#[tokio::test]
async fn refused_credentials_are_named_and_never_shown() {
    let organization = Organization::start(settings()).await;
    let secret = "canary-secret-7d1f";
    let settings = genesys::Settings {
        credentials: Credentials::fixed(DEMO_CLIENT_ID, secret),
        ..organization.client_settings()
    };
    let client = client(&settings);
    let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unauthorized);
    assert!(error.reason.contains("genesys.client_secret"), "{error}");
    assert!(!format!("{error:?} {settings:?}").contains(secret));
    let ways = organization.requests_of("POST", TOKEN).await.len();
    assert!(ways >= 2, "Basic and the form were tried");
    assert!(organization.requests_of("GET", "/api").await.is_empty(), "no call without a token");
}

#[tokio::test]
async fn a_token_endpoint_that_is_down_stops_calls_and_its_return_lets_them_go_on() {
    let organization = Organization::start(settings()).await;
    organization.fault("POST", TOKEN, json!({"type":"status","code":503})).await;
    let client = organization.client();
    let error = client.campaign(CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::NotSent, "{error}");
    assert!(!error.effect_is_unknown());
    organization.faults(json!([])).await;
    until("a token", async || client.campaign(CAMPAIGN, &scope()).await.ok()).await;
}

#[tokio::test]
async fn a_token_reply_that_is_nonsense_is_no_token() {
    for fault in [
        json!({"type":"html_with_200"}),
        json!({"type":"garbage_body"}),
        json!({"type":"truncate_body"}),
        json!({"type":"huge_body","bytes":1_u64 << 30}),
        json!({"type":"redirect","location":"/elsewhere"}),
    ] {
        let organization = Organization::start(settings()).await;
        organization.fault("POST", TOKEN, fault.clone()).await;
        let client = organization.client();
        let error = client.authenticate(&scope()).await.unwrap_err();
        assert_eq!(error.kind, Kind::NotSent, "{fault}: {error}");
        assert!(organization.requests_of("GET", "/elsewhere").await.is_empty());
    }
}

#[tokio::test]
async fn tokens_come_from_the_login_host_where_there_is_one() {
    let login_listen = Some(([127, 0, 0, 1], 0).into());
    let organization =
        Organization::start(Settings { login_listen, stale_reply: StaleReply::default(), ..settings() })
            .await;
    let login_url = Some(organization.running.login_url());
    let client = client(&genesys::Settings { login_url, ..organization.client_settings() });
    client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let requests = organization.requests_of("POST", TOKEN).await;
    assert_eq!(requests.iter().map(|entry| &entry["origin"]).collect::<Vec<_>>(), ["login"]);
}

/// The simulator takes both spellings; this endpoint takes the form alone, as one
/// of the seed's services does.
#[tokio::test]
async fn an_endpoint_that_refuses_basic_is_asked_by_form() {
    let app = Router::new().route(
        TOKEN,
        post(async |request: Request| {
            let has_basic = request.headers().contains_key("authorization");
            let body = axum::body::to_bytes(request.into_body(), 10_000).await.unwrap();
            let form = String::from_utf8(body.to_vec()).unwrap();
            let good = "grant_type=client_credentials&client_id=an+id&client_secret=s%25cret%26";
            if has_basic || form != good {
                return (StatusCode::BAD_REQUEST, axum::Json(json!({"error":"invalid_request"})));
            }
            (StatusCode::OK, axum::Json(json!({"access_token":"t","token_type":"Bearer","expires_in":60})))
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move { axum::serve(listener, app).await });
    let settings = genesys::Settings {
        base_url,
        credentials: Credentials::fixed("an id", "s%cret&"),
        ..genesys::Settings::default()
    };
    client(&settings).authenticate(&scope()).await.expect("a token by form");
    serving.abort();
}

/// The OAuth client of the simulated organisation, its secret in a file.
fn credentials_in(file: &Path) -> Credentials {
    let file = file.to_owned();
    let reread: Reread = Arc::new(move || {
        let secret = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
        Ok(OauthClient { id: DEMO_CLIENT_ID.to_owned(), secret: secret.into() })
    });
    let given = OauthClient { id: DEMO_CLIENT_ID.to_owned(), secret: DEMO_CLIENT_SECRET.into() };
    Credentials::reread(given, reread).looked_at_every(Duration::from_millis(20))
}

async fn rotate(organization: &Organization, secret: &str, revoke: bool) {
    let path = format!("/clients/{DEMO_CLIENT_ID}");
    let body = json!({ "secret": secret, "revokeTokens": revoke });
    organization.control(reqwest::Method::PUT, &path, Some(body)).await;
}

#[tokio::test]
async fn a_new_secret_in_its_file_is_used_when_the_old_token_is_refused() {
    let organization = Organization::start(settings()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, DEMO_CLIENT_SECRET).unwrap();
    let mut settings = organization.client_settings();
    // Looked at only when a token is asked for.
    settings.credentials = credentials_in(&file).looked_at_every(Duration::from_secs(3_600));
    let client = client(&settings);
    client.campaign(CAMPAIGN, &scope()).await.unwrap();
    rotate(&organization, "second-secret", true).await;
    std::fs::write(&file, "second-secret").unwrap();
    client.campaign(CAMPAIGN, &scope()).await.expect("made once more with a token for the new secret");
    let granted: Vec<_> =
        organization.requests_of("POST", TOKEN).await.iter().map(|entry| entry["status"].clone()).collect();
    assert_eq!(granted, [200, 200], "the old secret was not tried again");
}

#[tokio::test]
async fn the_old_token_serves_until_a_changed_secret_is_good() {
    let organization = Organization::start(settings()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, DEMO_CLIENT_SECRET).unwrap();
    let settings = genesys::Settings { credentials: credentials_in(&file), ..organization.client_settings() };
    let health = Health::default();
    let shape = genesys::BucketShape::new(settings.requests_per_minute, settings.budget_window);
    let client = client_with(&settings, Arc::new(genesys::InProcessPermits::new(shape)), &health);
    client.campaign(CAMPAIGN, &scope()).await.unwrap();

    let canary = "canary-secret-51c9";
    std::fs::write(&file, canary).unwrap();
    let told = until("the refusal to be told", async || {
        health.impairments().into_iter().find(|(part, _)| part == "genesys.token")
    })
    .await;
    assert!(told.1.contains("genesys.client_secret") && !told.1.contains(canary), "{told:?}");
    assert!(health.reasons().is_empty(), "it works on: {:?}", health.reasons());
    client.campaign(CAMPAIGN, &scope()).await.expect("with the token it has");

    rotate(&organization, "third-secret", false).await;
    std::fs::remove_file(&file).unwrap();
    client.campaign(CAMPAIGN, &scope()).await.expect("with the token it has");
    std::fs::write(&file, "third-secret").unwrap();
    until("the new secret", async || health.impairments().is_empty().then_some(())).await;
    organization.expire_tokens().await;
    client.campaign(CAMPAIGN, &scope()).await.expect("with a token for the new secret");
    let refused = organization.requests_of("POST", TOKEN).await;
    let refused = refused.iter().filter(|entry| entry["status"] == 401).count();
    assert!((2..=20).contains(&refused), "{refused}: tried, and not without pause");
}
