//! Campaigns by Genesys Cloud's own interface: what is shown, what is refused, one world behind
//! both dialects.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use simulator::{Client, Dialect, Settings};

use super::{assert_error, platform, send};
use crate::tenant::{CAMPAIGN, OTHER, Tenant, settings};

fn path(id: &str) -> String {
    format!("/api/v2/outbound/campaigns/{id}")
}

async fn shown(tenant: &Tenant, id: &str) -> Value {
    let reply = tenant.get(&path(id)).await;
    assert_eq!(reply.status(), StatusCode::OK);
    assert!(!reply.headers().contains_key("etag"));
    reply.json().await.unwrap()
}

#[tokio::test]
async fn a_campaign_has_what_the_platform_requires_and_no_rate_of_the_seed() {
    let tenant = Tenant::start(platform()).await;
    let campaign = shown(&tenant, CAMPAIGN).await;
    for required in ["name", "version", "campaignStatus", "dialingMode", "callerName", "callerAddress"] {
        assert!(campaign.get(required).is_some(), "{required}: {campaign}");
    }
    for reference in ["contactList", "queue", "script", "division"] {
        assert!(campaign[reference]["id"].is_string(), "{reference}: {campaign}");
    }
    assert_eq!((&campaign["abandonRate"], &campaign["maxCallsPerAgent"]), (&json!(3.0), &json!(2)));
    assert_eq!(campaign["maxCallsPerAgentDecimal"], 1.5);
    assert!(campaign.get("dialerSettings").is_none());
    let (status, _) =
        send(&tenant, Method::GET, &format!("/api/v2/campaigns/{CAMPAIGN}"), &Value::Null).await;
    assert_eq!(status, 404, "the seed's paths are not there");
}

#[tokio::test]
async fn a_patch_moves_the_lever_by_its_one_name_and_ignores_what_it_does_not_know() {
    let tenant = Tenant::start(platform()).await;
    let before = shown(&tenant, CAMPAIGN).await;
    let body =
        json!({"maxCallsPerAgent": 2.25, "unheardOf": 1, "maxCallsPerAgentDecimal": 9.0, "version": 1});
    assert_eq!(send(&tenant, Method::PATCH, &path(CAMPAIGN), &body).await, (204, Value::Null));
    let after = shown(&tenant, CAMPAIGN).await;
    assert_eq!((&after["maxCallsPerAgent"], &after["maxCallsPerAgentDecimal"]), (&json!(2), &json!(2.25)));
    assert_eq!(after["version"].as_u64().unwrap(), before["version"].as_u64().unwrap() + 1);
    assert!(after.get("unheardOf").is_none());
    assert_eq!(tenant.effects().await, [(1.5, 2.25)]);

    for wrong in [
        json!({"maxCallsPerAgent": 0.5}),
        json!({"maxCallsPerAgent": 15.5}),
        json!({"abandonRate": 0.0}),
        json!({"outboundLineCount": 1.5}),
        json!({"queue": {"id": "5f0e1d2c-3b4a-4958-8776-655443322107"}}),
    ] {
        assert_error(&send(&tenant, Method::PATCH, &path(CAMPAIGN), &wrong).await, 400, "invalid.value");
    }
    assert_error(
        &send(&tenant, Method::PATCH, &path(CAMPAIGN), &json!({"maxCallsPerAgent": "2"})).await,
        400,
        "bad.request",
    );
    assert_error(&send(&tenant, Method::PATCH, &path("nothing"), &json!({})).await, 404, "not.found");
    assert_error(
        &send(&tenant, Method::DELETE, &path(CAMPAIGN), &json!({})).await,
        405,
        "method.not.allowed",
    );
    assert_eq!(shown(&tenant, CAMPAIGN).await, after);
    let others =
        json!({"abandonRate": 2.5, "dynamicLineBalancingSettings": {"enabled": true, "relativeWeight": 3}});
    assert_eq!(send(&tenant, Method::PATCH, &path(CAMPAIGN), &others).await.0, 204);
    let after = shown(&tenant, CAMPAIGN).await;
    assert_eq!(
        (&after["abandonRate"], &after["dynamicLineBalancingSettings"]["relativeWeight"]),
        (&json!(2.5), &json!(3))
    );
}

