//! A canary from its order to what it publishes: conversations of a simulated organisation ask routing,
//! meet either flow, and are counted from the events that it sends; what has proven itself is published
//! on the platform, and taken back when it breaks afterwards.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{CampaignScenario, Dialect, FlowScenario, Scenario, VersionScenario, VersionStatus};

use crate::deployment::{Deployment, ENDED, Instance};
use crate::support::within;

const ROLES: &str = "ingest,console,routing,flow-counting,flow-summing,canary-minutes,delivery,canary-shares,\
                     promotion-actuator,flow-poller,rollback,rollback-actuator,outbox,audit";
const PATIENCE: Duration = Duration::from_secs(240);
const MENU: &str = "00000000-0000-4000-9000-000000000001";
const NEXT: &str = "00000000-0000-4000-9000-000000000002";
const ROUTE: &str = "dispatcher";

/// A menu whose next content is saved and was never in force, and a flow of its own with that content.
fn organisation() -> Scenario {
    let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.004 };
    let flow = |id: &str, name: &str, versions| FlowScenario {
        id: id.to_owned(),
        name: name.to_owned(),
        interactions_per_minute: 0.0,
        flow_seconds: 1.0,
        transfer_rate: 0.0,
        versions,
        ..FlowScenario::default()
    };
    let menu = vec![version("7.0", VersionStatus::Active), version("8.0", VersionStatus::Saved)];
    let next = vec![version("1.0", VersionStatus::Active)];
    let campaign = CampaignScenario { name: "needed".to_owned(), agents: 0, ..CampaignScenario::default() };
    Scenario {
        flows: vec![flow(MENU, "Menu", menu), flow(NEXT, "Menu, new", next)],
        ..Scenario::of_campaigns(vec![campaign])
    }
    .with_ids()
}

struct Scene {
    deployment: Deployment,
    instance: Instance,
    http: reqwest::Client,
}

impl Scene {
    async fn start(dialect: Dialect) -> Self {
        let deployment = Deployment::speaking(organisation(), dialect).await;
        let setting = |name: &'static str, value: &str| (name, value.to_owned());
        let instance = deployment.instance_with(
            "one",
            &["--stages", ROLES],
            &[
                setting("TRUNKLINE_DIAL__MODE", "off"),
                setting("TRUNKLINE_DELIVERY__MODE", "live"),
                // A minute takes a second.
                setting("TRUNKLINE_EVENTS__WINDOW", "1s"),
                setting("TRUNKLINE_EVENTS__LATENESS", "2s"),
                setting("TRUNKLINE_ROLLBACK__MODE", "live"),
                setting("TRUNKLINE_ROLLBACK__FLOWS", &format!("{MENU},{NEXT}")),
                setting("TRUNKLINE_ROLLBACK__INTERVAL", "500ms"),
                setting("TRUNKLINE_ROLLBACK__ARMED_MINUTES", "600"),
            ],
        );
        let scene = Self { deployment, instance, http: reqwest::Client::new() };
        within(PATIENCE, "the instance to be ready", async || {
            let (status, _) = scene.instance.get("/readyz").await?;
            (status == 200).then_some(())
        })
        .await;
        scene
    }

