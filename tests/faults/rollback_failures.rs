//! Rollbacks while what is around them fails: the platform's own endpoints, and those who
//! are to be told.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use trunkline::model::Timestamp;

use crate::deployment::{Instance, chance, now_ms};
use crate::rollback_scene::{BAD, GOOD, PATIENCE, RollbackScene, flow};
use crate::support::receiver::{Manner, OTHER_SECRET, Receiver, SECRET};
use crate::support::{until, within};

const POLICY: &str = "TRUNKLINE_ROLLBACK__POLICY";

/// A decision about this flow with this reason.
async fn decided(scene: &RollbackScene, flow: &str, reason: &str, what: &str) -> Value {
    const DECIDED: &str = "SELECT inputs FROM audit.decisions WHERE key = $1 AND reason = $2
                           AND inputs @> $3 ORDER BY sequence DESC LIMIT 1";
    let unmeasured = if reason == "inconclusive" { json!({"unmeasured": true}) } else { json!({}) };
    within(PATIENCE, what, async || {
        let asked = sqlx::query_scalar(DECIDED).bind(flow).bind(reason).bind(&unmeasured);
        asked.fetch_optional(&scene.deployment.scene.owner).await.expect(DECIDED)
    })
    .await
}

/// Measures fail with a flow that has broken, which is then taken back by a `PATCH` that is
/// slow, refused for a while, and slow again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn measures_that_fail_are_no_evidence_and_a_slow_and_refused_patch_is_one_rollback() {
    let (seed, _) = chance();
    let scene = RollbackScene::with(2).await;
    let flows = scene.flows();
    // A bucket takes eight minutes: a busy machine has the time of two to fail in between.
    let few = json!({"interactionsPerMinute": 5});
    scene.control(Method::PUT, &format!("/flows/{}", flow(0)), few).await;
    let instance = scene.instance("a", &[(POLICY, "consecutive".to_owned())]);
    scene.watched().await;
    scene.break_flows(&[flow(0)]).await;
    // Without a verdict before, nothing new is to be said when measures fail.
    decided(&scene, &flow(1), "within_threshold", "the other to be well").await;
    decided(&scene, &flow(0), "over_threshold", "the first breach").await;

    let unwell = json!({"endpoints": ["measures"], "aboveErrorRate": 0.05, "status": 503});
    scene.control(Method::PUT, "/unwell", unwell.clone()).await;
    for flow in &flows {
        let inputs = decided(&scene, flow, "inconclusive", "nothing to be known of it").await;
        assert!(inputs["breaches"].as_u64() < Some(3), "{inputs}");
    }
    const OTHERS: &str = "SELECT count(*) FROM audit.decisions WHERE action <> 'hold'";
    assert_eq!(scene.count(OTHERS).await, 0, "our own failures trigger nothing");
    let gap_ends = Timestamp::from_millis(now_ms());

    let patch = json!({"method": "PATCH"});
    let limited = json!({"type": "status", "code": 429, "retryAfter": "int", "seconds": 2});
    let faults = json!([
        { "match": patch, "fault": {"type": "delay", "ms": 1_500}, "times": 2 },
        { "match": patch, "fault": limited, "times": 1 },
    ]);
    scene.control(Method::PUT, "/faults", faults).await;
    scene.control(Method::PUT, "/unwell", Value::Null).await;
    let inputs = decided(&scene, &flow(0), "breaches_in_a_row", "the rollback to be decided").await;
    // From now until it is well again nothing can be measured.
    scene.control(Method::PUT, "/unwell", unwell).await;
    let buckets = inputs["buckets"].as_array().expect("a list");
    let time = |value: &Value| value.as_str().expect("a text").parse::<Timestamp>().expect("a time");
    assert_eq!(buckets.len(), 3, "{inputs}");
    assert!(time(&buckets[0]["until"]) < gap_ends, "what was seen before the gap counts: {inputs}");
    assert!(time(&buckets[1]["until"]) > gap_ends, "and nothing was made up in it: {inputs}");

    scene.all_handled(1).await;
    let rules = scene.control(Method::GET, "/faults", Value::Null).await;
    let applied: Vec<_> =
        rules["items"].as_array().expect("a list").iter().map(|it| &it["applied"]).collect();
    assert_eq!(applied, [2, 1], "slow and refused, then slow and done");
    // It is seen to have helped, which takes measures again.
    const RECOVERED: &str = "SELECT count(*) FROM audit.outcomes WHERE status = 'recovered'";
    within(PATIENCE, "the recovery", async || (scene.count(RECOVERED).await == 1).then_some(())).await;
    assert_eq!(scene.count(OTHERS).await, 1, "one rollback, and nobody is told of anything else");
    scene.ends_well(seed, &[flow(0)], &mut [instance]).await;
}

