//! Examples of Genesys Cloud's own interface that its official SDKs read and write without a loss:
//! each request is taken, each reply has the example's members, of the same types.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{CampaignScenario, FlowScenario, Scenario, Settings, VersionScenario, VersionStatus};

use super::{advance, around_now, platform, send};
use crate::tenant::Tenant;

const CAMPAIGN: &str = "7b1b6a2e-1c0e-4d43-9b0e-0f6b9a1f2c01";
const FLOW: &str = "c3a8e9b4-5f7d-4a26-8f10-9e2b4d6a7c03";

macro_rules! example {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!(
            "../../../../src/genesys/platform/fixtures/",
            $name,
            ".json"
        )))
        .unwrap()
    };
}

/// The organisation the examples are about, after an hour.
async fn organization() -> Tenant {
    let version = |id: &str, status| VersionScenario { id: id.into(), status, error_rate: 0.05 };
    let scenario = Scenario {
        campaigns: vec![CampaignScenario {
            id: CAMPAIGN.into(),
            name: "Renewals".into(),
            dial_rate: 2.25,
            ..CampaignScenario::default()
        }],
        flows: vec![FlowScenario {
            id: FLOW.into(),
            name: "Main menu".into(),
            outcome_share: 0.9,
            versions: vec![version("11.0", VersionStatus::Published), version("12.0", VersionStatus::Active)],
            ..FlowScenario::default()
        }],
        queues: Vec::new(),
        consumer_groups: Vec::new(),
    };
    let tenant = Tenant::start(Settings { scenario, ..platform() }).await;
    tenant.control(Method::PUT, "/platform", json!({"publishMs": 0, "publishSimulatedSeconds": 5})).await;
    advance(&tenant, 3_600).await;
    tenant
}

/// Where a reply lacks a member of the example, or has one of another type. Lists are compared by
/// all that any of their items has.
fn differences(example: &Value, reply: &Value, at: &str, found: &mut BTreeSet<String>) {
    match (example, reply) {
        (Value::Object(example), Value::Object(reply)) => {
            for (name, value) in example {
                match reply.get(name) {
                    Some(held) => differences(value, held, &format!("{at}.{name}"), found),
                    None => drop(found.insert(format!("{at}.{name}"))),
                }
            }
        }
        (Value::Array(example), Value::Array(reply)) => {
            if let (Some(example), Some(reply)) = (merged(example), merged(reply)) {
                differences(&example, &reply, &format!("{at}[]"), found);
            }
        }
        (Value::Number(example), Value::Number(reply)) if example.is_i64() && !reply.is_i64() => {
            found.insert(format!("{at} is no whole number"));
        }
        (example, reply) if std::mem::discriminant(example) != std::mem::discriminant(reply) => {
            found.insert(format!("{at} is of another type"));
        }
        _ => {}
    }
}

/// One item with the members of all.
fn merged(items: &[Value]) -> Option<Value> {
    let mut merged = items.first()?.clone();
    for item in items {
        merge(&mut merged, item);
    }
    Some(merged)
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name.clone()).or_insert_with(|| value.clone()), value);
            }
        }
        (Value::Array(into), Value::Array(from)) => into.extend(from.iter().cloned()),
        _ => {}
    }
}

#[track_caller]
fn assert_alike(example: &Value, reply: &Value, lacking: &[&str]) {
    let mut found = BTreeSet::new();
    differences(example, reply, "", &mut found);
    let expected: BTreeSet<String> = lacking.iter().map(|at| (*at).to_owned()).collect();
    assert_eq!(found, expected, "{reply}");
}

async fn get(tenant: &Tenant, path: &str) -> Value {
    let (status, reply) = send(tenant, Method::GET, path, &Value::Null).await;
    assert_eq!(status, 200, "{path}: {reply}");
    reply
}

