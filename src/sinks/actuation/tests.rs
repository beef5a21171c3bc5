//! What holds for every kind of change, run for each: every path of an execution, and every
//! pair of disturbances at any of its calls.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::execution::{Interrupted, end_at_once};
use super::ledger::Ledger;
use super::stand::{Act, DISTURBANCES, Disturbance, Refusal, SLOW, START_MS, Staged, Stand, plain};
use super::{Read, Settings};
use crate::genesys::CallErrorKind;
use crate::model::Timestamp;
use crate::model::decision::{Action, Mode};
use crate::model::outcome::OutcomeStatus;
use crate::model::pause::Pauses;
use crate::model::settings::Setting;

/// Each of these for one kind of change; beside the change's own tests.
macro_rules! protocol_tests {
    ($change:ty) => {
        $crate::sinks::actuation::tests::protocol_tests!(
            $change:
            a_change_is_claimed_sent_and_settled_once,
            shadow_hold_and_what_is_not_its_action_touch_nothing,
            too_old_is_never_sent,
            how_old_it_is_goes_by_the_ledgers_clock,
            a_429_is_waited_out,
            a_429_beyond_the_expiry_expires_and_says_why,
            server_errors_are_read_back_and_tried_again,
            an_effect_whose_reply_was_lost_is_confirmed_by_reading_back,
            a_slow_change_is_one_change_and_ours,
            a_slow_change_is_ours_when_it_lands_after_the_expiry,
            a_doubt_nobody_can_settle_ends_after_its_limit,
            garbage_in_answer_to_a_read_is_tried_again_until_the_expiry,
            refusals_that_no_retry_mends_fail_with_their_reason,
            a_breaker_pause_is_waited_out_and_costs_no_attempt,
            nothing_is_sent_while_the_ledger_is_away,
            a_claim_without_an_answer_is_looked_up_and_leaves_no_doubt,
            a_crash_after_the_effect_is_settled_without_a_second_one,
            a_crash_before_the_effect_sends_it_again_and_has_one,
            found_too_late_a_crashed_attempt_without_effect_expires,
            a_pause_keeps_back_what_is_not_on_its_way,
            what_is_on_its_way_when_a_pause_comes_is_seen_to_its_end,
            who_lost_the_lease_sends_and_settles_nothing,
            a_stop_ends_every_wait_within_two_seconds,
            whatever_befalls_any_two_calls_there_is_one_effect_and_it_is_told,
        );
    };
    ($change:ty: $($test:ident),* $(,)?) => {
        mod protocol {
            use super::*;
            $(#[tokio::test(start_paused = true)]
            async fn $test() {
                $crate::sinks::actuation::tests::$test::<$change>().await;
            })*
        }
    };
}
pub(in crate::sinks) use protocol_tests;

pub(in crate::sinks) async fn a_change_is_claimed_sent_and_settled_once<C: Staged>() {
    let stand = Stand::<C>::new().await;
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1));
    assert!(outcome.effect.is_some() && outcome.request.is_some());
    assert!(C::is_changed(&stand.world.lock().unwrap().object));
    assert_eq!(stand.intents(), 1);
    // Delivered again it is the same outcome, and nothing is done.
    assert_eq!(stand.outcome().await, outcome);
    assert_eq!((stand.effects(), stand.sent()), (1, 1));
}

pub(in crate::sinks) async fn shadow_hold_and_what_is_not_its_action_touch_nothing<C: Staged>() {
    let stand = Stand::<C>::new().await;
    let ended = |mode, action| {
        let decision: Read<'_, C> = Read::<C> { mode, action, ..C::decision() };
        end_at_once::<C>(&decision, stand.memory.now()).map(|outcome| (outcome.status, outcome.reason))
    };
    let own = C::DECLARATION.action;
    assert_eq!(ended(Mode::Live, own), None);
    let shadowed = Some((OutcomeStatus::Shadowed, "shadow_mode".to_owned()));
    assert_eq!(ended(Mode::Shadow, own), shadowed);
    assert_eq!(ended(Mode::Shadow, Action::Hold), shadowed);
    for telling in [Action::Hold, Action::Alert] {
        let unchanged = Some((OutcomeStatus::Unchanged, stand.decision.reason.clone().into_owned()));
        assert_eq!(ended(Mode::Live, telling), unchanged);
    }
    let foreign = Some((OutcomeStatus::Failed, C::DECLARATION.foreign_action.to_owned()));
    assert_eq!(ended(Mode::Live, Action::Route), foreign);
}

