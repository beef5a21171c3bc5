//! Rollbacks against a real broker, a real database and the simulated platform.

use std::time::Duration;

use rand::{RngExt, SeedableRng};
use serde_json::json;
use trunkline::model::outcome::{Effect, OutcomeStatus};
use trunkline::sinks::rollback::Settings;

use crate::rollback_stand::{Stand, flow, settings};

/// Reading versions takes a moment too: whoever wanted to overlap could.
const SLOW: u64 = 150;
const LOCKOUT: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
async fn five_flows_at_once_on_three_instances_are_changed_one_at_a_time() {
    let stand = Stand::with(5).await;
    stand.faults(json!([{ "match": {"method": "PATCH"}, "fault": {"type": "delay", "ms": SLOW} }])).await;
    let flows: Vec<String> = (0..5).map(flow).collect();
    stand.decide(&flows, "12.0", 1).await;
    let instances = ["a", "b", "c"].map(|name| stand.start(name));
    let outcomes = stand.outcomes(5).await;
    for outcome in &outcomes {
        assert_eq!(outcome.status, OutcomeStatus::Applied, "{outcome:?}");
        let Some(Effect::FlowVersion(change)) = &outcome.effect else { panic!("{outcome:?}") };
        assert_eq!((change.previous_version.as_str(), change.version.as_str()), ("12.0", "11.0"));
    }
    let activations = stand.activations(None).await;
    let text = |at: usize, field: &str| activations[at][field].as_str().expect("a text").to_owned();
    assert_eq!(activations.len(), 5, "{activations:?}");
    for next in 1..5 {
        assert!(text(next - 1, "endedAt") <= text(next, "startedAt"), "{activations:?}");
    }
    for flow in &flows {
        assert_eq!(stand.activations(Some(flow)).await.len(), 1);
    }
    for instance in instances {
        instance.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_patch_then_429_then_a_lost_reply_is_one_rollback() {
    let stand = Stand::with(1).await;
    let patch = json!({"method": "PATCH"});
    stand
        .faults(json!([
            { "match": patch, "fault": {"type": "delay", "ms": 400}, "times": 1 },
            { "match": patch, "fault": {"type": "status", "code": 429, "retryAfter": "int", "seconds": 1}, "times": 1 },
            { "match": patch, "fault": {"type": "drop_after_effect"}, "times": 2 },
        ]))
        .await;
    stand.decide(&[flow(0)], "12.0", 1).await;
    let instance = stand.start("a");
    let outcome = stand.outcomes(1).await.remove(0);
    assert_eq!(outcome.status, OutcomeStatus::Applied, "{outcome:?}");
    assert_eq!(stand.activations(None).await.len(), 1);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_at_any_moment_leave_exactly_one_activation() {
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let stand = Stand::with(6).await;
    stand.faults(json!([{ "match": {"method": "PATCH"}, "fault": {"type": "delay", "ms": SLOW} }])).await;
    let flows: Vec<String> = (0..6).map(flow).collect();
    stand.decide(&flows, "12.0", 1).await;
    // The same name each time: what a restart looks like.
    for _ in 0..12 {
        let instance = stand.start("a");
        tokio::time::sleep(Duration::from_millis(random.random_range(50..900))).await;
        instance.crash().await;
    }
    let instance = stand.start("a");
    let outcomes = stand.outcomes(6).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == OutcomeStatus::Applied), "{outcomes:?}");
    for flow in &flows {
        assert_eq!(stand.activations(Some(flow)).await.len(), 1, "seed {seed}");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_lost_the_lease_cannot_act() {
    let stand = Stand::with(1).await;
    let versions = json!({"method": "GET", "path": "/api/v2/architect/flows/*/versions"});
    stand.faults(json!([{ "match": versions, "fault": {"type": "delay", "ms": 700}, "times": 1 }])).await;
    let instance =
        stand.start_with("a", LOCKOUT, Settings { lease_idle: Duration::from_secs(6), ..settings() });
    stand.decide(&[flow(0)], "12.0", 1).await;
    let name = format!("rollback-actuator/{}", stand.kafka.topic_prefix);
    let owner = stand.own_database.owner().await;
    // Once it is being held, somebody else takes it.
    crate::support::until("the lease", || async {
        let held = sqlx::query("SELECT 1 FROM trunkline.leases WHERE name = $1").bind(&name);
        held.fetch_optional(&owner).await.unwrap()
    })
    .await;
    let stolen = stand.database.take_lease(&name, "thief").await.unwrap();
    for _ in 0..6 {
        assert!(stand.database.renew_lease(&stolen).await.unwrap(), "nobody takes it from the thief");
        assert_eq!(stand.activations(None).await.len(), 0, "without the lease nothing is sent");
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    stand.database.release_lease(&stolen).await.unwrap();
    let outcome = stand.outcomes(1).await.remove(0);
    assert_eq!(outcome.status, OutcomeStatus::Applied, "{outcome:?}");
    assert_eq!(stand.activations(None).await.len(), 1);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_versions_are_not_gone_back_to_and_people_are_left_when_none_is() {
    let stand = Stand::with(1).await;
    let instance = stand.start_with("a", Duration::ZERO, settings());
    let ends = [("12.0", "11.0"), ("11.0", "10.0")];
    for (sequence, (bad, target)) in (1..).zip(ends) {
        stand.decide(&[flow(0)], bad, sequence).await;
        let outcomes = stand.outcomes(sequence as usize).await;
        let last = outcomes.iter().find(|outcome| outcome.sequence == sequence).unwrap();
        let Some(Effect::FlowVersion(change)) = &last.effect else { panic!("{last:?}") };
        assert_eq!(change.version, target);
    }
    stand.decide(&[flow(0)], "10.0", 3).await;
    let outcomes = stand.outcomes(3).await;
    let last = outcomes.iter().find(|outcome| outcome.sequence == 3).unwrap();
    assert_eq!(last.status, OutcomeStatus::Failed);
    assert!(last.reason.starts_with("no_eligible_version"), "{}", last.reason);
    stand.decide(&[flow(0)], "12.0", 4).await;
    let outcomes = stand.outcomes(4).await;
    let last = outcomes.iter().find(|outcome| outcome.sequence == 4).unwrap();
    assert_eq!(last.status, OutcomeStatus::Unchanged);
    assert!(last.reason.starts_with("version_not_active"), "{}", last.reason);
    assert_eq!(stand.activations(None).await.len(), 2);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_and_cooldown_are_asked_in_the_statement_that_claims() {
    let stand = Stand::with(2).await;
    let opened = stand
        .database
        .open_maintenance(Some(&flow(1)), Duration::from_secs(600), None, "tester")
        .await
        .unwrap();
    let instance = stand.start("a");
    stand.decide(&[flow(0), flow(1)], "12.0", 1).await;
    let outcomes = stand.outcomes(2).await;
    let of = |key: String| outcomes.iter().find(|outcome| outcome.key == key).unwrap();
    assert_eq!(of(flow(0)).status, OutcomeStatus::Applied);
    assert_eq!(of(flow(1)).status, OutcomeStatus::Unchanged);
    assert_eq!(of(flow(1)).reason, format!("maintenance_window: {}", opened.scope));
    // The cooldown outlives a restart.
    instance.stop().await;
    let instance = stand.start("a");
    stand.decide(&[flow(0)], "11.0", 2).await;
    let outcomes = stand.outcomes(3).await;
    let last = outcomes.iter().find(|outcome| outcome.sequence == 2).unwrap();
    assert!(last.reason.starts_with("cooldown"), "{last:?}");
    // Both refusals are told back, each as it is recorded.
    let told = stand.refusals().await;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|refusal| outcomes.contains(refusal)), "{told:?}");
    assert!(last.not_before.is_some(), "{last:?}");
    assert_eq!(stand.activations(None).await.len(), 1);
    instance.stop().await;
}