#[tokio::test]
async fn a_put_needs_the_newest_version_and_everything_that_is_required() {
    let tenant = Tenant::start(platform()).await;
    let decimal = format!("{}?useMaxCallsPerAgentDecimal=true", path(CAMPAIGN));
    let mut campaign = shown(&tenant, CAMPAIGN).await;
    for required in [
        "name",
        "contactList",
        "dialingMode",
        "phoneColumns",
        "callerName",
        "callerAddress",
        "version",
        "campaignStatus",
        "abandonRate",
        "queue",
        "script",
    ] {
        let mut lacking = campaign.clone();
        lacking.as_object_mut().unwrap().remove(required);
        let refused = send(&tenant, Method::PUT, &decimal, &lacking).await;
        assert_error(&refused, 400, "bad.request");
        assert!(refused.1["message"].as_str().unwrap().contains(required), "{required}: {}", refused.1);
    }
    let mut odd = campaign.clone();
    odd["dialingMode"] = json!("psychic");
    assert_error(&send(&tenant, Method::PUT, &decimal, &odd).await, 400, "invalid.value");

    campaign["maxCallsPerAgentDecimal"] = json!(2.75);
    let (status, replaced) = send(&tenant, Method::PUT, &decimal, &campaign).await;
    assert_eq!((status, &replaced["maxCallsPerAgentDecimal"]), (200, &json!(2.75)));
    assert_eq!(replaced["version"].as_u64().unwrap(), campaign["version"].as_u64().unwrap() + 1);
    assert_error(&send(&tenant, Method::PUT, &decimal, &campaign).await, 409, "general.conflict");
    tenant.control(Method::PUT, "/platform", json!({"stale": "bad_request"})).await;
    let refused = send(&tenant, Method::PUT, &decimal, &campaign).await;
    assert_error(&refused, 400, "bad.request");
    assert!(refused.1["message"].as_str().unwrap().contains("does not match the current version"));

    // Without the parameter the whole number counts: the decimal is lost.
    let (status, rounded) = send(&tenant, Method::PUT, &path(CAMPAIGN), &replaced).await;
    assert_eq!((status, &rounded["maxCallsPerAgentDecimal"]), (200, &json!(3.0)));
    // What is not in the body is gone.
    let mut shorter = rounded.clone();
    shorter.as_object_mut().unwrap().remove("dncLists");
    let (_, without) = send(&tenant, Method::PUT, &decimal, &shorter).await;
    assert!(without.get("dncLists").is_none() && without.get("ruleSets").is_some());
}

#[tokio::test]
async fn a_campaign_stops_by_way_of_stopping_and_a_complete_one_cannot_be_switched_off() {
    let tenant = Tenant::start(platform()).await;
    tenant.control(Method::POST, "/clock/advance?seconds=300", Value::Null).await;
    let stop = format!("{}/stop", path(CAMPAIGN));
    assert_eq!(send(&tenant, Method::POST, &stop, &Value::Null).await.0, 204);
    let stopping = shown(&tenant, CAMPAIGN).await;
    assert_eq!(stopping["campaignStatus"], "stopping");
    tenant.control(Method::POST, "/clock/advance?seconds=30", Value::Null).await;
    assert_eq!(shown(&tenant, CAMPAIGN).await["campaignStatus"], "off");
    let attempts = async || {
        let stats = send(&tenant, Method::GET, &format!("{}/stats", path(CAMPAIGN)), &Value::Null).await.1;
        stats["contactRate"]["attempts"].as_u64().unwrap()
    };
    let before = attempts().await;
    tenant.control(Method::POST, "/clock/advance?seconds=300", Value::Null).await;
    assert_eq!(attempts().await, before, "nobody is called while it is off");
    assert_eq!(send(&tenant, Method::POST, &format!("{}/start", path(CAMPAIGN)), &Value::Null).await.0, 204);
    tenant.control(Method::POST, "/clock/advance?seconds=300", Value::Null).await;
    assert!(attempts().await > before);

    tenant
        .control(Method::POST, &format!("/campaigns/{OTHER}/change"), json!({"campaignStatus": "complete"}))
        .await;
    let refused = send(&tenant, Method::POST, &format!("{}/stop", path(OTHER)), &Value::Null).await;
    assert_error(&refused, 400, "invalid.value");
    assert_eq!(refused.1["message"], "Invalid transition from <COMPLETE> to <OFF>");
    let mut campaign = shown(&tenant, OTHER).await;
    let put = path(OTHER);
    assert_eq!(send(&tenant, Method::PUT, &put, &campaign).await.0, 200, "as read it is taken");
    campaign = shown(&tenant, OTHER).await;
    campaign["campaignStatus"] = json!("off");
    assert_error(&send(&tenant, Method::PUT, &put, &campaign).await, 400, "invalid.value");
}