    async fn send(&self, method: Method, url: String, body: Value) -> Value {
        let reply = self.http.request(method, &url).json(&body).send().await.expect("an answer");
        let (status, text) = (reply.status(), reply.text().await.expect("a body"));
        assert!(status.is_success(), "{url}: {status} {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        self.send(method, format!("{}{path}", self.instance.url()), body).await
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        self.send(method, format!("{}/simulator{path}", self.deployment.scene.simulator), body).await
    }

    /// Conversations ask routing and go through the flow that they are told, which the organisation's
    /// events tell of.
    async fn dispatch(&self) {
        let rule = json!({"id": "r", "destination": {"type": "FLOW_ID", "id": MENU}, "weight": 1});
        let configuration = json!({"id": ROUTE, "name": "Dispatcher", "rules": [rule]});
        self.ask(Method::PUT, &format!("/v1/routes/{ROUTE}"), configuration).await;
        self.ask(Method::POST, &format!("/v1/routes/{ROUTE}/publish"), json!({})).await;
        let to = self.instance.url();
        let events = json!({"to": format!("{to}/v1/events"), "campaigns": false});
        self.control(Method::PUT, "/events", events).await;
        let questions = json!({
            "to": [to], "configurationIds": [ROUTE], "ratePerSecond": 60, "dispatch": true,
        });
        self.control(Method::POST, "/decisions", questions).await;
    }

    async fn canary(&self) -> Value {
        let (status, text) = self.instance.get("/v1/canaries").await.expect("an answer");
        assert_eq!(status, 200, "{text}");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        list["items"][0].clone()
    }

    async fn until(&self, state: &str) -> Value {
        within(PATIENCE, &format!("the canary to be {state}"), async || {
            let canary = self.canary().await;
            assert_ne!(canary["state"], "aborted", "{canary}");
            (canary["state"] == state).then_some(canary)
        })
        .await
    }

    /// The version of the menu that the platform has in force.
    async fn in_force(&self) -> String {
        let flows = reqwest::get(format!("{}/simulator/flows", self.deployment.scene.simulator)).await;
        let flows: Value = flows.expect("an answer").json().await.expect("JSON");
        let menu = flows["items"].as_array().expect("a list").iter().find(|flow| flow["id"] == MENU);
        menu.expect("the menu")["activeVersion"].as_str().expect("a version").to_owned()
    }

    /// What was decided with what came of it, in the order of the decisions.
    async fn ledger(&self, of: &str) -> Vec<(String, String, Option<String>, Value, Option<Value>)> {
        sqlx::query_as(
            "SELECT d.decision_id::text, d.action, o.status, d.parameters, o.effect
             FROM audit.decisions d LEFT JOIN audit.outcomes o
                  ON o.decision_id = d.decision_id AND o.status NOT IN ('recovered', 'not_recovered')
             WHERE d.loop = $1 ORDER BY d.sequence",
        )
        .bind(of)
        .fetch_all(&self.deployment.scene.owner)
        .await
        .expect("the ledger can be read")
    }

    /// What the program says of a decision.
    fn explained(&self, id: &str) -> String {
        let explained = Command::new(env!("CARGO_BIN_EXE_trunkline"))
            .args(["explain", id])
            .env("TRUNKLINE_POSTGRES__URL", self.deployment.database.url())
            .output()
            .expect("runs");
        String::from_utf8(explained.stdout).expect("text")
    }
}

async fn what_has_proven_itself_is_published(dialect: Dialect) {
    let mut scene = Scene::start(dialect).await;
    scene.dispatch().await;
    let order = json!({
        "flowId": MENU, "candidateId": NEXT, "configurationId": ROUTE, "steps": [0.5, 1.0],
        "holdMinutes": 2, "reason": "a new menu",
    });
    scene.ask(Method::POST, "/v1/canaries", order).await;
    let done = scene.until("done").await;
    assert_eq!((&done["share"], &done["reason"]), (&json!(1.0), &json!("proven")));
    assert_eq!(scene.in_force().await, "7.0", "nothing is published that nobody asked for");
    scene.ask(Method::POST, &format!("/v1/canaries/{ROUTE}/promote"), json!({})).await;
    scene.until("promoted").await;
    assert_eq!(scene.in_force().await, "8.0");

    // All of it is in the ledger, with what was sent and what came back.
    let (id, effect) = within(PATIENCE, "the ledger to have the promotion with its outcome", async || {
        let ledger = scene.ledger("delivery").await;
        let shares: Vec<f64> = ledger
            .iter()
            .filter(|(_, action, status, ..)| action == "set_share" && status.as_deref() == Some("applied"))
            .map(|(_, _, _, parameters, _)| parameters["share"].as_f64().expect("a share"))
            .collect();
        assert!([0.5, 1.0].starts_with(&shares), "{shares:?}");
        let promotion = ledger.into_iter().find(|(_, action, ..)| action == "promote")?;
        let (id, _, status, _, effect) = promotion;
        let status = status?;
        assert_eq!((status.as_str(), shares.len()), ("applied", 2));
        Some((id, effect.expect("an effect")))
    })
    .await;
    assert_eq!(effect, json!({"previousVersion": "7.0", "version": "8.0"}));
    let explained = scene.explained(&id);
    // Only the platform's own interface tells what its flows are called.
    let published = match dialect {
        Dialect::Platform => format!("Menu ({MENU}) is published as Menu, new ({NEXT}) has proven it"),
        _ => format!("{MENU} is published as {NEXT} has proven it"),
    };
    for told in [&published, "ordered", "applied", "8.0"] {
        assert!(explained.contains(told), "{told} is not in\n{explained}");
    }

    // The configuration is in force as it is written, and the version before is the way back.
    within(PATIENCE, "an answer by the counters", async || {
        let asked = json!({"conversationId": uuid::Uuid::now_v7()});
        let answer = scene.ask(Method::POST, &format!("/v1/routes/{ROUTE}/decisions"), asked).await;
        assert_eq!(answer["destinationId"], MENU, "{answer}");
        (answer["source"] == "exact").then_some(())
    })
    .await;
    scene.control(Method::PUT, &format!("/flows/{MENU}/versions/8.0"), json!({"errorRate": 0.5})).await;
    within(PATIENCE, "the version before to be in force again", async || {
        (scene.in_force().await == "7.0").then_some(())
    })
    .await;
    scene.instance.process.signal(rustix::process::Signal::TERM);
    assert!(scene.instance.process.wait(ENDED).success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_proven_itself_is_published_and_can_be_taken_back() {
    what_has_proven_itself_is_published(Dialect::Seed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_in_the_platforms_own_dialect() {
    what_has_proven_itself_is_published(Dialect::Platform).await;
}
