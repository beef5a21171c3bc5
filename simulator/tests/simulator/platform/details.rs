//! Details of conversations: by the day they started on, page by page, and by jobs.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_error, platform, send};
use crate::tenant::{CAMPAIGN, Tenant};

const QUERY: &str = "/api/v2/analytics/conversations/details/query";
const JOBS: &str = "/api/v2/analytics/conversations/details/jobs";

fn id(number: usize) -> String {
    format!("abc00000-0000-4000-8000-{number:012}")
}

/// Conversations 0 to `count` − 1, each five minutes long, from `start` on.
async fn register(tenant: &Tenant, from: usize, count: usize, start: &str, end: &str) {
    let conversations: Vec<Value> = (from..from + count)
        .map(|number| {
            json!({
                "conversationId": id(number), "conversationStart": start, "conversationEnd": end,
                "availableAt": end, "campaignId": CAMPAIGN, "originatingDirection": "outbound",
                "flowId": "c3a8e9b4-5f7d-4a26-8f10-9e2b4d6a7c03", "flowVersion": "12.0",
                "userId": "5f0e1d2c-3b4a-4958-8776-655443322107", "wrapUpMs": 45_000, "wrapUpCode": "done",
            })
        })
        .collect();
    tenant.control(Method::POST, "/conversations", json!(conversations)).await;
}

