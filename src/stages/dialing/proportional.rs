//! Policy `proportional`, the rule the project was asked for (`docs/dial.md`).
//!
//! Known limit: the answer rate does not depend on the dial rate, so the rule has
//! no fixed point. It walks to the greatest rate while the mean is below the
//! target and to the least while it is above.

use serde::{Deserialize, Serialize};

use super::judgement::{Answered, Around, Judgement, judge};
use crate::model::dial_rate::Limits;

pub const NAME: &str = "proportional";
/// Raised whenever the same inputs can give another answer.
pub const VERSION: u32 = 2;

/// The rule with its parameter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proportional {
    /// Answer rate aimed at, 0–1, default 0.85.
    pub target: f64,
}

impl Default for Proportional {
    fn default() -> Self {
        Self { target: 0.85 }
    }
}

/// What the rule says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    Set {
        /// Two decimals.
        dial_rate: f64,
        reason: &'static str,
    },
    Hold {
        reason: &'static str,
    },
}

impl Proportional {
    /// `r * target / mean`, the least rate when nobody answers; and why.
    pub fn wanted(&self, mean_answer_rate: f64, dial_rate: f64, limits: Limits) -> (f64, &'static str) {
        match mean_answer_rate > 0.0 {
            true => (dial_rate * self.target / mean_answer_rate, "towards_target"),
            false => (limits.min, "nobody_answers"),
        }
    }

    /// `round2(clamp(r * target / mean, least, greatest))`; the least rate when
    /// nobody answers; no change below one hundredth.
    ///
    /// Any finite inputs have an answer; limits between which no hundredth lies
    /// give [`Answer::Hold`].
    pub fn decide(&self, mean_answer_rate: f64, dial_rate: f64, limits: Limits) -> Answer {
        let answered = Answered::by_proportional(self, mean_answer_rate, dial_rate, limits);
        let Judgement { chain, reason } = judge(answered, dial_rate, limits, Around::default());
        match chain.value() {
            value if value == dial_rate => Answer::Hold { reason },
            dial_rate => Answer::Set { dial_rate, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { min: 0.5, max: 3.0 };

    fn set(mean: f64, rate: f64, limits: Limits) -> Option<f64> {
        match Proportional::default().decide(mean, rate, limits) {
            Answer::Set { dial_rate, .. } => Some(dial_rate),
            Answer::Hold { .. } => None,
        }
    }

    #[test]
    fn the_seeds_examples() {
        assert_eq!(set(0.5, 1.0, LIMITS), Some(1.7));
        assert_eq!(set(0.85, 1.0, LIMITS), None);
        assert_eq!(set(0.1, 1.0, LIMITS), Some(3.0));
        assert_eq!(set(1.0, 0.5, LIMITS), None, "already at the least rate");
        assert_eq!(set(0.0, 1.0, LIMITS), Some(0.5), "nobody answers");
    }

    #[test]
    fn a_hundredth_is_a_change_however_it_is_spelled_in_binary() {
        for hundredths in 51..300 {
            let rate = f64::from(hundredths) / 100.0;
            let up = f64::from(hundredths + 1) / 100.0;
            let exactly = Limits { min: up, max: up };
            assert_eq!(set(0.85, rate, exactly), Some(up), "{rate} to {up}");
            assert_eq!(set(0.85, up, Limits { min: rate, max: rate }), Some(rate), "{up} to {rate}");
        }
        let near = Limits { min: 1.23, max: 1.23 };
        assert_eq!(set(0.85, 1.235, near), None, "half a hundredth is none");
    }

    #[test]
    fn halves_round_up_as_in_decimals() {
        // 1.005 is 1.00499… in binary.
        assert_eq!(set(0.85, 1.0, Limits { min: 0.0, max: 9.0 }), None);
        assert_eq!(set(0.85 / 1.005, 1.0, Limits { min: 0.0, max: 9.0 }), Some(1.01));
    }

    #[test]
    fn limits_that_contradict_hold() {
        for limits in [Limits { min: 3.0, max: 0.5 }, Limits { min: 1.001, max: 1.004 }] {
            let answer = Proportional::default().decide(0.5, 1.0, limits);
            assert_eq!(answer, Answer::Hold { reason: "limits_contradict" });
        }
    }

    proptest! {
        #[test]
        fn an_answer_is_a_hundredth_within_the_limits(
            mean in 0.0f64..=1.0,
            rate in 0.0f64..20.0,
            least in 0.0f64..5.0,
            width in 0.0f64..5.0,
        ) {
            let limits = Limits { min: least, max: least + width };
            if let Some(dial_rate) = set(mean, rate, limits) {
                prop_assert!(dial_rate >= limits.min - 1e-8 && dial_rate <= limits.max + 1e-8);
                prop_assert!(((dial_rate * 100.0).round() / 100.0 - dial_rate).abs() < 1e-12);
                prop_assert!((dial_rate - rate).abs() >= 0.01 - 1e-8);
            }
        }

        #[test]
        fn the_answer_is_followed_by_a_hold_at_the_limits(mean in 0.0f64..0.84, rate in 0.5f64..3.0) {
            let mut rate = rate;
            for _ in 0..2_000 {
                match set(mean, rate, LIMITS) {
                    Some(next) => rate = next,
                    None => break,
                }
            }
            prop_assert_eq!(set(mean, rate, LIMITS), None, "walks to a limit and stays");
        }
    }
}
