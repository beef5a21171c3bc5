//! What is believed of the answer rate: two discounted Beta posteriors, a slow one that is
//! sure and a fast one that notices when the slow one has become wrong.

use serde::{Deserialize, Serialize};

/// Half-lives, seconds.
const SLOW_HALF_LIFE: f64 = 600.0;
const FAST_HALF_LIFE: f64 = 120.0;
/// Calls that the history before the first window counts for.
const PRIOR_CALLS: f64 = 20.0;
/// Calls the fast one must hold before it may overrule.
const FAST_CALLS: f64 = 15.0;
/// Standard deviations apart that make a change.
const APART: f64 = 2.0;
/// Standard deviations added for the upper estimate: over-estimating the answer rate is the
/// side on which fewer calls are lost.
const UPPER: f64 = 0.84;

/// A rate of 1 is never believed in.
const LEAST_OTHERS: f64 = 0.1;

/// Answers and calls without one, discounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Counts(f64, f64);

impl Counts {
    fn of(rate: f64, calls: f64) -> Self {
        Self(rate * calls, (1.0 - rate) * calls)
    }

    fn calls(self) -> f64 {
        self.0 + self.1
    }

    fn mean(self) -> f64 {
        self.0 / self.calls()
    }

    fn variance(self) -> f64 {
        self.mean() * (1.0 - self.mean()) / (self.calls() + 1.0)
    }

    fn fed(self, half_life: f64, seconds: f64, answers: f64, others: f64) -> Self {
        let kept = (-seconds / half_life).exp2();
        Self(kept * self.0 + answers, (kept * self.1 + others).max(LEAST_OTHERS))
    }
}

/// See the head of this file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Belief {
    slow: Counts,
    fast: Counts,
}

impl Belief {
    /// Before anything was seen: `rate` is the campaign's history, kept off 0 and 1.
    pub(super) fn from_history(rate: f64) -> Self {
        let counts = Counts::of(rate.clamp(0.02, 0.98), PRIOR_CALLS);
        Self { slow: counts, fast: counts }
    }

    /// Takes in what `seconds` brought. True when the old regime was forgotten. A call counts
    /// as one without an answer when it is placed, and as an answer instead when it is answered,
    /// which may be in a later window.
    pub(super) fn feed(&mut self, seconds: f64, answers: u64, attempts: u64) -> bool {
        if answers == 0 && attempts == 0 {
            return false;
        }
        let (answers, others) = (answers as f64, attempts as f64 - answers as f64);
        self.slow = self.slow.fed(SLOW_HALF_LIFE, seconds, answers, others);
        self.fast = self.fast.fed(FAST_HALF_LIFE, seconds, answers, others);
        let apart = (self.slow.mean() - self.fast.mean()).abs();
        let changed = self.fast.calls() > FAST_CALLS
            && apart > APART * (self.slow.variance() + self.fast.variance()).sqrt();
        if changed {
            self.slow = self.fast;
        }
        changed
    }

    /// The upper estimate of the answer rate, 0–1, neither end included.
    pub(super) fn upper(self) -> f64 {
        (self.slow.mean() + UPPER * self.slow.variance().sqrt()).clamp(1e-4, 0.98)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(belief: &mut Belief, ticks: u32, answers: u64, attempts: u64) -> u32 {
        (0..ticks).filter(|_| belief.feed(30.0, answers, attempts)).count() as u32
    }

    #[test]
    fn a_steady_rate_is_found_and_over_estimated_a_little() {
        let mut belief = Belief::from_history(0.5);
        fed(&mut belief, 60, 10, 40);
        assert!((0.25..0.29).contains(&belief.upper()), "{belief:?}");
        assert_eq!(fed(&mut belief, 60, 10, 40), 0, "nothing has changed");
    }

    #[test]
    fn a_jump_is_noticed_within_three_ticks() {
        let mut belief = Belief::from_history(0.15);
        fed(&mut belief, 60, 6, 40);
        assert!(fed(&mut belief, 3, 16, 40) >= 1, "{belief:?}");
        assert!(belief.upper() > 0.25, "{belief:?}");
    }

    #[test]
    fn a_history_of_none_or_all_is_survivable() {
        for rate in [0.0, 1.0] {
            let mut belief = Belief::from_history(rate);
            assert!(belief.upper() > 0.0 && belief.upper() < 1.0);
            fed(&mut belief, 200, 0, 40);
            assert!((1e-4..0.02).contains(&belief.upper()), "{belief:?}");
            // More answers than calls placed: the calls were placed before the window.
            fed(&mut belief, 200, 9, 3);
            assert!(belief.upper() <= 0.98, "{belief:?}");
        }
    }
}
