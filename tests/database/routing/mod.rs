//! Routing decisions against a real Postgres: exact over instances, once per conversation,
//! and answered whatever the database does.

mod canary;
mod degraded;
mod exact;
mod followed;
mod recorded;
mod weight_sets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgPool};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::model::routing::RouteRefusal as Refusal;
use trunkline::model::routing::{Destination, RouteAnswer, RouteConfiguration, RouteFallback, RouteRule};
use trunkline::postgres::routing::{Patience, Published, RouteCounters};
use trunkline::postgres::{self, Database};
use trunkline::routing::{Service, Settings, Unchanging, View};

use crate::support::{postgres::TestDatabase, until};

/// `("q0", 70.0)`: one rule per group.
fn configuration(id: &str, weights: &[(&str, f64)]) -> RouteConfiguration {
    let destination = |id: &str| Destination { r#type: "QUEUE_ID".into(), id: id.into() };
    let rule = |(group, weight): &(&str, f64)| RouteRule {
        id: format!("rule-{group}"),
        priority: None,
        expression: None,
        destination: destination(group),
        weight: *weight,
        drain: false,
    };
    RouteConfiguration {
        id: id.into(),
        name: "Support".into(),
        routing_type: "SINGLE_QUEUE".into(),
        target: None,
        rules: weights.iter().map(rule).collect(),
        status: Default::default(),
        default_destination: Some(destination("default")),
        fallback: RouteFallback::Local,
    }
}

async fn publish(database: &Database, configuration: &RouteConfiguration) -> i64 {
    database.save_route_draft(configuration, "test").await.unwrap();
    match database.publish_route(&configuration.id, "test").await.unwrap() {
        Published::InForce(in_force) => in_force.counter.revision,
        other => panic!("{other:?}"),
    }
}

/// One instance of the service in this process.
struct Instance {
    service: Service,
    health: Health,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

impl Instance {
    async fn start(options: &PgConnectOptions) -> Self {
        Self::start_with(options, Settings::default(), Arc::new(Unchanging)).await
    }

    async fn start_with(options: &PgConnectOptions, settings: Settings, view: Arc<dyn View>) -> Self {
        let patience =
            Patience { statement: Duration::from_secs(2), idle_in_transaction: Duration::from_millis(500) };
        Self::start_on(options, patience, settings, view)
    }

    fn start_on(
        options: &PgConnectOptions,
        patience: Patience,
        settings: Settings,
        view: Arc<dyn View>,
    ) -> Self {
        let url = postgres::Settings { url: options.to_url_lossy().to_string().into(), ..Default::default() };
        let counters = RouteCounters::new(&url, 3, patience).unwrap();
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let service = Service::new(settings, counters, view, &health, shutdown.clone());
        let running = tokio::spawn(service.clone().run());
        Self { service, health, shutdown, running }
    }

    /// On a slow machine an answer may honestly come from the last state; tests that want
    /// every answer exact wait longer.
    fn patient() -> Settings {
        Settings {
            patience: Duration::from_secs(30),
            give_up: Duration::from_secs(60),
            ..Settings::default()
        }
    }

    async fn decide(&self, configuration: &str, conversation: &str) -> RouteAnswer {
        let answer = self.service.decide(configuration, conversation).await;
        RouteAnswer::clone(&answer.unwrap_or_else(|refusal| panic!("{refusal}")))
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.running).await.expect("ends").unwrap();
    }
}

/// Destination and sequence of every answer kept, in order.
async fn kept(owner: &PgPool, configuration: &str) -> Vec<(i64, String, String, String)> {
    sqlx::query_as(
        "SELECT a.sequence, a.conversation_id, a.destination_id, a.source FROM trunkline.route_answers a
         JOIN trunkline.route_counters USING (configuration) WHERE configuration_id = $1 ORDER BY a.sequence",
    )
    .bind(configuration)
    .fetch_all(owner)
    .await
    .unwrap()
}

/// What the counter keeps per destination; the second number counts its decisions.
type Groups = sqlx::types::Json<BTreeMap<String, (i64, i64)>>;

/// What the counter itself says: decisions and decisions by destination.
async fn counted(owner: &PgPool, configuration: &str) -> (i64, BTreeMap<String, i64>) {
    let (decisions, groups): (i64, Groups) =
        sqlx::query_as("SELECT decisions, groups FROM trunkline.route_counters WHERE configuration_id = $1")
            .bind(configuration)
            .fetch_one(owner)
            .await
            .unwrap();
    (
        decisions,
        groups.0.into_iter().map(|(id, (_, count))| (id, count)).filter(|(_, count)| *count > 0).collect(),
    )
}

/// What waits in the outbox: key and value, in order.
async fn waiting(owner: &PgPool) -> Vec<(String, Value)> {
    let rows: Vec<(Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT key, value FROM trunkline.outbox ORDER BY id").fetch_all(owner).await.unwrap();
    let read = |(key, value): (Vec<u8>, Vec<u8>)| {
        (String::from_utf8(key).unwrap(), serde_json::from_slice(&value).unwrap())
    };
    rows.into_iter().map(read).collect()
}

/// The rows are dense, each conversation is there once, and the counter is their fold.
async fn expect_whole(owner: &PgPool, configuration: &str, conversations: usize) -> Vec<String> {
    let rows = kept(owner, configuration).await;
    assert_eq!(rows.len(), conversations, "one row per conversation");
    for (index, (sequence, ..)) in rows.iter().enumerate() {
        assert_eq!(*sequence, index as i64 + 1, "no holes");
    }
    let mut fold = BTreeMap::<String, i64>::new();
    for (_, _, destination, _) in &rows {
        *fold.entry(destination.clone()).or_default() += 1;
    }
    assert_eq!(counted(owner, configuration).await, (conversations as i64, fold));
    rows.into_iter().map(|(_, _, destination, _)| destination).collect()
}

/// Every prefix is within 1 − 1/(2k − 2) of each group's share, in whole numbers.
fn expect_bound(destinations: &[String], weights: &[(&str, i64)]) {
    let (k, total): (i64, i64) = (weights.len() as i64, weights.iter().map(|(_, weight)| weight).sum());
    let m = 2 * k - 2;
    for (group, weight) in weights {
        let mut count = 0;
        for (index, destination) in destinations.iter().enumerate() {
            count += i64::from(destination == group);
            let off = (count * total - (index as i64 + 1) * weight).abs();
            assert!(off * m <= (m - 1) * total, "{group} at {}: {count}", index + 1);
        }
    }
}
