//! Canaries at the counters: exact shares of each step over all instances, and an abort that is in
//! force for the very next decision.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::task::JoinSet;
use trunkline::model::Timestamp;
use trunkline::model::decision::DecisionId;
use trunkline::model::delivery::{CanaryState, Steps};
use trunkline::postgres::canaries::{Canary, Delivered, DeliveryRead, NewCanary};

use super::*;

fn new(route: &str) -> NewCanary {
    NewCanary {
        flow: "menu".into(),
        candidate: "menu-next".into(),
        route: route.into(),
        steps: Steps::default(),
        hold_minutes: 15,
        reason: Some("a new menu".into()),
    }
}

/// A decision of the loop as it is read from its topic.
fn decision(canary: &Canary, sequence: u64, action: &str, share: f64) -> String {
    let at = Timestamp::from_millis(1_767_323_045_678);
    let counts = json!({"total": 0, "errors": 0});
    let state = if action == "abort" { "aborted" } else { "running" };
    json!({
        "decisionId": DecisionId::derive(trunkline::model::decision::Loop::Delivery, "c", sequence, at),
        "sequence": sequence, "loop": "delivery", "key": canary.configuration_id, "mode": "live",
        "decidedAt": at, "eventTime": at, "action": action, "reason": "step_proven",
        "parameters": {
            "canaryId": canary.id, "controlId": "menu", "candidateId": "menu-next", "state": state,
            "step": sequence, "steps": canary.steps, "previousShare": 0.0, "share": share,
            "chain": {"raw": share, "limits": []},
        },
        "inputs": {
            "control": counts, "candidate": counts, "stepControl": counts, "stepCandidate": counts,
            "stepMinutes": 0, "controlBefore": counts, "evidence": 1.5, "abortAt": 100.0,
        },
        "policy": {"name": "e-process", "version": 1, "hash": "0"}, "settingsRevision": 1, "causeIds": [],
        "expiresAt": "2100-01-02T03:04:05.678Z",
    })
    .to_string()
}

async fn apply(database: &Database, text: &str) {
    let read: DeliveryRead<'_> = serde_json::from_str(text).unwrap();
    let now = Timestamp::from_millis(1_767_323_045_678);
    let delivered = Delivered { decision: read, traceparent: None };
    database.apply_deliveries("test", &[], &[delivered], &[], now).await.unwrap();
}

async fn three(own: &TestDatabase) -> Vec<Arc<Instance>> {
    let mut instances = Vec::new();
    for _ in 0..3 {
        let instance = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
        instances.push(Arc::new(instance));
    }
    instances
}