/// The receiver neither answers nor takes anything while flows are taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_and_refuses_delays_no_rollback_and_is_told_once_in_the_fields_asked_for() {
    let (seed, _) = chance();
    let scene = RollbackScene::with(2).await;
    let receiver = Receiver::start(Manner::Hangs).await;
    let url = &receiver.url;
    let webhooks =
        format!(r#"[{{ name = "ops", url = "{url}", secrets = ["{SECRET}", "{OTHER_SECRET}"] }}]"#);
    let telling = [
        ("TRUNKLINE_ALERTS__WEBHOOKS", webhooks),
        ("TRUNKLINE_ALERTS__PRIVATE_RECEIVERS", "allow".to_owned()),
    ];
    let mut instances: Vec<Instance> = ["a", "b"].iter().map(|name| scene.instance(name, &telling)).collect();
    scene.watched().await;

    scene.break_flows(&[flow(0)]).await;
    scene.all_handled(1).await;
    // It hangs on the alert of the first while the second is taken back.
    within(PATIENCE, "the first alert", async || receiver.messages().first().map(drop)).await;
    scene.break_flows(&[flow(1)]).await;
    scene.all_handled(2).await;
    assert!(receiver.taken().is_empty(), "nothing was delivered, everything was done");

    receiver.set(Manner::Refuses);
    let asked = receiver.messages().len();
    within(PATIENCE, "it to refuse", async || (receiver.messages().len() > asked + 1).then_some(())).await;
    receiver.set(Manner::Takes);
    within(PATIENCE, "both alerts to be delivered", async || (receiver.taken().len() == 2).then_some(()))
        .await;
    const DELIVERED: &str = "SELECT count(*) FROM audit.alerts WHERE status = 'delivered'";
    until("the deliveries to be on record", async || (scene.count(DELIVERED).await == 2).then_some(())).await;

    // The receiver has checked both signatures of every message by itself.
    let messages = receiver.messages();
    let ids: BTreeSet<&str> = messages.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids.len(), 2, "the same id every time it is tried: {messages:?}");
    assert!(receiver.taken().values().all(|times| *times == 1), "{:?}", receiver.taken());
    let activations = scene.activations().await;
    let mut told: Vec<Value> = messages
        .iter()
        .filter(|message| message.taken)
        .map(|message| serde_json::from_str(&message.body).expect("JSON"))
        .collect();
    told.sort_by_key(|body| body["flow_id"].to_string());
    for (number, body) in told.iter_mut().enumerate() {
        let error_rate = body["error_rate_breach"].take().as_f64().expect("a number");
        assert!((0.2..=1.0).contains(&error_rate), "{error_rate}");
        let timestamp: Timestamp =
            body["timestamp"].take().as_str().expect("a text").parse().expect("a time");
        let activation = activations.iter().find(|it| it.flow == flow(number)).expect("taken back");
        let after = timestamp.as_millis() - activation.ended_ms;
        assert!((0..60_000).contains(&after), "told of {after} ms after it was done");
        let expected = json!({
            "incident_type": "AUTO_ROLLBACK_TRIGGERED", "flow_id": flow(number), "error_rate_breach": null,
            "threshold_breach": 0.05, "timestamp": null, "action_taken": format!("SWITCHED_TO_VERSION_{GOOD}"),
            "target_version": GOOD, "previous_version": BAD, "decision_id": activation.decision,
        });
        assert_eq!(*body, expected);
    }
    scene.ends_well(seed, &[flow(0), flow(1)], &mut instances).await;
}
