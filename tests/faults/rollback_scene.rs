//! Flows that break, instances of the program that guard them, and what they left behind.

use std::time::Duration;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use simulator::{CampaignScenario, FlowScenario, Scenario, VersionScenario, VersionStatus};
use trunkline::model::Timestamp;

use crate::deployment::{Deployment, ENDED, Instance};
use crate::support::evidence::get_json;
use crate::support::rollback_checker::{Activation, Decided, Ended, RollbackRun, violations};
use crate::support::topics::{Read, read_all};
use crate::support::within;

/// The longest that flows may wait: leases run out after half a minute, and instances that
/// were killed have to be missed before.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// The longest that the audit may take for what is on the topics.
const AUDITED: Duration = Duration::from_secs(60);

/// What every flow has in force before it breaks, and comes back to.
pub(crate) const GOOD: &str = "12.0";
pub(crate) const BAD: &str = "13.0";

const ROLES: &[&str] =
    &["--stages", "flow-poller,flow-measuring,rollback,rollback-actuator,audit,alerts,outbox,console"];

pub(crate) struct RollbackScene {
    pub deployment: Deployment,
    http: reqwest::Client,
}

/// The id of a flow, from its number.
pub(crate) fn flow(number: usize) -> String {
    format!("00000000-0000-4000-9000-{number:012}")
}

