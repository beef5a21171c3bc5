//! Each way a decision can go, on a real broker, database and client against the
//! simulated platform: how it ends, with which reason on record, and with how many
//! effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::message::{Headers, Message};
use reqwest::Method;
use serde_json::{Value, json};
use simulator::Settings;
use trunkline::model::outcome::{Outcome, OutcomeStatus};
use trunkline::topics::{DEAD_LETTERS, DIAL_DECISIONS, OUTCOMES};

use crate::actuator_stand::{Hook, Moment, Stand, assert_ended, campaign, decision, nothing, now, with};
use crate::support::{kafka, until};

/// What happens to one campaign's decision, and how it must end.
struct Row {
    what: &'static str,
    faults: Value,
    decision: fn(Value) -> Value,
    status: OutcomeStatus,
    reason: &'static str,
    attempts: u32,
    effects: &'static [f64],
}

impl Row {
    fn new(what: &'static str, faults: Value, attempts: u32) -> Self {
        Self {
            what,
            faults,
            decision: |decision| decision,
            status: OutcomeStatus::Applied,
            reason: "confirmed",
            attempts,
            effects: &[3.0],
        }
    }

    fn ends(self, status: OutcomeStatus, reason: &'static str) -> Self {
        let effects: &[f64] = if status == OutcomeStatus::Applied { &[3.0] } else { &[] };
        Self { status, reason, effects, ..self }
    }

    fn decided(self, decision: fn(Value) -> Value) -> Self {
        Self { decision, ..self }
    }
}

/// A fault for the campaign's changes (PUT), or its reads (GET).
fn fault(method: &str, times: u64, fault: Value) -> Value {
    json!([{"match": {"method": method}, "times": times, "fault": fault}])
}

fn status(code: u16, times: u64) -> Value {
    fault("PUT", times, json!({"type": "status", "code": code}))
}

fn rows() -> Vec<Row> {
    use OutcomeStatus::{Applied, Expired, Failed, Shadowed, Unchanged};
    vec![
        Row::new("nothing unusual", json!([]), 1),
        Row::new("409", status(409, 1), 2),
        Row::new("412", status(412, 1), 2),
        Row::new("503 three times", status(503, 3), 4),
        Row::new("reply dropped after the effect", fault("PUT", 1, json!({"type": "drop_after_effect"})), 1)
            .ends(Applied, "confirmed_by_reading_back"),
        Row::new(
            "request dropped before the effect",
            fault("PUT", 1, json!({"type": "drop_before_effect"})),
            2,
        ),
        Row::new(
            "503 after the effect",
            fault("PUT", 1, json!({"type": "status", "code": 503, "afterEffect": true})),
            1,
        )
        .ends(Applied, "confirmed_by_reading_back"),
        Row::new("broken JSON to the read", fault("GET", 1, json!({"type": "garbage_body"})), 1),
        Row::new("truncated reply to the read", fault("GET", 1, json!({"type": "truncate_body"})), 1),
        Row::new(
            "a proxy's page after the effect",
            fault("PUT", 1, json!({"type": "html_with_200", "afterEffect": true})),
            1,
        )
        .ends(Applied, "confirmed_by_reading_back"),
        Row::new("older than two ticks", json!([]), 0)
            .decided(|decision| with(decision, json!({"expiresAt": now().minus(Duration::from_secs(1))})))
            .ends(Expired, "older than its expiry"),
        Row::new("not permitted", status(403, 9), 1).ends(Failed, "forbidden"),
        Row::new("refused", status(400, 9), 1).ends(Failed, "rejected"),
        Row::new("shadow", json!([]), 0)
            .decided(|decision| with(decision, json!({"mode": "shadow"})))
            .ends(Shadowed, "shadow_mode"),
        Row::new("hold", json!([]), 0)
            .decided(|decision| with(decision, json!({"action": "hold", "reason": "change_below_hundredth"})))
            .ends(Unchanged, "change_below_hundredth"),
        Row::new("above the limit", json!([]), 1)
            .decided(|d| with(d, json!({"parameters": {"previousDialRate": 2.0, "dialRate": 9.0}})))
            .ends_at(&[5.0]),
        Row::new("at the rate already", json!([]), 0)
            .decided(|d| with(d, json!({"parameters": {"previousDialRate": 1.0, "dialRate": 2.0}})))
            .ends(Unchanged, "already_at_rate"),
    ]
}

