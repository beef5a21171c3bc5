//! A campaign that dials too much, through every part: the simulated world loses calls, the
//! platform tells of them by events and analytics, and the figures in SQL are the world's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Answering, CampaignScenario, Scenario};

use crate::deployment::{Deployment, ENDED, free_port};
use crate::support::evidence::get_json;
use crate::support::within;

/// Everything happens within this, also where everything runs at once.
const PATIENCE: Duration = Duration::from_secs(180);

/// One campaign whose agents all go home after twenty minutes of the world, for good: then
/// nobody is called any more and every call comes to its end.
fn one_shift() -> Scenario {
    Scenario::of_campaigns(vec![CampaignScenario {
        id: "5c1d6f0e-9a52-4b7e-8a39-0d6f5b1c2e77".into(),
        name: "Lossy".into(),
        dial_rate: 6.0,
        min_dial_rate: 6.0,
        answering: Answering::Constant { rate: 0.5 },
        talk_seconds: 60.0,
        wrap_up_seconds: 10.0,
        shift_seconds: 1_200,
        away_seconds: 604_800,
        ..CampaignScenario::default()
    }])
}

/// All items of a list of the simulator's.
async fn listed(deployment: &Deployment, path: &str) -> Vec<Value> {
    let (mut items, mut since) = (Vec::new(), json!(0));
    while !since.is_null() {
        let page =
            get_json(&format!("{}/simulator{path}?limit=1000&since={since}", deployment.scene.simulator))
                .await;
        items.extend(page["items"].as_array().expect("a list").iter().cloned());
        since = page["next"].clone();
    }
    items
}

/// The world's own account: calls that were told of by events, and those of them without an agent.
async fn world(deployment: &Deployment) -> (i64, i64) {
    let told: BTreeSet<String> = listed(deployment, "/events/log")
        .await
        .iter()
        .filter_map(|entry| entry["conversationId"].as_str().map(str::to_owned))
        .collect();
    let mut calls = BTreeMap::new();
    for conversation in listed(deployment, "/conversations").await {
        let id = conversation["conversationId"].as_str().expect("an id").to_owned();
        if told.contains(&id) && conversation["campaignId"].is_string() {
            calls.insert(id, conversation["userId"].is_string());
        }
    }
    let abandoned = calls.values().filter(|taken| !**taken).count();
    (calls.len() as i64, abandoned as i64)
}

/// Answered and abandoned by the days' figures, with their source.
async fn figures(deployment: &Deployment) -> Vec<(i64, i64, String)> {
    sqlx::query_as(
        "SELECT answered, abandoned, source FROM audit.campaign_compliance
         WHERE figure = 'live_answer' AND \"window\" = 'period_30d' AND answered IS NOT NULL",
    )
    .fetch_all(&deployment.scene.owner)
    .await
    .expect("the audit can be asked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_in_sql_are_the_simulated_worlds_own() {
    let deployment = Deployment::of(one_shift()).await;
    let listen = format!("127.0.0.1:{}", free_port());
    let mut instance = deployment.instance_with(
        "whole",
        &[],
        &[
            ("TRUNKLINE_HTTP__LISTEN", listen.clone()),
            ("TRUNKLINE_ENRICHMENT__QUIET", "1s".to_owned()),
            ("TRUNKLINE_ENRICHMENT__SETTLE", "200ms".to_owned()),
            ("TRUNKLINE_COMPLIANCE__INTERVAL", "200ms".to_owned()),
            ("TRUNKLINE_COMPLIANCE__WARN_ANSWERS", "20".to_owned()),
        ],
    );
    let http = reqwest::Client::new();
    let settings = json!({"to": format!("http://{listen}/v1/events"), "campaigns": true});
    let reply =
        http.put(format!("{}/simulator/events", deployment.scene.simulator)).json(&settings).send().await;
    reply.expect("the simulator answers").error_for_status().expect("accepted");

    within(PATIENCE, "everybody to go home and every call to end", async || {
        let overview = deployment.simulator.overview();
        let seen = overview.campaigns[0].snapshot;
        let busy = seen.agents.idle + seen.agents.talking + seen.agents.wrapping_up + seen.agents.on_break;
        let is_over = seen.calls.answers > 100 && busy == 0 && seen.ringing == 0 && seen.waiting == 0;
        let standing = get_json(&format!("{}/simulator/events", deployment.scene.simulator)).await;
        (is_over && standing["backlog"] == 0 && standing["inFlight"] == 0).then_some(())
    })
    .await;
    let (answered, abandoned) = world(&deployment).await;
    assert!(
        answered > 50 && abandoned > 5,
        "{answered} answered, {abandoned} abandoned: too little happened"
    );
    within(PATIENCE, "the figures to be the world's", async || {
        let expected = [(answered, abandoned, "calls".to_owned())];
        (figures(&deployment).await == expected).then_some(())
    })
    .await;
    println!("{answered} answered, {abandoned} abandoned, in the world and in SQL");

    // Everybody who is to know is told, once per window.
    within(PATIENCE, "one alert per window", async || {
        let warned: Vec<(String, i64)> = sqlx::query_as(
            "SELECT body ->> 'window', count(*) FROM audit.alerts WHERE incident_type = 'ABANDONMENT_NEAR_CAP'
             GROUP BY 1 ORDER BY 1",
        )
        .fetch_all(&deployment.scene.owner)
        .await
        .expect("the audit can be asked");
        let expected = ["day", "period_30d", "rolling_24h"].map(|window| (window.to_owned(), 1));
        (warned == expected).then_some(())
    })
    .await;
    instance.process.signal(rustix::process::Signal::TERM);
    assert!(instance.process.wait(ENDED).success());
}