impl RollbackScene {
    /// So many flows with 20 interactions a second, none of which fails.
    pub(crate) async fn with(flows: usize) -> Self {
        let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.0 };
        let flows = (0..flows).map(|number| FlowScenario {
            id: flow(number),
            name: format!("flow {number}"),
            interactions_per_minute: 40.0,
            flow_seconds: 1.0,
            transfer_rate: 0.0,
            versions: vec![
                version("10.0", VersionStatus::Published),
                version("11.0", VersionStatus::Published),
                version(GOOD, VersionStatus::Active),
            ],
            ..FlowScenario::default()
        });
        let campaign = CampaignScenario {
            id: "00000000-0000-4000-8000-000000000001".to_owned(),
            name: "needed".to_owned(),
            agents: 0,
            ..CampaignScenario::default()
        };
        let scenario = Scenario { flows: flows.collect(), ..Scenario::of_campaigns(vec![campaign]) };
        let deployment = Deployment::of(scenario).await;
        Self { deployment, http: reqwest::Client::new() }
    }

    pub(crate) fn flows(&self) -> Vec<String> {
        self.deployment.simulator.overview().flows.into_iter().map(|flow| flow.id).collect()
    }

    /// One more instance with every role of the guard; a minute takes a second.
    pub(crate) fn instance(&self, name: &str, differing: &[(&str, String)]) -> Instance {
        self.instance_with(name, ROLES, differing)
    }

    /// One more instance with these roles.
    pub(crate) fn instance_with(&self, name: &str, roles: &[&str], differing: &[(&str, String)]) -> Instance {
        let setting = |name: &'static str, value: &str| (name, value.to_owned());
        let mut settings = vec![
            setting("TRUNKLINE_DIAL__MODE", "off"),
            setting("TRUNKLINE_EVENTS__WINDOW", "1s"),
            setting("TRUNKLINE_ROLLBACK__MODE", "live"),
            setting("TRUNKLINE_ROLLBACK__SOURCE", "polled"),
            setting("TRUNKLINE_ROLLBACK__FLOWS", &self.flows().join(",")),
            setting("TRUNKLINE_ROLLBACK__INTERVAL", "500ms"),
            // A decision is good for as long as the cooldown lasts: here ten real minutes.
            setting("TRUNKLINE_ROLLBACK__COOLDOWN_MINUTES", "600"),
            setting("TRUNKLINE_ROLLBACK__ARMED_MINUTES", "600"),
        ];
        settings.extend(differing.iter().map(|(name, value)| (*name, value.clone())));
        self.deployment.instance_with(name, roles, &settings)
    }

    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let url = format!("{}/simulator{path}", self.deployment.scene.simulator);
        let reply = self.http.request(method, url).json(&body).send().await.expect("the simulator answers");
        assert!(reply.status().is_success(), "{path}: {}", reply.status());
        reply.json().await.unwrap_or(Value::Null)
    }

    /// Every activation takes so long: whoever wants to overlap can.
    pub(crate) async fn slow_activations(&self, ms: u64) {
        self.control(
            Method::PUT,
            "/faults",
            json!([{ "match": {"method": "PATCH"}, "fault": {"type": "delay", "ms": ms} }]),
        )
        .await;
    }

    /// Until each flow has been judged once, and the audit has it.
    pub(crate) async fn watched(&self) {
        let flows = self.flows().len() as i64;
        within(PATIENCE, "every flow to be judged", async || {
            let sql = "SELECT count(DISTINCT key) FROM audit.decisions WHERE loop = 'rollback'";
            (self.count(sql).await == flows).then_some(())
        })
        .await;
    }

    /// Publishes a version that fails every other time on each of these flows, at once.
    pub(crate) async fn break_flows(&self, flows: &[String]) {
        let mut publishes = tokio::task::JoinSet::new();
        for flow in flows {
            let url = format!("{}/simulator/flows/{flow}/publish", self.deployment.scene.simulator);
            publishes.spawn(self.http.post(url).json(&json!({"errorRate": 0.5, "version": BAD})).send());
        }
        for published in publishes.join_all().await {
            published.expect("the simulator answers").error_for_status().expect("published");
        }
    }

    /// Flows whose rollback has ended well, by the audit.
    pub(crate) async fn handled(&self) -> i64 {
        self.count("SELECT count(DISTINCT key) FROM audit.outcomes WHERE status = 'applied'").await
    }

    pub(crate) async fn all_handled(&self, flows: usize) {
        within(PATIENCE, "every broken flow to be taken back", async || {
            (self.handled().await == flows as i64).then_some(())
        })
        .await;
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.deployment.scene.owner).await.expect(sql)
    }

    /// Who holds the lease of rollbacks, and how often it was taken; `None` while it is free.
    pub(crate) async fn holder(&self) -> Option<(String, i64)> {
        let sql = "SELECT holder, token FROM trunkline.leases
                   WHERE starts_with(name, 'rollback-actuator/') AND taken_at > '-infinity'";
        sqlx::query_as(sql).fetch_optional(&self.deployment.scene.owner).await.expect(sql)
    }

    /// Ends the instances and judges all they left behind: each of the broken flows was
    /// taken back exactly once, and nothing else was done.
    pub(crate) async fn ends_well(&self, seed: u64, broken: &[String], instances: &mut [Instance]) {
        let (mut found, mut last) = (Vec::new(), RollbackRun::default());
        // The audit may be a moment behind the topics; what was done twice stays so.
        let end = std::time::Instant::now() + AUDITED;
        while std::time::Instant::now() < end {
            last = self.left_behind().await;
            found = violations(&last);
            if found.is_empty() || found.iter().any(|violation| violation.invariant == "I3") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let told: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "seed {seed}:\n{}", told.join("\n"));
        println!(
            "{} decisions, {} outcomes, {} intents, {} activations",
            last.decisions.len(),
            last.outcomes.len(),
            last.intents.len(),
            last.activations.len()
        );
        let mut activated: Vec<_> =
            last.activations.iter().map(|it| (it.flow.as_str(), it.from.as_str(), it.to.as_str())).collect();
        activated.sort_unstable();
        let mut expected: Vec<_> = broken.iter().map(|flow| (flow.as_str(), BAD, GOOD)).collect();
        expected.sort_unstable();
        assert_eq!(activated, expected, "seed {seed}: one activation of each");
        for instance in instances.iter() {
            instance.process.signal(Signal::TERM);
        }
        for instance in instances {
            let status = instance.process.wait(ENDED);
            assert!(status.success(), "SIGTERM ends with {status}");
        }
    }

    pub(crate) async fn left_behind(&self) -> RollbackRun {
        // First what comes last: whatever is new in between is not missed in the other.
        let outcomes = self.read("trunkline.outcomes.v1").await;
        let decisions = self.read("trunkline.rollback-decisions.v1").await;
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let owner = &self.deployment.scene.owner;
        let texts = |sql: &'static str| sqlx::query_scalar(sql).fetch_all(owner);
        let audited: Vec<(String, String)> =
            sqlx::query_as("SELECT decision_id::text, status FROM audit.outcomes")
                .fetch_all(owner)
                .await
                .expect("the audit can be asked");
        RollbackRun {
            decisions: decisions
                .iter()
                .map(Read::json)
                .map(|decision| Decided {
                    id: text(&decision["decisionId"]),
                    flow: text(&decision["key"]),
                    sequence: decision["sequence"].as_u64().expect("a number"),
                })
                .collect(),
            outcomes: outcomes
                .iter()
                .map(Read::json)
                .map(|outcome| Ended {
                    decision_id: text(&outcome["decisionId"]),
                    status: text(&outcome["status"]),
                })
                .collect(),
            audited_decisions: texts("SELECT decision_id::text FROM audit.decisions").await.expect("read"),
            audited_outcomes: audited
                .into_iter()
                .map(|(decision_id, status)| Ended { decision_id, status })
                .collect(),
            intents: texts("SELECT decision_id::text FROM trunkline.intents").await.expect("read"),
            activations: self.activations().await,
        }
    }

    async fn read(&self, topic: &str) -> Vec<Read> {
        let scene = &self.deployment.scene;
        let (brokers, name) = (scene.brokers.clone(), format!("{}{topic}", scene.topic_prefix));
        tokio::task::spawn_blocking(move || read_all(&brokers, &name)).await.expect("read")
    }

    /// Changes made at a request of ours, as the simulator wrote them down.
    pub(crate) async fn activations(&self) -> Vec<Activation> {
        let (mut activations, mut since) = (Vec::new(), 0);
        loop {
            let path = format!("/simulator/requests?limit=100000&since={since}");
            let page = get_json(&format!("{}{path}", self.deployment.scene.simulator)).await;
            assert_eq!(page["dropped"], 0, "the simulator forgot requests: the run was too long to judge");
            let entries = page["items"].as_array().expect("a list of requests");
            let ours = entries
                .iter()
                .filter(|entry| entry["origin"] == "api" && entry["effect"]["toVersion"].is_string());
            activations.extend(ours.map(activation));
            match page["next"].as_u64() {
                Some(next) if !entries.is_empty() => since = next,
                _ => return activations,
            }
        }
    }
}

fn activation(entry: &Value) -> Activation {
    let effect = &entry["effect"];
    let text = |name: &str| effect[name].as_str().expect(name).to_owned();
    let at = |name: &str| text(name).parse::<Timestamp>().expect("a time").as_millis();
    let body: Value = serde_json::from_str(entry["body"].as_str().expect("a body")).expect("JSON");
    let description = body["version"]["description"].as_str().expect("a description");
    Activation {
        flow: text("flowId"),
        from: text("fromVersion"),
        to: text("toVersion"),
        decision: description.rsplit(' ').next().expect("words").to_owned(),
        started_ms: at("startedAt"),
        ended_ms: at("endedAt"),
    }
}
