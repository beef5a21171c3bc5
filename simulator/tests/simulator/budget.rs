//! The request budget per client: counted truly, told in headers, enforced with 429.

use std::time::{Duration, Instant};

use reqwest::Response;
use simulator::{Client, RetryAfter, SCOPE_READ, Settings};

use crate::tenant::{CAMPAIGN, Tenant, assert_refused, settings};

fn number(reply: &Response, header: &str) -> u64 {
    reply.headers()[header].to_str().unwrap().parse().unwrap()
}

async fn ask(tenant: &Tenant) -> Response {
    tenant.get(&format!("/api/v2/campaigns/{CAMPAIGN}/stats")).await
}

#[tokio::test]
async fn the_headers_count_every_request_and_the_next_one_is_refused() {
    let tenant = Tenant::start(Settings { requests_per_window: 3, ..settings() }).await;
    for count in 1..=3 {
        let reply = ask(&tenant).await;
        assert_eq!(reply.status().as_u16(), 200);
        assert_eq!(
            (number(&reply, "inin-ratelimit-count"), number(&reply, "inin-ratelimit-allowed")),
            (count, 3)
        );
        assert!((1..=60).contains(&number(&reply, "inin-ratelimit-reset")));
        assert!(!reply.headers().contains_key("retry-after"));
    }
    let (document_path, tag) = (format!("/api/v2/campaigns/{CAMPAIGN}"), "\"any\"");
    let refused = tenant.write(CAMPAIGN, tag, 2.0).send().await.unwrap();
    assert_eq!(number(&refused, "inin-ratelimit-count"), 4);
    assert!((1..=60).contains(&number(&refused, "retry-after")));
    let body = assert_refused(refused, 429, "too.many.requests").await;
    assert_eq!(body["limit"]["value"], 3);
    assert_refused(tenant.get(&document_path).await, 429, "too.many.requests").await;
    assert_eq!(tenant.effects().await, []);

    // Requests nobody can be charged for are not: a wrong token, the token endpoint.
    let wrong = tenant.http.get(tenant.url(&document_path)).bearer_auth("wrong").send().await.unwrap();
    assert!(!wrong.headers().contains_key("inin-ratelimit-count"));
    assert_refused(wrong, 401, "bad.credentials").await;
    crate::tenant::demo_token(&tenant.http, &tenant.running.api_url()).await;
}

#[tokio::test]
async fn another_client_has_a_budget_of_its_own() {
    let mut settings = Settings { requests_per_window: 1, ..settings() };
    settings.clients.push(Client {
        id: "other".into(),
        secret: "s".into(),
        scopes: [SCOPE_READ.to_owned()].into(),
    });
    let mut tenant = Tenant::start(settings).await;
    assert_eq!(ask(&tenant).await.status().as_u16(), 200);
    assert_eq!(ask(&tenant).await.status().as_u16(), 429);
    let form = [("grant_type", "client_credentials"), ("client_id", "other"), ("client_secret", "s")];
    let reply = tenant.http.post(tenant.url("/oauth/token")).form(&form).send().await.unwrap();
    let body: serde_json::Value = reply.json().await.unwrap();
    tenant.token = body["access_token"].as_str().unwrap().into();
    assert_eq!(ask(&tenant).await.status().as_u16(), 200);
}

#[tokio::test]
async fn waiting_as_long_as_told_is_enough() {
    let budget_window = Duration::from_millis(900);
    for form in [RetryAfter::Int, RetryAfter::Float] {
        let settings =
            Settings { requests_per_window: 1, budget_window, budget_retry_after: form, ..settings() };
        let tenant = Tenant::start(settings).await;
        let refused = loop {
            let reply = ask(&tenant).await;
            if reply.status().as_u16() == 429 {
                break reply;
            }
        };
        let text = refused.headers()["retry-after"].to_str().unwrap();
        assert_eq!(text.contains('.'), form == RetryAfter::Float, "{text}");
        let told: f64 = text.parse().unwrap();
        let asked = Instant::now();
        tokio::time::sleep(Duration::from_secs_f64(told + 0.01)).await;
        assert_eq!(ask(&tenant).await.status().as_u16(), 200, "after {:?}", asked.elapsed());
    }
}

#[tokio::test]
async fn retry_after_can_be_a_date_or_missing() {
    let answer = async |form| {
        let settings = Settings { requests_per_window: 0, budget_retry_after: form, ..settings() };
        let tenant = Tenant::start(settings).await;
        let reply = ask(&tenant).await;
        assert_eq!(reply.status().as_u16(), 429);
        reply.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned())
    };
    let date = answer(RetryAfter::Date).await.unwrap();
    let at = jiff::fmt::rfc2822::parse(&date.replace("GMT", "+0000")).unwrap().timestamp();
    let ahead = at.as_second() - jiff::Timestamp::now().as_second();
    assert!((50..=62).contains(&ahead), "{date} is {ahead} s ahead");
    assert_eq!(answer(RetryAfter::Missing).await, None);
}