async fn post(tenant: &Tenant, path: &str, body: &Value) -> Value {
    let (status, reply) = send(tenant, Method::POST, path, body).await;
    assert!([200, 202].contains(&status), "{path}: {reply}");
    reply
}

fn now(mut query: Value) -> Value {
    query["interval"] = json!(around_now(1_800, 1_800));
    query
}

#[tokio::test]
async fn campaigns_are_as_in_the_examples() {
    let tenant = organization().await;
    let path = format!("/api/v2/outbound/campaigns/{CAMPAIGN}");
    let campaign = get(&tenant, &path).await;
    assert_alike(&example!("campaign"), &campaign, &[".contactList.selfUri"]);
    assert_alike(&example!("campaign_statistics"), &get(&tenant, &format!("{path}/stats")).await, &[]);
    assert_alike(&example!("outbound_settings"), &get(&tenant, "/api/v2/outbound/settings").await, &[]);
    for patch in [
        json!({"maxCallsPerAgent": 2.25}),
        json!({"abandonRate": 2.5}),
        json!({"outboundLineCount": 40}),
        json!({"dynamicLineBalancingSettings": {"enabled": true, "relativeWeight": 3}}),
    ] {
        assert_eq!(send(&tenant, Method::PATCH, &path, &patch).await.0, 204, "{patch}");
    }
    let mut written = example!("campaign");
    written["version"] = get(&tenant, &path).await["version"].clone();
    let (status, replaced) =
        send(&tenant, Method::PUT, &format!("{path}?useMaxCallsPerAgentDecimal=true"), &written).await;
    assert_eq!(status, 200, "{replaced}");
    for member in [
        "name",
        "callerName",
        "callerAddress",
        "phoneColumns",
        "noAnswerTimeout",
        "queue",
        "maxCallsPerAgentDecimal",
    ] {
        assert_eq!(replaced[member], written[member], "{member}");
    }
}

#[tokio::test]
async fn aggregates_and_observations_are_as_in_the_examples() {
    let tenant = organization().await;
    let conversations = "/api/v2/analytics/conversations/aggregates/query";
    let asked = example!("campaign_counters_query");
    assert_eq!(post(&tenant, conversations, &asked).await, json!({"results": []}), "long ago");
    assert_alike(&example!("campaign_counters"), &post(&tenant, conversations, &now(asked)).await, &[]);

    let flows = "/api/v2/analytics/flows/aggregates/query";
    let by_exit = post(&tenant, flows, &now(example!("flow_measures_by_exit_query"))).await;
    assert_alike(&example!("flow_measures_by_exit"), &by_exit, &[]);
    let by_outcome = post(&tenant, flows, &now(example!("flow_measures_by_outcome_query"))).await;
    assert_alike(&example!("flow_measures_by_outcome"), &by_outcome, &[]);

    let queue = get(&tenant, &format!("/api/v2/outbound/campaigns/{CAMPAIGN}")).await["queue"]["id"].clone();
    let mut asked = example!("queue_observations_query");
    let path = "/api/v2/analytics/queues/observations/query";
    assert_eq!(post(&tenant, path, &asked).await["results"], json!([]), "a queue nobody has is absent");
    asked["filter"]["predicates"][0]["value"] = queue;
    assert_alike(&example!("queue_observations"), &post(&tenant, path, &asked).await, &[]);
}

