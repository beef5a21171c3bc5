//! What is played on the simulated platform for those who watch: its events, a bad publish, and
//! interactions that ask which group they go to.

use anyhow::Context;
use serde_json::{Value, json};

use simulator::Running as Simulation;

/// A bad version of this flow is published after so long, by our clock.
const BAD_FLOW: &str = "Main menu";
const BAD_AFTER_SECONDS: f64 = 40.0;
const BAD_ERROR_RATE: f64 = 0.35;
/// Of the simulated platform, by our clock.
const EVENTS_PER_SECOND: u32 = 100;
/// The routing configuration that is asked, and how often.
const ROUTE: &str = "support";
const ROUTE_WEIGHTS: [u32; 2] = [70, 30];
const QUESTIONS_PER_SECOND: u32 = 20;

/// The simulated platform's controls.
pub(crate) struct Platform<'s> {
    simulation: &'s Simulation,
    http: reqwest::Client,
    /// The trunkline that it is played for, such as `http://127.0.0.1:8080`.
    edge: String,
    /// API key for it.
    key: Option<String>,
}

impl<'s> Platform<'s> {
    pub(crate) fn new(simulation: &'s Simulation, edge: String, key: Option<String>) -> Self {
        Self { simulation, http: reqwest::Client::new(), edge, key }
    }

    /// A request to trunkline itself.
    fn with_key(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    fn control(&self, path: &str) -> String {
        format!("{}/simulator/{path}", self.simulation.api_url())
    }

    /// Sends something to trunkline itself, or reads there.
    pub(crate) async fn ask(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let address = format!("{}{path}", self.edge);
        let request = match body {
            Some(body) => self.http.post(address).json(body),
            None => self.http.get(address),
        };
        self.sent(self.with_key(request)).await
    }

    async fn sent(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// Lets it post what happens to the edge, with the faults an event stream has: a few
    /// events twice, a few out of order.
    pub(crate) async fn send_events(&self) -> anyhow::Result<()> {
        let settings = json!({
            "to": format!("{}/v1/events", self.edge),
            "key": self.key,
            "eventsPerSecond": EVENTS_PER_SECOND,
            "duplicateShare": 0.03,
            "disorderShare": 0.03,
        });
        self.sent(self.http.put(self.control("events")).json(&settings)).await?;
        Ok(())
    }

    /// Somebody will publish a version that fails. Returns what to look out for.
    pub(crate) async fn publish_bad_version(&self, speed: f64) -> anyhow::Result<String> {
        let flows = self.simulation.overview().flows;
        let flow = flows.iter().find(|flow| flow.name == BAD_FLOW).context("a flow of that name")?;
        let publish = json!({
            "errorRate": BAD_ERROR_RATE,
            "description": "published by the demo",
            "afterSeconds": (BAD_AFTER_SECONDS * speed) as u64,
        });
        let path = format!("flows/{}/publish", flow.id);
        self.sent(self.http.post(self.control(&path)).json(&publish)).await?;
        Ok(format!(
            "after {BAD_AFTER_SECONDS} s somebody publishes a bad version of the flow {BAD_FLOW:?}: it is taken back"
        ))
    }

    /// Keeps a routing configuration and publishes it.
    pub(crate) async fn put_in_force(&self, configuration: &Value) -> anyhow::Result<()> {
        let id = configuration["id"].as_str().context("a configuration has an id")?;
        let route = format!("{}/v1/routes/{id}", self.edge);
        self.sent(self.with_key(self.http.put(&route).json(configuration))).await?;
        self.sent(self.with_key(self.http.post(format!("{route}/publish")).json(&json!({})))).await?;
        Ok(())
    }

    /// Puts a routing configuration over two queues in force, and lets interactions ask by it; others
    /// ask by `dispatchers` and go through the flow that they are told. Returns what to look at.
    pub(crate) async fn ask_for_groups(&self, dispatchers: &[&str]) -> anyhow::Result<String> {
        let queues = self.simulation.overview().queues;
        let rules: Vec<Value> = queues
            .iter()
            .zip(ROUTE_WEIGHTS)
            .zip(1..)
            .map(|((queue, weight), number)| {
                json!({
                    "id": format!("r{number}"), "priority": number, "expression": "true",
                    "destination": {"type": "QUEUE_ID", "id": queue.id}, "weight": weight,
                })
            })
            .collect();
        let target = queues.first().context("a queue")?;
        let configuration = json!({
            "id": ROUTE, "name": "Support", "routingType": "SINGLE_QUEUE",
            "target": {"type": "QUEUE_ID", "id": target.id}, "rules": rules, "status": "ENABLED",
        });
        self.put_in_force(&configuration).await?;
        let asked: Vec<&str> = dispatchers.iter().copied().chain([ROUTE]).collect();
        let load = json!({
            "to": [self.edge],
            "key": self.key,
            "configurationIds": asked,
            "ratePerSecond": QUESTIONS_PER_SECOND as usize * asked.len(),
            "dispatch": !dispatchers.is_empty(),
        });
        self.sent(self.http.post(self.control("decisions")).json(&load)).await?;
        let [first, second] = ROUTE_WEIGHTS;
        Ok(format!("select * from audit.route_shares: {first} to {second} between two queues, exactly"))
    }
}
