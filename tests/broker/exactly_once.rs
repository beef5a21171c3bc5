//! Every number counted once, whatever happens to the workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::kafka::transaction::{Producer, TransactionSettings};
use trunkline::model::Timestamp;
use trunkline::runtime::{StageHandle, StageSettings, run_stage};

use crate::support::counting::{CHANGELOG, Counting, NUMBERS, SUMS, TOPICS, number, order};
use crate::support::kafka::{self, client, create_topics, read_all};
use crate::support::until;

pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as i64)
}

/// Stages at work.
pub(crate) struct Running {
    pub shutdown: CancellationToken,
    pub handles: Vec<StageHandle>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        for handle in self.handles {
            handle.stopped().await;
        }
    }
}

/// A running counting stage.
pub(crate) struct Instance {
    pub health: Health,
    shutdown: CancellationToken,
    handle: StageHandle,
}

impl Instance {
    pub(crate) fn start(kafka: &KafkaSettings, name: &str, workers: usize) -> Self {
        let kafka = KafkaSettings { instance: name.to_owned(), ..kafka.clone() };
        let settings = StageSettings { workers, ..StageSettings::default() };
        let health = Health::default();
        let shutdown = CancellationToken::new();
        let handle = run_stage(Counting, &kafka, &settings, health.part("counting"), shutdown.clone());
        Self { health, shutdown, handle }
    }

    pub(crate) async fn ready(&self) {
        until("the stage to be ready", async || self.health.reasons().is_empty().then_some(())).await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.handle.stopped().await;
    }
}

/// Sends numbers under a few keys.
pub(crate) async fn send_numbers(kafka: &KafkaSettings, numbers: std::ops::Range<i64>) {
    let at = now();
    let records: Vec<(String, Vec<u8>)> = numbers.map(|n| (key_of(n), number(&key_of(n), at, n))).collect();
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (&**key, &**value)).collect();
    kafka::produce(kafka, &NUMBERS, None, &records).await;
}

fn key_of(n: i64) -> String {
    format!("key-{}", n % 17)
}

/// The sums by key in the order they were committed: `n` and `count`.
fn sums(kafka: &KafkaSettings) -> BTreeMap<String, Vec<(i64, u64)>> {
    let mut sums = BTreeMap::<String, Vec<(i64, u64)>>::new();
    for record in read_all(kafka, &SUMS) {
        let value: serde_json::Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
        let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
        let entry = (value["n"].as_i64().unwrap(), value["count"].as_u64().unwrap());
        sums.entry(key).or_default().push(entry);
    }
    sums
}

/// Waits until all are there, and sees that each is there once, in order, with
/// counts that have no gap.
pub(crate) async fn expect_all(kafka: &KafkaSettings, count: i64) {
    let give_up = Instant::now() + Duration::from_secs(90);
    loop {
        let sums = sums(kafka);
        let found: usize = sums.values().map(Vec::len).sum();
        if found as i64 >= count {
            for (key, sums) in &sums {
                let expected: Vec<(i64, u64)> = (0..count).filter(|n| key_of(*n) == *key).zip(1..).collect();
                assert_eq!(sums, &expected, "{key}");
            }
            assert_eq!(found as i64, count);
            return;
        }
        assert!(Instant::now() < give_up, "{found} of {count} came out");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_every_number_and_goes_on_after_a_restart() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 3).await;
    let first = Instance::start(&kafka, "one", 2);
    send_numbers(&kafka, 0..5_000).await;
    expect_all(&kafka, 5_000).await;
    first.ready().await;
    first.stop().await;
    send_numbers(&kafka, 5_000..6_000).await;
    let second = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 6_000).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_come_and_go_while_numbers_flow() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 6).await;
    let seed = 20_260_102;
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let producing = tokio::spawn({
        let kafka = kafka.clone();
        async move {
            for round in 0..40 {
                send_numbers(&kafka, round * 500..(round + 1) * 500).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    let mut instances = vec![Instance::start(&kafka, "stays", 2)];
    for round in 0..6 {
        instances.push(Instance::start(&kafka, &format!("guest-{round}"), 1));
        tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
        if instances.len() > 2 {
            let leaving = random.random_range(1..instances.len());
            instances.remove(leaving).stop().await;
        }
    }
    producing.await.unwrap();
    expect_all(&kafka, 20_000).await;
    for instance in instances {
        instance.stop().await;
    }
}

/// Two workers under one transactional id fence each other without end; whatever
/// each of them commits counts once.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_fence_each_other_count_nothing_twice() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 4).await;
    let one = Instance::start(&kafka, "same", 1);
    let other = Instance::start(&kafka, "same", 1);
    send_numbers(&kafka, 0..4_000).await;
    for round in 4..10 {
        send_numbers(&kafka, round * 1_000..(round + 1) * 1_000).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    other.stop().await;
    expect_all(&kafka, 10_000).await;
    one.stop().await;
}

/// Someone takes over the worker's transactional id again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_worker_restores_its_state_and_goes_on() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    let instance = Instance::start(&kafka, "one", 1);
    send_numbers(&kafka, 0..1_000).await;
    expect_all(&kafka, 1_000).await;
    for round in 1..4 {
        let settings = KafkaSettings { instance: "one".to_owned(), ..kafka.clone() };
        tokio::task::spawn_blocking(move || {
            let shutdown = CancellationToken::new();
            Producer::new(&settings, "counting", 0, &TransactionSettings::default(), shutdown)
                .settle()
                .unwrap();
        })
        .await
        .unwrap();
        send_numbers(&kafka, round * 1_000..(round + 1) * 1_000).await;
        expect_all(&kafka, (round + 1) * 1_000).await;
    }
    instance.ready().await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_batch_is_restored_and_read_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    // In one batch: numbers, one whose output is too large, numbers again.
    send_numbers(&kafka, 0..170).await;
    let at = now();
    kafka::produce(&kafka, &NUMBERS, None, &[("key-3", &order("key-3", at, 0, "shout"))]).await;
    send_numbers(&kafka, 170..340).await;
    let instance = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 340).await;
    let letters = read_all(&kafka, &trunkline::topics::DEAD_LETTERS);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].payload().unwrap(), order("key-3", at, 0, "shout"));
    instance.ready().await;
    instance.stop().await;
}

