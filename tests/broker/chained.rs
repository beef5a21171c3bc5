//! Windowing and dialing chained in one worker: every statistic gives one window and one decision
//! on it, whoever is killed, comes, goes, or writes to the topic between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::Message;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::{StageSettings, run_chained, run_stage};
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::rules::Rules;
use trunkline::stages::windowing::Windowing;
use trunkline::topics::{self, Topic};

use super::crashes::{Process, life_of_a_child};
use super::exactly_once::{Running, now};
use crate::support::kafka::{self, create_topics, produce, read_all};
use crate::support::until;

static TOPICS: &[&Topic] = &[
    &topics::CAMPAIGN_STATS,
    &topics::CAMPAIGN_WINDOWS,
    &topics::DIAL_DECISIONS,
    &topics::WINDOWING_CHANGELOG,
    &topics::DIALING_CHANGELOG,
    &topics::DEAD_LETTERS,
    &topics::LATE_EVENTS,
];

/// So long that no decision is taken because nothing came.
const TICK: Duration = Duration::from_secs(3_600);
const CAMPAIGNS: usize = 20;

#[derive(Clone, Copy)]
enum Way {
    Chained,
    Separate,
    WindowingAlone,
    DialingAlone,
}

fn start(kafka: &KafkaSettings, name: &str, way: Way) -> Running {
    let kafka = KafkaSettings { instance: name.to_owned(), ..kafka.clone() };
    let (settings, health, shutdown) =
        (StageSettings::default(), Health::default(), CancellationToken::new());
    let parts = (health.part("windowing"), health.part("dialing"));
    let windowing = || Windowing::new(Arc::new(()));
    let dialing = || Dialing::new(Mode::Live, TICK, Rules::default(), Arc::new(()));
    let alone = |part| run_stage(windowing(), &kafka, &settings, part, shutdown.clone());
    let last = |part| run_stage(dialing(), &kafka, &settings, part, shutdown.clone());
    let handles = match way {
        Way::Chained => {
            vec![run_chained((windowing(), dialing()), &kafka, &settings, parts, shutdown.clone())]
        }
        Way::Separate => vec![alone(parts.0), last(parts.1)],
        Way::WindowingAlone => vec![alone(parts.0)],
        Way::DialingAlone => vec![last(parts.1)],
    };
    Running { shutdown, handles }
}

#[test]
#[ignore = "runs as a child of the tests here"]
fn child() {
    life_of_a_child(|kafka| start(kafka, "mortal", Way::Chained));
}

/// Statistics of every campaign, a second apart.
struct Polls {
    began: Timestamp,
    sent: usize,
}

impl Polls {
    fn new() -> Self {
        Self { began: now().minus(TICK), sent: 0 }
    }

    async fn send(&mut self, kafka: &KafkaSettings, ticks: usize) {
        let mut records = Vec::new();
        for tick in self.sent..self.sent + ticks {
            let observed_at = self.began.plus(Duration::from_secs(tick as u64));
            for campaign in 0..CAMPAIGNS {
                let key = format!("campaign-{campaign}");
                let (attempts, answers) = (100 + tick * 40, 30 + tick * 12);
                let value = format!(
                    "{{\"campaignId\":\"{key}\",\"observedAt\":\"{observed_at}\",\"answerRate\":0.3,\
                     \"attempts\":{attempts},\"answers\":{answers},\"abandoned\":{},\"agentsIdle\":4,\
                     \"agentsBusy\":16,\"callsDelivered\":{},\"dialRate\":1.8,\"minDialRate\":0.5,\
                     \"maxDialRate\":3.0,\"revision\":\"7\"}}",
                    tick / 5,
                    answers - tick / 5
                );
                records.push((key, value));
            }
        }
        self.sent += ticks;
        let records: Vec<(&str, &[u8])> =
            records.iter().map(|(key, value)| (&**key, value.as_bytes())).collect();
        produce(kafka, &topics::CAMPAIGN_STATS, None, &records).await;
    }

    fn expected(&self) -> usize {
        self.sent * CAMPAIGNS
    }
}

fn decisions(kafka: &KafkaSettings) -> BTreeMap<String, Vec<Value>> {
    let mut by_campaign = BTreeMap::<String, Vec<Value>>::new();
    for record in read_all(kafka, &topics::DIAL_DECISIONS) {
        let decision: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
        by_campaign.entry(decision["key"].as_str().unwrap().to_owned()).or_default().push(decision);
    }
    by_campaign
}

fn taken(kafka: &KafkaSettings) -> usize {
    read_all(kafka, &topics::DIAL_DECISIONS).len()
}

