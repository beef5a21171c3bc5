//! What people have paused changes nothing outside: two instances, a real broker, a real
//! database, and a platform that counts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::Settings;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::global_consumer::GlobalConsumer;
use trunkline::kafka::global_table::GlobalTable;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::decision::Loop;
use trunkline::model::outcome::OutcomeStatus;
use trunkline::model::pause::{Extent, Pauses};
use trunkline::postgres::intents::{Claim, Intent, Terms};
use trunkline::sinks::outbox;
use trunkline::topics::{OUTBOX_PROGRESS, SETTINGS};
use trunkline::topology::follow_pauses;

use crate::actuator_stand::{Hook, Moment, Stand, assert_ended, campaign, decision, nothing, now};
use crate::support::{kafka, until};

/// Two instances that hear of pauses from the settings topic, as `trunkline run` wires them.
struct Two {
    stand: Stand,
    health: [Health; 2],
    pauses: [watch::Receiver<Pauses>; 2],
    stop: CancellationToken,
}

impl Two {
    async fn prepare(campaigns: usize) -> Self {
        let stand = Stand::with(campaigns, 4, Settings::default()).await;
        kafka::create_topics(&stand.kafka, &[&SETTINGS, &OUTBOX_PROGRESS], 1).await;
        let stop = CancellationToken::new();
        let (kafka, database, stopped) = (stand.kafka.clone(), stand.database.clone(), stop.clone());
        tokio::spawn(async move {
            outbox::run(outbox::Settings::default(), kafka, database, &Health::default(), stopped).await;
        });
        let health = [Health::default(), Health::default()];
        let follow = |health: &Health, name: &str| {
            let kafka = KafkaSettings { instance: name.to_owned(), ..stand.kafka.clone() };
            let global = GlobalConsumer::new(&kafka, &stop);
            let table = GlobalTable::open(&global, &SETTINGS, 1_000, health.part("pauses"));
            follow_pauses(table, health)
        };
        let pauses = [follow(&health[0], "one"), follow(&health[1], "two")];
        Self { stand, health, pauses, stop }
    }

    /// Waits until both instances know it, and say so where people look.
    async fn both_know(&self, of: Loop, paused: bool) {
        until("both instances to know", || async {
            let knows = |pauses: &watch::Receiver<Pauses>| pauses.borrow().stopping(of).is_some() == paused;
            self.pauses.iter().all(knows).then_some(())
        })
        .await;
        for health in &self.health {
            let told = health.impairments();
            assert_eq!(told.iter().any(|(part, _)| part.starts_with("pause.")), paused, "{told:?}");
        }
    }
}

#[tokio::test]
async fn a_pause_stops_a_loop_on_two_instances_until_it_is_resumed() {
    const CAMPAIGNS: usize = 8;
    let two = Two::prepare(CAMPAIGNS).await;
    let stand = &two.stand;
    let instances = [0, 1].map(|number: usize| {
        stand.start_heeding(["one", "two"][number], nothing(), Some(two.pauses[number].clone()))
    });
    let decide = async |sequence: u64, rate: f64| {
        let all: Vec<Value> =
            (0..CAMPAIGNS).map(|number| decision(&campaign(number), sequence, rate)).collect();
        stand.decide(&all).await;
    };
    decide(1, 3.0).await;
    let before = stand.outcomes(CAMPAIGNS).await;
    assert!(before.values().all(|outcome| outcome.status == OutcomeStatus::Applied), "{before:#?}");

    stand.database.pause(Extent::One(Loop::Dial), "abandonment is rising", "alice").await.unwrap();
    two.both_know(Loop::Dial, true).await;
    decide(2, 4.0).await;
    let outcomes = stand.outcomes(2 * CAMPAIGNS).await;
    for ((_, sequence), outcome) in &outcomes {
        if *sequence == 2 {
            assert_ended(outcome, OutcomeStatus::Shadowed, "paused by alice: abandonment is rising");
            assert_eq!(outcome.attempts, 0);
        }
    }
    for number in 0..CAMPAIGNS {
        assert_eq!(stand.effects(&campaign(number)).await, [3.0], "nothing is changed while it lasts");
    }
    let other = two.pauses[0].borrow().stopping(Loop::Rollback).cloned();
    assert_eq!(other, None, "other loops go on");

    stand.database.resume(Extent::One(Loop::Dial), "bob").await.unwrap();
    two.both_know(Loop::Dial, false).await;
    decide(3, 4.5).await;
    let outcomes = stand.outcomes(3 * CAMPAIGNS).await;
    let resumed = outcomes.iter().filter(|((_, sequence), _)| *sequence == 3);
    assert!(resumed.clone().all(|(_, outcome)| outcome.status == OutcomeStatus::Applied), "{outcomes:#?}");
    for number in 0..CAMPAIGNS {
        assert_eq!(stand.effects(&campaign(number)).await, [3.0, 4.5]);
    }
    // Who and why are on record.
    let history = stand.database.settings_history(Some("pause/dial"), 10).await.unwrap();
    let who: Vec<_> = history.iter().map(|setting| (&*setting.who, setting.value.clone())).collect();
    assert_eq!(who, [("bob", Value::Null), ("alice", json!({"reason": "abandonment is rising"}))]);
    for instance in instances {
        instance.stop().await;
    }
    two.stop.cancel();
}

