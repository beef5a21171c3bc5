//! What else moves a campaign, who did it, and what the API has been used for.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use simulator::DEMO_CLIENT_ID;

use super::{around_now, assert_error, platform, send};
use crate::tenant::{CAMPAIGN, OTHER, Tenant};

fn path(id: &str) -> String {
    format!("/api/v2/outbound/campaigns/{id}")
}

async fn decimal(tenant: &Tenant, id: &str) -> f64 {
    send(tenant, Method::GET, &path(id), &Value::Null).await.1["maxCallsPerAgentDecimal"].as_f64().unwrap()
}

/// Asks until `is_done` says so of the reply.
async fn until(tenant: &Tenant, path: &str, is_done: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let (status, reply) = send(tenant, Method::GET, path, &Value::Null).await;
        assert_eq!(status, 200, "{reply}");
        if is_done(&reply) {
            return reply;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{reply}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_campaign_rule_is_listed_and_moves_our_lever_when_it_fires() {
    let tenant = Tenant::start(platform()).await;
    let rules = json!([
        {"name": "Slow down", "campaignIds": [CAMPAIGN, OTHER], "actionType": "setCampaignMaxCallsPerAgent", "maxCallsPerAgent": 1.25},
        {"name": "Not now", "enabled": false, "campaignIds": [OTHER], "actionType": "turnOffCampaign"},
    ]);
    let set = tenant.control(Method::PUT, "/campaign-rules", rules).await;
    let (status, page) =
        send(&tenant, Method::GET, "/api/v2/outbound/campaignrules?pageSize=1&pageNumber=1", &Value::Null)
            .await;
    assert_eq!((status, &page["total"], &page["pageCount"]), (200, &json!(2), &json!(2)));
    let rule = &page["entities"][0];
    assert_eq!(
        (&rule["enabled"], &rule["campaignRuleActions"][0]["actionType"]),
        (&json!(true), &json!("setCampaignMaxCallsPerAgent"))
    );
    assert_eq!(rule["campaignRuleActions"][0]["parameters"]["maxCallsPerAgent"], 1.25);
    assert_eq!(rule["campaignRuleEntities"]["campaigns"][1]["id"], OTHER);
    let (_, one) = send(&tenant, Method::GET, rule["selfUri"].as_str().unwrap(), &Value::Null).await;
    assert_eq!(&one, rule);

    let fire = async |index: usize| {
        let id = set["items"][index]["id"].as_str().unwrap();
        tenant
            .http
            .post(tenant.url(&format!("/simulator/campaign-rules/{id}/fire")))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!((fire(0).await, fire(1).await), (200, 409));
    assert_eq!((decimal(&tenant, CAMPAIGN).await, decimal(&tenant, OTHER).await), (1.25, 1.25));
    let log = tenant.log().await;
    let by_rule = log.iter().filter(|entry| entry["origin"] == "rule");
    assert_eq!(by_rule.count(), 2);
}

#[tokio::test]
async fn the_audit_log_tells_who_changed_what() {
    let tenant = Tenant::start(platform()).await;
    assert_eq!(send(&tenant, Method::PATCH, &path(CAMPAIGN), &json!({"maxCallsPerAgent": 2})).await.0, 204);
    tenant
        .control(Method::POST, &format!("/campaigns/{CAMPAIGN}/change"), json!({"maxCallsPerAgent": 4}))
        .await;
    let asked = json!({
        "interval": around_now(3_600, 3_600),
        "serviceName": "Outbound",
        "filters": [{"property": "EntityId", "value": CAMPAIGN}],
    });
    let (status, reply) = send(&tenant, Method::POST, "/api/v2/audits/query/realtime", &asked).await;
    assert_eq!((status, &reply["total"]), (200, &json!(2)));
    let [person, client] = [&reply["entities"][0], &reply["entities"][1]];
    assert_eq!((&person["user"]["name"], person.get("client")), (&json!("An Administrator"), None));
    assert_eq!(
        person["propertyChanges"][0],
        json!({"property": "maxCallsPerAgentDecimal", "oldValues": ["2"], "newValues": ["4"]})
    );
    assert_eq!(
        (&client["client"]["id"], &client["action"], &client["entityType"]),
        (&json!(DEMO_CLIENT_ID), &json!("Update"), &json!("Campaign"))
    );

    let (status, query) = send(&tenant, Method::POST, "/api/v2/audits/query", &asked).await;
    assert_eq!((status, &query["serviceName"]), (202, &json!("Outbound")));
    let transaction = format!("/api/v2/audits/query/{}", query["id"].as_str().unwrap());
    until(&tenant, &transaction, |it| it["state"] == "Succeeded").await;
    let (_, first) =
        send(&tenant, Method::GET, &format!("{transaction}/results?pageSize=1"), &Value::Null).await;
    let cursor = first["cursor"].as_str().unwrap();
    let (_, second) = send(
        &tenant,
        Method::GET,
        &format!("{transaction}/results?pageSize=1&cursor={cursor}"),
        &Value::Null,
    )
    .await;
    assert_eq!((first["entities"][0]["id"].clone(), second.get("cursor")), (client["id"].clone(), None));
    for (name, wrong, code) in [
        ("serviceName", Value::Null, "bad.request"),
        ("interval", json!("yesterday"), "invalid.value"),
        ("filters", json!([{"property": "Name", "value": "x"}]), "invalid.value"),
    ] {
        let mut body = asked.clone();
        body[name] = wrong;
        assert_error(&send(&tenant, Method::POST, "/api/v2/audits/query", &body).await, 400, code);
    }
}

#[tokio::test]
async fn usage_counts_requests_by_call_and_month_to_date_can_be_set_before() {
    let tenant = Tenant::start(platform()).await;
    for _ in 0..3 {
        decimal(&tenant, CAMPAIGN).await;
    }
    assert_eq!(send(&tenant, Method::GET, &path("nothing"), &Value::Null).await.0, 404);
    tenant.control(Method::POST, "/usage", json!({"clientId": "earlier", "requests": 5_000})).await;
    super::advance(&tenant, 600).await;
    let month = tenant.control(Method::GET, "/usage", Value::Null).await;
    assert_eq!(month["requests"], 5_004);
    assert!(month["callAttempts"].as_u64().unwrap() > 0);
    let asked = json!({"interval": around_now(86_400, 60), "granularity": "Month"});
    let (status, begun) = send(&tenant, Method::POST, "/api/v2/usage/query", &asked).await;
    assert_eq!(status, 202);
    let results = begun["resultsUri"].as_str().unwrap();
    let complete = until(&tenant, results, |it| it["queryStatus"] == "Complete").await;
    let rows = complete["results"].as_array().unwrap();
    let of = |template: &str, client: &str| {
        rows.iter()
            .filter(|it| it["templateUri"] == template && it["clientId"] == client)
            .cloned()
            .collect::<Vec<_>>()
    };
    let campaign = of("/api/v2/outbound/campaigns/{campaignId}", DEMO_CLIENT_ID);
    let [row] = &campaign[..] else { panic!("one row, not {campaign:?}") };
    assert_eq!(
        (&row["requests"], &row["status200"], &row["status400"], &row["httpMethod"]),
        (&json!(4), &json!(3), &json!(1), &json!("GET"))
    );
    let earlier: u64 =
        rows.iter().filter(|it| it["clientId"] == "earlier").map(|it| it["requests"].as_u64().unwrap()).sum();
    assert_eq!(earlier, 5_000);
    let wrong = json!({"interval": around_now(60, 60), "granularity": "Year"});
    assert_error(&send(&tenant, Method::POST, "/api/v2/usage/query", &wrong).await, 400, "invalid.value");
    let (_, limits) =
        send(&tenant, Method::GET, "/api/v2/organizations/limits/namespaces/platform.api", &Value::Null)
            .await;
    assert_eq!(
        limits["entities"][0],
        json!({"key": "client.credentials.token.rate.per.minute", "namespace": "platform.api", "value": 100_000})
    );
}
