//! Instances that answer routing decisions, and the configuration they answer by.

use std::time::Duration;

use serde_json::{Value, json};

use crate::deployment::{Deployment, Instance, free_port};
use crate::support::within;

/// Groups and their weights.
pub(crate) const WEIGHTS: [(&str, i64); 3] = [("a", 50), ("b", 30), ("d", 20)];
const SERVED: Duration = Duration::from_secs(60);

/// What instances are started with; the same name and port finds its journal again.
pub(crate) struct RoutingScene<'d> {
    pub deployment: &'d Deployment,
    pub ports: Vec<u16>,
    journal: tempfile::TempDir,
    /// Another way to the database than the deployment's own.
    database: Option<String>,
}

impl<'d> RoutingScene<'d> {
    pub(crate) fn new(deployment: &'d Deployment, instances: usize, database: Option<String>) -> Self {
        let ports = (0..instances).map(|_| free_port()).collect();
        Self { deployment, ports, journal: tempfile::tempdir().expect("a folder"), database }
    }

    pub(crate) fn start_all(&self) -> Vec<Instance> {
        (0..self.ports.len()).map(|number| self.start(number)).collect()
    }

    pub(crate) fn start(&self, number: usize) -> Instance {
        let port = self.ports[number];
        let mut environment = vec![
            ("TRUNKLINE_HTTP__LISTEN", format!("127.0.0.1:{port}")),
            ("TRUNKLINE_ROUTE__MODE", "shadow".to_owned()),
            ("TRUNKLINE_ROUTE__JOURNAL", self.journal.path().to_str().expect("UTF-8").to_owned()),
        ];
        environment.extend(self.database.clone().map(|url| ("TRUNKLINE_POSTGRES__URL", url)));
        let stages = ["--stages", "routing,console"];
        let instance = self.deployment.instance_with(&format!("routing-{number}"), &stages, &environment);
        Instance { port, ..instance }
    }

    /// Until every instance serves; then configuration `c` is in force.
    pub(crate) async fn publish(&self, client: &reqwest::Client) {
        for port in &self.ports {
            let url = format!("http://127.0.0.1:{port}/healthz");
            within(SERVED, "an instance to serve", async || {
                client.get(&url).send().await.is_ok().then_some(())
            })
            .await;
        }
        let rule = |(id, weight): &(&str, i64)| json!({"id": format!("r-{id}"), "destination": {"type": "QUEUE_ID", "id": id}, "weight": weight});
        let rules: Vec<Value> = WEIGHTS.iter().map(rule).collect();
        let wanted = json!({"id": "c", "name": "Support", "rules": rules});
        let url = format!("http://127.0.0.1:{}/v1/routes/c", self.ports[0]);
        let put = client.put(&url).json(&wanted).send().await.expect("an answer");
        assert!(put.status().is_success(), "{}", put.status());
        let published = client.post(format!("{url}/publish")).send().await.expect("an answer");
        assert!(published.status().is_success(), "{}", published.status());
    }
}