fn by_ids(interval: &str, numbers: std::ops::Range<usize>) -> Value {
    let predicate = |number| json!({"type": "dimension", "dimension": "conversationId", "operator": "matches", "value": id(number)});
    json!({
        "interval": interval,
        "order": "asc",
        "orderBy": "conversationStart",
        "conversationFilters": [{"type": "or", "predicates": numbers.map(predicate).collect::<Vec<_>>()}],
    })
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

#[tokio::test]
async fn a_conversation_is_found_by_the_day_it_started_on_and_by_no_other() {
    let tenant = Tenant::start(platform()).await;
    register(&tenant, 0, 1, "2026-01-02T23:58:00.000Z", "2026-01-03T00:03:00.000Z").await;
    let found = async |interval: &str| {
        let (status, reply) = send(&tenant, Method::POST, QUERY, &by_ids(interval, 0..2)).await;
        assert_eq!(status, 200, "{reply}");
        reply
    };
    let next_day = found("2026-01-03T00:00:00.000Z/2026-01-03T12:00:00.000Z").await;
    assert_eq!(next_day, json!({"totalHits": 0}), "over midnight is not the day after");
    let reply = found("2026-01-02T00:00:00.000Z/2026-01-02T00:01:00.000Z").await;
    assert_eq!(reply["totalHits"], 1);
    let conversation = &reply["conversations"][0];
    assert_eq!(
        (&conversation["conversationId"], &conversation["conversationEnd"]),
        (&json!(id(0)), &json!("2026-01-03T00:03:00.000Z"))
    );
    let participants = conversation["participants"].as_array().unwrap();
    let of = |purpose: &str| &participants.iter().find(|it| it["purpose"] == purpose).unwrap()["sessions"][0];
    assert_eq!(of("customer")["outboundCampaignId"], CAMPAIGN);
    assert_eq!(of("ivr")["flow"]["flowVersion"], "12.0");
    let metrics = of("agent")["metrics"].as_array().unwrap();
    assert_eq!(metrics.iter().find(|it| it["name"] == "tAcw").unwrap()["value"], 45_000);
    assert_eq!(of("agent")["segments"][1]["wrapUpCode"], "done");
    let (_, single) = send(
        &tenant,
        Method::GET,
        &format!("/api/v2/analytics/conversations/details?id={},{}", id(0), id(1)),
        &Value::Null,
    )
    .await;
    assert_eq!(single["conversations"], json!([conversation]));
}

#[tokio::test]
async fn pages_hold_each_conversation_once_and_limits_are_kept() {
    let tenant = Tenant::start(platform()).await;
    register(&tenant, 0, 120, "2026-01-02T10:00:00.000Z", "2026-01-02T10:05:00.000Z").await;
    let day = "2026-01-02T00:00:00.000Z/2026-01-03T00:00:00.000Z";
    let mut seen = Vec::new();
    for number in 1..=4 {
        let body = with(by_ids(day, 0..120), "paging", json!({"pageSize": 50, "pageNumber": number}));
        let (_, reply) = send(&tenant, Method::POST, QUERY, &body).await;
        assert_eq!(reply["totalHits"], 120);
        let page = reply["conversations"].as_array().cloned().unwrap_or_default();
        assert_eq!(reply.get("conversations").is_none(), number == 4, "an empty page has no list");
        seen.extend(page.iter().map(|it| it["conversationId"].as_str().unwrap().to_owned()));
    }
    assert_eq!(seen, (0..120).map(id).collect::<Vec<_>>());
    let (_, unpaged) = send(&tenant, Method::POST, QUERY, &by_ids(day, 0..120)).await;
    assert_eq!(unpaged["conversations"].as_array().unwrap().len(), 25);

    let long = "2026-01-01T00:00:00.000Z/2026-01-31T00:00:00.000Z";
    assert_eq!(send(&tenant, Method::POST, QUERY, &by_ids(long, 0..2)).await.0, 200);
    for wrong in [
        json!({"interval": long}),
        by_ids("2026-01-01T00:00:00.000Z/2026-02-02T00:00:00.000Z", 0..2),
        with(by_ids(day, 0..2), "paging", json!({"pageSize": 101})),
        with(by_ids(day, 0..2), "paging", json!({"pageSize": 0})),
        with(by_ids(day, 0..2), "paging", json!({"pageNumber": 0})),
        with(by_ids(day, 0..2), "paging", json!({"pageSize": 100, "pageNumber": 1_001})),
        with(by_ids(day, 0..2), "order", json!("up")),
        with(by_ids(day, 0..2), "orderBy", json!("name")),
        json!({"interval": day, "conversationFilters": [{"type": "or", "predicates": [{"dimension": "flowId", "value": "a"}]}]}),
    ] {
        assert_error(&send(&tenant, Method::POST, QUERY, &wrong).await, 400, "invalid.value");
    }
    assert_error(&send(&tenant, Method::POST, QUERY, &json!({"paging": {}})).await, 400, "bad.request");
    let by_segment = json!({"interval": day, "segmentFilters": [{"type": "and", "predicates": [{"dimension": "outboundCampaignId", "value": CAMPAIGN}]}]});
    assert_eq!(send(&tenant, Method::POST, QUERY, &by_segment).await.1["totalHits"], 120);
}

#[tokio::test]
async fn a_job_finds_what_had_activity_and_is_read_by_cursor() {
    let tenant = Tenant::start(platform()).await;
    register(&tenant, 0, 30, "2026-01-02T23:58:00.000Z", "2026-01-03T00:03:00.000Z").await;
    tenant.control(Method::PUT, "/platform", json!({"jobsMs": 40})).await;
    let day_after = "2026-01-03T00:00:00.000Z/2026-01-04T00:00:00.000Z";
    let (status, submitted) = send(&tenant, Method::POST, JOBS, &by_ids(day_after, 0..30)).await;
    assert_eq!(status, 202);
    let job = format!("{JOBS}/{}", submitted["jobId"].as_str().unwrap());
    let mut states = Vec::new();
    let begun = Instant::now();
    while states.last() != Some(&json!("FULFILLED")) {
        let (_, status) = send(&tenant, Method::GET, &job, &Value::Null).await;
        states.push(status["state"].clone());
        assert!(begun.elapsed() < Duration::from_secs(60), "{states:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(states.iter().all(|state| ["QUEUED", "PENDING", "FULFILLED"].contains(&state.as_str().unwrap())));
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let (_, page) =
            send(&tenant, Method::GET, &format!("{job}/results?pageSize=20{cursor}"), &Value::Null).await;
        assert!(page["dataAvailabilityDate"].is_string());
        seen += page["conversations"].as_array().unwrap().len();
        let Some(next) = page["cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, 30);
    let by_day = with(by_ids(day_after, 0..30), "startOfDayIntervalMatching", json!(true));
    let (_, submitted) = send(&tenant, Method::POST, JOBS, &by_day).await;
    let other = format!("{JOBS}/{}", submitted["jobId"].as_str().unwrap());
    assert_eq!(send(&tenant, Method::DELETE, &other, &Value::Null).await.0, 204);
    assert_eq!(send(&tenant, Method::GET, &other, &Value::Null).await.1["state"], "CANCELLED");
    assert_error(
        &send(&tenant, Method::GET, &format!("{other}/results"), &Value::Null).await,
        400,
        "bad.request",
    );
    assert_error(
        &send(&tenant, Method::GET, &format!("{JOBS}/nothing"), &Value::Null).await,
        404,
        "not.found",
    );

    tenant.control(Method::PUT, "/platform", json!({"jobsLagMs": 3_600_000})).await;
    let (_, availability) = send(&tenant, Method::GET, &format!("{JOBS}/availability"), &Value::Null).await;
    let until: jiff::Timestamp = availability["dataAvailabilityDate"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(until).as_secs() >= 3_590);
}