/// 32 clients on all instances ask about `each` conversations.
async fn ask(instances: &[Arc<Instance>], name: &str, each: usize) {
    let mut clients = JoinSet::new();
    for client in 0..32 {
        let (instances, name) = (instances.to_vec(), name.to_owned());
        clients.spawn(async move {
            for number in 0..each {
                let conversation = format!("{name}-{client}-{number}");
                let answer = instances[(client + number) % 3].decide("c", &conversation).await;
                assert_eq!(answer.source.name(), "exact");
            }
        });
    }
    while let Some(joined) = clients.join_next().await {
        joined.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_has_its_exact_share_over_all_instances() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("menu", 70.0), ("menu-next", 30.0)])).await;
    let instances = three(&own).await;
    let canary = database.start_canary(&new("c"), "alice").await.unwrap();
    assert_eq!((canary.state, canary.share), (CanaryState::Planned, 0.0));
    let mut from = 0;
    for (index, share) in [0.0, 0.01, 0.05, 0.2, 0.5, 1.0, 0.0].into_iter().enumerate() {
        if index > 0 {
            let action = if index == 6 { "abort" } else { "set_share" };
            apply(&database, &decision(&canary, index as u64, action, share)).await;
        }
        ask(&instances, &format!("step-{index}"), 13).await;
        let rows = kept(&owner, "c").await;
        let mut given = 0;
        for (count, (_, _, destination, _)) in rows[from..].iter().enumerate() {
            given += i64::from(destination == "menu-next");
            let off = given as f64 - (count + 1) as f64 * share;
            // The rule's own half, and what the step before may have left.
            assert!(off.abs() <= 1.0 + 1e-9, "share {share} at {}: {given}", count + 1);
            assert!(share > 0.0 || given == 0, "nothing is nothing");
        }
        from = rows.len();
    }
    let stands = database.canary("c").await.unwrap().unwrap();
    assert_eq!((stands.state, stands.evidence), (CanaryState::Aborted, 1.5));
    // Every decision has its outcome on its way.
    let outcomes =
        waiting(&owner).await.into_iter().filter(|(_, value)| value["status"] == "applied").count();
    assert_eq!(outcomes, 6);
    for instance in instances {
        Arc::into_inner(instance).expect("the clients are done").stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_abort_not_one_further_conversation_goes_to_the_candidate() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("menu", 1.0)])).await;
    let instances = three(&own).await;
    for round in 0..5 {
        let canary = database.start_canary(&new("c"), "alice").await.unwrap();
        apply(&database, &decision(&canary, round * 2 + 1, "set_share", 0.5)).await;
        let asked = Arc::new(AtomicUsize::new(0));
        let mut clients = JoinSet::new();
        for client in 0..48 {
            let (instances, asked) = (instances.clone(), Arc::clone(&asked));
            clients.spawn(async move {
                for number in 0..12 {
                    asked.fetch_add(1, Ordering::SeqCst);
                    instances[(client + number) % 3]
                        .decide("c", &format!("r{round}-{client}-{number}"))
                        .await;
                }
            });
        }
        until("some of it to be asked", async || (asked.load(Ordering::SeqCst) > 200).then_some(())).await;
        let aborted = database.abort_canary(&canary.id, "too many errors", "bob").await.unwrap();
        // Blocks may have been written since; none of them knew less.
        let (until, _) = counted(&owner, "c").await;
        assert_eq!((aborted.state, aborted.share), (CanaryState::Aborted, 0.0));
        while let Some(joined) = clients.join_next().await {
            joined.unwrap();
        }
        let rows = kept(&owner, "c").await;
        let of_round: Vec<_> =
            rows.iter().filter(|(_, id, ..)| id.starts_with(&format!("r{round}-"))).collect();
        assert!(of_round.iter().any(|(.., destination, _)| destination == "menu-next"), "round {round}");
        let later: Vec<_> =
            of_round.iter().filter(|(sequence, _, to, _)| *sequence > until && to == "menu-next").collect();
        assert!(later.is_empty(), "round {round}: {later:?} after {until}");
        // What the loop decided before it heard of the abort comes too late.
        apply(&database, &decision(&canary, round * 2 + 2, "set_share", 1.0)).await;
        assert_eq!(&*instances[0].decide("c", &format!("after-{round}")).await.destination_id, "menu");
    }
    let history = database.settings_history(Some("canary/c"), 2).await.unwrap();
    assert_eq!((&*history[0].who, &history[0].value["reason"]), ("bob", &json!("too many errors")));
    assert_eq!((&*history[1].who, &history[1].value["request"]), ("alice", &json!("start")));
    for instance in instances {
        Arc::into_inner(instance).expect("the clients are done").stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_counters_nothing_goes_to_the_candidate() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("menu", 1.0)])).await;
    let instance = Instance::start(&own.options()).await;
    let canary = database.start_canary(&new("c"), "alice").await.unwrap();
    apply(&database, &decision(&canary, 1, "set_share", 1.0)).await;
    until("the candidate to have everything", async || {
        let answer = instance.decide("c", &uuid::Uuid::now_v7().to_string()).await;
        (&*answer.destination_id == "menu-next").then_some(())
    })
    .await;
    let mut held = owner.begin().await.unwrap();
    sqlx::query("SELECT FROM trunkline.route_counters FOR UPDATE").execute(&mut *held).await.unwrap();
    // This one is in the block that waits for the counters: it may be recorded as it says.
    instance.decide("c", "on-its-way").await;
    for number in 0..10 {
        let answer = instance.decide("c", &format!("without-{number}")).await;
        assert_ne!(answer.source.name(), "exact");
        assert_eq!(&*answer.destination_id, "menu", "{answer:?}");
    }
    held.rollback().await.unwrap();
    until("the candidate to have everything again", async || {
        let answer = instance.decide("c", &uuid::Uuid::now_v7().to_string()).await;
        (&*answer.destination_id == "menu-next").then_some(())
    })
    .await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_and_says_what_would() {
    let (own, database) = TestDatabase::migrated().await;
    let refused =
        |result: Result<Canary, trunkline::postgres::settings::SettingError>| result.unwrap_err().to_string();
    assert!(
        refused(database.start_canary(&new("c"), "alice").await).contains("no configuration c is in force")
    );
    publish(&database, &configuration("c", &[("menu", 1.0), ("billing", 1.0)])).await;
    assert!(refused(database.start_canary(&new("c"), "alice").await).contains("also sends to billing"));
    publish(&database, &configuration("c", &[("menu-next", 1.0)])).await;
    assert!(refused(database.start_canary(&new("c"), "alice").await).contains("does not send to flow menu"));
    publish(&database, &configuration("c", &[("menu", 1.0)])).await;
    let canary = database.start_canary(&new("c"), "alice").await.unwrap();
    assert!(refused(database.start_canary(&new("c"), "alice").await).contains("is under way"));
    assert!(refused(database.promote_canary("c", None, "alice").await).contains("only what is done"));
    database.save_route_draft(&configuration("c", &[("menu", 2.0)]), "test").await.unwrap();
    assert!(matches!(
        database.publish_route("c", "test").await.unwrap(),
        Published::UnderCanary(id) if id == canary.id
    ));
    assert!(database.route("c").await.unwrap().draft.is_some(), "the draft stays");
    database.abort_canary("c", "no longer wanted", "alice").await.unwrap();
    assert!(refused(database.abort_canary("c", "again", "alice").await).contains("can no longer be aborted"));
    assert!(
        matches!(database.publish_route("c", "test").await.unwrap(), Published::InForce(in_force) if in_force.counter.canary.is_none())
    );
    drop(own);
}