/// A worker died with its transaction open: the next of the same name frees the
/// partitions at once, long before the transaction times out.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_frees_what_a_dead_worker_left_open() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let first = Instance::start(&kafka, "one", 1);
    send_numbers(&kafka, 0..100).await;
    expect_all(&kafka, 100).await;
    first.stop().await;
    // The dead one's transaction: open for a minute, across output and changelog.
    let hung: BaseProducer = client(&kafka)
        .set(
            "transactional.id",
            KafkaSettings { instance: "one".into(), ..kafka.clone() }.transactional_id("counting", 0),
        )
        .set("transaction.timeout.ms", "60000")
        .create()
        .unwrap();
    let topics = [kafka.topic(&SUMS), kafka.topic(&CHANGELOG)];
    let hung = tokio::task::spawn_blocking(move || {
        hung.init_transactions(Duration::from_secs(20)).unwrap();
        hung.begin_transaction().unwrap();
        for topic in &topics {
            let record = BaseRecord::to(topic).partition(0).key("key-3").payload("{\"v\":9}");
            hung.send(record).map_err(|(error, _)| error).unwrap();
        }
        hung.flush(Duration::from_secs(20)).unwrap();
        hung
    })
    .await
    .unwrap();
    send_numbers(&kafka, 100..200).await;
    let started = Instant::now();
    let second = Instance::start(&kafka, "one", 1);
    expect_all(&kafka, 200).await;
    assert!(started.elapsed() < Duration::from_secs(55), "it waited for the transaction's own end");
    second.stop().await;
    drop(hung);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_said_and_its_creation_noticed() {
    let kafka = kafka::settings();
    let instance = Instance::start(&kafka, "one", 1);
    let reason = until("a reason", async || {
        instance.health.reasons().into_iter().map(|(_, reason)| reason).find(|reason| reason != "starting")
    })
    .await;
    assert!(reason.contains(&kafka.topic(&NUMBERS)) && reason.contains("trunkline topics apply"), "{reason}");
    create_topics(&kafka, TOPICS, 2).await;
    send_numbers(&kafka, 0..100).await;
    expect_all(&kafka, 100).await;
    instance.ready().await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unequal_partitions_stop_the_stage() {
    let kafka = kafka::settings();
    create_topics(&kafka, &TOPICS[..2], 3).await;
    create_topics(&kafka, &TOPICS[2..], 2).await;
    send_numbers(&kafka, 0..10).await;
    let instance = Instance::start(&kafka, "one", 1);
    let reason = until("a reason", async || {
        instance.health.reasons().into_iter().map(|(_, reason)| reason).find(|reason| reason != "starting")
    })
    .await;
    assert!(reason.contains("has 3 partitions") && reason.contains("has 2"), "{reason}");
    instance.stop().await;
    assert!(read_all(&kafka, &SUMS).is_empty());
}