/// Waits until all are there, and sees that there is one window of each statistic, one decision on
/// each window, in their order, and that the decision names the window by where it stands.
async fn expect_all(kafka: &KafkaSettings, polls: &Polls, others: usize) {
    let expected = polls.expected() + others;
    let give_up = Instant::now() + Duration::from_secs(90);
    while taken(kafka) < expected {
        assert!(Instant::now() < give_up, "{} of {expected} decisions", taken(kafka));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let windows: BTreeMap<String, Value> = read_all(kafka, &topics::CAMPAIGN_WINDOWS)
        .into_iter()
        .map(|record| {
            let place = format!("{}/{}/{}", record.topic(), record.partition(), record.offset());
            (place, serde_json::from_slice(record.payload().unwrap()).unwrap())
        })
        .collect();
    assert_eq!(windows.len(), expected, "windows");
    let decisions = decisions(kafka);
    assert_eq!(decisions.values().map(Vec::len).sum::<usize>(), expected, "decisions");
    for (campaign, decisions) in &decisions {
        let mut before = String::new();
        for (decision, number) in decisions.iter().zip(1..) {
            assert_eq!(decision["sequence"], number, "{campaign}");
            let cause = decision["causeIds"][0].as_str().unwrap();
            assert_eq!(windows.get(cause), Some(&decision["inputs"]), "{campaign} {number}: {cause}");
            let observed_at = decision["inputs"]["observedAt"].as_str().unwrap().to_owned();
            assert!(before < observed_at, "{campaign}: {before} before {observed_at}");
            before = observed_at;
        }
    }
    assert!(read_all(kafka, &topics::DEAD_LETTERS).is_empty());
    assert!(read_all(kafka, &topics::LATE_EVENTS).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn chained_or_not_the_same_comes_out_and_one_goes_on_where_the_other_stopped() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 3).await;
    let mut polls = Polls::new();
    for way in [Way::Chained, Way::Separate, Way::Chained, Way::WindowingAlone, Way::Chained] {
        let instance = start(&kafka, "one", way);
        for _ in 0..5 {
            let before = polls.expected();
            polls.send(&kafka, 3).await;
            if !matches!(way, Way::WindowingAlone) {
                until("decisions", async || (taken(&kafka) > before).then_some(())).await;
            }
        }
        instance.stop().await;
    }
    let last = start(&kafka, "one", Way::Chained);
    expect_all(&kafka, &polls, 0).await;
    last.stop().await;
}

/// A window that was a dead letter comes back to its topic, for example.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_writes_to_the_topic_between_is_decided_on_too() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    let instance = start(&kafka, "one", Way::Chained);
    let mut polls = Polls::new();
    polls.send(&kafka, 5).await;
    expect_all(&kafka, &polls, 0).await;
    let window = read_all(&kafka, &topics::CAMPAIGN_WINDOWS)[0].payload().unwrap().to_vec();
    let window: Value = serde_json::from_slice(&window).unwrap();
    for number in 0..3 {
        let key = format!("foreign-{number}");
        let foreign = Value::Object(
            window
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| {
                    let value = if name == "campaignId" { Value::from(&*key) } else { value.clone() };
                    (name.clone(), value)
                })
                .collect(),
        );
        let bytes = serde_json::to_vec(&foreign).unwrap();
        produce(&kafka, &topics::CAMPAIGN_WINDOWS, None, &[(&key, &bytes)]).await;
        // Found at the next transaction, or by looking where nothing else comes.
        if number < 2 {
            polls.send(&kafka, 2).await;
        }
        expect_all(&kafka, &polls, number + 1).await;
        // Long enough for the partitions to be linked again.
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            polls.send(&kafka, 1).await;
        }
        expect_all(&kafka, &polls, number + 1).await;
    }
    instance.stop().await;
}

/// What was linked here, is decided on elsewhere for a while, and then is to be read here.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_goes_and_comes_back_is_read_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 4).await;
    let stays = start(&kafka, "stays", Way::Chained);
    let mut polls = Polls::new();
    for round in 0..3 {
        for _ in 0..3 {
            polls.send(&kafka, 1).await;
            expect_all(&kafka, &polls, 0).await;
        }
        let guest = start(&kafka, &format!("guest-{round}"), Way::DialingAlone);
        for _ in 0..20 {
            polls.send(&kafka, 1).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        expect_all(&kafka, &polls, 0).await;
        guest.stop().await;
    }
    polls.send(&kafka, 1).await;
    expect_all(&kafka, &polls, 0).await;
    stays.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_every_kind_come_and_go() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 6).await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut polls = Polls::new();
    let mut instances = vec![start(&kafka, "stays", Way::Chained)];
    for round in 0..8 {
        let way = [Way::Chained, Way::Separate, Way::WindowingAlone, Way::DialingAlone];
        let way = way[random.random_range(0..way.len())];
        instances.push(start(&kafka, &format!("guest-{round}"), way));
        for _ in 0..random.random_range(2..15) {
            polls.send(&kafka, 3).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if instances.len() > 2 {
            let leaving = random.random_range(1..instances.len());
            instances.remove(leaving).stop().await;
        }
    }
    expect_all(&kafka, &polls, 0).await;
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_again_and_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 3).await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut polls = Polls::new();
    for _ in 0..5 {
        let before = taken(&kafka);
        let process = Process::running("chained::child", &kafka, "");
        for _ in 0..10 {
            polls.send(&kafka, 5).await;
        }
        until("work", async || (taken(&kafka) > before).then_some(())).await;
        for _ in 0..random.random_range(0..40) {
            polls.send(&kafka, 1).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        drop(process);
    }
    let last = Process::running("chained::child", &kafka, "");
    expect_all(&kafka, &polls, 0).await;
    drop(last);
}
