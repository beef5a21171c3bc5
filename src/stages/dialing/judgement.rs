//! From a rule's answer to the rate decided: what every answer has to pass, in this order, whatever
//! rule gave it.

use super::pacing;
use super::proportional::Proportional;
use crate::model::chain::{Chain, Limit};
use crate::model::dial_rate::{HUNDREDTH_SLACK, Limits, hundredths};

/// No rate of two decimals lies between the campaign's limits.
pub const LIMITS_CONTRADICT: &str = "limits_contradict";
/// The campaign has a rate that this loop did not give it.
pub const OTHER_WRITER: &str = "other_writer";
/// The statistics are older than two ticks.
pub const STATISTICS_LATE: &str = "statistics_late";
/// The campaign has made all the call attempts it may make in this month.
pub const ATTEMPTS_USED_UP: &str = "attempts_used_up";
/// Holds that name what is behind with the statistics begin so.
pub const LAG_ERROR: &str = "lag_error";
const CHANGE_BELOW_HUNDREDTH: &str = "change_below_hundredth";
/// Reasons where one of the campaign's own limits had the last word.
const AT_LEAST_RATE: &str = "at_least_rate";
const AT_GREATEST_RATE: &str = "at_greatest_rate";

/// The rate decided, and how it came to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    pub chain: Chain,
    pub reason: &'static str,
}

/// A rule's answer, before what every answer has to pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub chain: Chain,
    /// Why, where nothing else has the last word.
    pub reason: &'static str,
}

impl Answered {
    /// What `pacing` says after an observation was taken in.
    pub fn by_pacing(rule: &pacing::Pacing, state: &pacing::State, seen: &pacing::Observation) -> Self {
        let chain = rule.answer(state, seen);
        let reason = match chain.bound {
            Some(Limit::Brake) => "abandonment_over_cap",
            Some(Limit::Slew) => "rising_slowly",
            _ if seen.attempts == 0 => super::evidence::NO_DATA,
            _ => "within_budget",
        };
        Self { chain, reason }
    }

    pub fn by_proportional(
        rule: &Proportional,
        mean_answer_rate: f64,
        dial_rate: f64,
        limits: Limits,
    ) -> Self {
        let (wanted, reason) = rule.wanted(mean_answer_rate, dial_rate, limits);
        Self { chain: Chain::new(wanted), reason }
    }

    /// The rule was not asked: the rate as it is.
    pub fn none(dial_rate: f64, reason: &'static str) -> Self {
        Self { chain: Chain::new(dial_rate), reason }
    }
}

/// What is known beside the rule's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Around {
    /// Why the rule could not be asked, and what stands for its answer.
    pub evidence: Option<Lacking>,
    /// The statistics are late: the rate must not rise.
    pub is_late: bool,
    /// What takes the statistics in is behind: the rate must not rise.
    pub is_lagging: bool,
    /// Somebody else has set the rate: it stays for this tick, unless too much was abandoned.
    pub other_writer: bool,
    /// The campaign has made all the attempts it may make in this month: the least rate is asked for.
    pub attempts_used_up: bool,
}

/// Why there is no answer of the rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lacking {
    /// Nothing new was said: the rate stays.
    News,
    /// Nothing new was said for so long that the least rate is the safe one.
    AnyNews,
    /// Nobody counts what the rule needs: the least rate is the safe one.
    Counts,
}

