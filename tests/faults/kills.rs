//! kill -9, at any moment, of instances that share the work.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{RngExt, SeedableRng};
use rustix::process::Signal;
use trunkline::simulator::Scenario;

use crate::deployment::{Deployment, Instance};
use crate::rounds;
use crate::support::checker::violations;
use crate::support::until;

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292 million")
}

/// Until every campaign has been decided on after `since_ms`.
async fn all_decided(deployment: &Deployment, since_ms: i64) {
    let campaigns = deployment.simulator.overview().campaigns.len() as i64;
    until("every campaign to be decided on", async || {
        (deployment.campaigns_decided_since(since_ms).await == campaigns).then_some(())
    })
    .await;
}

/// Until both have observed campaigns: each holds part of the work.
async fn both_work(first: &Instance, second: &Instance) {
    until("both instances to observe campaigns", async || {
        (first.polls().await > 0.0 && second.polls().await > 0.0).then_some(())
    })
    .await;
}

/// No sample lost, no decision doubled, every effect recorded, whatever is killed when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_instances_lose_and_double_nothing() {
    let seed: u64 = std::env::var("TRUNKLINE_TEST_SEED")
        .map_or_else(|_| rand::rng().random(), |seed| seed.parse().expect("TRUNKLINE_TEST_SEED is a number"));
    println!("seed {seed}");
    let mut chance = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let deployment = Deployment::prepare(Scenario::default()).await;
    let mut instances = [deployment.instance("a", None), deployment.instance("b", None)];
    both_work(&instances[0], &instances[1]).await;
    all_decided(&deployment, now_ms()).await;

    for round in 0..rounds(2, 20) {
        let victim = chance.random_range(0..2);
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..1_500))).await;
        instances[victim].process.kill();
        let killed_at = Instant::now();
        all_decided(&deployment, now_ms()).await;
        println!("round {round}: taken over {:.1} s after the kill", killed_at.elapsed().as_secs_f64());
        let name = ["a", "b"][victim];
        instances[victim] = deployment.instance(name, None);
        both_work(&instances[0], &instances[1]).await;
    }

    for instance in &mut instances {
        instance.process.signal(Signal::TERM);
    }
    for instance in &mut instances {
        let status = instance.process.wait(Duration::from_secs(10));
        assert!(status.success(), "SIGTERM ends with {status}");
    }
    // Without the poller nothing new comes in; what is there is worked off.
    let mut rest = deployment.instance("rest", Some("windowing,dialing,actuator,audit"));
    let mut found = Vec::new();
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        found = violations(&deployment.scene.evidence().await);
        if found.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let told: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "seed {seed}:\n{}", told.join("\n"));
    let evidence = deployment.scene.evidence().await;
    assert!(!evidence.effects.is_empty(), "the run changed nothing at the platform");
    println!(
        "{} statistics, {} decisions, {} effects",
        evidence.stats.len(),
        evidence.decisions.len(),
        evidence.effects.len()
    );
    rest.process.signal(Signal::TERM);
    assert!(rest.process.wait(Duration::from_secs(10)).success());
}
