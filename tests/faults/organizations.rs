//! One deployment, two organisations of the platform that have given the same ids, each with a
//! dialect, a budget and misfortunes of its own: what happens in one does not touch the other.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use simulator::{
    CampaignScenario, Dialect, FlowScenario, Scenario, Simulator, VersionScenario, VersionStatus,
};

use crate::deployment::{Deployment, ENDED, Instance};
use crate::support::within;

const SPEED: f64 = 10.0;
const PATIENCE: Duration = Duration::from_secs(120);
/// As the envelopes of simulated events name it.
const ORGANIZATION: &str = "3f4a1c52-8e0b-4d36-9a57-60c2d1b7e9f0";
const CAMPAIGN: &str = "00000000-0000-4000-8000-000000000001";
const FLOW: &str = "00000000-0000-4000-9000-000000000001";
/// Calls in a minute of the further organisation.
const REQUESTS: u32 = 120;

fn scenario() -> Scenario {
    let campaign = CampaignScenario {
        id: CAMPAIGN.to_owned(),
        name: "Renewals".to_owned(),
        dial_rate: 1.0,
        min_dial_rate: 1.0,
        max_dial_rate: 10.0,
        ..CampaignScenario::default()
    };
    let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.0 };
    let flow = FlowScenario {
        id: FLOW.to_owned(),
        name: "Main menu".to_owned(),
        interactions_per_minute: 200.0,
        flow_seconds: 5.0,
        transfer_rate: 0.0,
        versions: vec![version("11.0", VersionStatus::Published), version("12.0", VersionStatus::Active)],
        ..FlowScenario::default()
    };
    Scenario { flows: vec![flow], ..Scenario::of_campaigns(vec![campaign]) }
}

fn of_emea(id: &str) -> String {
    format!("emea:{id}")
}

struct Stand {
    deployment: Deployment,
    emea: simulator::Running,
    environment: Vec<(&'static str, String)>,
}

impl Stand {
    async fn new() -> Self {
        let first =
            simulator::Settings { speed: SPEED, scenario: scenario(), ..simulator::Settings::default() };
        let deployment = Deployment::paced(first).await;
        let emea = simulator::Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            dialect: Dialect::Platform,
            speed: SPEED,
            seed: 2,
            scenario: scenario(),
            requests_per_window: REQUESTS,
            budget_window: Duration::from_secs_f64(60.0 / SPEED),
            ..simulator::Settings::default()
        };
        let emea = Simulator::start(emea).await.expect("the simulator starts");
        let organizations = format!(
            "[{{ name = \"emea\", dialect = \"platform\", base_url = \"{}\", client_id = \"{}\", \
             client_secret = \"{}\", requests_per_minute = {REQUESTS}, organization_id = \"{ORGANIZATION}\" }}]",
            emea.api_url(),
            simulator::DEMO_CLIENT_ID,
            simulator::DEMO_CLIENT_SECRET
        );
        let minute = |count: f64| format!("{}ms", (count * 60_000.0 / SPEED) as u64);
        let environment = vec![
            ("TRUNKLINE_GENESYS__ORGANIZATIONS", organizations),
            ("TRUNKLINE_DIAL__CAMPAIGNS", [CAMPAIGN.to_owned(), of_emea(CAMPAIGN)].join(",")),
            ("TRUNKLINE_EVENTS__WINDOW", minute(1.0)),
            ("TRUNKLINE_ENRICHMENT__QUIET", minute(1.0)),
            ("TRUNKLINE_ROLLBACK__MODE", "live".to_owned()),
            ("TRUNKLINE_ROLLBACK__SOURCE", "polled".to_owned()),
            ("TRUNKLINE_ROLLBACK__SETTLING", minute(0.1)),
            ("TRUNKLINE_ROLLBACK__FLOWS", [FLOW.to_owned(), of_emea(FLOW)].join(",")),
            ("TRUNKLINE_ROLLBACK__INTERVAL", minute(1.0)),
        ];
        Self { deployment, emea, environment }
    }

    fn instance(&self) -> Instance {
        self.deployment.instance_with("a", &[], &self.environment)
    }

    async fn count(&self, sql: &'static str, key: &str) -> i64 {
        let counted = sqlx::query_scalar(sql).bind(key).fetch_one(&self.deployment.scene.owner).await;
        counted.expect(sql)
    }

    /// Until so many more rows than `before` are there.
    async fn more(&self, what: &str, sql: &'static str, key: &str, more: i64) {
        let before = self.count(sql, key).await;
        within(PATIENCE, what, async || (self.count(sql, key).await >= before + more).then_some(())).await;
    }

