//! Faults as a client meets them, and what the log says about them.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::tenant::{CAMPAIGN, OTHER, Tenant, assert_refused, settings};

/// Sends a request by hand and returns every byte until the connection is closed.
async fn raw(tenant: &Tenant, head: &str, body: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(tenant.running.api_addr).await.unwrap();
    let request = format!(
        "{head}\r\nhost: simulator\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n{body}",
        tenant.token,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    // A reset is a closed connection too.
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut seen));
    let _ = read.await.expect("the connection is closed within 30 s");
    seen
}

async fn put_raw(tenant: &Tenant, rate: f64) -> Vec<u8> {
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    let head = format!("PUT /api/v2/campaigns/{CAMPAIGN} HTTP/1.1\r\nif-match: {tag}");
    raw(tenant, &head, &json!({"dialerSettings": {"predictedDialRate": rate}}).to_string()).await
}

#[tokio::test]
async fn a_dropped_reply_leaves_no_byte_and_the_effect_is_as_the_rule_says() {
    let tenant = Tenant::start(settings()).await;
    let put = |fault: &str| json!([{ "match": { "method": "PUT" }, "times": 1, "fault": { "type": fault } }]);

    tenant.set_faults(put("drop_before_effect")).await;
    assert_eq!(put_raw(&tenant, 2.0).await, b"");
    assert_eq!(tenant.effects().await, []);

    tenant.set_faults(put("drop_after_effect")).await;
    assert_eq!(put_raw(&tenant, 3.0).await, b"");
    assert_eq!(tenant.effects().await, [(1.5, 3.0)]);
    assert_eq!(tenant.campaign(CAMPAIGN).await.0["dialerSettings"]["predictedDialRate"], 3.0);

    let dropped: Vec<_> = tenant.log().await.into_iter().filter(|entry| entry["method"] == "PUT").collect();
    assert_eq!(dropped.len(), 2);
    for (entry, fault) in dropped.iter().zip(["drop_before_effect", "drop_after_effect"]) {
        assert_eq!((&entry["status"], &entry["faults"]), (&Value::Null, &json!([fault])));
    }
    // And a real client sees a transport error, not a status.
    tenant.set_faults(put("drop_after_effect")).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    assert!(tenant.write(CAMPAIGN, &tag, 2.5).send().await.unwrap_err().is_request());
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    assert_eq!(
        tenant.write(CAMPAIGN, &tag, 2.6).send().await.unwrap().status().as_u16(),
        204,
        "the rule is spent"
    );
}

#[tokio::test]
async fn a_truncated_body_announces_more_than_it_sends() {
    let tenant = Tenant::start(settings()).await;
    tenant.set_faults(json!([{ "fault": { "type": "truncate_body" } }])).await;
    let seen = raw(&tenant, &format!("GET /api/v2/campaigns/{CAMPAIGN} HTTP/1.1"), "").await;
    let text = String::from_utf8(seen).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let announced = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let announced: usize = announced.parse().unwrap();
    assert_eq!(body.len(), announced / 2);
    assert!(body.starts_with('{') && body.len() > 100);

    // An accepted write has no body to cut: it gets one, and the effect stands.
    let reply = tenant.http.get(tenant.url("/simulator/campaigns")).send().await.unwrap();
    let world: Value = reply.json().await.unwrap();
    let tag = world["campaigns"][0]["etag"].as_str().unwrap();
    let reply = tenant.write(CAMPAIGN, tag, 2.0).send().await.unwrap();
    assert_eq!(reply.status().as_u16(), 200);
    assert!(reply.bytes().await.is_err());
    assert_eq!(tenant.effects().await, [(1.5, 2.0)]);
}

#[tokio::test]
async fn bodies_can_be_garbage_a_sign_in_page_slow_or_huge() {
    let tenant = Tenant::start(settings()).await;
    let path = format!("/api/v2/campaigns/{CAMPAIGN}/stats");
    let with = async |fault: Value| {
        tenant.set_faults(json!([{ "times": 1, "fault": fault }])).await;
        let reply = tenant.get(&path).await;
        let kind = reply.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        (reply.status().as_u16(), kind, reply.bytes().await.unwrap())
    };
    let (status, kind, body) = with(json!({"type": "garbage_body"})).await;
    assert_eq!((status, kind.as_deref()), (200, Some("application/json; charset=utf-8")));
    assert!(serde_json::from_slice::<Value>(&body).is_err());

    let (status, kind, body) = with(json!({"type": "html_with_200"})).await;
    assert_eq!((status, kind.as_deref()), (200, Some("text/html")));
    assert!(body.starts_with(b"<!DOCTYPE html>"));

    let begun = Instant::now();
    let (status, _, body) = with(json!({"type": "slow_body", "bytesPerSecond": 200})).await;
    assert!(serde_json::from_slice::<Value>(&body).is_ok() && status == 200);
    assert!(begun.elapsed() >= Duration::from_secs_f64((body.len() - 1) as f64 / 200.0));

    let (status, _, body) = with(json!({"type": "huge_body", "bytes": 3_000_000})).await;
    assert_eq!((status, body.len()), (200, 3_000_000));
    assert!(serde_json::from_slice::<Value>(&body).is_ok(), "valid JSON, only far too long");

    let (status, _, body) = with(json!({"type": "gzip_bomb", "bytes": 20_000_000})).await;
    assert!(status == 200 && body.len() >= 20_000_000, "unpacked by the client: {}", body.len());
    assert!(serde_json::from_slice::<Value>(&body).is_ok());
    let packed = reqwest::Client::builder().no_gzip().build().unwrap();
    tenant.set_faults(json!([{ "fault": { "type": "gzip_bomb", "bytes": 20_000_000 } }])).await;
    let reply = packed.get(tenant.url(&path)).bearer_auth(&tenant.token).send().await.unwrap();
    assert_eq!(reply.headers()["content-encoding"], "gzip");
    assert!(reply.bytes().await.unwrap().len() < 200_000, "small on the wire");

    tenant.set_faults(json!([{ "fault": { "type": "redirect", "location": "http://127.0.0.1:9/" } }])).await;
    let reply = tenant.get(&path).await;
    assert_eq!(
        (reply.status().as_u16(), &reply.headers()["location"]),
        (302, &"http://127.0.0.1:9/".parse().unwrap())
    );
}