/// A pause of all loops.
fn storm() -> Pauses {
    let when = Timestamp::from_millis(START_MS);
    let value = serde_json::json!({"reason": "storm"});
    Pauses::of(&[Setting { scope: "pause/all".into(), value, revision: 1, who: "alice".into(), when }])
}

pub(in crate::sinks) async fn a_pause_keeps_back_what_is_not_on_its_way<C: Staged>() {
    let (told, pauses) = watch::channel(storm());
    let mut stand = Stand::<C>::new().await;
    stand.actuation = stand.actuation.heeding(pauses.clone());
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Shadowed, "paused by alice: storm"));
    assert_eq!((outcome.attempts, stand.sent(), stand.intents()), (0, 0, 0));
    // It comes while a 429 is waited out: the claim that is on record is followed by no other.
    told.send_replace(Pauses::default());
    let refused = Act::Refuse(Refusal::RateLimited(Duration::from_secs(5)));
    let mut stand = Stand::<C>::new().await.writes(&[refused]);
    stand.actuation = stand.actuation.heeding(pauses);
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        told.send_replace(storm());
    });
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Shadowed, "{outcome:#?}");
    assert!(outcome.reason.starts_with("paused by alice: storm"), "{outcome:#?}");
    assert_eq!((stand.effects(), stand.intents()), (0, 1));
}

pub(in crate::sinks) async fn what_is_on_its_way_when_a_pause_comes_is_seen_to_its_end<C: Staged>() {
    for slow in [Act::Late(Duration::from_secs(5)), Act::WorkAndHang] {
        let (told, pauses) = watch::channel(Pauses::default());
        let mut stand = Stand::<C>::new().await.writes(&[slow]);
        stand.actuation = stand.actuation.heeding(pauses);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.send_replace(storm());
            std::future::pending::<()>().await;
        });
        let outcome = stand.outcome().await;
        stand.all_has_landed().await;
        assert_eq!((outcome.status, stand.effects()), (OutcomeStatus::Applied, 1), "{outcome:#?}");
    }
}

pub(in crate::sinks) async fn too_old_is_never_sent<C: Staged>() {
    let stand = Stand::<C>::new().await;
    tokio::time::advance(C::LIFE).await;
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Expired, 0));
    assert_eq!((stand.sent(), stand.intents()), (0, 0));
}

pub(in crate::sinks) async fn how_old_it_is_goes_by_the_ledgers_clock<C: Staged>() {
    // This process is far behind: by its own clock the decision has all its time yet.
    let stand = Stand::<C>::new().await;
    stand.memory.set_ahead(C::LIFE);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.intents()), (OutcomeStatus::Expired, 0));
    assert_eq!(outcome.finished_at, stand.memory.now(), "and it is told by that clock");
    // The clock jumps between the look and the claim: the claim itself asks.
    let stand = Stand::<C>::new().await.writes(&[Act::Refuse(Refusal::RateLimited(Duration::from_secs(5)))]);
    let memory = stand.memory.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        memory.set_ahead(C::LIFE);
    });
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.effects(), stand.intents()), (OutcomeStatus::Expired, 0, 1));
}

pub(in crate::sinks) async fn a_429_is_waited_out<C: Staged>() {
    let wait = Duration::from_secs(7);
    let stand = Stand::<C>::new().await.writes(&[Act::Refuse(Refusal::RateLimited(wait))]);
    let began = Instant::now();
    assert_eq!(stand.outcome().await.status, OutcomeStatus::Applied);
    assert!(began.elapsed() >= wait);
    assert_eq!(stand.effects(), 1);
}