#[tokio::test]
async fn what_is_claimed_and_not_called_stays_here_and_what_is_called_is_seen_to_its_end() {
    let two = Two::prepare(2).await;
    let stand = &two.stand;
    let (held, slow) = (campaign(0), campaign(1));
    // One decision waits between its claim and its call; the other's call takes its time.
    let go_on = Arc::new(Notify::new());
    let hook: Hook = {
        let (held, go_on) = (held.clone(), Arc::clone(&go_on));
        Arc::new(move |key, moment| {
            let waits = key == held && moment == Moment::BeforeSending;
            let go_on = Arc::clone(&go_on);
            Box::pin(async move {
                if waits {
                    go_on.notified().await;
                }
            })
        })
    };
    let instance = stand.start_heeding("one", hook, Some(two.pauses[0].clone()));
    stand
        .faults(json!([{
            "match": {"method": "PUT", "campaign": slow}, "times": 1,
            "fault": {"type": "delay", "ms": 2_500, "afterEffect": true}
        }]))
        .await;
    stand.decide(&[decision(&held, 1, 3.0), decision(&slow, 1, 3.0)]).await;
    until("both to be claimed, one to be called", || async {
        let claimed = stand.intents(&held).await == 1 && stand.intents(&slow).await == 1;
        let changed = stand.control(Method::GET, "/campaigns", Value::Null).await;
        let is_called = changed.to_string().contains("\"dialRate\":3.0");
        (claimed && is_called).then_some(())
    })
    .await;
    stand.database.pause(Extent::All, "storm", "alice").await.unwrap();
    two.both_know(Loop::Dial, true).await;
    go_on.notify_one();
    let outcomes = stand.outcomes(2).await;
    assert_ended(&outcomes[&(held.clone(), 1)], OutcomeStatus::Shadowed, "paused by alice: storm");
    assert_ended(&outcomes[&(slow.clone(), 1)], OutcomeStatus::Applied, "confirmed");
    assert_eq!((stand.changes_asked(&held).await, stand.effects(&slow).await), (0, vec![3.0]));
    instance.stop().await;
    two.stop.cancel();
}

#[tokio::test]
async fn the_claim_itself_asks_for_pauses() {
    let stand = Stand::with(1, 1, Settings::default()).await;
    let database = &stand.database;
    let lease = database.take_lease("l", "one").await.unwrap();
    let claim = async |sequence: u64, of: Loop| {
        let id = trunkline::model::decision::DecisionId::derive(of, "c", sequence, now());
        let request = serde_json::from_value(json!({"method": "PUT", "path": "/c"})).unwrap();
        let intent = Intent { decision_id: id, attempt: 1, request, parameters: json!({}) };
        let expires_at = now().plus(Duration::from_secs(60));
        let terms = Terms { of, expires_at, renewed_within: None, flow: None };
        database.claim(&intent, &lease, &terms).await.unwrap()
    };
    assert_eq!(claim(1, Loop::Dial).await, Claim::Granted);
    database.pause(Extent::All, "storm", "alice").await.unwrap();
    database.pause(Extent::One(Loop::Dial), "rates", "bob").await.unwrap();
    assert_eq!(claim(2, Loop::Dial).await, Claim::Paused("paused by bob: rates".to_owned()));
    assert_eq!(claim(2, Loop::Rollback).await, Claim::Paused("paused by alice: storm".to_owned()));
    database.resume(Extent::One(Loop::Dial), "bob").await.unwrap();
    assert_eq!(claim(3, Loop::Dial).await, Claim::Paused("paused by alice: storm".to_owned()));
    let ended = database.resume(Extent::All, "bob").await.unwrap();
    assert_eq!(
        ended.iter().map(|(extent, _)| extent).collect::<BTreeSet<_>>(),
        BTreeSet::from([Extent::All])
    );
    assert_eq!(claim(4, Loop::Dial).await, Claim::Granted);
    let refused = database.pause(Extent::All, "\n", "alice").await.unwrap_err().to_string();
    assert!(refused.contains("1 to 500 characters"), "{refused}");
}
