//! Processes that die at the worst moments: every number still counts once.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trunkline::kafka::settings::KafkaSettings;

use super::exactly_once::{Instance, expect_all, send_numbers};
use crate::support::counting::{SUMS, TOPICS};
use crate::support::kafka::{self, create_topics, read_all};
use crate::support::until;

const PREFIX: &str = "TRUNKLINE_TEST_CHILD_PREFIX";

/// A process of its own that runs stages until it is killed, or its parent is gone.
pub(crate) struct Process(Child);

impl Process {
    fn start(kafka: &KafkaSettings, crash_points: &str) -> Self {
        Self::running("crashes::child", kafka, crash_points)
    }

    /// Runs a test of this binary that lives as a [`child`](life_of_a_child).
    pub(crate) fn running(test: &str, kafka: &KafkaSettings, crash_points: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test, "--nocapture"])
            .env(PREFIX, &kafka.topic_prefix)
            .env("FAILPOINTS", crash_points)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

/// Keeps what `start` answers until the parent is gone. Nothing without a parent.
pub(crate) fn life_of_a_child<T>(start: impl FnOnce(&KafkaSettings) -> T) {
    let Ok(topic_prefix) = std::env::var(PREFIX) else { return };
    let scenario = fail::FailScenario::setup();
    let _running = start(&KafkaSettings { topic_prefix, ..kafka::settings() });
    let _ = std::io::stdin().read(&mut [0]);
    scenario.teardown();
}

#[test]
#[ignore = "runs as a child of the tests here"]
fn child() {
    life_of_a_child(|kafka| Instance::start(kafka, "mortal", 2));
}

fn counted(kafka: &KafkaSettings) -> usize {
    read_all(kafka, &SUMS).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_again_and_again() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 3).await;
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sent = 0;
    for _ in 0..4 {
        let before = counted(&kafka);
        let process = Process::start(&kafka, "");
        // Busy from its first batch until it dies.
        for _ in 0..10 {
            send_numbers(&kafka, sent..sent + 500).await;
            sent += 500;
        }
        until("work", async || (counted(&kafka) > before).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        send_numbers(&kafka, sent..sent + 500).await;
        sent += 500;
        drop(process);
    }
    let last = Process::start(&kafka, "");
    expect_all(&kafka, sent).await;
    drop(last);
}

/// `cargo test --features failpoints`: at every named point of a transaction.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn crashes_at_every_point_of_a_transaction() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 1).await;
    let mut sent = 0;
    for (point, times_before) in [
        ("before-produce", 300),
        ("after-produce", 300),
        ("before-send-offsets", 2),
        ("after-send-offsets", 2),
        ("before-commit", 2),
        ("after-commit", 2),
    ] {
        let mut process = Process::start(&kafka, &format!("transaction-{point}={times_before}*off->return"));
        let give_up = std::time::Instant::now() + Duration::from_secs(60);
        while process.0.try_wait().unwrap().is_none() {
            assert!(std::time::Instant::now() < give_up, "did not crash at {point}");
            send_numbers(&kafka, sent..sent + 100).await;
            sent += 100;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let last = Process::start(&kafka, "");
    expect_all(&kafka, sent).await;
    drop(last);
}