#[tokio::test]
async fn statistics_and_bulk_performance_come_from_one_world() {
    let tenant = Tenant::start(platform()).await;
    tenant.control(Method::POST, "/clock/advance?seconds=900", Value::Null).await;
    let (_, stats) = send(&tenant, Method::GET, &format!("{}/stats", path(CAMPAIGN)), &Value::Null).await;
    let (attempts, connects) = (
        stats["contactRate"]["attempts"].as_f64().unwrap(),
        stats["contactRate"]["connects"].as_f64().unwrap(),
    );
    assert!(
        attempts > 50.0
            && (stats["contactRate"]["connectRatio"].as_f64().unwrap() - connects / attempts).abs() < 1e-9
    );
    assert!(stats["idleAgents"].is_u64() && stats["adjustedCallsPerAgent"].is_f64());
    let bulk = "/api/v2/outbound/campaigns/performance/query";
    let (status, performance) = send(&tenant, Method::POST, bulk, &json!([CAMPAIGN, "nothing", OTHER])).await;
    assert_eq!((status, performance["entities"].as_array().unwrap().len()), (200, 2));
    let first = &performance["entities"][0];
    assert_eq!((&first["campaign"]["id"], &first["idleAgents"]), (&json!(CAMPAIGN), &stats["idleAgents"]));
    assert_eq!(first["contactRate"], json!({"connectRatio": connects / attempts}));
    assert_error(&send(&tenant, Method::POST, bulk, &json!({"ids": []})).await, 400, "bad.request");
    assert_error(&send(&tenant, Method::POST, bulk, &json!([])).await, 400, "invalid.value");

    let diagnostics = format!("{}/diagnostics", path(CAMPAIGN));
    let (_, alerting) = send(&tenant, Method::GET, &diagnostics, &Value::Null).await;
    assert_eq!(alerting["campaignErrors"][0]["error"], "LOW_MAX_CALLS_PER_AGENT");
    let quiet = json!({"diagnosticsSettings": {"reportLowMaxCallsPerAgentAlert": false}});
    tenant.control(Method::POST, &format!("/campaigns/{CAMPAIGN}/change"), quiet).await;
    assert_eq!(send(&tenant, Method::GET, &diagnostics, &Value::Null).await.1["campaignErrors"], json!([]));
}

#[tokio::test]
async fn the_organisations_settings_limit_the_lever_and_choose_the_denominator() {
    let tenant = Tenant::start(platform()).await;
    let path_of_settings = "/api/v2/outbound/settings";
    let (_, settings) = send(&tenant, Method::GET, path_of_settings, &Value::Null).await;
    assert_eq!(
        (&settings["maxCallsPerAgentDecimal"], &settings["complianceAbandonRateDenominator"]),
        (&json!(15.0), &json!("CALLS_THAT_REACHED_QUEUE"))
    );
    tenant.control(Method::POST, "/clock/advance?seconds=1800", Value::Null).await;
    let rate = async || {
        let world = tenant.control(Method::GET, "/campaigns", Value::Null).await;
        let campaigns = world["campaigns"].as_array().unwrap().clone();
        campaigns.into_iter().find(|it| it["id"] == CAMPAIGN).unwrap()
    };
    let reached = rate().await;
    assert_eq!(reached["complianceAbandonRate"], reached["abandonment"]);
    let change = json!({"version": settings["version"], "complianceAbandonRateDenominator": "ALL_CALLS", "maxCallsPerAgent": 4});
    assert_eq!(send(&tenant, Method::PATCH, path_of_settings, &change).await, (204, Value::Null));
    let all = rate().await;
    let expected = all["abandoned"].as_f64().unwrap() / all["attempts"].as_f64().unwrap();
    assert!(
        all["abandoned"].as_u64().unwrap() > 0
            && (all["complianceAbandonRate"].as_f64().unwrap() - expected).abs() < 1e-12
    );
    assert_error(&send(&tenant, Method::PATCH, path_of_settings, &change).await, 409, "general.conflict");
    assert_error(&send(&tenant, Method::PATCH, path_of_settings, &json!({})).await, 400, "bad.request");
    let over = send(&tenant, Method::PATCH, &path(CAMPAIGN), &json!({"maxCallsPerAgent": 4.5})).await;
    assert_error(&over, 400, "invalid.value");
}

