//! Queues observed and configurations published on the simulated platform.

use rdkafka::message::Message;
use serde_json::{Value, json};
use simulator::QueueScenario;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::model::decision::Mode;
use trunkline::model::routing::{PlatformPublication, RouteConfiguration};
use trunkline::routing::Publisher;
use trunkline::sources::queue_poller;
use trunkline::topics::QUEUE_AVAILABILITY;

use crate::support::postgres::TestDatabase;
use crate::support::simulated::{Organization, settings};
use crate::support::{kafka, until};

const STAFFED: &str = "3c9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a11";
const EMPTY: &str = "3c9d7c52-6d0e-4b7e-9a01-6f2b8f0c1a22";

async fn organization() -> Organization {
    let queue = |id: &str, availability: f64| QueueScenario {
        id: id.into(),
        name: format!("Queue {}", &id[34..]),
        availability,
        min_availability: 0.0,
        max_availability: 1.0,
        ..QueueScenario::default()
    };
    let mut settings = settings();
    settings.scenario.queues = vec![queue(STAFFED, 0.5), queue(EMPTY, 0.0)];
    Organization::start(settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn availability_is_observed_as_a_fraction() {
    let organization = organization().await;
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&QUEUE_AVAILABILITY], 2).await;
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let running = tokio::spawn({
        let settings = queue_poller::Settings {
            longest_stretch: 1.0,
            queues: vec![STAFFED.into(), EMPTY.into()],
            interval: Duration::from_millis(200),
            concurrency: 2,
        };
        let (kafka, client) = (kafka.clone(), organization.client());
        let (health, shutdown) = (health.clone(), shutdown.clone());
        async move { queue_poller::run(settings, kafka, client, &health, shutdown).await.unwrap() }
    });
    let seen = until("both queues to be observed", async || {
        let mut seen = BTreeMap::new();
        for record in kafka::read_all(&kafka, &QUEUE_AVAILABILITY) {
            let fact: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
            assert_eq!(record.key(), fact["queueId"].as_str().map(str::as_bytes));
            seen.insert(fact["queueId"].as_str().unwrap().to_owned(), fact["availability"].as_f64().unwrap());
        }
        (seen.len() == 2).then_some(seen)
    })
    .await;
    assert_eq!((seen[STAFFED], seen[EMPTY]), (0.5, 0.0));
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("ends in time").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_goes_to_the_platform_where_it_should_and_is_noted_first() {
    let organization = organization().await;
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let draft: RouteConfiguration = serde_json::from_value(json!({
        "id": "c", "name": "Support", "target": {"type": "QUEUE_ID", "id": STAFFED},
        "rules": [{"id": "r", "destination": {"type": "QUEUE_ID", "id": STAFFED}, "weight": 1}],
    }))
    .unwrap();
    database.save_route_draft(&draft, "test").await.unwrap();
    let publisher =
        |mode| Publisher::new(database.clone(), Some(organization.client()), mode, CancellationToken::new());
    let asked = async || {
        let all = organization.requests().await;
        all.iter().filter(|entry| entry["path"].as_str().unwrap().ends_with("/publish")).count()
    };
    let shadowed = publisher(Mode::Shadow).publish("c", "test").await.unwrap();
    assert_eq!((shadowed.revision, shadowed.platform), (1, PlatformPublication::Shadowed));
    assert_eq!(asked().await, 0, "shadow asks nothing of the platform");

    // Without another draft the platform alone is asked, about what is in force.
    let applied = publisher(Mode::Live).publish("c", "test").await.unwrap();
    assert_eq!(
        (applied.revision, applied.platform),
        (1, PlatformPublication::Applied),
        "{:?}",
        applied.reason
    );
    assert_eq!(asked().await, 1);
    organization
        .fault("POST", "/api/v2/routing/configuration/c/publish", json!({"type": "status", "code": 500}))
        .await;
    let failed = publisher(Mode::Live).publish("c", "test").await.unwrap();
    assert_eq!(failed.platform, PlatformPublication::Failed);
    assert!(failed.reason.unwrap().contains("500"));
    let steps: Vec<String> = sqlx::query_scalar("SELECT step FROM trunkline.route_publications ORDER BY id")
        .fetch_all(&owner)
        .await
        .unwrap();
    assert_eq!(steps, ["intent", "applied", "intent", "failed"]);
}
