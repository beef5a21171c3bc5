//! Every path through a decision, played on a platform and a ledger made of
//! memory, in time that is moved by hand.

mod scripted;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Redecision;
use super::carry::{Interrupted, Read, end_at_once};
use super::platform::{Ledger, Platform};
use crate::genesys::CallErrorKind;
use crate::model::campaign::DialParameters;
use crate::model::decision::{Action, Mode};
use crate::model::outcome::{Effect, OutcomeStatus};
use crate::postgres::intents::{Claim, Intent};

use scripted::{Act, LIFE, Play, Refusal, plain};

#[tokio::test(start_paused = true)]
async fn a_change_is_claimed_sent_and_settled_once() {
    let play = Play::new().await;
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1));
    assert_eq!(
        outcome.effect,
        Some(Effect::DialRate(DialParameters { previous_dial_rate: 2.0, dial_rate: 3.0 }))
    );
    assert_eq!(outcome.request.as_ref().unwrap().if_match.as_deref(), Some("\"0\""));
    assert_eq!(play.intents(), 1);
    // Delivered again it is the same outcome, and nothing is done.
    assert_eq!(play.outcome().await, outcome);
    assert_eq!((play.effects(), play.sent()), (vec![3.0], 1));
}

#[tokio::test(start_paused = true)]
async fn shadow_and_hold_touch_nothing() {
    let play = Play::new().await;
    let now = play.actuator.now();
    let shadow = Read { mode: Mode::Shadow, ..play.decision.clone() };
    assert_eq!(end_at_once(&shadow, now).unwrap().status, OutcomeStatus::Shadowed);
    let hold = Read { action: Action::Hold, ..play.decision.clone() };
    let unchanged = end_at_once(&hold, now).unwrap();
    assert_eq!((unchanged.status, &*unchanged.reason), (OutcomeStatus::Unchanged, "towards_target"));
    assert!(end_at_once(&play.decision, now).is_none());
}

#[tokio::test(start_paused = true)]
async fn at_the_rate_already_nothing_is_sent() {
    let play = Play::new().await.campaign(|campaign| campaign.dial_rate = 3.001);
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Unchanged, "already_at_rate"));
    assert_eq!((play.sent(), play.intents()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_limits_just_read_win() {
    let play = Play::new().await.campaign(|campaign| campaign.max_dial_rate = 2.5);
    assert_eq!(play.outcome().await.effect.unwrap().dial_rate().unwrap().dial_rate, 2.5);
    let play = Play::new().await.campaign(|campaign| campaign.max_dial_rate = 0.5);
    let outcome = play.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.reason.starts_with("limits_contradict"), "{}", outcome.reason);
    assert_eq!(play.intents(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_rule_may_hold_on_what_it_sees_now() {
    let mut play = Play::new().await;
    play.actuator.settings.redecide =
        Arc::new(|_, campaign| Redecision::Hold(format!("r={}", campaign.dial_rate)));
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Unchanged, "r=2"));
}

#[tokio::test(start_paused = true)]
async fn a_conflict_decides_again_on_the_new_limits() {
    let play = Play::new().await.writes(&[Act::OtherLimits(1.0, 2.8), Act::OtherLimits(1.0, 2.4)]);
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 3));
    assert_eq!(
        outcome.effect,
        Some(Effect::DialRate(DialParameters { previous_dial_rate: 2.0, dial_rate: 2.4 }))
    );
    assert_eq!(play.effects(), [2.4]);
    assert_eq!(play.intents(), 3, "each attempt is on record");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_never_rests_wins() {
    let writers: Vec<Act> = (0..20).map(|n| Act::OtherWriter(2.0 + f64::from(n % 2))).collect();
    let mut play = Play::new().await.writes(&writers);
    play.decision.parameters.dial_rate = 4.0;
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Conflicted, 5));
    assert!(play.effects().is_empty());
}

