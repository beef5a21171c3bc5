//! What must hold when instances crash, stop, are stopped, or meet each other:
//! nothing done twice outside, each decision exactly one outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::Settings;
use tokio::sync::Notify;
use trunkline::model::campaign::DialParameters;
use trunkline::model::decision::{DecisionId, Loop};
use trunkline::model::outcome::{Effect, OutcomeStatus, SentRequest};
use trunkline::postgres::intents::{Claim, FlowChange, FlowTerms, Intent, Settlement, Terms};

use crate::actuator_stand::{Hook, Moment, Stand, assert_ended, campaign, decision, nothing, now, with};
use crate::support::postgres::TestDatabase;
use crate::support::until;

/// Stays for ever at the first such moment, and says when it is there.
fn stuck_at(moment: Moment) -> (Hook, Arc<Notify>) {
    let reached = Arc::new(Notify::new());
    let first = AtomicBool::new(true);
    let hook: Hook = Arc::new({
        let reached = Arc::clone(&reached);
        move |_, now| {
            let stays = now == moment && first.swap(false, Ordering::SeqCst);
            if stays {
                reached.notify_one();
            }
            Box::pin(async move {
                if stays {
                    std::future::pending::<()>().await;
                }
            })
        }
    });
    (hook, reached)
}

async fn reached(notify: &Notify) {
    tokio::time::timeout(Duration::from_secs(30), notify.notified()).await.expect("gets there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_call_and_its_outcome_is_settled_without_a_second_effect() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    stand.decide(&[decision(&campaign(0), 1, 3.0)]).await;
    let (hook, sent) = stuck_at(Moment::AfterSending);
    let crashing = stand.start("one", hook);
    reached(&sent).await;
    assert_eq!(stand.effects(&campaign(0)).await, [3.0]);
    crashing.crash().await;
    assert!(stand.outcomes_now().await.is_empty());

    let instance = stand.start("one", nothing());
    let outcome = stand.outcomes(1).await.into_values().next().expect("one");
    assert_ended(&outcome, OutcomeStatus::Applied, "confirmed_by_reading_back");
    assert_eq!(
        outcome.effect,
        Some(Effect::DialRate(DialParameters { previous_dial_rate: 2.0, dial_rate: 3.0 }))
    );
    assert_eq!((outcome.attempts, stand.changes_asked(&campaign(0)).await), (1, 1));
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_claim_and_the_call_sends_it_once_after_all() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    stand.decide(&[decision(&campaign(0), 1, 3.0)]).await;
    let (hook, claimed) = stuck_at(Moment::BeforeSending);
    let crashing = stand.start("one", hook);
    reached(&claimed).await;
    crashing.crash().await;
    assert_eq!(stand.intents(&campaign(0)).await, 1);
    assert!(stand.effects(&campaign(0)).await.is_empty());

    let instance = stand.start("two", nothing());
    let outcome = stand.outcomes(1).await.into_values().next().expect("one");
    assert_ended(&outcome, OutcomeStatus::Applied, "confirmed");
    assert_eq!(stand.effects(&campaign(0)).await, [3.0]);
    assert_eq!(stand.intents(&campaign(0)).await, 2);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settled_decision_is_published_as_it_was_settled() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let (made, rate) = (decision(&campaign(0), 1, 3.0), 3.0);
    stand.decide(std::slice::from_ref(&made)).await;
    let first = stand.start("one", nothing());
    let outcome = stand.outcomes(1).await.into_values().next().expect("one");
    first.stop().await;
    // The same decision once more, as a reader sees it whose offset was not committed.
    stand.decide(&[made]).await;
    let second = stand.start("one", nothing());
    let both = until("both", || async {
        let outcomes = stand.outcomes_now().await;
        (outcomes.len() == 2).then_some(outcomes)
    })
    .await;
    assert_eq!(both, [outcome.clone(), outcome]);
    assert_eq!(stand.effects(&campaign(0)).await, [rate]);
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_holder_of_a_lease_claims_and_settles_nothing() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let database = &stand.database;
    let former = database.take_lease("actuator/dial/t/0", "one").await.expect("taken");
    let intent = |attempt| Intent {
        decision_id: DecisionId::derive(Loop::Dial, "c", 1, now().minus(Duration::from_secs(attempt))),
        attempt: 1,
        request: request("PUT", "/api/v2/campaigns/c"),
        parameters: DialParameters { previous_dial_rate: 2.0, dial_rate: 3.0 },
    };
    let before = intent(1);
    let terms = Terms {
        of: Loop::Dial,
        expires_at: now().plus(Duration::from_secs(60)),
        renewed_within: None,
        flow: None,
    };
    let claim = async |intent: &Intent, lease| database.claim(intent, lease, &terms).await.expect("answers");
    assert_eq!(claim(&before, &former).await, Claim::Granted);
    assert_eq!(claim(&before, &former).await, Claim::Taken);

    // Taken while the former holder's claim waits for it: the claim is refused.
    let mut taking = stand.own_database.owner().await.begin().await.expect("begins");
    sqlx::query("UPDATE trunkline.leases SET token = token + 1")
        .execute(&mut *taking)
        .await
        .expect("updates");
    let claiming = tokio::spawn({
        let (database, former, intent) = (database.clone(), former.clone(), intent(2));
        async move { database.claim(&intent, &former, &terms).await }
    });
    until("the claim to wait for the lease", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&stand.own_database.owner().await)
        .await
        .expect("looks");
        (waiting > 0).then_some(())
    })
    .await;
    taking.commit().await.expect("commits");
    assert_eq!(claiming.await.expect("ends").expect("answers"), Claim::LeaseLost);

    let present = database.take_lease("actuator/dial/t/0", "two").await.expect("taken");
    assert_eq!(present.token, former.token + 2);
    assert_eq!(claim(&intent(3), &former).await, Claim::LeaseLost);
    let history = database.history::<DialParameters>(before.decision_id).await.expect("answers");
    assert_eq!(history.intents.iter().map(|claimed| &claimed.intent).collect::<Vec<_>>(), [&before]);

    let outcome = serde_json::from_value(json!({
        "decisionId": before.decision_id, "loop": "dial", "key": "c", "sequence": 1, "status": "expired",
        "reason": "older than its expiry", "attempts": 1, "finishedAt": now()
    }))
    .expect("an outcome");
    assert_eq!(database.settle(&outcome, None, &former).await.expect("answers"), Settlement::LeaseLost);
    let stands = Settlement::Stands(Box::new(outcome.clone()));
    assert_eq!(database.settle(&outcome, None, &present).await.expect("answers"), stands);
    // Even a former holder is told what stands.
    assert_eq!(database.settle(&outcome, None, &former).await.expect("answers"), stands);
}