pub(in crate::sinks) async fn a_429_beyond_the_expiry_expires_and_says_why<C: Staged>() {
    let stand = Stand::<C>::new().await.writes(&[Act::Refuse(Refusal::RateLimited(C::LIFE * 2))]);
    let began = Instant::now();
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Expired);
    assert!(outcome.reason.contains("rate_limited"), "{}", outcome.reason);
    assert!(began.elapsed() <= C::LIFE + Duration::from_secs(1));
}

pub(in crate::sinks) async fn server_errors_are_read_back_and_tried_again<C: Staged>() {
    let server = || plain(CallErrorKind::Server { status: 503 });
    let stand = Stand::<C>::new().await.writes(&[server(), server(), server()]);
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 4));
    let world = stand.world.lock().unwrap();
    assert!(world.sent.iter().all(|request| *request == world.sent[0]), "the very same request");
    assert_eq!(world.effects.len(), 1);
}

pub(in crate::sinks) async fn an_effect_whose_reply_was_lost_is_confirmed_by_reading_back<C: Staged>() {
    for kind in [CallErrorKind::NoReply, CallErrorKind::Server { status: 504 }] {
        let stand = Stand::<C>::new().await.writes(&[Act::WorkBut(kind)]);
        let outcome = stand.outcome().await;
        assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1));
        assert_eq!(outcome.reason, "confirmed_by_reading_back");
        assert!(outcome.effect.is_some());
        assert_eq!((stand.effects(), stand.sent()), (1, 1));
    }
}

/// Twice as long as a request may wait for its reply; a second one would be refused.
pub(in crate::sinks) async fn a_slow_change_is_one_change_and_ours<C: Staged>() {
    for second in [plain(CallErrorKind::Conflict), Act::Refuse(Refusal::RateLimited(Duration::from_secs(5)))]
    {
        let stand = Stand::<C>::new().await.writes(&[Act::Late(SLOW), second]);
        let outcome = stand.outcome().await;
        stand.all_has_landed().await;
        assert_eq!(outcome.status, OutcomeStatus::Applied, "{outcome:?}");
        assert!(outcome.effect.is_some());
        assert_eq!(stand.effects(), 1);
        let request = stand.world.lock().unwrap().sent[0].clone();
        if !stand.actuation.change.is_conditional(&request) {
            assert_eq!(stand.sent(), 1, "while it may be under way nothing else is sent");
        }
    }
}

pub(in crate::sinks) async fn a_slow_change_is_ours_when_it_lands_after_the_expiry<C: Staged>() {
    let late = [Act::Late(SLOW), plain(CallErrorKind::NoReply), plain(CallErrorKind::NoReply)];
    let stand = Stand::<C>::new().await.writes(&late);
    tokio::time::advance(C::LIFE - Duration::from_secs(5)).await;
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Applied, "{outcome:?}");
    assert!(stand.memory.now() >= stand.decision.expires_at);
}

pub(in crate::sinks) async fn a_doubt_nobody_can_settle_ends_after_its_limit<C: Staged>() {
    let mut reads = vec![Act::Work];
    reads.resize_with(10_000, || plain(CallErrorKind::NotSent));
    let stand = Stand::<C>::new().await.writes(&[Act::WorkBut(CallErrorKind::NoReply)]).reads(&reads);
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Failed);
    assert!(outcome.reason.starts_with("effect_unknown"), "{}", outcome.reason);
    assert!(stand.memory.now() >= stand.decision.expires_at.plus(stand.actuation.settings.settling_limit));
}

pub(in crate::sinks) async fn garbage_in_answer_to_a_read_is_tried_again_until_the_expiry<C: Staged>() {
    let garbage = || plain(CallErrorKind::Malformed);
    let stand = Stand::<C>::new().await.reads(&[garbage()]);
    assert_eq!(stand.outcome().await.status, OutcomeStatus::Applied);
    let stand = Stand::<C>::new().await.reads(&vec![garbage(); 10_000]);
    let outcome = stand.outcome().await;
    assert_eq!(outcome.status, OutcomeStatus::Expired);
    assert!(outcome.reason.contains("malformed"), "{}", outcome.reason);
}

