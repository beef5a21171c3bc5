//! How many answered calls may still be lost: kept over the last hour, the local day, the last 24
//! hours, the period of 30 days and the campaign's life, and, discounted, over the last half hour.
//! The tightest counts.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

/// Half-life of what is discounted, seconds.
const HALF_LIFE: f64 = 1_800.0;
/// The last hour is kept in twelve pieces of five minutes and the one that has begun; the last
/// 24 hours in as many hours and the one that has begun.
const PIECE_MS: i64 = 300_000;
const PIECES: usize = 13;
const HOUR_MS: i64 = 3_600_000;
const HOURS: usize = 25;
const DAY_MS: i64 = 86_400_000;
/// Periods follow each other from the campaign's first day (16 CFR 310.4(b)(4), 47 CFR
/// 64.1200(a)(7)).
const PERIOD_DAYS: i64 = 30;
/// Answers that a rate is never judged on fewer of.
const FEW_RECENT: f64 = 30.0;
const FEW_IN_WINDOW: u64 = 50;
const FEW_IN_HOUR: u64 = 60;

/// Live answers and those that were abandoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answers(u64, u64);

impl Answers {
    fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0), self.1.saturating_add(other.1))
    }

    /// Over the cap by more than a call.
    fn are_over(self, cap: f64) -> bool {
        self.0 >= FEW_IN_WINDOW && self.1 as f64 > cap * self.0 as f64 + 1.0
    }
}

/// The newest pieces of time, each with its number and what it holds, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Pieces<const N: usize>(ArrayVec<(i64, u64, u64), N>);

impl<const N: usize> Pieces<N> {
    fn feed(&mut self, piece: i64, new: Answers) {
        self.0.retain(|held| held.0 > piece - N as i64);
        match self.0.last_mut() {
            Some(last) if last.0 >= piece => *last = (last.0, last.1 + new.0, last.2 + new.1),
            _ => {
                if self.0.is_full() {
                    self.0.remove(0);
                }
                self.0.push((piece, new.0, new.1));
            }
        }
    }

    fn sum(&self) -> Answers {
        self.0.iter().fold(Answers::default(), |sum, held| sum.and(Answers(held.1, held.2)))
    }
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    /// Days since 1970 that `today` counts.
    day: i64,
    today: Answers,
    hour: Pieces<PIECES>,
    #[serde(default)]
    hours: Pieces<HOURS>,
    /// The campaign's first day that is known, in days since 1970.
    #[serde(default)]
    first_day: Option<i64>,
    /// Which period of 30 days it is, from 0, and what it holds.
    #[serde(default)]
    period: (i64, Answers),
    #[serde(default)]
    life: Answers,
    /// Discounted answers and abandons.
    recent: (f64, f64),
}

impl Budget {
    /// Takes in what the `seconds` up to `at`, milliseconds since 1970, brought. `day_offset_ms`
    /// is the campaign's local time minus UTC.
    pub(super) fn feed(&mut self, at: i64, day_offset_ms: i64, seconds: f64, answers: u64, abandoned: u64) {
        let new = Answers(answers, abandoned);
        let day = (at + day_offset_ms).div_euclid(DAY_MS);
        if day != self.day {
            (self.day, self.today) = (day, Answers::default());
        }
        self.today = self.today.and(new);
        let period = (day - *self.first_day.get_or_insert(day)).div_euclid(PERIOD_DAYS);
        if period != self.period.0 {
            self.period = (period, Answers::default());
        }
        self.period.1 = self.period.1.and(new);
        self.life = self.life.and(new);
        self.hour.feed(at.div_euclid(PIECE_MS), new);
        self.hours.feed(at.div_euclid(HOUR_MS), new);
        let kept = (-seconds / HALF_LIFE).exp2();
        self.recent = (kept * self.recent.0 + answers as f64, kept * self.recent.1 + abandoned as f64);
    }

    /// Day, 24 hours, 30 days, life.
    fn long_windows(&self) -> [Answers; 4] {
        [self.today, self.hours.sum(), self.period.1, self.life]
    }

    /// Share of the answers to come that may be lost: `goal` where the past was at it, more
    /// where calls were saved, less where too many were lost, never over `cap`.
    pub(super) fn allowance(&self, goal: f64, cap: f64) -> f64 {
        let ahead = (0.5 * self.recent.0 + 20.0).max(20.0);
        let over = |past: Answers| (goal + (goal * past.0 as f64 - past.1 as f64) / ahead).clamp(0.001, cap);
        self.long_windows().into_iter().map(over).fold(over(self.hour.sum()), f64::min)
    }

    /// Whether so many were lost that no call more may be put at risk.
    pub(super) fn is_spent(&self, cap: f64) -> bool {
        let (answers, abandoned) = self.recent;
        let hour = self.hour.sum();
        (answers >= FEW_RECENT && abandoned > cap * answers)
            || self.long_windows().into_iter().any(|window| window.are_over(cap))
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
        assert_eq!(budget.hour.sum().1, 0);
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

    /// A day of a thousand ticks with so many answers each; in some of each hundred all are lost.
    fn work(budget: &mut Budget, day: i64, answers: u64, lost_of_100: u64) {
        for tick in 0..1_000 {
            let lost = u64::from(tick % 100 < lost_of_100 as i64);
            budget.feed(at(day * 86_400 + tick * 30), 0, 30.0, answers, lost * answers);
        }
    }

    #[test]
    fn yesterdays_losses_count_for_24_hours_and_the_periods_for_30_days() {
        let mut budget = Budget::default();
        work(&mut budget, 0, 5, 10);
        // 13:00 the next day: nothing of the last hour or the day, five hours of the last 24.
        let at_noon = |budget: &Budget, day: i64| {
            let mut budget = budget.clone();
            budget.feed(at(day * 86_400 + 5 * 3_600), 0, 3_600.0, 0, 0);
            (budget.today.1, budget.hours.sum().1 > 0, budget.period.1.1, budget.life.1)
        };
        let lost = budget.life.1;
        assert_eq!(lost, 500);
        assert_eq!(at_noon(&budget, 1), (0, true, lost, lost));
        assert_eq!(at_noon(&budget, 2), (0, false, lost, lost));
        assert_eq!(at_noon(&budget, 29), (0, false, lost, lost));
        assert_eq!(at_noon(&budget, 30), (0, false, 0, lost), "the next period");
    }

    #[test]
    fn a_bad_day_is_paid_back_over_the_days_after_it() {
        let mut budget = Budget::default();
        work(&mut budget, 0, 5, 4);
        assert!(budget.is_spent(0.03), "4 % of the day");
        work(&mut budget, 2, 5, 0);
        assert_eq!(budget.allowance(0.02, 0.03), 0.02, "2 % of both days together");
        assert!(!budget.is_spent(0.03));
        work(&mut budget, 3, 5, 0);
        assert_eq!(budget.allowance(0.02, 0.03), 0.03);
    }

    #[test]
    fn what_an_older_program_kept_is_read() {
        let text = r#"{"day":20455,"today":[600,9],"hour":[[5891112,40,1]],"recent":[55.5,1.25]}"#;
        let budget: Budget = serde_json::from_str(text).unwrap();
        assert_eq!(
            (budget.today, budget.hour.sum(), budget.life),
            (Answers(600, 9), Answers(40, 1), Answers(0, 0))
        );
    }
}
