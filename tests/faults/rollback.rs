//! Rollbacks while instances are killed or stand still: strictly one activation at a time at
//! the platform, and of each broken flow exactly one.

use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::process::Signal;

use crate::deployment::{Instance, chance};
use crate::rollback_scene::{PATIENCE, RollbackScene};
use crate::rounds;
use crate::support::within;

const NAMES: [&str; 3] = ["a", "b", "c"];
/// Flows that break in the same second.
const AT_ONCE: usize = 5;
/// How long an activation takes.
const SLOW_MS: u64 = 600;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flows_that_break_at_once_are_taken_back_one_at_a_time_whoever_is_killed() {
    let (seed, mut chance) = chance();
    let rounds_of_breaks = rounds(1, 5);
    let scene = RollbackScene::with(AT_ONCE * rounds_of_breaks).await;
    scene.slow_activations(SLOW_MS).await;
    let mut instances: Vec<Instance> = NAMES.iter().map(|name| scene.instance(name, &[])).collect();
    scene.watched().await;

    let flows = scene.flows();
    for (round, broken) in flows.chunks(AT_ONCE).enumerate() {
        let handled_before = scene.handled().await;
        scene.break_flows(broken).await;
        let broken_at = Instant::now();
        // Kills begin when there is something to cut off.
        within(PATIENCE, "somebody to act", async || {
            (scene.holder().await.is_some() || scene.handled().await > handled_before).then_some(())
        })
        .await;
        let mut missing = Vec::new();
        for _ in 0..rounds(3, 6) {
            tokio::time::sleep(Duration::from_millis(chance.random_range(0..1_500))).await;
            let living: Vec<usize> = (0..NAMES.len()).filter(|which| !missing.contains(which)).collect();
            let mut victim = living[chance.random_range(0..living.len())];
            // Whoever acts is killed more often than its share.
            let holder = scene.holder().await.map_or_else(|| "nobody".to_owned(), |(holder, _)| holder);
            if chance.random_bool(0.5) {
                victim = living.into_iter().find(|which| NAMES[*which] == holder).unwrap_or(victim);
            }
            instances[victim].process.kill();
            let back_at_once = missing.len() + 2 == NAMES.len() || chance.random_bool(0.5);
            println!(
                "round {round}: killed {} {:.1} s after the break; holder {holder}, back at once: {back_at_once}",
                NAMES[victim],
                broken_at.elapsed().as_secs_f64(),
            );
            if back_at_once {
                instances[victim] = scene.instance(NAMES[victim], &[]);
            } else {
                missing.push(victim);
            }
        }
        scene.all_handled(AT_ONCE * (round + 1)).await;
        println!("round {round}: all handled after {:.1} s", broken_at.elapsed().as_secs_f64());
        for victim in missing {
            instances[victim] = scene.instance(NAMES[victim], &[]);
        }
    }
    scene.ends_well(seed, &flows, &mut instances).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_was_stopped_past_its_lease_does_nothing_afterwards() {
    let (seed, mut chance) = chance();
    let rounds_of_breaks = rounds(1, 5);
    let scene = RollbackScene::with(3 * rounds_of_breaks).await;
    scene.slow_activations(SLOW_MS).await;
    let mut instances: Vec<Instance> = NAMES[..2].iter().map(|name| scene.instance(name, &[])).collect();
    scene.watched().await;
    let flows = scene.flows();
    for (round, broken) in flows.chunks(3).enumerate() {
        let before = round * 3;
        scene.break_flows(&broken[..2]).await;
        let holder = within(PATIENCE, "somebody to act", async || scene.holder().await).await.0;
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..SLOW_MS))).await;
        let stopped = NAMES.iter().position(|name| *name == holder).expect("one of ours");
        stopped_and_taken_over(&scene, &instances[stopped], &holder).await;
        // Sometimes while the other one acts, sometimes after it.
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..3 * SLOW_MS))).await;
        continued(&instances[stopped]).await;
        scene.all_handled(before + 2).await;
        // It has nothing in hand any more, and is of use again.
        scene.break_flows(&broken[2..]).await;
        scene.all_handled(before + 3).await;
        for instance in &mut instances {
            assert!(!instance.process.has_ended(), "{} has ended", instance.process.name);
        }
    }
    scene.ends_well(seed, &flows, &mut instances).await;
}

/// Stops whoever holds the lease until somebody else has taken it.
pub(crate) async fn stopped_and_taken_over(scene: &RollbackScene, instance: &Instance, holder: &str) {
    instance.process.signal(Signal::STOP);
    let stopped_at = Instant::now();
    within(PATIENCE, "somebody else to take the lease", async || {
        scene.holder().await.filter(|(now, _)| now != holder)
    })
    .await;
    println!("{holder} stopped; lease taken over after {:.1} s", stopped_at.elapsed().as_secs_f64());
}

/// Lets it go on, until it observes flows again.
pub(crate) async fn continued(instance: &Instance) {
    const POLLS: &str = "trunkline_flow_polls_total";
    instance.process.signal(Signal::CONT);
    let before = instance.counted(POLLS).await;
    // More than it may have had in hand: it is a member of its groups again.
    within(PATIENCE, "the zombie to observe flows again", async || {
        (instance.counted(POLLS).await > before + 5.0).then_some(())
    })
    .await;
}