#[tokio::test]
async fn flows_are_as_in_the_examples_at_each_step_of_a_publish() {
    let tenant = organization().await;
    let path = format!("/api/v2/flows/{FLOW}");
    let publish = format!("/api/v2/flows/actions/publish?flow={FLOW}&version=11.0");
    let listed = get(&tenant, &format!("{path}/versions?pageSize=25&pageNumber=1")).await;
    assert_alike(&example!("flow_versions"), &listed, &[]);
    assert_eq!(listed["entities"].as_array().unwrap().len(), 2);
    assert_alike(&example!("operation"), &post(&tenant, &publish, &Value::Null).await, &[]);
    assert_alike(&example!("flow_publishing"), &get(&tenant, &path).await, &[]);
    advance(&tenant, 5).await;
    let published = get(&tenant, &path).await;
    // The version in force has ended before there: it is the one that came back.
    assert_alike(&example!("flow_published"), &published, &[".publishedVersion.datePublishedEnd"]);
    tenant.control(Method::PUT, "/platform", json!({"publishFails": true})).await;
    post(&tenant, &publish.replace("11.0", "12.0"), &Value::Null).await;
    advance(&tenant, 5).await;
    assert_alike(&example!("flow_publish_failed"), &get(&tenant, &path).await, &[]);

    let lock = json!({"userId": "5f0e1d2c-3b4a-4958-8776-655443322107", "name": "A Person"});
    tenant.control(Method::PUT, &format!("/flows/{FLOW}/lock"), lock).await;
    assert_alike(&example!("flow_locked"), &get(&tenant, &path).await, &[]);
    let (status, refused) = send(&tenant, Method::POST, &publish, &Value::Null).await;
    let example = example!("error_conflict");
    assert_eq!((status, &refused["message"], &refused["code"]), (409, &example["message"], &example["code"]));
    assert_alike(&example, &refused, &[]);
}

#[tokio::test]
async fn details_and_the_limit_of_requests_are_as_in_the_examples() {
    let tenant = organization().await;
    let conversation = |number: usize| {
        json!({
            "conversationId": format!("abc00000-0000-4000-8000-{number:012}"),
            "conversationStart": "2026-01-02T03:04:05.678Z", "conversationEnd": "2026-01-02T03:09:05.678Z",
            "availableAt": "2026-01-02T03:09:05.678Z", "originatingDirection": "outbound",
            "campaignId": CAMPAIGN, "flowId": FLOW, "flowVersion": "12.0", "wrapUpMs": 45_000,
            "queueId": "2d0f3a52-6a6e-4f0b-8a3d-7f0d6a0b1e02",
            "wrapUpCode": "5f0e1d2c-3b4a-4958-8776-655443322107",
            "userId": "5f0e1d2c-3b4a-4958-8776-655443322107",
        })
    };
    tenant.control(Method::POST, "/conversations", json!([conversation(0), conversation(1)])).await;
    let found =
        post(&tenant, "/api/v2/analytics/conversations/details/query", &example!("details_query")).await;
    let session = ".conversations[].participants[].sessions[]";
    let not_simulated = [
        "ani",
        "dnis",
        "dispositionAnalyzer",
        "outboundContactId",
        "outboundContactListId",
        "peerId",
        "provider",
        // Conversations registered by hand do not tell how they left the flow, nor with which outcome.
        "flow.exitReason",
        "flow.outcomes",
    ];
    let mut lacking: Vec<String> = not_simulated.iter().map(|name| format!("{session}.{name}")).collect();
    lacking.push(".conversations[].mediaStatsMinConversationMos".into());
    lacking.push(".conversations[].participants[].participantName".into());
    assert_alike(&example!("details"), &found, &lacking.iter().map(String::as_str).collect::<Vec<_>>());

    tenant.control(Method::PUT, "/platform", json!({"jobsMs": 0})).await;
    let jobs = "/api/v2/analytics/conversations/details/jobs";
    let job = post(&tenant, jobs, &example!("details_job_query")).await["jobId"].as_str().unwrap().to_owned();
    assert_alike(&example!("details_job"), &get(&tenant, &format!("{jobs}/{job}")).await, &[]);

    let limited = Tenant::start(Settings { requests_per_window: 1, ..platform() }).await;
    let path = "/api/v2/outbound/settings";
    get(&limited, path).await;
    let (status, refused) = send(&limited, Method::GET, path, &Value::Null).await;
    let example = example!("error_rate_limit");
    assert_eq!((status, &refused["messageWithParams"]), (429, &example["messageWithParams"]));
    assert_alike(&example, &refused, &[]);
}
