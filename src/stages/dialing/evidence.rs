//! Whether there is anything to decide a dial rate on.
//!
//! Statistics that do not change from poll to poll are old, whoever serves them; those that do
//! not come at all are older still. For a while the rate is held; then nobody knows any more
//! what it does, and the least rate is the safe one.

use std::time::Duration;

use super::limits::Limits;
use super::proportional::{Answer, Proportional, to_least};
use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, ticks_to_stale};

/// No call was placed, or nothing new was said: no evidence, no action.
pub const NO_DATA: &str = "no_data";
/// Nothing new for so long that the least rate is set, or kept.
pub const STALE: &str = "statistics_stale";
/// The same, told before.
pub const STILL_STALE: &str = "statistics_still_stale";

/// For how long nothing new may be said before this window is too old to hold its rate.
pub fn patience(window: &CampaignWindow<'_>, tick: Duration) -> Duration {
    tick.saturating_mul(ticks_to_stale(window.agents_idle))
}

/// When the window last said anything new.
pub fn changed_at(window: &CampaignWindow<'_>) -> Timestamp {
    window.changed_at.unwrap_or(window.observed_at)
}

/// What is to be done about a campaign at `time`, with its rate and limits as they are then.
/// Depends on the window alone: nothing newer is known.
pub fn judge(
    rule: &Proportional,
    tick: Duration,
    window: &CampaignWindow<'_>,
    time: Timestamp,
    dial_rate: f64,
    limits: Limits,
) -> Answer {
    // Polls are not on time to the millisecond.
    if time.plus(tick / 2) >= changed_at(window).plus(patience(window, tick)) {
        return to_least(dial_rate, limits, STALE);
    }
    let is_old = changed_at(window) < window.observed_at || time > window.observed_at;
    if is_old || window.attempted == Some(0) || window.answer_rates.is_empty() {
        return Answer::Hold { reason: NO_DATA };
    }
    rule.decide(window.mean_answer_rate, dial_rate, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(30);
    const LIMITS: Limits = Limits { min: 0.5, max: 3.0 };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn window(changed: i64, observed: i64) -> CampaignWindow<'static> {
        let text = include_str!("../../../schemas/examples/trunkline.campaign-windows.v1/full.json");
        CampaignWindow {
            changed_at: Some(at(changed)),
            observed_at: at(observed),
            ..serde_json::from_str(text).unwrap()
        }
    }

    fn judged(window: &CampaignWindow<'_>, time: i64) -> Answer {
        judge(&Proportional::default(), TICK, window, at(time), 1.8, LIMITS)
    }

    const HOLD: Answer = Answer::Hold { reason: NO_DATA };
    const LEAST: Answer = Answer::Set { dial_rate: 0.5, reason: STALE };

    #[test]
    fn unchanged_statistics_hold_and_then_set_the_least_rate() {
        assert_eq!(judged(&window(0, 0), 0), Answer::Set { dial_rate: 3.0, reason: "at_greatest_rate" });
        for poll in 1..=3 {
            assert_eq!(judged(&window(0, poll * 30), poll * 30), HOLD, "poll {poll}");
        }
        assert_eq!(judged(&window(0, 119), 119), LEAST, "the fourth came a little early");
        assert_eq!(judged(&window(0, 3_000), 3_000), LEAST);
        let kept = judge(&Proportional::default(), TICK, &window(0, 120), at(120), 0.5, LIMITS);
        assert_eq!(kept, Answer::Hold { reason: STALE });
    }

    #[test]
    fn so_does_their_absence() {
        assert_eq!(judged(&window(0, 0), 60), HOLD);
        assert_eq!(judged(&window(0, 0), 120), LEAST);
    }

    #[test]
    fn while_nobody_is_idle_all_may_stand_still_for_longer() {
        let busy = |observed| CampaignWindow { agents_idle: 0, ..window(0, observed) };
        assert_eq!(judged(&busy(540), 540), HOLD);
        assert_eq!(judged(&busy(600), 600), LEAST);
    }

    #[test]
    fn without_a_call_there_is_no_evidence() {
        assert_eq!(judged(&CampaignWindow { attempted: Some(0), ..window(0, 0) }, 0), HOLD);
        let never = CampaignWindow { answer_rates: Default::default(), ..window(0, 0) };
        assert_eq!(judged(&never, 0), HOLD);
    }
}
