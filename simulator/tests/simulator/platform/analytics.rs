//! Aggregates and observations: true figures of the world, by group and piece of the interval.

use reqwest::Method;
use serde_json::{Value, json};
use simulator::Scenario;

use super::{advance, around_now, assert_error, organization, platform, send};
use crate::tenant::{CAMPAIGN, OTHER, Tenant};

const CONVERSATIONS: &str = "/api/v2/analytics/conversations/aggregates/query";
const FLOWS: &str = "/api/v2/analytics/flows/aggregates/query";
const OBSERVATIONS: &str = "/api/v2/analytics/queues/observations/query";

async fn query(tenant: &Tenant, path: &str, body: Value) -> Vec<Value> {
    let (status, reply) = send(tenant, Method::POST, path, &body).await;
    assert_eq!(status, 200, "{reply}");
    reply["results"].as_array().unwrap().clone()
}

fn count(result: &Value, metric: &str) -> u64 {
    let pieces = result["data"].as_array().unwrap().iter();
    let metrics = pieces.flat_map(|piece| piece["metrics"].as_array().unwrap());
    metrics.filter(|it| it["metric"] == metric).map(|it| it["stats"]["count"].as_u64().unwrap()).sum()
}

async fn campaign(tenant: &Tenant, id: &str) -> Value {
    let world = tenant.control(Method::GET, "/campaigns", Value::Null).await;
    world["campaigns"].as_array().unwrap().iter().find(|it| it["id"] == id).unwrap().clone()
}

fn calls_query() -> Value {
    json!({
        "interval": around_now(600, 600),
        "granularity": "PT20M",
        "groupBy": ["outboundCampaignId"],
        "filter": {"type": "or", "predicates": [
            {"dimension": "outboundCampaignId", "value": CAMPAIGN},
            {"dimension": "outboundCampaignId", "value": "nothing"},
        ]},
        "metrics": ["nOutboundAttempted", "nOutboundConnected", "nOutboundAbandoned", "tAbandon"],
    })
}

#[tokio::test]
async fn calls_of_a_campaign_are_those_of_the_world_and_restated_once() {
    let tenant = Tenant::start(platform()).await;
    advance(&tenant, 3_600).await;
    let results = query(&tenant, CONVERSATIONS, calls_query()).await;
    let [result] = &results[..] else { panic!("one group, not {results:?}") };
    assert_eq!(result["group"], json!({"mediaType": "voice", "outboundCampaignId": CAMPAIGN}));
    let world = campaign(&tenant, CAMPAIGN).await;
    for (metric, counter) in [
        ("nOutboundAttempted", "attempts"),
        ("nOutboundConnected", "answers"),
        ("nOutboundAbandoned", "abandoned"),
    ] {
        assert_eq!(count(result, metric), world[counter].as_u64().unwrap(), "{metric}");
    }
    let abandoned = count(result, "nOutboundAbandoned");
    assert!(abandoned >= 4, "{abandoned}");

    tenant.control(Method::PUT, "/platform", json!({"missingAbandonedShare": 0.5})).await;
    let fresh = query(&tenant, CONVERSATIONS, calls_query()).await;
    assert_eq!(count(&fresh[0], "nOutboundAbandoned"), abandoned - (abandoned as f64 / 2.0).round() as u64);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    tenant.control(Method::POST, "/platform/restate", Value::Null).await;
    let restated = query(&tenant, CONVERSATIONS, calls_query()).await;
    assert_eq!(count(&restated[0], "nOutboundAbandoned"), abandoned);
    tenant.control(Method::PUT, "/platform", json!({"analyticsLagMs": 900_000})).await;
    assert_eq!(query(&tenant, CONVERSATIONS, calls_query()).await, Vec::<Value>::new(), "not known yet");
}

#[tokio::test]
async fn all_campaigns_come_in_one_query_and_pieces_without_calls_are_left_out() {
    let tenant = Tenant::start(platform()).await;
    advance(&tenant, 900).await;
    let body = json!({
        "interval": around_now(3_600, 3_600),
        "granularity": "PT10M",
        "groupBy": ["outboundCampaignId"],
        "metrics": ["nOutboundAttempted", "nError"],
    });
    let results = query(&tenant, CONVERSATIONS, body).await;
    assert_eq!(results.len(), 2);
    for (result, id) in results.iter().zip([CAMPAIGN, OTHER]) {
        assert_eq!(result["group"]["outboundCampaignId"], id);
        assert!((1..=2).contains(&result["data"].as_array().unwrap().len()), "{result}");
        assert_eq!(count(result, "nError"), 0);
    }
}

