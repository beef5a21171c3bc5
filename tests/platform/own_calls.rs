//! Every call the client makes of Genesys Cloud's own API, for `make conformance`: the log of the
//! requests is written where TRUNKLINE_CONFORMANCE_REQUESTS says.

use std::time::Duration;

use serde_json::json;
use simulator::{Dialect as Simulated, FlowScenario, Scenario};
use trunkline::genesys::{
    CampaignChange, Changed, Client, DetailsQuery, Dialect, ErrorMeasure, PlatformSettings, Settings,
};
use trunkline::model::Timestamp;

use crate::support::simulated::{CAMPAIGN, OTHER, Organization, client, scope, settings};

fn speaking(organization: &Organization, platform: PlatformSettings) -> Client {
    client(&Settings { dialect: Dialect::Platform(platform), ..organization.client_settings() })
}

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}

async fn campaigns(client: &Client) {
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let request = client.prepare_dial_rate(&campaign, campaign.dial_rate + 0.25);
    client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap();
    client.expect_campaigns([CAMPAIGN, OTHER]);
    client.campaign_lately(OTHER, &scope()).await.unwrap();
    client.campaign_statistics(CAMPAIGN, &scope()).await.unwrap();
    client.ask_last_writer(Changed::Campaign, CAMPAIGN, &scope()).await.unwrap();
}

async fn flows(client: &Client, flow: &str) {
    let known = client.flow(flow, &scope()).await.unwrap();
    let target = known.versions.iter().find(|version| !version.is_active()).unwrap();
    let request = client.prepare_activation(flow, &target.id, "back");
    client.send_activation(&request, flow, &scope()).await.unwrap();
    let now = now();
    client.flow_measures(flow, now.minus(Duration::from_secs(600)), now, &scope()).await.unwrap();
    client.ask_last_writer(Changed::Flow, flow, &scope()).await.unwrap();
}

async fn details(client: &Client, ended_before: Duration) {
    let ids = ["abc00000-0000-4000-8000-000000000000", "abc00000-0000-4000-8000-000000000001"];
    let to = now().minus(ended_before);
    let query = DetailsQuery { conversation_ids: &ids, from: to.minus(Duration::from_secs(600)), to };
    client.conversation_details(&query, &scope()).await.unwrap();
}

#[tokio::test]
async fn every_call_is_one_the_platform_takes() {
    let mut scenario = Scenario {
        flows: vec![FlowScenario { name: "Menu".into(), ..FlowScenario::default() }],
        ..settings().scenario
    };
    scenario = scenario.with_ids();
    let (flow, queue) = (scenario.flows[0].id.clone(), "2d0f3a52-6a6e-4f0b-8a3d-7f0d6a0b1e02");
    let organization =
        Organization::start(simulator::Settings { dialect: Simulated::Platform, scenario, ..settings() })
            .await;
    let quick = PlatformSettings { job_pause: Duration::from_millis(20), ..PlatformSettings::default() };
    let one_by_one = speaking(&organization, quick.clone());
    campaigns(&one_by_one).await;
    flows(&one_by_one, &flow).await;
    one_by_one.expect_queues([queue]);
    one_by_one.queue_availability(queue, &scope()).await.unwrap_err();
    details(&one_by_one, Duration::ZERO).await;
    details(&one_by_one, Duration::from_secs(30 * 86_400)).await;
    one_by_one.outbound_settings(&scope()).await.unwrap();
    one_by_one.campaign_rules(&scope()).await.unwrap();
    one_by_one.calls_this_month(&scope()).await.unwrap();

    let others = PlatformSettings {
        campaign_change: CampaignChange::Whole,
        error_measure: ErrorMeasure::default(),
        single_campaigns: 0,
        ..quick
    };
    campaigns(&speaking(&organization, others)).await;

    let requests = organization.requests().await;
    let refused = |it: &&serde_json::Value| it["status"].as_u64().is_none_or(|status| status >= 400);
    assert_eq!(requests.iter().filter(refused).collect::<Vec<_>>(), Vec::<&serde_json::Value>::new());
    if let Ok(path) = std::env::var("TRUNKLINE_CONFORMANCE_REQUESTS") {
        std::fs::write(&path, json!(requests).to_string()).unwrap();
    }
}
