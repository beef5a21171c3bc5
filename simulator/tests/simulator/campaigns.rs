//! Reading and changing campaigns as the seed documents do it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulator::{Settings, StaleReply, WriteReply};

use crate::tenant::{CAMPAIGN, OTHER, Tenant, assert_refused, settings};

#[tokio::test]
async fn statistics_have_the_seeds_members_and_the_counters_unless_left_out() {
    let tenant = Tenant::start(settings()).await;
    tenant.control(Method::POST, "/clock/advance?seconds=1800", Value::Null).await;
    let stats: Value = tenant.get(&format!("/api/v2/campaigns/{CAMPAIGN}/stats")).await.json().await.unwrap();
    let number = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("{name} in {stats}"));
    assert_eq!(stats["answerRate"].as_f64(), Some(0.5));
    assert!(number("agentAvailable") + number("agentBusy") <= 20);
    assert!(number("attempts") > number("answers") && number("answers") > 50, "{stats}");
    let settled = number("callsDelivered") + number("abandoned");
    assert!(settled <= number("answers") && number("callsDelivered") > 50, "{stats}");

    let strict = Tenant::start(Settings { counters_in_stats: false, ..settings() }).await;
    let stats: Value = strict.get(&format!("/api/v2/campaigns/{OTHER}/stats")).await.json().await.unwrap();
    let members: Vec<_> = stats.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["agentAvailable", "agentBusy", "answerRate", "callsDelivered"]);
}

#[tokio::test]
async fn a_partial_write_changes_the_rate_the_tag_and_nothing_else() {
    for (write_reply, status) in [(WriteReply::NoContent204, 204), (WriteReply::Ok200, 200)] {
        let tenant = Tenant::start(Settings { write_reply, ..settings() }).await;
        let (mut before, tag) = tenant.campaign(CAMPAIGN).await;
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10);
        assert_eq!(before["id"], CAMPAIGN);
        assert_eq!(before["dialerSettings"]["predictedDialRate"], 1.5);
        assert!(
            before["dialerSettings"].as_object().unwrap().len() > 3,
            "unknown members are there to be kept"
        );
        assert_eq!(tenant.campaign(CAMPAIGN).await.1, tag, "reading changes nothing");

        let reply = tenant.write(CAMPAIGN, &tag, 2.25).send().await.unwrap();
        assert_eq!(reply.status().as_u16(), status);
        assert!(reply.headers().contains_key("inin-correlation-id"));
        assert!(reply.bytes().await.unwrap().is_empty());

        let (after, new_tag) = tenant.campaign(CAMPAIGN).await;
        assert_ne!(new_tag, tag);
        before["dialerSettings"]["predictedDialRate"] = json!(2.25);
        before["dateModified"] = after["dateModified"].clone();
        assert_eq!(after, before);
        let world = tenant.control(Method::GET, "/campaigns", Value::Null).await;
        assert_eq!(world["campaigns"][0]["dialRate"], 2.25, "the dialer works with it");
        assert_eq!(world["campaigns"][0]["etag"], new_tag);
    }
}

#[tokio::test]
async fn of_many_writes_with_one_tag_exactly_one_takes_place() {
    for (stale_reply, status) in [
        (StaleReply::PreconditionFailed412, StatusCode::PRECONDITION_FAILED),
        (StaleReply::Conflict409, StatusCode::CONFLICT),
    ] {
        let tenant = Tenant::start(Settings { stale_reply, ..settings() }).await;
        let (_, tag) = tenant.campaign(CAMPAIGN).await;
        let writes: Vec<_> = (0..40)
            .map(|index| tokio::spawn(tenant.write(CAMPAIGN, &tag, 1.0 + f64::from(index) / 100.0).send()))
            .collect();
        let mut accepted = 0;
        for write in writes {
            let reply = write.await.unwrap().unwrap();
            if reply.status() == StatusCode::NO_CONTENT {
                accepted += 1;
            } else {
                let code =
                    if status == StatusCode::CONFLICT { "general.conflict" } else { "precondition.failed" };
                assert_refused(reply, status.as_u16(), code).await;
            }
        }
        assert_eq!((accepted, tenant.effects().await.len()), (1, 1));
    }
}