#[tokio::test(start_paused = true)]
async fn too_old_is_never_sent() {
    let play = Play::new().await;
    tokio::time::advance(LIFE).await;
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Expired, 0));
    assert_eq!((play.sent(), play.intents()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_429_is_waited_out() {
    let wait = Duration::from_secs(7);
    let play = Play::new().await.writes(&[Act::Refuse(Refusal::RateLimited(wait))]);
    let began = Instant::now();
    assert_eq!(play.outcome().await.status, OutcomeStatus::Applied);
    assert!(began.elapsed() >= wait);
    assert_eq!(play.effects(), [3.0]);
}

#[tokio::test(start_paused = true)]
async fn a_429_beyond_the_expiry_expires_and_says_why() {
    let play = Play::new().await.writes(&[Act::Refuse(Refusal::RateLimited(LIFE * 2))]);
    let began = Instant::now();
    let outcome = play.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Expired);
    assert!(outcome.reason.contains("rate_limited"), "{}", outcome.reason);
    assert!(began.elapsed() <= LIFE + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_newer_decision_ends_a_wait() {
    for act in [Act::Refuse(Refusal::RateLimited(LIFE / 2)), Act::Refuse(Refusal::Paused(LIFE / 2))] {
        let play = Play::new().await.writes(&[act]);
        let newer = play.superseded.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            newer.cancel();
        });
        let began = Instant::now();
        assert_eq!(play.outcome().await.status, OutcomeStatus::Superseded);
        assert!(began.elapsed() < Duration::from_secs(2));
        assert!(play.effects().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn superseded_before_its_turn_it_is_not_sent() {
    let play = Play::new().await;
    play.superseded.cancel();
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, play.sent()), (OutcomeStatus::Superseded, 0));
}

#[tokio::test(start_paused = true)]
async fn server_errors_are_read_back_and_tried_again() {
    let server = plain(CallErrorKind::Server { status: 503 });
    let play = Play::new().await.writes(&[server.clone(), server.clone(), server]);
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 4));
    let world = play.world.lock().unwrap();
    assert!(world.sent.iter().all(|request| *request == world.sent[0]), "the very same request");
    assert_eq!(world.effects, [3.0]);
}

#[tokio::test(start_paused = true)]
async fn an_effect_whose_reply_was_lost_is_confirmed_by_reading_back() {
    for kind in [CallErrorKind::NoReply, CallErrorKind::Server { status: 504 }] {
        let play = Play::new().await.writes(&[Act::WorkBut(kind)]);
        let outcome = play.outcome().await;
        assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1));
        assert_eq!(outcome.reason, "confirmed_by_reading_back");
        assert_eq!(
            outcome.effect,
            Some(Effect::DialRate(DialParameters { previous_dial_rate: 2.0, dial_rate: 3.0 }))
        );
        assert_eq!((play.effects(), play.sent()), (vec![3.0], 1));
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_effect_under_another_writers_change_is_not_repeated() {
    let play = Play::new().await.writes(&[Act::WorkThenOtherWriter(4.5)]);
    let outcome = play.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Conflicted);
    assert!(outcome.reason.starts_with("effect_unknown"), "{}", outcome.reason);
    assert_eq!((play.effects(), play.sent()), (vec![3.0], 1));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reply_is_doubted_and_read_back_even_after_the_expiry() {
    let mut play = Play::new().await.writes(&[Act::WorkAndHang]);
    play.actuator.settings.claim_lifetime = LIFE * 2;
    let outcome = play.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Applied);
    assert!(play.actuator.now() >= play.decision.expires_at);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_late_is_waited_for_before_the_end_is_told() {
    let play = Play::new().await.writes(&[plain(CallErrorKind::NoReply)]);
    let (world, newer) = (Arc::clone(&play.world), play.superseded.clone());
    newer.cancel();
    // Sent before the newer decision came, as after a crash.
    let request = play.actuator.platform.prepare("c", 3.0, "\"0\"");
    let parameters = play.decision.parameters;
    let intent =
        Intent { decision_id: play.decision.decision_id, attempt: 1, request: request.clone(), parameters };
    assert_eq!(play.memory.claim(&intent, &play.lease).await.unwrap(), Claim::Granted);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        world.lock().unwrap().write(&request).unwrap();
    });
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Applied, "confirmed_by_reading_back"));
    assert_eq!((play.effects(), play.sent()), (vec![3.0], 0));
}

#[tokio::test(start_paused = true)]
async fn a_doubt_nobody_can_settle_ends_after_its_limit() {
    let reads = [vec![Act::Work], vec![plain(CallErrorKind::NotSent); 10_000]].concat();
    let play = Play::new().await.writes(&[Act::WorkBut(CallErrorKind::NoReply)]).reads(&reads);
    let outcome = play.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.reason.starts_with("effect_unknown"), "{}", outcome.reason);
    assert!(play.actuator.now() >= play.decision.expires_at.plus(play.actuator.settings.settling_limit));
}

#[tokio::test(start_paused = true)]
async fn garbage_in_answer_to_a_read_is_tried_again_until_the_expiry() {
    let play = Play::new().await.reads(&[plain(CallErrorKind::Malformed)]);
    assert_eq!(play.outcome().await.status, OutcomeStatus::Applied);
    let play = Play::new().await.reads(&vec![plain(CallErrorKind::Malformed); 10_000]);
    let outcome = play.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Expired);
    assert!(outcome.reason.contains("malformed"), "{}", outcome.reason);
}