pub(in crate::sinks) async fn refusals_that_no_retry_mends_fail_with_their_reason<C: Staged>() {
    for (kind, code) in [
        (CallErrorKind::NotFound, C::DECLARATION.missing),
        (CallErrorKind::Forbidden, "forbidden"),
        (CallErrorKind::Unauthorized, "unauthorized"),
        (CallErrorKind::Rejected, "rejected"),
    ] {
        let read = Stand::<C>::new().await.reads(&[plain(kind)]);
        let written = Stand::<C>::new().await.writes(&[plain(kind)]);
        // What a 404 to a change means is the change's own matter.
        for stand in
            [Some(read), Some(written).filter(|_| kind != CallErrorKind::NotFound)].into_iter().flatten()
        {
            let outcome = stand.outcome().await;
            assert_eq!(outcome.status, OutcomeStatus::Failed);
            assert!(outcome.reason.starts_with(code), "{}", outcome.reason);
            assert_eq!(stand.effects(), 0);
        }
    }
}

pub(in crate::sinks) async fn a_breaker_pause_is_waited_out_and_costs_no_attempt<C: Staged>() {
    let pause = Duration::from_secs(10);
    let stand = Stand::<C>::new().await.writes(&[Act::Refuse(Refusal::Paused(pause))]);
    let began = Instant::now();
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1));
    assert!(began.elapsed() >= pause);
}

pub(in crate::sinks) async fn nothing_is_sent_while_the_ledger_is_away<C: Staged>() {
    let stand = Stand::<C>::new().await;
    stand.memory.away.store(true, Ordering::Relaxed);
    let away = Arc::clone(&stand.memory.away);
    tokio::spawn(async move {
        tokio::time::sleep(C::LIFE * 2).await;
        away.store(false, Ordering::Relaxed);
    });
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.sent()), (OutcomeStatus::Expired, 0));
    assert!(stand.memory.now() >= stand.decision.expires_at.plus(C::LIFE));
}

pub(in crate::sinks) async fn a_claim_without_an_answer_is_looked_up_and_leaves_no_doubt<C: Staged>() {
    let stand = Stand::<C>::new().await;
    // History, read, claim.
    stand.memory.trap.set([(2, Disturbance::LostAfter)]);
    let began = Instant::now();
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 1), "nothing was sent for it");
    assert!(began.elapsed() < Duration::from_secs(1), "and nothing is waited for: {:?}", began.elapsed());
    assert_eq!((stand.intents(), stand.sent()), (2, 1));
}

pub(in crate::sinks) async fn a_crash_after_the_effect_is_settled_without_a_second_one<C: Staged>() {
    let stand = Stand::<C>::new().await.writes(&[Act::WorkAndHang]);
    // Dropped in the middle of the call: what a crash leaves behind.
    let crashed = tokio::time::timeout(Duration::from_secs(1), stand.run()).await;
    assert!(crashed.is_err());
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, &*outcome.reason), (OutcomeStatus::Applied, "confirmed_by_reading_back"));
    assert_eq!((stand.effects(), stand.sent(), stand.intents()), (1, 1, 1));
}

pub(in crate::sinks) async fn a_crash_before_the_effect_sends_it_again_and_has_one<C: Staged>() {
    let stand = Stand::<C>::new().await.writes(&[Act::Hang]);
    assert!(tokio::time::timeout(Duration::from_secs(1), stand.run()).await.is_err());
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, outcome.attempts), (OutcomeStatus::Applied, 2));
    let world = stand.world.lock().unwrap();
    assert_eq!(world.sent[0], world.sent[1]);
    assert_eq!(world.effects.len(), 1);
}

pub(in crate::sinks) async fn found_too_late_a_crashed_attempt_without_effect_expires<C: Staged>() {
    let stand = Stand::<C>::new().await.writes(&[Act::Hang]);
    assert!(tokio::time::timeout(Duration::from_secs(1), stand.run()).await.is_err());
    tokio::time::advance(C::LIFE).await;
    let outcome = stand.outcome().await;
    assert_eq!((outcome.status, stand.sent()), (OutcomeStatus::Expired, 1));
    assert_eq!(stand.effects(), 0);
}

