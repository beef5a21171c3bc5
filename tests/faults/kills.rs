//! kill -9, at any moment, of instances that share the work.

use std::time::{Duration, Instant};

use rand::RngExt;

use crate::deployment::{Deployment, both_work, chance};
use crate::rounds;

/// No sample lost, no decision doubled, every effect recorded, whatever is killed when.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_instances_lose_and_double_nothing() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let mut instances = [deployment.instance("a"), deployment.instance("b")];
    both_work(&instances[0], &instances[1]).await;
    deployment.goes_on().await;

    for round in 0..rounds(2, 20) {
        let victim = chance.random_range(0..2);
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..1_500))).await;
        instances[victim].process.kill();
        let killed_at = Instant::now();
        deployment.goes_on().await;
        println!("round {round}: taken over {:.1} s after the kill", killed_at.elapsed().as_secs_f64());
        instances[victim] = deployment.instance(["a", "b"][victim]);
        both_work(&instances[0], &instances[1]).await;
    }
    deployment.ends_well(seed, &mut instances).await;
}
