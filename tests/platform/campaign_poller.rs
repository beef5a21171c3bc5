//! The poller on a real broker: each campaign from one instance, facts as promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::message::{Headers, Message};
use serde_json::{Value, json};
use simulator::{CampaignScenario, Scenario, Settings};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline::genesys::{self, Identity};
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::name::Named;
use trunkline::sources::campaign_poller;
use trunkline::sources::{Names, PollerError};
use trunkline::topics::{self, CAMPAIGN_STATS, DEAD_LETTERS};

use crate::support::simulated::{Organization, client, settings};
use crate::support::{kafka, until};

const CAMPAIGNS: usize = 12;

fn id(n: usize) -> String {
    format!("5d0c9d6e-1f7a-4a8e-8d5b-{n:012}")
}

const PARTITIONS: i32 = 4;

/// Two OAuth clients, so that the log tells the instances apart.
fn organization() -> Settings {
    let campaigns = (0..CAMPAIGNS).map(|n| CampaignScenario {
        id: id(n),
        name: format!("Campaign {n}"),
        ..CampaignScenario::default()
    });
    let mut clients = settings().clients;
    clients.push(simulator::Client { id: "second".into(), ..clients[0].clone() });
    Settings { scenario: Scenario::of_campaigns(campaigns.collect()), clients, ..settings() }
}

fn ids() -> Vec<String> {
    (0..CAMPAIGNS).map(id).collect()
}

struct Instance {
    health: Health,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), PollerError>>,
}

impl Instance {
    fn start(kafka: &KafkaSettings, client_settings: &genesys::Settings) -> Self {
        Self::telling(kafka, client_settings, Names::default())
    }

    fn telling(kafka: &KafkaSettings, client_settings: &genesys::Settings, names: Names) -> Self {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let settings = campaign_poller::Settings {
            campaigns: ids(),
            interval: Duration::from_millis(300),
            names,
            ..campaign_poller::Settings::default()
        };
        let identity =
            Identity { id: Some("org".into()), region: Some("eu_west_1".into()), ..Identity::default() };
        let client = client(&genesys::Settings { organization: identity, ..client_settings.clone() });
        let running = tokio::spawn({
            let (kafka, health, shutdown) = (kafka.clone(), health.clone(), shutdown.clone());
            async move { campaign_poller::run(settings, kafka, client, &health, shutdown).await }
        });
        Self { health, shutdown, running }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let stopped = Instant::now();
        self.running.await.expect("no panic").expect("ends well");
        assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    }
}

/// Facts per campaign, in the order of the topic.
fn facts(kafka: &KafkaSettings) -> BTreeMap<String, Vec<Value>> {
    let mut facts: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for record in kafka::read_all(kafka, &CAMPAIGN_STATS) {
        let fact: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
        let id = fact["campaignId"].as_str().expect("an id").to_owned();
        assert_eq!(record.key(), Some(id.as_bytes()));
        assert_eq!(record.partition(), topics::partition_of(id.as_bytes(), PARTITIONS));
        let headers: BTreeMap<_, _> = record
            .headers()
            .expect("headers")
            .iter()
            .map(|header| (header.key, std::str::from_utf8(header.value.unwrap()).unwrap()))
            .collect();
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["trunkline-schema"], CAMPAIGN_STATS.name);
        assert_eq!(headers["traceparent"].len(), 55);
        facts.entry(id).or_default().push(fact);
    }
    facts
}