#[tokio::test]
async fn impossible_writes_are_refused_in_the_platforms_words() {
    let tenant = Tenant::start(settings()).await;
    let (before, tag) = tenant.campaign(CAMPAIGN).await;
    for rate in [0.49, 6.01, -1.0, 1e300] {
        let reply = tenant.write(CAMPAIGN, &tag, rate).send().await.unwrap();
        let body = assert_refused(reply, 400, "invalid.value").await;
        assert_eq!(body["entityId"], CAMPAIGN);
    }
    let path = format!("/api/v2/campaigns/{CAMPAIGN}");
    let put = || tenant.request(Method::PUT, &path).header("if-match", &tag);
    let json_body = |text: &'static str| put().header("content-type", "application/json").body(text);
    for text in ["", "{", "{\"dialerSettings\":{\"predictedDialRate\":1e999}}", "\u{feff}{}"] {
        assert_refused(json_body(text).send().await.unwrap(), 400, "bad.request").await;
    }
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let deep = put().header("content-type", "application/json").body(deep).send().await.unwrap();
    assert_refused(deep, 400, "bad.request").await;
    for text in ["null", "[]", "{\"dialerSettings\":null}"] {
        assert_refused(json_body(text).send().await.unwrap(), 400, "invalid.value").await;
    }
    let form = put().form(&[("a", "b")]).send().await.unwrap();
    assert_refused(form, 415, "unsupported.media.type").await;
    let untagged = tenant.request(Method::PUT, &path).json(&json!({})).send().await.unwrap();
    assert_refused(untagged, 428, "precondition.required").await;
    let weak = tenant.write(CAMPAIGN, &format!("W/{tag}"), 2.0).send().await.unwrap();
    assert_refused(weak, 412, "precondition.failed").await;
    let huge = put().header("content-type", "application/json").body(vec![b' '; (1 << 20) + 1]);
    assert_refused(huge.send().await.unwrap(), 413, "request.too.large").await;
    assert_eq!(tenant.campaign(CAMPAIGN).await, (before, tag));
    assert_eq!(tenant.effects().await, []);
}

#[tokio::test]
async fn unknown_paths_methods_and_campaigns_have_json_errors() {
    let tenant = Tenant::start(settings()).await;
    let unknown = "/api/v2/campaigns/00000000-0000-4000-8000-000000000000";
    for path in ["/", "/api/v2/nothing", unknown, &format!("{unknown}/stats"), "/api/v2/campaigns//stats"] {
        assert_refused(tenant.get(path).await, 404, "not.found").await;
    }
    for (method, path) in [
        (Method::DELETE, format!("/api/v2/campaigns/{CAMPAIGN}")),
        (Method::POST, format!("/api/v2/campaigns/{CAMPAIGN}/stats")),
        (Method::GET, "/oauth/token".into()),
    ] {
        let reply = tenant.request(method, &path).send().await.unwrap();
        assert_refused(reply, 405, "method.not.allowed").await;
    }
}

#[tokio::test]
async fn another_writer_makes_tags_stale_and_may_turn_the_limits_around() {
    let tenant = Tenant::start(settings()).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    let change = format!("/campaigns/{CAMPAIGN}/change");
    let effect = tenant.control(Method::POST, &change, json!({"dialerSettings": {"maxDialRate": 2.0}})).await;
    assert_eq!((effect["oldEtag"].as_str(), effect["newRate"].as_f64()), (Some(tag.as_str()), Some(1.5)));
    let stale = tenant.write(CAMPAIGN, &tag, 1.8).send().await.unwrap();
    assert_refused(stale, 412, "precondition.failed").await;
    let (document, tag) = tenant.campaign(CAMPAIGN).await;
    assert_eq!(document["dialerSettings"]["maxDialRate"], 2.0);
    assert_refused(tenant.write(CAMPAIGN, &tag, 2.5).send().await.unwrap(), 400, "invalid.value").await;
    assert_eq!(tenant.write(CAMPAIGN, &tag, 1.8).send().await.unwrap().status().as_u16(), 204);

    tenant.control(Method::POST, &change, json!({"callerName": "Somebody else"})).await;
    let (_, unrelated) = tenant.campaign(CAMPAIGN).await;
    assert_ne!(unrelated, tag, "any property changes the tag");
    tenant.control(Method::POST, &change, json!({"dialerSettings": {"maxDialRate": 0.2}})).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    for rate in [0.1, 0.3, 1.0] {
        assert_refused(tenant.write(CAMPAIGN, &tag, rate).send().await.unwrap(), 400, "invalid.value").await;
    }
}

#[tokio::test]
async fn a_deleted_campaign_is_gone_and_the_others_stay() {
    let tenant = Tenant::start(settings()).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    let effect = tenant.control(Method::DELETE, &format!("/campaigns/{CAMPAIGN}"), Value::Null).await;
    assert!(effect["newRate"].is_null());
    let path = format!("/api/v2/campaigns/{CAMPAIGN}");
    let body = assert_refused(tenant.get(&path).await, 404, "not.found").await;
    assert_eq!(body["entityId"], CAMPAIGN);
    assert_refused(tenant.get(&format!("{path}/stats")).await, 404, "not.found").await;
    assert_refused(tenant.write(CAMPAIGN, &tag, 2.0).send().await.unwrap(), 404, "not.found").await;
    tenant.campaign(OTHER).await;
    let again =
        tenant.http.delete(tenant.url(&format!("/simulator/campaigns/{CAMPAIGN}"))).send().await.unwrap();
    assert_eq!(again.status().as_u16(), 404);
}
