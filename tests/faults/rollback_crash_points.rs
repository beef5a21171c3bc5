//! Rollbacks cut off at chosen points, by death and by standing still. Built with the
//! feature `failpoints` only.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::crash_points::points;
use crate::deployment::{Instance, chance};
use crate::rollback::{continued, stopped_and_taken_over};
use crate::rollback_scene::{PATIENCE, RollbackScene, flow};
use crate::support::within;

const SLOW_MS: u64 = 300;

/// Decisions without an outcome.
const OPEN: &str = "SELECT count(*) FROM audit.explained WHERE status IS NULL";

impl RollbackScene {
    /// Until every decision has its outcome, by the audit.
    async fn nothing_open(&self) {
        within(PATIENCE, "every decision to have an outcome", async || {
            (self.count(OPEN).await == 0).then_some(())
        })
        .await;
    }

    /// Waits for the decision to take this flow back; decisions before it that are open.
    async fn open_until_rollback(&self, flow: &str) -> i64 {
        let sql = "SELECT count(*) FROM audit.decisions WHERE action = 'rollback' AND key = $1";
        within(PATIENCE, "the rollback to be decided", async || {
            let asked = sqlx::query_scalar(sql).bind(flow).fetch_one(&self.deployment.scene.owner).await;
            let decided: i64 = asked.expect(sql);
            (decided == 1).then_some(())
        })
        .await;
        self.count(OPEN).await - 1
    }
}

/// The instance dies at each point of a rollback, and is started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_at_any_point_of_a_rollback_leaves_exactly_one_activation() {
    let (seed, _) = chance();
    let mut points = points();
    points.retain(|point| point.starts_with("rollback-"));
    assert!(points.len() >= 4, "{points:?}");
    let scene = RollbackScene::with(points.len()).await;
    scene.slow_activations(SLOW_MS).await;
    let watcher = ["--stages", "flow-poller,flow-measuring,rollback,audit"];
    let actor = ["--stages", "rollback-actuator"];
    let watcher = scene.instance_with("watcher", &watcher, &[]);
    let mut all_before = scene.instance_with("actor", &actor, &[]);
    scene.watched().await;

    for (number, point) in points.iter().enumerate() {
        // What was decided before must not be what it dies of.
        scene.nothing_open().await;
        all_before.process.signal(rustix::process::Signal::TERM);
        assert!(all_before.process.wait(crate::deployment::ENDED).success());
        scene.break_flows(&[flow(number)]).await;
        let before = scene.open_until_rollback(&flow(number)).await;
        let action = if point == "rollback-before-publish" {
            format!("{point}={before}*off->return")
        } else {
            format!("{point}=return")
        };
        let mut victim = scene.instance_with("actor", &actor, &[("FAILPOINTS", action)]);
        let status = victim.process.wait(Duration::from_secs(90));
        assert_eq!(status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{point}: {status}");
        let done = scene.activations().await.len() - number;
        let settled = scene.count("SELECT count(*) FROM trunkline.settlements").await - number as i64;
        let expected = match point.as_str() {
            "rollback-after-claim" => (0, 0),
            "rollback-after-call" => (1, 0),
            _ => (1, 1),
        };
        assert_eq!((done, settled), expected, "what {point} leaves behind");
        println!("died at {point}");
        all_before = scene.instance_with("actor", &actor, &[]);
        scene.all_handled(number + 1).await;
    }
    let flows = scene.flows();
    scene.ends_well(seed, &flows, &mut [watcher, all_before]).await;
}

/// The worst moment to stand still: the intent is on record, and nothing is sent yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_stood_still_between_claim_and_call_does_not_call() {
    let (seed, _) = chance();
    let scene = RollbackScene::with(1).await;
    let pause = ("FAILPOINTS", "rollback-after-claim=1*sleep(4000)".to_owned());
    let names = ["a", "b"];
    let mut instances: Vec<Instance> =
        names.iter().map(|name| scene.instance(name, std::slice::from_ref(&pause))).collect();
    scene.watched().await;
    scene.break_flows(&[flow(0)]).await;
    const INTENTS: &str = "SELECT count(*) FROM trunkline.intents";
    within(PATIENCE, "an intent", async || (scene.count(INTENTS).await == 1).then_some(())).await;
    let (holder, _) = scene.holder().await.expect("under the lease");
    let stopped = names.iter().position(|name| *name == holder).expect("one of ours");
    stopped_and_taken_over(&scene, &instances[stopped], &holder).await;
    assert!(scene.activations().await.is_empty(), "it was stopped before the call");
    scene.all_handled(1).await;
    assert_eq!(scene.count(INTENTS).await, 2, "the other one had to claim anew");
    continued(&instances[stopped]).await;
    scene.ends_well(seed, &[flow(0)], &mut instances).await;
}
