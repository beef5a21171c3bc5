//! How many answered calls may still be lost: kept over the day, the last hour and, discounted,
//! the last half hour. The tightest counts.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

/// Half-life of what is discounted, seconds.
const HALF_LIFE: f64 = 1_800.0;
/// The last hour is kept in twelve pieces of five minutes and the one that has begun.
const PIECE_MS: i64 = 300_000;
const PIECES: usize = 13;
const DAY_MS: i64 = 86_400_000;
/// Answers that a rate is never judged on fewer of.
const FEW_RECENT: f64 = 30.0;
const FEW_TODAY: u64 = 50;
const FEW_IN_HOUR: u64 = 60;

/// Live answers and those that were abandoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answers(u64, u64);

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    /// Days since 1970 that `today` counts.
    day: i64,
    today: Answers,
    /// Pieces since 1970 with what they hold, oldest first.
    hour: ArrayVec<(i64, u64, u64), PIECES>,
    /// Discounted answers and abandons.
    recent: (f64, f64),
}

impl Budget {
    /// Takes in what the `seconds` up to `at`, milliseconds since 1970, brought. `day_offset_ms`
    /// is the campaign's local time minus UTC.
    pub(super) fn feed(&mut self, at: i64, day_offset_ms: i64, seconds: f64, answers: u64, abandoned: u64) {
        let day = (at + day_offset_ms).div_euclid(DAY_MS);
        if day != self.day {
            (self.day, self.today) = (day, Answers::default());
        }
        self.today = Answers(self.today.0 + answers, self.today.1 + abandoned);
        let piece = at.div_euclid(PIECE_MS);
        self.hour.retain(|held| held.0 > piece - PIECES as i64);
        match self.hour.last_mut() {
            Some(last) if last.0 >= piece => *last = (last.0, last.1 + answers, last.2 + abandoned),
            _ => {
                if self.hour.is_full() {
                    self.hour.remove(0);
                }
                self.hour.push((piece, answers, abandoned));
            }
        }
        let kept = (-seconds / HALF_LIFE).exp2();
        self.recent = (kept * self.recent.0 + answers as f64, kept * self.recent.1 + abandoned as f64);
    }

    fn last_hour(&self) -> Answers {
        self.hour.iter().fold(Answers::default(), |sum, held| Answers(sum.0 + held.1, sum.1 + held.2))
    }

    /// Share of the answers to come that may be lost: `goal` where the past was at it, more
    /// where calls were saved, less where too many were lost, never over `cap`.
    pub(super) fn allowance(&self, goal: f64, cap: f64) -> f64 {
        let ahead = (0.5 * self.recent.0 + 20.0).max(20.0);
        let over = |past: Answers| (goal + (goal * past.0 as f64 - past.1 as f64) / ahead).clamp(0.001, cap);
        over(self.today).min(over(self.last_hour()))
    }

    /// Whether so many were lost that no call more may be put at risk.
    pub(super) fn is_spent(&self, cap: f64) -> bool {
        let (answers, abandoned) = self.recent;
        let hour = self.last_hour();
        (answers >= FEW_RECENT && abandoned > cap * answers)
            || (self.today.0 >= FEW_TODAY && self.today.1 as f64 > cap * self.today.0 as f64 + 1.0)
            // One more would take the hour over its cap.
            || hour.1 as f64 + 1.0 > cap * hour.0.max(FEW_IN_HOUR) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> i64 {
        1_767_340_800_000 + seconds * 1_000
    }

    fn fed(ticks: std::ops::Range<i64>, answers: u64, abandoned_every: i64) -> Budget {
        let mut budget = Budget::default();
        for tick in ticks {
            let lost = u64::from(abandoned_every > 0 && tick % abandoned_every == 0);
            budget.feed(at(tick * 30), 0, 30.0, answers, lost);
        }
        budget
    }

    #[test]
    fn what_is_saved_may_be_lost_later_up_to_the_cap() {
        assert_eq!(fed(0..120, 5, 0).allowance(0.02, 0.03), 0.03);
        let at_goal = fed(0..120, 5, 10).allowance(0.02, 0.03);
        assert!((0.018..=0.022).contains(&at_goal), "{at_goal}");
        let over = fed(0..120, 5, 5);
        assert_eq!(over.allowance(0.02, 0.03), 0.001);
        assert!(over.is_spent(0.03), "4 % of the hour's answers");
    }

    #[test]
    fn an_hour_forgets_and_a_day_does_not() {
        let mut budget = fed(0..120, 5, 5);
        for tick in 120..260 {
            budget.feed(at(tick * 30), 0, 30.0, 5, 0);
        }
        assert!(!budget.is_spent(0.03), "{budget:?}");
        assert_eq!(budget.last_hour().1, 0);
        assert_eq!(budget.today, Answers(1_300, 24));
        budget.feed(at(86_400), 0, 30.0, 1, 0);
        assert_eq!(budget.today, Answers(1, 0));
    }

    #[test]
    fn a_day_begins_where_the_campaign_is() {
        let mut budget = Budget::default();
        let utc_midnight = 16 * 3_600;
        budget.feed(at(utc_midnight - 30), 3_600_000, 30.0, 3, 0);
        budget.feed(at(utc_midnight + 30), 3_600_000, 30.0, 3, 0);
        assert_eq!(budget.today.0, 6, "01:00 local time, twice");
    }

    #[test]
    fn few_answers_condemn_nobody_but_two_in_an_hour_of_sixty_do() {
        let mut budget = Budget::default();
        budget.feed(at(0), 0, 30.0, 5, 0);
        assert!(!budget.is_spent(0.03));
        budget.feed(at(30), 0, 30.0, 5, 1);
        assert!(budget.is_spent(0.03), "a second one would make 2 of 60");
    }
}