#[tokio::test]
async fn a_client_without_permission_is_told_which_and_limits_are_told_with_their_namespace() {
    let mut settings = Settings { requests_per_window: 2, ..platform() };
    settings.clients[0].scopes.remove("outbound:campaign:edit");
    settings.clients.push(Client { id: "other".into(), secret: "s".into(), scopes: Default::default() });
    let tenant = Tenant::start(settings).await;
    let refused = send(&tenant, Method::PATCH, &path(CAMPAIGN), &json!({"maxCallsPerAgent": 2})).await;
    assert_error(&refused, 403, "missing.any.permissions");
    assert_eq!(refused.1["messageParams"]["permissions"], "[outbound:campaign:edit]");
    let reply = tenant.get(&path(CAMPAIGN)).await;
    assert_eq!(
        (
            reply.headers()["inin-ratelimit-count"].to_str().unwrap(),
            reply.headers()["inin-ratelimit-allowed"].to_str().unwrap()
        ),
        ("2", "2")
    );
    assert!(
        reply.headers().contains_key("inin-correlation-id")
            && reply.headers().contains_key("inin-ratelimit-reset")
    );
    let reply = tenant.get(&path(CAMPAIGN)).await;
    let wait = reply.headers()["retry-after"].to_str().unwrap().to_owned();
    let body: Value = reply.json().await.unwrap();
    assert_error(&(429, body.clone()), 429, "too.many.requests");
    assert_eq!(
        body["limit"],
        json!({"key": "client.credentials.token.rate.per.minute", "namespace": "platform.api", "value": 2})
    );
    assert_eq!(body["messageParams"]["retryAfter"], json!(wait));
}

#[tokio::test]
async fn both_dialects_move_the_same_world_and_faults_hit_either() {
    let tenant = Tenant::start(Settings { dialect: Dialect::Both, ..settings() }).await;
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    assert_eq!(
        send(&tenant, Method::PATCH, &path(CAMPAIGN), &json!({"maxCallsPerAgent": 3.25})).await.0,
        204
    );
    let (document, _) = tenant.campaign(CAMPAIGN).await;
    assert_eq!(document["dialerSettings"]["predictedDialRate"], 3.25);
    assert_eq!(tenant.write(CAMPAIGN, &tag, 2.0).send().await.unwrap().status().as_u16(), 412);
    let (_, tag) = tenant.campaign(CAMPAIGN).await;
    let version = shown(&tenant, CAMPAIGN).await["version"].as_u64().unwrap();
    assert_eq!(tenant.write(CAMPAIGN, &tag, 2.0).send().await.unwrap().status().as_u16(), 204);
    let campaign = shown(&tenant, CAMPAIGN).await;
    assert_eq!(
        (&campaign["maxCallsPerAgentDecimal"], campaign["version"].as_u64()),
        (&json!(2.0), Some(version + 1))
    );

    tenant.set_faults(json!([{"match": {"method": "PATCH", "campaign": CAMPAIGN}, "times": 1, "fault": {"type": "drop_after_effect"}}])).await;
    let request = tenant.request(Method::PATCH, &path(CAMPAIGN)).json(&json!({"maxCallsPerAgent": 2.5}));
    assert!(request.send().await.is_err());
    assert_eq!(shown(&tenant, CAMPAIGN).await["maxCallsPerAgentDecimal"], 2.5, "the effect has taken place");
    tenant
        .set_faults(json!([{"match": {"path": "/api/v2/outbound"}, "times": 1, "fault":
            {"type": "status", "code": 429, "seconds": 7, "retryAfter": "int", "namespace": "outbound"}}]))
        .await;
    let reply = tenant.get(&path(CAMPAIGN)).await;
    assert_eq!(reply.headers()["retry-after"], "7");
    assert_eq!(reply.json::<Value>().await.unwrap()["limit"]["namespace"], "outbound");
}