/// The rate decided: the rule's answer within the campaign's limits, then what is known of the
/// facts behind it, then what others ask for, in two decimals. A change below one hundredth is none.
pub fn judge(answered: Answered, dial_rate: f64, limits: Limits, around: Around) -> Judgement {
    let Answered { mut chain, reason } = answered;
    let Some((least, greatest)) = limits.hundredths() else {
        chain.ask(Limit::Rounding, dial_rate);
        return Judgement { chain, reason: LIMITS_CONTRADICT };
    };
    let (least, greatest) = (least / 100.0, greatest / 100.0);
    let braked = chain.bound == Some(Limit::Brake);
    chain.at_least(Limit::Minimum, least);
    chain.at_most(Limit::Maximum, greatest);
    let wanted = chain.value();
    if let Some(lacking) = around.evidence {
        let (limit, value) = match lacking {
            Lacking::News => (Limit::Evidence, dial_rate),
            Lacking::Counts => (Limit::Evidence, least),
            Lacking::AnyNews => (Limit::Staleness, least),
        };
        chain.ask(limit, value);
    }
    let may_rise = |held: bool| if held { dial_rate } else { f64::INFINITY };
    if around.evidence != Some(Lacking::AnyNews) {
        chain.at_most(Limit::Staleness, may_rise(around.is_late));
    }
    let stays = around.other_writer && !braked && around.evidence != Some(Lacking::AnyNews);
    match stays {
        true => chain.ask(Limit::Hold, dial_rate),
        false if around.attempts_used_up => chain.at_most(Limit::Hold, least),
        false => chain.at_most(Limit::Hold, may_rise(around.is_lagging)),
    }
    let whole = hundredths(chain.value());
    let is_change = (whole - dial_rate * 100.0).abs() >= 1.0 - HUNDREDTH_SLACK;
    chain.ask(Limit::Rounding, if is_change { whole / 100.0 } else { dial_rate });
    let reason = match chain.bound {
        _ if stays => OTHER_WRITER,
        Some(Limit::Hold) if around.attempts_used_up => ATTEMPTS_USED_UP,
        Some(Limit::Hold) => LAG_ERROR,
        _ if around.evidence.is_some() => reason,
        Some(Limit::Staleness) => STATISTICS_LATE,
        _ if braked => reason,
        _ if !is_change => match reason {
            super::evidence::NO_DATA => reason,
            _ => CHANGE_BELOW_HUNDREDTH,
        },
        // By half a hundredth more than rounding.
        Some(Limit::Maximum) if chain.raw > wanted + 0.005 => AT_GREATEST_RATE,
        Some(Limit::Minimum) if chain.raw < wanted - 0.005 => AT_LEAST_RATE,
        _ => reason,
    };
    Judgement { chain, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { min: 0.5, max: 3.0 };

    fn judged(raw: f64, rate: f64, around: Around) -> (f64, Option<Limit>, &'static str) {
        let answered = Answered { chain: Chain::new(raw), reason: "rule" };
        let Judgement { chain, reason } = judge(answered, rate, LIMITS, around);
        (chain.value(), chain.bound, reason)
    }

    #[test]
    fn each_limit_has_its_say_in_order() {
        let usual = Around::default();
        assert_eq!(judged(2.0, 1.0, usual), (2.0, None, "rule"));
        assert_eq!(judged(7.0, 1.0, usual), (3.0, Some(Limit::Maximum), AT_GREATEST_RATE));
        assert_eq!(judged(0.1, 1.0, usual), (0.5, Some(Limit::Minimum), AT_LEAST_RATE));
        assert_eq!(judged(1.234, 1.0, usual), (1.23, Some(Limit::Rounding), "rule"));
        assert_eq!(judged(1.004, 1.0, usual), (1.0, Some(Limit::Rounding), CHANGE_BELOW_HUNDREDTH));
        assert_eq!(judged(7.0, 3.0, usual), (3.0, Some(Limit::Maximum), CHANGE_BELOW_HUNDREDTH));
        let late = Around { is_late: true, ..usual };
        assert_eq!(judged(2.0, 1.0, late), (1.0, Some(Limit::Staleness), STATISTICS_LATE));
        assert_eq!(judged(0.7, 1.0, late), (0.7, None, "rule"), "down is always possible");
        let lagging = Around { is_lagging: true, ..usual };
        assert_eq!(judged(2.0, 1.0, lagging), (1.0, Some(Limit::Hold), LAG_ERROR));
        assert_eq!(judged(0.7, 1.0, lagging), (0.7, None, "rule"));
        let used_up = Around { attempts_used_up: true, is_lagging: true, ..usual };
        assert_eq!(judged(2.0, 1.0, used_up), (0.5, Some(Limit::Hold), ATTEMPTS_USED_UP));
        assert_eq!(judged(2.0, 0.5, used_up), (0.5, Some(Limit::Hold), ATTEMPTS_USED_UP), "and stays there");
        let contested = Around { other_writer: true, ..usual };
        assert_eq!(judged(0.7, 1.0, contested), (1.0, Some(Limit::Hold), OTHER_WRITER));
    }

    #[test]
    fn what_is_lacking_stands_for_the_answer() {
        let lacking = |lacking| Around { evidence: Some(lacking), ..Around::default() };
        assert_eq!(judged(1.0, 1.0, lacking(Lacking::News)), (1.0, None, "rule"));
        assert_eq!(judged(4.0, 4.0, lacking(Lacking::News)), (4.0, Some(Limit::Evidence), "rule"));
        assert_eq!(judged(2.0, 2.0, lacking(Lacking::Counts)), (0.5, Some(Limit::Evidence), "rule"));
        let stale = Around { other_writer: true, is_late: true, ..lacking(Lacking::AnyNews) };
        assert_eq!(judged(2.0, 2.0, stale), (0.5, Some(Limit::Staleness), "rule"));
    }

    #[test]
    fn a_brake_gives_way_to_nobody() {
        let mut chain = Chain::new(4.0);
        chain.at_most(Limit::Brake, 0.5);
        let around = Around { other_writer: true, is_late: true, is_lagging: true, ..Around::default() };
        let judged = judge(Answered { chain, reason: "over" }, 2.0, LIMITS, around);
        assert_eq!(
            (judged.chain.value(), judged.chain.bound, judged.reason),
            (0.5, Some(Limit::Brake), "over")
        );
    }

    proptest! {
        /// `round2(clamp(r * target / mean, least, greatest))`, in hundredths.
        #[test]
        fn proportional_is_what_was_asked_for(
            mean in 0.001f64..=1.0,
            rate in 0.0f64..9.0,
            min in 0.0f64..3.0,
            width in 0.02f64..3.0,
        ) {
            let limits = Limits { min, max: min + width };
            let rule = Proportional::default();
            let answered = Answered::by_proportional(&rule, mean, rate, limits);
            let judged = judge(answered, rate, limits, Around::default());
            let (least, greatest) = limits.hundredths().expect("two hundredths apart");
            let wanted = hundredths(rate * 0.85 / mean).clamp(least, greatest);
            let is_change = (wanted - rate * 100.0).abs() >= 1.0 - HUNDREDTH_SLACK;
            prop_assert_eq!(judged.chain.value(), if is_change { wanted / 100.0 } else { rate });
            prop_assert_eq!(judged.reason == CHANGE_BELOW_HUNDREDTH, !is_change);
        }

        #[test]
        fn held_rates_do_not_rise(raw in 0.0f64..9.0, rate in 0.0f64..9.0, is_late: bool, is_lagging: bool) {
            let around = Around { is_late, is_lagging, ..Around::default() };
            let (value, ..) = judged(raw, rate, around);
            prop_assert!(!(is_late || is_lagging) || value <= rate.max(0.5) + 0.0051, "{value}");
        }
    }
}
