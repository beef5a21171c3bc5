//! Whether there is anything to decide a dial rate on.
//!
//! Statistics that do not change from poll to poll are old, whoever serves them; those that do
//! not come at all are older still. For a while the rate is held; then nobody knows any more
//! what it does, and the least rate is the safe one.

use std::time::Duration;

use super::judgement::Lacking;
use super::pacing::Observation;
use crate::model::Timestamp;
use crate::model::call_counts::CountSource;
use crate::model::campaign::{CampaignWindow, ticks_to_stale};
use crate::model::dial_rate::Limits;

/// No call was placed, or nothing new was said: no evidence, no action.
pub const NO_DATA: &str = "no_data";
/// Neither statistics nor events count answers and abandoned answers: `pacing` cannot tell what a
/// rate does.
pub const COUNTS_UNKNOWN: &str = "counts_unknown";
/// Nothing new for so long that the least rate is set, or kept.
pub const STALE: &str = "statistics_stale";
/// The same, told before.
pub const STILL_STALE: &str = "statistics_still_stale";

/// Answer rate that is begun with where there is no sample: too high is the safe side.
const UNKNOWN_RATE: f64 = 0.5;

/// For how long nothing new may be said before this window is too old to hold its rate.
pub fn patience(window: &CampaignWindow<'_>, tick: Duration) -> Duration {
    tick.saturating_mul(ticks_to_stale(window.agents_idle))
}

/// When the window last said anything new.
pub fn changed_at(window: &CampaignWindow<'_>) -> Timestamp {
    window.changed_at.unwrap_or(window.observed_at)
}

/// Whether the window says too little new at `time` for any rule. Depends on the window alone:
/// nothing newer is known.
pub fn lacking(window: &CampaignWindow<'_>, tick: Duration, time: Timestamp) -> Option<Lacking> {
    // Polls are not on time to the millisecond.
    if time.plus(tick / 2) >= changed_at(window).plus(patience(window, tick)) {
        return Some(Lacking::AnyNews);
    }
    let is_old = changed_at(window) < window.observed_at || time > window.observed_at;
    is_old.then_some(Lacking::News)
}

/// Whether no answer rate came of the time before the window: without a call there is none.
pub fn has_no_sample(window: &CampaignWindow<'_>) -> bool {
    let is_counted = window.counts_from.attempted != Some(CountSource::AnswerRate);
    (window.attempted == Some(0) && is_counted) || window.answer_rates.is_empty()
}

/// What `pacing` needs of a window, where somebody counts it.
pub fn observation(window: &CampaignWindow<'_>) -> Option<Observation> {
    Some(Observation {
        at: window.observed_at,
        attempts: window.attempted?,
        answers: window.answered?,
        abandoned: window.abandoned?,
        agents_idle: window.agents_idle,
        agents_busy: window.agents_busy,
        answer_rate: if window.answer_rates.is_empty() { UNKNOWN_RATE } else { window.mean_answer_rate },
        dial_rate: window.dial_rate,
        limits: Limits { min: window.min_dial_rate, max: window.max_dial_rate },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(30);

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

    fn judged(window: &CampaignWindow<'_>, time: i64) -> Option<Lacking> {
        lacking(window, TICK, at(time))
    }

    #[test]
    fn unchanged_statistics_lack_news_and_then_any() {
        assert_eq!(judged(&window(0, 0), 0), None);
        for poll in 1..=3 {
            assert_eq!(judged(&window(0, poll * 30), poll * 30), Some(Lacking::News), "poll {poll}");
        }
        assert_eq!(judged(&window(0, 119), 119), Some(Lacking::AnyNews), "the fourth came a little early");
        assert_eq!(judged(&window(0, 3_000), 3_000), Some(Lacking::AnyNews));
    }

    #[test]
    fn so_does_their_absence() {
        assert_eq!(judged(&window(0, 0), 60), Some(Lacking::News));
        assert_eq!(judged(&window(0, 0), 120), Some(Lacking::AnyNews));
    }

    #[test]
    fn while_nobody_is_idle_all_may_stand_still_for_longer() {
        let busy = |observed| CampaignWindow { agents_idle: 0, ..window(0, observed) };
        assert_eq!(judged(&busy(540), 540), Some(Lacking::News));
        assert_eq!(judged(&busy(600), 600), Some(Lacking::AnyNews));
    }

    #[test]
    fn what_is_not_counted_is_no_observation() {
        let counted =
            CampaignWindow { attempted: Some(7), answered: Some(2), abandoned: Some(0), ..window(0, 0) };
        assert_eq!(observation(&counted).map(|seen| (seen.attempts, seen.answers)), Some((7, 2)));
        assert_eq!(observation(&CampaignWindow { abandoned: None, ..counted.clone() }), None);
        assert_eq!(observation(&CampaignWindow { attempted: None, ..counted }), None);
    }
}