pub(in crate::sinks) async fn who_lost_the_lease_sends_and_settles_nothing<C: Staged>() {
    let stand = Stand::<C>::new().await;
    stand.memory.take_lease("l", "two").await.unwrap();
    assert_eq!(stand.run().await, Err(Interrupted::LeaseLost));
    assert_eq!((stand.sent(), stand.intents()), (0, 0));
    let late = Stand::<C>::new().await;
    late.superseded.cancel();
    late.memory.take_lease("l", "two").await.unwrap();
    assert_eq!(late.run().await, Err(Interrupted::LeaseLost));
    assert!(late.memory.book.lock().unwrap().settlements.is_empty());
}

pub(in crate::sinks) async fn a_stop_ends_every_wait_within_two_seconds<C: Staged>() {
    let hour = Duration::from_secs(3_600);
    let mut stands = vec![
        Stand::<C>::new().await.writes(&[Act::Refuse(Refusal::RateLimited(hour))]),
        Stand::<C>::new().await.writes(&[Act::Refuse(Refusal::Paused(hour))]),
        Stand::<C>::new().await.writes(&[Act::Hang]),
        Stand::<C>::new().await.reads(&[Act::Hang]),
        Stand::<C>::new().await.reads(&vec![plain(CallErrorKind::NotSent); 10_000]),
        Stand::<C>::new().await,
    ];
    stands.last().unwrap().memory.away.store(true, Ordering::Relaxed);
    for stand in &mut stands {
        stand.decision.expires_at = stand.memory.now().plus(hour);
        let stop = stand.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.cancel();
        });
        let began = Instant::now();
        assert_eq!(stand.run().await, Err(Interrupted::Stopped));
        assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
        assert!(stand.memory.book.lock().unwrap().settlements.is_empty(), "the next start goes on");
    }
}

/// A stop, a crash, a lost lease, an unknown reply, a slow call or a refusal at any call, and
/// another one at any later call, those of the executions that take it up again included.
pub(in crate::sinks) async fn whatever_befalls_any_two_calls_there_is_one_effect_and_it_is_told<C: Staged>() {
    let undisturbed = Stand::<C>::new().await;
    undisturbed.outcome().await;
    let calls = undisturbed.memory.trap.calls();
    assert!(calls >= 4, "history, read, claim, call and settlement at least: {calls}");
    let mut runs = 0;
    for (first, one) in cases(0..calls) {
        let alone = once::<C>(&[(first, one)], Settings::default()).await.unwrap();
        // Those of the second execution come after those of the first.
        for (second, other) in cases(first + 1..alone) {
            once::<C>(&[(first, one), (second, other)], Settings::default()).await.unwrap();
            runs += 1;
        }
    }
    assert!(runs > 1_000, "{runs}");
}

fn cases(calls: std::ops::Range<usize>) -> impl Iterator<Item = (usize, Disturbance)> {
    calls.flat_map(|call| DISTURBANCES.map(|disturbance| (call, disturbance)))
}

/// Returns how many calls there were, or what went wrong.
pub(in crate::sinks) async fn once<C: Staged>(
    disturbances: &[(usize, Disturbance)],
    settings: Settings,
) -> Result<usize, String> {
    let mut stand = Stand::<C>::new().await;
    stand.actuation.settings = settings;
    stand.memory.trap.set(disturbances.iter().copied());
    let outcome = stand.outcome_in_the_end().await;
    let calls = stand.memory.trap.calls();
    stand.all_has_landed().await;
    let told = outcome.effect.is_some();
    // Read again, it stands.
    let again = stand.outcome_in_the_end().await;
    let effects = stand.effects();
    let right = told == (outcome.status == OutcomeStatus::Applied)
        && effects == usize::from(told)
        && stand.intents() >= stand.sent()
        && again == outcome;
    let (intents, sent) = (stand.intents(), stand.sent());
    right.then_some(calls).ok_or_else(|| {
        format!(
            "{disturbances:?}: {effects} effects, {sent} sent, {intents} intents; {outcome:?}; then {again:?}"
        )
    })
}