#[tokio::test]
async fn flows_are_counted_by_version_minute_and_exit_reason() {
    let tenant = organization().await;
    let id = Scenario::default().flows[0].id.clone();
    advance(&tenant, 900).await;
    tenant.control(Method::POST, &format!("/flows/{id}/publish"), json!({"errorRate": 0.5})).await;
    advance(&tenant, 900).await;
    let body = |group_by: Value| {
        json!({
            "interval": around_now(600, 600),
            "granularity": "PT1M",
            "groupBy": group_by,
            "filter": {"type": "and", "predicates": [{"type": "dimension", "dimension": "flowId", "operator": "matches", "value": id}]},
            "metrics": ["nFlow", "nFlowOutcome", "nFlowOutcomeFailed", "tFlow"],
            "alternateTimeDimension": "eventTime",
        })
    };
    let versions = query(&tenant, FLOWS, body(json!(["flowId", "flowVersion"]))).await;
    let of = |version: &str| versions.iter().find(|it| it["group"]["flowVersion"] == version).unwrap();
    assert!(count(of("12.0"), "nFlow") > 300 && count(of("13.0"), "nFlow") > 300);
    assert_eq!(of("13.0")["group"]["flowId"], json!(id));
    let reasons = query(&tenant, FLOWS, body(json!(["flowId", "flowVersion", "exitReason"]))).await;
    let errors: u64 = reasons
        .iter()
        .filter(|it| {
            it["group"]["flowVersion"] == "13.0"
                && it["group"]["exitReason"].as_str().unwrap().starts_with("FLOW_ERROR")
        })
        .map(|it| count(it, "nFlow"))
        .sum();
    let share = errors as f64 / count(of("13.0"), "nFlow") as f64;
    assert!((0.4..0.6).contains(&share), "{share}");
    let total: u64 = reasons.iter().map(|it| count(it, "nFlow")).sum();
    assert_eq!(total, count(of("12.0"), "nFlow") + count(of("13.0"), "nFlow"));
}

#[tokio::test]
async fn queries_the_platform_would_not_take_are_refused() {
    let tenant = organization().await;
    let good = json!({"interval": around_now(60, 0), "metrics": ["nFlow"], "groupBy": ["flowId"]});
    assert_eq!(send(&tenant, Method::POST, FLOWS, &good).await.0, 200);
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    for (wrong, code) in [
        (with("interval", Value::Null), "bad.request"),
        (with("interval", json!("PT1H")), "invalid.value"),
        (with("interval", json!("2026-01-01T00:00:00Z/2026-03-01T00:00:00Z")), "invalid.value"),
        (with("metrics", json!([])), "bad.request"),
        (with("metrics", json!(["conversation.errors.total"])), "invalid.value"),
        (with("metrics", json!(["nOutboundAttempted"])), "invalid.value"),
        (with("groupBy", json!(["flow"])), "invalid.value"),
        (with("granularity", json!("PT10S")), "invalid.value"),
        (with("filter", json!({"predicates": [{"dimension": "flowId", "value": "a"}]})), "bad.request"),
        (
            with("filter", json!({"type": "and", "predicates": [{"dimension": "campaign", "value": "a"}]})),
            "invalid.value",
        ),
    ] {
        assert_error(&send(&tenant, Method::POST, FLOWS, &wrong).await, 400, code);
    }
    let by_flow =
        json!({"interval": around_now(60, 0), "metrics": ["nConversations"], "groupBy": ["flowId"]});
    assert_error(&send(&tenant, Method::POST, CONVERSATIONS, &by_flow).await, 400, "invalid.value");
    for wrong in [
        json!({"metrics": ["oOnQueueUsers"]}),
        json!({"filter": {"type": "or", "predicates": [{"dimension": "queueId", "value": "a"}]}}),
    ] {
        assert_error(&send(&tenant, Method::POST, OBSERVATIONS, &wrong).await, 400, "bad.request");
    }
    let by_user = json!({"filter": {"type": "or", "predicates": [{"dimension": "userId", "value": "a"}]}, "metrics": ["oWaiting"]});
    assert_error(&send(&tenant, Method::POST, OBSERVATIONS, &by_user).await, 400, "invalid.value");
}

#[tokio::test]
async fn queues_tell_who_is_on_them_and_a_campaigns_agents_are_in_its_queue() {
    let tenant = organization().await;
    advance(&tenant, 600).await;
    let scenario = Scenario::default();
    let queue = &scenario.queues[0];
    tenant
        .control(Method::PUT, &format!("/queues/{}", queue.id), json!({"availabilityPercentage": 25}))
        .await;
    let campaign_id = &scenario.campaigns[0].id;
    let (_, document) =
        send(&tenant, Method::GET, &format!("/api/v2/outbound/campaigns/{campaign_id}"), &Value::Null).await;
    let of_campaign = document["queue"]["id"].as_str().unwrap();
    let predicate = |id: &str| json!({"dimension": "queueId", "value": id});
    let body = json!({
        "filter": {"type": "or", "predicates": [predicate(&queue.id), predicate(of_campaign), predicate("nothing")]},
        "metrics": ["oOnQueueUsers", "oMemberUsers", "oWaiting", "oInteracting"],
    });
    let results = query(&tenant, OBSERVATIONS, body).await;
    assert_eq!(results.len(), 4, "users and calls apart, of each queue: {results:?}");
    let users = |id: &str, qualifier: &str| {
        let group = json!({"queueId": id});
        let data = results.iter().find(|it| it["group"] == group).unwrap()["data"].as_array().unwrap();
        let found = data.iter().find(|it| it["metric"] == "oOnQueueUsers" && it["qualifier"] == qualifier);
        found.map_or(0, |it| it["stats"]["count"].as_u64().unwrap())
    };
    assert_eq!((users(&queue.id, "IDLE"), users(&queue.id, "INTERACTING")), (10, 30));
    let world = campaign(&tenant, campaign_id).await;
    let agents = |name: &str| world["agents"][name].as_u64().unwrap();
    assert_eq!(users(of_campaign, "IDLE"), agents("idle"));
    assert_eq!(users(of_campaign, "INTERACTING"), agents("talking") + agents("wrappingUp"));
    let (status, shown) =
        send(&tenant, Method::GET, &format!("/api/v2/routing/queues/{}", queue.id), &Value::Null).await;
    assert_eq!((status, &shown["memberCount"]), (200, &json!(40)));
}