    async fn control(&self, of: &str, method: Method, path: &str, body: Value) {
        let request = reqwest::Client::new().request(method, format!("{of}/simulator/{path}")).json(&body);
        let reply = request.send().await.expect("the simulator answers");
        reply.error_for_status().expect("done");
    }

    async fn requests(&self, of: &str) -> Vec<Value> {
        let url = format!("{of}/simulator/requests?limit=100000");
        let mut page: Value = reqwest::get(url).await.expect("a reply").json().await.expect("JSON");
        assert_eq!(page["dropped"], 0, "all of the log");
        match page["items"].take() {
            Value::Array(items) => items,
            other => panic!("{other}"),
        }
    }
}

/// Decisions on fresh statistics.
const DECIDED: &str = "SELECT count(*) FROM audit.decisions WHERE loop = 'dial' AND key = $1
    AND reason NOT IN ('no_data', 'statistics_stale', 'statistics_still_stale', 'statistics_late')";
const APPLIED: &str =
    "SELECT count(*) FROM audit.outcomes WHERE loop = 'dial' AND key = $1 AND status = 'applied'";
const ROLLED_BACK: &str =
    "SELECT count(*) FROM audit.outcomes WHERE loop = 'rollback' AND key = $1 AND status = 'applied'";
const OF_EMEA: &str =
    "SELECT count(*) FROM audit.explained WHERE key = $1 AND organization IS NOT DISTINCT FROM 'emea'";
const OF_NOBODY: &str = "SELECT count(*) FROM audit.explained WHERE key = $1 AND organization IS NULL";
const ENRICHED: &str = "SELECT count(*) FROM trunkline.conversations
    WHERE state = 'done' AND starts_with(conversation_id, $1)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn organisations_with_the_same_ids_do_not_touch_each_other() {
    let stand = Stand::new().await;
    let (first, emea) = (stand.deployment.scene.simulator.clone(), stand.emea.api_url());
    let mut instance = stand.instance();
    let keys = [CAMPAIGN.to_owned(), of_emea(CAMPAIGN)];
    for key in &keys {
        stand.more("rates to be changed", APPLIED, key, 2).await;
    }
    let events = json!({ "to": format!("{}/v1/events", instance.url()) });
    stand.control(&emea, Method::PUT, "events", events).await;
    stand.more("conversations to be enriched", ENRICHED, "emea:", 5).await;
    stand.control(&emea, Method::PUT, "events", json!({ "active": false })).await;

    // One of the two is away, while flows break in both.
    let away = json!([{ "match": { "path": "/api/" }, "fault": { "type": "status", "code": 503 } }]);
    stand.control(&emea, Method::PUT, "faults", away).await;
    let bad = json!({ "errorRate": 0.5, "version": "13.0" });
    for organization in [&first, &emea] {
        stand.control(organization, Method::POST, &format!("flows/{FLOW}/publish"), bad.clone()).await;
    }
    stand.more("the other's flow to be rolled back", ROLLED_BACK, FLOW, 1).await;
    stand.more("the other's campaign to be decided on", DECIDED, CAMPAIGN, 5).await;
    assert_eq!(stand.count(ROLLED_BACK, &of_emea(FLOW)).await, 0, "nothing reaches it");
    let (status, told) = instance.get("/readyz").await.expect("an answer");
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("emea"), "{told}");

    stand.control(&emea, Method::DELETE, "faults", json!(null)).await;
    stand.more("it to be decided on again", DECIDED, &of_emea(CAMPAIGN), 3).await;
    let rolled_back = async || (stand.count(ROLLED_BACK, &of_emea(FLOW)).await == 1).then_some(());
    within(PATIENCE, "its flow to be rolled back", rolled_back).await;

    for key in [&keys[0], &FLOW.to_owned()] {
        assert_eq!(stand.count(OF_EMEA, key).await, 0);
        assert!(stand.count(OF_NOBODY, key).await > 0);
        assert!(stand.count(OF_EMEA, &of_emea(key)).await > 0);
        assert_eq!(stand.count(OF_NOBODY, &of_emea(key)).await, 0);
    }
    assert_eq!(stand.count("SELECT count(*) FROM audit.gaps WHERE $1 <> ''", "x").await, 0);
    let seen = stand.requests(&emea).await;
    assert!(seen.iter().all(|request| !request["path"].as_str().unwrap_or_default().contains("emea")));
    let within_budget = |status: i64| seen.iter().filter(|request| request["status"] == status).count();
    assert_eq!(within_budget(429), 0, "of {} calls", seen.len());

    instance.process.signal(Signal::TERM);
    assert!(instance.process.wait(ENDED).success());
}