/// Which OAuth clients asked for each campaign's statistics since the log's `from`-th line.
async fn asked_since(organization: &Organization, from: usize) -> BTreeMap<String, BTreeSet<String>> {
    let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in &organization.requests().await[from..] {
        let path = entry["path"].as_str().unwrap();
        if let Some(id) = path.strip_prefix("/api/v2/campaigns/").and_then(|rest| rest.strip_suffix("/stats"))
        {
            let client = entry["client"].as_str().unwrap_or("nobody").to_owned();
            asked.entry(id.to_owned()).or_default().insert(client);
        }
    }
    asked
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_campaign_is_observed_by_exactly_one_instance_and_taken_over() {
    let organization = Organization::start(organization()).await;
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&CAMPAIGN_STATS], PARTITIONS).await;
    let first = Instance::start(&kafka, &organization.client_settings());
    until("all campaigns by one", async || {
        (asked_since(&organization, 0).await.len() == CAMPAIGNS).then_some(())
    })
    .await;

    let settings = genesys::Settings {
        credentials: genesys::Credentials::fixed("second", simulator::DEMO_CLIENT_SECRET),
        ..organization.client_settings()
    };
    let second = Instance::start(&KafkaSettings { instance: "two".into(), ..kafka.clone() }, &settings);
    // Rebalanced once a second of the log shows every campaign with one client, and both clients.
    until("shares for both", async || {
        let from = organization.requests().await.len();
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let asked = asked_since(&organization, from).await;
        let alone = asked.len() == CAMPAIGNS && asked.values().all(|clients| clients.len() == 1);
        let clients: BTreeSet<_> = asked.values().flatten().cloned().collect();
        (alone && clients.len() == 2).then_some(())
    })
    .await;

    first.stop().await;
    until("all campaigns by the other", async || {
        let from = organization.requests().await.len();
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        let asked = asked_since(&organization, from).await;
        let all = asked.len() == CAMPAIGNS
            && asked.values().all(|clients| clients.len() == 1 && clients.contains("second"));
        all.then_some(())
    })
    .await;
    assert!(second.health.reasons().is_empty(), "{:?}", second.health.reasons());
    second.stop().await;

    let facts = tokio::task::spawn_blocking(move || facts(&kafka)).await.unwrap();
    assert_eq!(facts.len(), CAMPAIGNS);
    for (campaign, facts) in &facts {
        let times: BTreeSet<_> = facts.iter().map(|fact| fact["observedAt"].as_str().unwrap()).collect();
        assert_eq!(times.len(), facts.len(), "{campaign} twice at one time");
        let fact = &facts[0];
        assert_eq!((&fact["organizationId"], &fact["region"]), (&json!("org"), &json!("eu_west_1")));
        assert_eq!((&fact["dialRate"], &fact["minDialRate"]), (&json!(1.5), &json!(0.5)));
        assert!(fact["revision"].as_str().is_some_and(|revision| !revision.is_empty()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_that_is_gone_is_named_and_the_others_go_on() {
    let organization = Organization::start(organization()).await;
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&CAMPAIGN_STATS], PARTITIONS).await;
    // Nobody takes the names, and nobody waits for that.
    let (names, mut told) = Names::channel(CAMPAIGNS + 1);
    let instance = Instance::telling(&kafka, &organization.client_settings(), names);
    until("all campaigns", async || {
        let asked = asked_since(&organization, 0).await;
        (asked.len() == CAMPAIGNS && instance.health.reasons().is_empty()).then_some(())
    })
    .await;
    until("their names", async || (told.len() == told.max_capacity()).then_some(())).await;
    let names: BTreeMap<String, String> =
        std::iter::from_fn(|| told.try_recv().ok()).map(|Named { id, name, .. }| (id, name)).collect();
    assert_eq!(names, (0..CAMPAIGNS).map(|n| (id(n), format!("Campaign {n}"))).collect());
    organization.delete_campaign(&id(3)).await;
    let reasons = until("a reason", async || {
        let reasons = instance.health.impairments();
        (!reasons.is_empty()).then_some(reasons)
    })
    .await;
    assert!(reasons[0].1.contains(&id(3)) && reasons[0].1.contains("404"), "{reasons:?}");
    let from = organization.requests().await.len();
    until("the others", async || {
        (asked_since(&organization, from).await.len() >= CAMPAIGNS - 1).then_some(())
    })
    .await;
    assert!(instance.health.reasons().is_empty(), "it is not the platform that is away");
    assert_eq!(instance.health.impairments().len(), 1);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_that_are_away_are_waited_for_and_never_hold_up_the_end() {
    let organization = Organization::start(organization()).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kafka = KafkaSettings { brokers: closed.to_string(), ..kafka::settings() };
    let instance = Instance::start(&kafka, &organization.client_settings());
    until("a reason", async || {
        let reasons = instance.health.reasons();
        reasons.iter().any(|(part, _)| part == "campaign-poller.group").then_some(())
    })
    .await;
    assert!(!instance.running.is_finished());
    let stopped = Instant::now();
    instance.stop().await;
    assert!(stopped.elapsed() < Duration::from_secs(4), "{:?}", stopped.elapsed());
}

/// Brokers that take smaller records than our topic says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn facts_that_the_brokers_refuse_are_set_aside_and_polling_goes_on() {
    let organization = Organization::start(organization()).await;
    let kafka = kafka::settings();
    kafka::create_small_topic(&kafka, &CAMPAIGN_STATS, "100").await;
    kafka::create_topics(&kafka, &[&DEAD_LETTERS], 1).await;
    let poller = Instance::start(&kafka, &organization.client_settings());
    // Every poll sets aside what it read: a topic that grows has no end to read to.
    until("every campaign's fact to be set aside", async || {
        (kafka::high_watermark(&kafka, &DEAD_LETTERS, 0) >= CAMPAIGNS as i64).then_some(())
    })
    .await;
    until("readiness", async || poller.health.reasons().is_empty().then_some(())).await;
    poller.stop().await;
    let letters = kafka::read_all(&kafka, &DEAD_LETTERS);
    let keys: BTreeSet<_> = letters.iter().map(|letter| letter.key().unwrap().to_vec()).collect();
    assert_eq!(keys.len(), CAMPAIGNS);
    let header = letters[0].headers().unwrap().iter().find(|header| header.key == "trunkline-error-reason");
    assert!(header.expect("a reason").value.unwrap().starts_with(b"refused_by_broker: "));
    let fact: Value = serde_json::from_slice(letters[0].payload().unwrap()).unwrap();
    assert_eq!(fact["campaignId"].as_str().map(str::as_bytes), letters[0].key());
    assert!(kafka::read_all(&kafka, &CAMPAIGN_STATS).is_empty());
}