#[tokio::test]
async fn statuses_come_with_retry_after_in_every_spelling_and_before_or_after_the_effect() {
    let tenant = Tenant::start(settings()).await;
    for (form, expected) in
        [("int", Some("2")), ("float", Some("1.500")), ("missing", None), ("date", Some("GMT"))]
    {
        let fault = json!({"type": "status", "code": 429, "retryAfter": form, "seconds": 1.5});
        tenant.set_faults(json!([{ "match": { "path": "/api/v2/campaigns/*" }, "fault": fault }])).await;
        let reply = tenant.get(&format!("/api/v2/campaigns/{CAMPAIGN}")).await;
        let text = reply.headers().get("retry-after").map(|text| text.to_str().unwrap().to_owned());
        assert_eq!(text.is_some(), expected.is_some());
        assert!(text.unwrap_or_default().ends_with(expected.unwrap_or_default()), "{form}");
        assert_refused(reply, 429, "too.many.requests").await;
    }
    for (after_effect, effects) in [(false, vec![]), (true, vec![(1.5, 2.0)])] {
        tenant.set_faults(json!([])).await;
        let (_, tag) = tenant.campaign(CAMPAIGN).await;
        let fault = json!({"type": "status", "code": 503, "afterEffect": after_effect});
        tenant.set_faults(json!([{ "match": { "campaign": CAMPAIGN }, "fault": fault }])).await;
        let reply = tenant.write(CAMPAIGN, &tag, 2.0).send().await.unwrap();
        assert_refused(reply, 503, "service.unavailable").await;
        assert_eq!(tenant.effects().await, effects);
        tenant.campaign(OTHER).await;
    }
}

#[tokio::test]
async fn a_client_that_gives_up_does_not_undo_what_it_asked_for() {
    let tenant = Tenant::start(settings()).await;
    for (after_effect, rate) in [(false, 2.0), (true, 3.0)] {
        tenant.set_faults(json!([])).await;
        let (_, tag) = tenant.campaign(CAMPAIGN).await;
        let fault = json!({"type": "delay", "ms": 500, "afterEffect": after_effect});
        tenant.set_faults(json!([{ "match": { "method": "PUT" }, "fault": fault }])).await;
        let impatient = tokio::spawn(tenant.write(CAMPAIGN, &tag, rate).send());
        let begun = Instant::now();
        while tenant.control(Method::GET, "/faults", Value::Null).await["items"][0]["applied"] != 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the request never came");
        }
        // Closes the connection while the simulator holds the request back.
        impatient.abort();
        assert!(impatient.await.unwrap_err().is_cancelled());
        let begun = Instant::now();
        while tenant.effects().await.last().map(|effect| effect.1) != Some(rate) {
            assert!(begun.elapsed() < Duration::from_secs(20), "the effect never came");
        }
    }
}

#[tokio::test]
async fn rules_can_be_seen_added_and_cleared_and_bad_ones_change_nothing() {
    let tenant = Tenant::start(settings()).await;
    tenant.set_faults(json!([{ "times": 1, "fault": { "type": "status", "code": 500 } }])).await;
    tenant.control(Method::POST, "/faults", json!([{ "fault": { "type": "status", "code": 502 } }])).await;
    let path = format!("/api/v2/campaigns/{CAMPAIGN}");
    assert_refused(tenant.get(&path).await, 500, "internal.server.error").await;
    assert_refused(tenant.get(&path).await, 502, "service.unavailable").await;
    for bad in [json!({}), json!([{ "fault": { "type": "status", "code": 7 } }]), json!([{ "fault": {} }])] {
        let reply = tenant.http.put(tenant.url("/simulator/faults")).json(&bad).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), 400, "{bad}");
    }
    let rules = tenant.control(Method::GET, "/faults", Value::Null).await;
    assert_eq!(rules["items"][0]["applied"], 1);
    assert_eq!(
        rules["items"][1],
        json!({"match": {}, "fault": {"type": "status", "code": 502, "retryAfter": "missing",
        "seconds": 0.0, "afterEffect": false}, "applied": 1})
    );
    tenant.control(Method::DELETE, "/faults", Value::Null).await;
    assert_eq!(tenant.get(&path).await.status().as_u16(), 200);
}

#[tokio::test]
async fn the_token_endpoint_can_fail_too() {
    let tenant = Tenant::start(settings()).await;
    tenant.set_faults(json!([{ "match": { "path": "/oauth" }, "times": 1, "fault": { "type": "status", "code": 503 } }])).await;
    let post = tenant.http.post(format!("{}/oauth/token", tenant.running.login_url()));
    assert_refused(post.body("").send().await.unwrap(), 503, "service.unavailable").await;
    crate::tenant::demo_token(&tenant.http, &tenant.running.login_url()).await;
}
