//! Instances that stand still until everybody thinks they are dead, and then go on.

use std::time::{Duration, Instant};

use rand::RngExt;
use rustix::process::Signal;

use crate::deployment::{Deployment, both_work, chance};
use crate::rounds;
use crate::support::within;

/// What a zombie still has in hand is refused: its transactions by their epoch, its
/// actions by the lease that was taken from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_was_thought_dead_does_nothing_twice() {
    let (seed, mut chance) = chance();
    let deployment = Deployment::prepare().await;
    let mut instances = [deployment.instance("a"), deployment.instance("b")];
    both_work(&instances[0], &instances[1]).await;
    deployment.goes_on().await;

    for round in 0..rounds(1, 10) {
        let victim = chance.random_range(0..2);
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..1_500))).await;
        // More than it may have had in hand: it holds work again.
        let again = instances[victim].polls().await + 3.0;
        instances[victim].process.signal(Signal::STOP);
        let stopped_at = Instant::now();
        // Only the other one can decide on the campaigns that the stopped one held.
        deployment.goes_on().await;
        println!("round {round}: taken over after {:.1} s", stopped_at.elapsed().as_secs_f64());
        instances[victim].process.signal(Signal::CONT);
        within(Duration::from_secs(60), "the zombie to be of use again", async || {
            (instances[victim].polls().await > again).then_some(())
        })
        .await;
        deployment.goes_on().await;
        for instance in &mut instances {
            assert!(!instance.process.has_ended(), "{} has ended", instance.process.name);
        }
    }
    deployment.ends_well(seed, &mut instances).await;
}
