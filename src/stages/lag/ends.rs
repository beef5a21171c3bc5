//! Where a log ended when it was looked at: between which polls a record came.
//!
//! Records' own times are their producers': a clock may be wrong, and a backfill is old
//! when it arrives. What the polls themselves saw is neither.

use serde::{Deserialize, Serialize};

/// Ends kept of one partition at most. With fewer the bounds are wider, never wrong.
const MOST: usize = 6;

/// Ends of a log, oldest first. Times are in ms before the newest poll.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ends {
    /// First and last poll that saw this end, and the end.
    seen: Vec<(u64, u64, i64)>,
}

impl Ends {
    /// Nothing but that a log which is not there any more was seen `ago_ms` before.
    pub(super) fn of_another_log(ago_ms: u64) -> Self {
        Self { seen: vec![(ago_ms, ago_ms, i64::MIN)] }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Adds what a poll saw, `passed_ms` after the one before.
    pub(super) fn add(&mut self, passed_ms: u64, end: i64) {
        for (first, last, _) in &mut self.seen {
            *first = first.saturating_add(passed_ms);
            *last = last.saturating_add(passed_ms);
        }
        match self.seen.last_mut() {
            Some((_, last, held)) if *held == end => *last = 0,
            _ => self.seen.push((0, 0, end)),
        }
    }

    /// How long the record at `offset` has waited: `claimed_ms` by its own time, yet at least
    /// since the first poll that saw it and at most since the last that did not.
    pub(super) fn bounded(&self, offset: i64, claimed_ms: u64) -> u64 {
        let least = self.seen.iter().find(|(.., end)| *end > offset).map_or(0, |(first, ..)| *first);
        let most = self.seen.iter().rev().find(|(.., end)| *end <= offset).map(|(_, last, _)| *last);
        claimed_ms.max(least).min(most.unwrap_or(u64::MAX))
    }

    /// Forgets what no record from `offset` on needs.
    pub(super) fn forget_before(&mut self, offset: i64) {
        let past = self.seen.iter().take_while(|(.., end)| *end <= offset).count();
        self.seen.drain(..past.saturating_sub(1));
        while self.seen.len() > MOST {
            // The oldest two hold the head of the line, the newest is the log's end.
            let between = 2..self.seen.len() - 1;
            let gap = |at: &usize| self.seen[at - 1].0 - self.seen[at + 1].0;
            let closest = between.min_by_key(gap).expect("more than three are kept");
            self.seen.remove(closest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One poll every 10 s.
    fn polled(ends: &[i64]) -> Ends {
        let mut seen = Ends::default();
        for end in ends {
            seen.add(10_000, *end);
        }
        seen
    }

    #[test]
    fn a_records_own_time_counts_between_the_polls_that_saw_it_come() {
        let ends = polled(&[100, 100, 120, 150, 150]);
        for (offset, claimed, expected) in [
            (100, 25_000, 25_000),
            (100, 34_560_000_000, 30_000),
            (100, 0, 20_000),
            (120, 1, 10_000),
            (149, 99_000, 20_000),
            (99, 99_000, 99_000),
            (99, 0, 40_000),
        ] {
            assert_eq!(ends.bounded(offset, claimed), expected, "{offset} by its own time {claimed}");
        }
        assert_eq!(Ends::default().bounded(5, 77_000), 77_000, "nothing was seen yet");
    }

    #[test]
    fn a_log_made_anew_holds_nothing_older_than_the_one_before() {
        let mut ends = Ends::of_another_log(10_000);
        ends.add(0, 20);
        assert_eq!(ends.bounded(3, 99_000_000), 10_000);
    }

    #[test]
    fn what_is_kept_is_little_and_bounds_stay_true() {
        let mut ends = Ends::default();
        for poll in 0..1_000 {
            ends.add(10_000, 100 + poll);
            ends.forget_before(100);
        }
        assert_eq!(ends.seen.len(), MOST);
        assert_eq!(ends.bounded(100, 0), 9_980_000, "since the second poll");
        assert_eq!(ends.bounded(100, u64::MAX), 9_990_000, "and not since the first");
        let (least, most) = (ends.bounded(700, 0), ends.bounded(700, u64::MAX));
        assert!(least <= 3_980_000 && 3_990_000 <= most, "{least} to {most}");
        ends.forget_before(1_099);
        assert_eq!(ends.seen.len(), 1, "a group that keeps up needs one");
    }
}