/// Expiry and the lockout of a flow are asked by the very statement that claims, the one by
/// the database's clock, the other by the event times that the deciding stage goes by.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_asks_expiry_and_lockout_itself() {
    let (_own, database) = TestDatabase::migrated().await;
    let lease = database.take_lease("rollback-actuator/t", "one").await.expect("taken");
    let at = now();
    let id = |sequence| DecisionId::derive(Loop::Rollback, "f", sequence, at);
    let intent = |sequence| Intent {
        decision_id: id(sequence),
        attempt: 1,
        request: request("PATCH", "/api/v2/architect/deployments/f/versions/11"),
        parameters: json!({}),
    };
    let flow = |version, event_time| FlowTerms {
        flow_id: "f",
        version,
        event_time,
        lockout: Duration::from_secs(900),
    };
    let claim = async |sequence, expires_at, flow| {
        let terms = Terms { of: Loop::Rollback, expires_at, renewed_within: None, flow: Some(flow) };
        database.claim(&intent(sequence), &lease, &terms).await.expect("answers")
    };
    let later = at.plus(Duration::from_secs(600));
    assert_eq!(claim(1, at.minus(Duration::from_secs(1)), flow("11", at)).await, Claim::Expired);
    assert_eq!(claim(1, later, flow("11", at)).await, Claim::Granted);
    let outcome = serde_json::from_value(json!({
        "decisionId": id(1), "loop": "rollback", "key": "f", "sequence": 1, "status": "applied",
        "reason": "confirmed_by_reading_back", "attempts": 1, "finishedAt": later
    }))
    .expect("an outcome");
    let change = FlowChange { flow_id: "f", bad_version: "12", version: "11", event_time: at };
    database.settle(&outcome, Some(&change), &lease).await.expect("answers");
    let over = at.plus(Duration::from_secs(900));
    let within = over.minus(Duration::from_millis(1));
    assert_eq!(claim(2, later, flow("10", within)).await, Claim::LockedOut(over));
    assert_eq!(claim(2, later, flow("12", over)).await, Claim::TakenBack);
    assert_eq!(claim(2, later, flow("10", over)).await, Claim::Granted);
}