#[tokio::test(start_paused = true)]
async fn refusals_that_no_retry_mends_fail_with_their_reason() {
    for (kind, code) in [
        (CallErrorKind::NotFound, "campaign_not_found"),
        (CallErrorKind::Forbidden, "forbidden"),
        (CallErrorKind::Unauthorized, "unauthorized"),
        (CallErrorKind::Rejected, "rejected"),
    ] {
        for play in [Play::new().await.reads(&[plain(kind)]), Play::new().await.writes(&[plain(kind)])] {
            let outcome = play.outcome().await;
            assert_eq!(outcome.status, OutcomeStatus::Failed);
            assert!(outcome.reason.starts_with(code), "{}", outcome.reason);
            assert!(play.effects().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_pause_is_waited_out_and_costs_no_attempt() {
    let pause = Duration::from_secs(10);
    let play = Play::new().await.writes(&[Act::Refuse(Refusal::Paused(pause))]);
    let began = Instant::now();
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1));
    assert!(began.elapsed() >= pause);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_the_ledger_is_away() {
    let play = Play::new().await;
    play.memory.away.store(true, Ordering::Relaxed);
    let away = Arc::clone(&play.memory.away);
    tokio::spawn(async move {
        tokio::time::sleep(LIFE * 2).await;
        away.store(false, Ordering::Relaxed);
    });
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, play.sent()), (OutcomeStatus::Expired, 0));
    assert!(play.actuator.now() >= play.decision.expires_at.plus(LIFE));
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_the_effect_is_settled_without_a_second_one() {
    let play = Play::new().await.writes(&[Act::WorkAndHang]);
    // Dropped in the middle of the call: what a crash leaves behind.
    let crashed = tokio::time::timeout(Duration::from_secs(1), play.run()).await;
    assert!(crashed.is_err());
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Applied, "confirmed_by_reading_back"));
    assert_eq!((play.effects(), play.sent(), play.intents()), (vec![3.0], 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_effect_sends_the_same_request_again() {
    let play = Play::new().await.writes(&[Act::Hang]);
    assert!(tokio::time::timeout(Duration::from_secs(1), play.run()).await.is_err());
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 2));
    let world = play.world.lock().unwrap();
    assert_eq!(world.sent[0], world.sent[1]);
    assert_eq!(world.effects, [3.0]);
}

#[tokio::test(start_paused = true)]
async fn found_too_late_a_crashed_attempt_without_effect_expires() {
    let play = Play::new().await.writes(&[Act::Hang]);
    assert!(tokio::time::timeout(Duration::from_secs(1), play.run()).await.is_err());
    tokio::time::advance(LIFE).await;
    let outcome = play.outcome().await;
    assert_eq!((outcome.status, play.sent()), (OutcomeStatus::Expired, 1));
    assert!(play.effects().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_lost_the_lease_sends_and_settles_nothing() {
    let play = Play::new().await;
    play.memory.take_lease("l", "two").await.unwrap();
    assert_eq!(play.run().await, Err(Interrupted::LeaseLost));
    assert_eq!((play.sent(), play.intents()), (0, 0));
    let late = Play::new().await;
    late.superseded.cancel();
    late.memory.take_lease("l", "two").await.unwrap();
    assert_eq!(late.run().await, Err(Interrupted::LeaseLost));
    assert!(late.memory.book.lock().unwrap().settlements.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_every_wait_within_two_seconds() {
    let hour = Duration::from_secs(3_600);
    let mut plays = vec![
        Play::new().await.writes(&[Act::Refuse(Refusal::RateLimited(hour))]),
        Play::new().await.writes(&[Act::Refuse(Refusal::Paused(hour))]),
        Play::new().await.writes(&[Act::Hang]),
        Play::new().await.reads(&[Act::Hang]),
        Play::new().await.reads(&vec![plain(CallErrorKind::NotSent); 10_000]),
        Play::new().await,
    ];
    plays.last().unwrap().memory.away.store(true, Ordering::Relaxed);
    for play in &mut plays {
        play.decision.expires_at = play.actuator.now().plus(hour);
        let stop = play.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
        });
        let began = Instant::now();
        assert_eq!(play.run().await, Err(Interrupted::Stopped));
        assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
        assert!(play.memory.book.lock().unwrap().settlements.is_empty(), "the next start goes on");
    }
}