impl Row {
    fn ends_at(self, effects: &'static [f64]) -> Self {
        Self { effects, ..self }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_ends_as_promised() {
    let rows = rows();
    let stand = Stand::with(rows.len(), 2, Settings::default()).await;
    let mut decisions = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let mut faults = row.faults.clone();
        for fault in faults.as_array_mut().expect("a list") {
            fault["match"]["campaign"] = campaign(number).into();
        }
        stand.faults(faults).await;
        decisions.push((row.decision)(decision(&campaign(number), 1, 3.0)));
    }
    stand.decide(&decisions).await;
    let instance = stand.start("one", nothing());
    let outcomes = stand.outcomes(rows.len()).await;
    for (number, row) in rows.iter().enumerate() {
        let (id, what) = (campaign(number), row.what);
        let outcome = &outcomes[&(id.clone(), 1)];
        assert_eq!((outcome.status, outcome.attempts), (row.status, row.attempts), "{what}: {outcome:#?}");
        assert!(outcome.reason.starts_with(row.reason), "{what}: {outcome:#?}");
        assert_eq!(stand.effects(&id).await, row.effects, "{what}");
        assert_eq!(outcome.effect.is_some(), row.status == OutcomeStatus::Applied, "{what}");
        assert_eq!(outcome.request.is_some(), row.attempts > 0, "{what}");
        let (asked, intents) = (stand.changes_asked(&id).await, stand.intents(&id).await);
        assert_eq!(asked, row.attempts as usize, "{what}: changes the simulator saw");
        // A pause of the breaker, which the rows share, can come between an intent and its request.
        assert!(intents >= i64::from(row.attempts), "{what}: every attempt has its intent, {intents}");
    }
    assert!(instance.health.reasons().is_empty(), "{:?}", instance.health.reasons());
    instance.stop().await;
    assert_all_committed(&stand, decisions.len());
}

/// Every decision's offset is behind the group.
fn assert_all_committed(stand: &Stand, decisions: usize) {
    let committed: i64 = (0..2)
        .map(|partition| kafka::committed(&stand.kafka, "actuator", &DIAL_DECISIONS, partition).unwrap_or(0))
        .sum();
    assert_eq!(committed, decisions as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_429_is_waited_out_however_it_is_spelled() {
    let spellings = ["int", "float", "date", "missing"];
    let stand = Stand::with(spellings.len(), 1, Settings::default()).await;
    for (number, spelling) in spellings.iter().enumerate() {
        let refusal = json!({"type": "status", "code": 429, "retryAfter": spelling, "seconds": 1.2});
        let mut rules = fault("PUT", 1, refusal);
        rules[0]["match"]["campaign"] = campaign(number).into();
        stand.faults(rules).await;
    }
    let decisions: Vec<_> = (0..spellings.len()).map(|n| decision(&campaign(n), 1, 3.0)).collect();
    stand.decide(&decisions).await;
    let instance = stand.start("one", nothing());
    let outcomes = stand.outcomes(spellings.len()).await;
    for (number, spelling) in spellings.iter().enumerate() {
        let outcome = &outcomes[&(campaign(number), 1)];
        assert_ended(outcome, OutcomeStatus::Applied, "confirmed");
        assert_eq!(outcome.attempts, 2, "{spelling}");
        assert_eq!(stand.effects(&campaign(number)).await, [3.0], "{spelling}");
    }
    instance.stop().await;
}

/// Does something before each of the first so many changes.
fn meddle(times: usize, with: impl Fn(usize) -> crate::actuator_stand::Then + Send + Sync + 'static) -> Hook {
    let sent = AtomicUsize::new(0);
    Arc::new(move |_, moment| {
        if moment == Moment::BeforeSending {
            let number = sent.fetch_add(1, Ordering::SeqCst);
            if number < times {
                return with(number);
            }
        }
        Box::pin(std::future::ready(()))
    })
}

async fn played(stand: &Stand, hook: Hook, rate: f64) -> Outcome {
    stand.decide(&[decision(&campaign(0), 1, rate)]).await;
    let instance = stand.start("one", hook);
    let outcome = stand.outcomes(1).await.into_values().next().expect("one");
    instance.stop().await;
    outcome
}

/// What another writer posts to the simulator before a change.
fn change(stand: &Stand, path: &str, body: Value) -> crate::actuator_stand::Then {
    let url = format!("{}/simulator{path}", stand.simulator.api_url());
    let http = stand.http.clone();
    Box::pin(async move {
        let reply = http.post(url).json(&body).send().await.expect("the simulator answers");
        assert!(reply.status().is_success(), "{}", reply.status());
    })
}

fn changing_limits(stand: &Stand, limits: &'static [f64]) -> Hook {
    let (api, http) = (stand.simulator.api_url(), stand.http.clone());
    meddle(limits.len(), move |number| {
        let url = format!("{api}/simulator/campaigns/{}/change", campaign(0));
        let (http, body) = (http.clone(), json!({"dialerSettings": {"maxDialRate": limits[number]}}));
        Box::pin(async move {
            assert!(http.post(url).json(&body).send().await.expect("answers").status().is_success());
        })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn after_412_twice_with_a_changed_limit_between_the_newest_limit_holds() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let outcome = played(&stand, changing_limits(&stand, &[4.0, 2.5]), 4.5).await;
    assert_ended(&outcome, OutcomeStatus::Applied, "confirmed");
    assert_eq!(outcome.attempts, 3);
    assert_eq!(stand.effects(&campaign(0)).await, [2.5]);
    let effect = outcome.effect.and_then(|effect| effect.dial_rate());
    assert_eq!(effect.map(|effect| (effect.previous_dial_rate, effect.dial_rate)), Some((2.0, 2.5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_never_rests_leaves_it_conflicted() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let outcome = played(&stand, changing_limits(&stand, &[4.9, 4.8, 4.7, 4.6, 4.5, 4.4]), 3.0).await;
    assert_ended(&outcome, OutcomeStatus::Conflicted, "conflict 5 times");
    assert_eq!(outcome.response.as_ref().and_then(|response| response.status), Some(412));
    assert!(stand.effects(&campaign(0)).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_mid_call_is_renewed() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let (api, http) = (stand.simulator.api_url(), stand.http.clone());
    let expiring = meddle(1, move |_| {
        let request = http.post(format!("{api}/simulator/tokens/expire"));
        Box::pin(async move { assert!(request.send().await.expect("answers").status().is_success()) })
    });
    let outcome = played(&stand, expiring, 3.0).await;
    assert_ended(&outcome, OutcomeStatus::Applied, "confirmed");
    assert_eq!(stand.effects(&campaign(0)).await, [3.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_campaign_and_contradicting_limits_fail_with_their_reason() {
    let stand = Stand::with(2, 1, Settings::default()).await;
    stand.control(Method::DELETE, &format!("/campaigns/{}", campaign(0)), Value::Null).await;
    let limits = json!({"dialerSettings": {"minDialRate": 4.0, "maxDialRate": 1.5}});
    change(&stand, &format!("/campaigns/{}/change", campaign(1)), limits).await;
    stand.decide(&[decision(&campaign(0), 1, 3.0), decision(&campaign(1), 1, 3.0)]).await;
    let instance = stand.start("one", nothing());
    let outcomes = stand.outcomes(2).await;
    assert_ended(&outcomes[&(campaign(0), 1)], OutcomeStatus::Failed, "campaign_not_found");
    assert_ended(&outcomes[&(campaign(1), 1)], OutcomeStatus::Failed, "limits_contradict");
    assert_eq!(stand.changes_asked(&campaign(1)).await, 0);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_cannot_be_read_is_set_aside_and_its_neighbours_go_through() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let poison: [&[u8]; 3] = [b"{\"decisionId\":", b"\x00\x00\x00\x00\x01{}", b"{}"];
    stand.decide(&[decision(&campaign(0), 1, 3.0)]).await;
    let records: Vec<(&str, &[u8])> = poison.iter().map(|value| ("c", *value)).collect();
    kafka::produce(&stand.kafka, &DIAL_DECISIONS, None, &records).await;
    stand.decide(&[decision(&campaign(0), 2, 4.0)]).await;
    let instance = stand.start("one", nothing());
    let outcomes = stand.outcomes(2).await;
    let last = &outcomes[&(campaign(0), 2)];
    assert_ended(last, OutcomeStatus::Applied, "confirmed");
    let kafka = stand.kafka.clone();
    let letters =
        tokio::task::spawn_blocking(move || kafka::read_all(&kafka, &DEAD_LETTERS)).await.expect("reads");
    assert_eq!(letters.iter().map(|letter| letter.payload().expect("a value")).collect::<Vec<_>>(), poison);
    for (letter, code) in letters.iter().zip(["bad_json", "schema_registry_framing", "bad_json"]) {
        let headers = letter.headers().expect("headers");
        let reason = headers.iter().find(|header| header.key == "trunkline-error-reason").expect("a reason");
        assert!(reason.value.expect("a value").starts_with(code.as_bytes()));
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_decision_takes_the_place_of_those_that_wait() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let refusal = json!({"type": "status", "code": 429, "retryAfter": "int", "seconds": 3});
    stand.faults(fault("PUT", 1, refusal)).await;
    stand.decide(&[decision(&campaign(0), 1, 3.0)]).await;
    let instance = stand.start("one", nothing());
    until("the first to be refused", || async {
        (stand.changes_asked(&campaign(0)).await == 1).then_some(())
    })
    .await;
    stand.decide(&[decision(&campaign(0), 2, 3.5), decision(&campaign(0), 3, 4.0)]).await;
    let outcomes = stand.outcomes(3).await;
    for (sequence, status) in
        [(1, OutcomeStatus::Superseded), (2, OutcomeStatus::Superseded), (3, OutcomeStatus::Applied)]
    {
        assert_eq!(outcomes[&(campaign(0), sequence)].status, status, "{sequence}");
    }
    let order: Vec<u64> = stand.outcomes_now().await.iter().map(|outcome| outcome.sequence).collect();
    assert_eq!(order, [1, 2, 3], "outcomes stand in the order of their decisions");
    assert_eq!(stand.effects(&campaign(0)).await, [4.0]);
    instance.stop().await;
}

/// What was done is done: its outcome is a dead letter, and those behind it leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_that_the_brokers_refuse_are_set_aside_and_hold_nothing_up() {
    let stand = Stand::with(3, 1, Settings { speed: 100.0, ..Settings::default() }).await;
    kafka::limit_records(&stand.kafka, &OUTCOMES, "200").await;
    let actuator = stand.start("one", nothing());
    stand.decide(&[decision(&campaign(0), 1, 3.0), decision(&campaign(1), 1, 3.0)]).await;
    let letters = until("both outcomes to be set aside", async || {
        let letters = kafka::read_all(&stand.kafka, &DEAD_LETTERS);
        (letters.len() >= 2).then_some(letters)
    })
    .await;
    for letter in &letters {
        let header = |name: &str| {
            let found = letter.headers().unwrap().iter().find(|header| header.key == name);
            String::from_utf8(found.unwrap_or_else(|| panic!("no {name}")).value.unwrap().to_vec()).unwrap()
        };
        assert!(header("trunkline-error-reason").starts_with("refused_by_broker: "));
        assert_eq!(header("trunkline-error-topic"), stand.kafka.topic(&DIAL_DECISIONS));
        header("trunkline-error-topic-id").parse::<uuid::Uuid>().expect("which topic it was");
        let outcome: Outcome = serde_json::from_slice(letter.payload().unwrap()).unwrap();
        assert_eq!(outcome.status, OutcomeStatus::Applied);
    }
    assert_eq!(stand.effects(&campaign(1)).await, [3.0]);
    kafka::limit_records(&stand.kafka, &OUTCOMES, "100000").await;
    stand.decide(&[decision(&campaign(2), 1, 3.0)]).await;
    let told = stand.outcomes(1).await;
    assert_ended(&told[&(campaign(2), 1)], OutcomeStatus::Applied, "confirmed");
    assert_eq!(kafka::read_all(&stand.kafka, &DEAD_LETTERS).len(), 2);
    actuator.stop().await;
}