#[tokio::test(flavor = "multi_thread")]
async fn intents_and_settlements_cannot_be_changed_by_the_application() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    stand.decide(&[decision(&campaign(0), 1, 3.0)]).await;
    let instance = stand.start("one", nothing());
    stand.outcomes(1).await;
    instance.stop().await;
    for table in ["intents", "settlements"] {
        for statement in ["DELETE FROM trunkline.", "UPDATE trunkline."] {
            let set = if statement.starts_with("UPDATE") { " SET decision_id = decision_id" } else { "" };
            let statement = format!("{statement}{table}{set}");
            let mut app = stand.own_database.as_role("trunkline_app").await;
            let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&mut app).await;
            assert!(refused.is_err(), "{statement} by the application");
            let owner = stand.own_database.owner().await;
            let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&owner).await;
            assert!(refused.is_err(), "{statement} by the owner");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_a_long_wait_and_the_next_start_goes_on() {
    let stand = Stand::with(2, 1, Settings::default()).await;
    let refusal = json!({"type": "status", "code": 429, "retryAfter": "int", "seconds": 500});
    stand
        .faults(json!([
            {"match": {"method": "PUT", "campaign": campaign(0)}, "times": 1, "fault": refusal},
            {"match": {"method": "GET", "campaign": campaign(1)}, "times": 1, "fault": {"type": "delay", "ms": 400_000}},
        ]))
        .await;
    let hour = json!({"expiresAt": now().plus(Duration::from_secs(3_600))});
    let decisions = [decision(&campaign(0), 1, 3.0), decision(&campaign(1), 1, 3.0)];
    stand.decide(&decisions.map(|decision| with(decision, hour.clone()))).await;
    let instance = stand.start("one", nothing());
    until("the refusal", || async { (stand.changes_asked(&campaign(0)).await == 1).then_some(()) }).await;
    let began = Instant::now();
    instance.stop().await;
    // Two seconds for what is under way, and two to leave the group on a busy machine.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(stand.outcomes_now().await.is_empty());

    stand.control(Method::DELETE, "/faults", Value::Null).await;
    let instance = stand.start("one", nothing());
    for outcome in stand.outcomes(2).await.values() {
        assert_ended(outcome, OutcomeStatus::Applied, "confirmed");
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_taken_by_mistake_is_taken_back_and_nothing_is_sent_meanwhile() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    // Somebody takes the lease between this instance's assignment and its first claim.
    let first = stand.start("one", nothing());
    until("the instance to be ready", || async { first.health.reasons().is_empty().then_some(()) }).await;
    let name = format!("actuator/dial/{}/0", stand.kafka.topic_prefix);
    let taken: Option<i64> = until("its lease", || async {
        let token: Option<i64> = sqlx::query_scalar("SELECT token FROM trunkline.leases WHERE name = $1")
            .bind(&name)
            .fetch_optional(&stand.own_database.owner().await)
            .await
            .expect("looks");
        token.map(Some)
    })
    .await;
    stand.database.take_lease(&name, "stranger").await.expect("taken");
    stand.decide(&[decision(&campaign(0), 1, 3.0)]).await;
    let outcome = stand.outcomes(1).await.into_values().next().expect("one");
    assert_ended(&outcome, OutcomeStatus::Applied, "confirmed");
    let token: i64 = sqlx::query_scalar("SELECT token FROM trunkline.intents")
        .fetch_one(&stand.own_database.owner().await)
        .await
        .expect("one intent");
    assert_eq!(Some(token), taken.map(|token| token + 2), "claimed under the lease it took back");
    first.stop().await;
}

/// Decisions of many campaigns, instances that come, crash and go, a platform that
/// fails at random: in the end each decision has one outcome and at most one effect.
#[tokio::test(flavor = "multi_thread")]
async fn instances_come_and_go_and_nothing_is_done_twice() {
    const CAMPAIGNS: usize = 12;
    const ROUNDS: u64 = 4;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let stand = Stand::with(CAMPAIGNS, 4, Settings { seed, ..Settings::default() }).await;
    stand
        .faults(json!([
            {"match": {"method": "PUT"}, "probability": 0.15, "fault": {"type": "drop_after_effect"}},
            {"match": {"method": "PUT"}, "probability": 0.1, "fault": {"type": "drop_before_effect"}},
            {"match": {"method": "PUT"}, "probability": 0.1, "fault": {"type": "status", "code": 503}},
            {"match": {"method": "PUT"}, "probability": 0.3, "fault": {"type": "delay", "ms": 150}},
        ]))
        .await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counting: Hook = Arc::new({
        let calls = Arc::clone(&calls);
        move |_, _| {
            calls.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::ready(()))
        }
    });
    let mut instances = vec![stand.start("one", Arc::clone(&counting))];
    for round in 1..=ROUNDS {
        // A rate of its own for every decision: effects can be told apart.
        let life = json!({"expiresAt": now().plus(Duration::from_secs(900))});
        let decisions: Vec<_> = (0..CAMPAIGNS)
            .map(|number| (number, 2.0 + round as f64 * 0.5 + number as f64 / 100.0))
            .map(|(number, rate)| with(decision(&campaign(number), round, rate), life.clone()))
            .collect();
        stand.decide(&decisions).await;
        instances
            .push(stand.start(["one", "two", "three", "four"][round as usize % 4], Arc::clone(&counting)));
        let seen = calls.load(Ordering::SeqCst);
        let enough = random.random_range(1..10);
        let _ = tokio::time::timeout(Duration::from_secs(4), async {
            while calls.load(Ordering::SeqCst) < seen + enough {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let gone = instances.remove(random.random_range(0..instances.len()));
        if random.random_bool(0.7) { gone.crash().await } else { gone.stop().await }
    }
    stand.control(Method::DELETE, "/faults", Value::Null).await;
    let outcomes = stand.outcomes(CAMPAIGNS * ROUNDS as usize).await;
    for number in 0..CAMPAIGNS {
        let effects = stand.effects(&campaign(number)).await;
        let mut seen = effects.clone();
        seen.dedup();
        assert_eq!(seen, effects, "campaign {number}: no rate is set twice in a row");
        let applied: Vec<f64> = (1..=ROUNDS)
            .filter_map(|round| outcomes[&(campaign(number), round)].effect.as_ref()?.dial_rate())
            .map(|effect| effect.dial_rate)
            .collect();
        let mut of_each = effects.clone();
        of_each.sort_by(f64::total_cmp);
        of_each.dedup();
        assert_eq!(
            of_each.len(),
            effects.len(),
            "campaign {number}: at most one effect per decision: {effects:?}"
        );
        assert_eq!(effects, applied, "campaign {number}: every effect is on record, and no other");
        assert_ended(&outcomes[&(campaign(number), ROUNDS)], OutcomeStatus::Applied, "confirmed");
    }
    for instance in instances {
        instance.stop().await;
    }
}

fn request(method: &str, path: &str) -> SentRequest {
    SentRequest { method: method.to_owned(), path: path.to_owned(), if_match: None, body: json!({}) }
}
