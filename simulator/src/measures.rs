//! Interactions and errors of one flow, second by second of real time.

use std::collections::VecDeque;

use crate::time::Timestamp;

/// How far back the measures reach.
const KEPT_SECONDS: i64 = 2 * 3_600;

/// What happened within a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub interactions: u64,
    pub errors: u64,
}

/// Counted when an interaction leaves the flow.
#[derive(Clone, Debug, Default)]
pub struct Measures {
    /// Epoch second and what happened in it, in order of time.
    seconds: VecDeque<(i64, Total)>,
}

impl Measures {
    pub fn count(&mut self, at: Timestamp, failed: bool) {
        let second = at.as_millis().div_euclid(1_000);
        let index = self.seconds.partition_point(|held| held.0 < second);
        if self.seconds.get(index).is_none_or(|held| held.0 != second) {
            self.seconds.insert(index, (second, Total::default()));
        }
        let total = &mut self.seconds[index].1;
        total.interactions += 1;
        total.errors += u64::from(failed);
        let newest = self.seconds.back().map_or(second, |held| held.0);
        while self.seconds.front().is_some_and(|held| held.0 < newest - KEPT_SECONDS) {
            self.seconds.pop_front();
        }
    }

    /// From the second `start` lies in up to, and without, the one of `end`.
    pub fn between(&self, start: Timestamp, end: Timestamp) -> Total {
        let second = |at: Timestamp| at.as_millis().div_euclid(1_000);
        let first = self.seconds.partition_point(|held| held.0 < second(start));
        let within = self.seconds.iter().skip(first).take_while(|held| held.0 < second(end));
        within.fold(Total::default(), |sum, (_, total)| Total {
            interactions: sum.interactions + total.interactions,
            errors: sum.errors + total.errors,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_what_happened_in_them_and_old_seconds_go() {
        let mut measures = Measures::default();
        let at = Timestamp::from_millis;
        for (ms, failed) in [(61_500, false), (60_000, true), (119_999, true), (120_000, false)] {
            measures.count(at(ms), failed);
        }
        let total = |interactions, errors| Total { interactions, errors };
        assert_eq!(measures.between(at(60_000), at(120_000)), total(3, 2));
        assert_eq!(measures.between(at(0), at(500_000)), total(4, 2));
        assert_eq!(measures.between(at(121_000), at(500_000)), total(0, 0));
        measures.count(at(120_000 + KEPT_SECONDS * 1_000), false);
        assert_eq!(measures.between(at(0), at(i64::MAX)), total(2, 0));
    }
}
