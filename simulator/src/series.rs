//! Figures over time, by the second for a while and by the minute for days.

use std::collections::VecDeque;
use std::ops::AddAssign;

use crate::time::Timestamp;

/// How far back seconds are kept apart: half an hour.
const SECONDS_KEPT: i64 = 1_800;
/// How far back there are minutes.
const MINUTES_KEPT: i64 = 8 * 24 * 60;

/// Sums of `T` by the machine's clock. What is older than half an hour is known by the
/// minute, what is older than eight days no more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series<T> {
    /// Epoch second and what happened in it, in order of time.
    seconds: VecDeque<(i64, T)>,
    /// The same by epoch minute, of older seconds.
    minutes: VecDeque<(i64, T)>,
}

impl<T: AddAssign + Copy + Default> Series<T> {
    pub(crate) fn add(&mut self, at: Timestamp, figures: T) {
        let second = at.as_millis().div_euclid(1_000);
        add_at(&mut self.seconds, second, figures);
        let newest = self.seconds.back().map_or(second, |held| held.0);
        while let Some(&(old, figures)) = self.seconds.front().filter(|held| held.0 < newest - SECONDS_KEPT) {
            add_at(&mut self.minutes, old.div_euclid(60), figures);
            self.seconds.pop_front();
        }
        let oldest_minute = newest.div_euclid(60) - MINUTES_KEPT;
        while self.minutes.front().is_some_and(|held| held.0 < oldest_minute) {
            self.minutes.pop_front();
        }
    }

    /// Of the seconds, and old minutes, that began at `start` or later and before `end`: spans
    /// side by side have everything once, and one up to now has the second that runs.
    pub(crate) fn between(&self, start: Timestamp, end: Timestamp) -> T {
        let mut sum = T::default();
        for (held, unit_ms) in [(&self.minutes, 60_000), (&self.seconds, 1_000)] {
            let from =
                |at: Timestamp| at.as_millis().div_euclid(unit_ms) + i64::from(at.as_millis() % unit_ms != 0);
            within(held, from(start), from(end)).for_each(|figures| sum += figures);
        }
        sum
    }
}

fn add_at<T: AddAssign + Default>(held: &mut VecDeque<(i64, T)>, key: i64, figures: T) {
    let index = held.partition_point(|it| it.0 < key);
    if held.get(index).is_none_or(|it| it.0 != key) {
        held.insert(index, (key, T::default()));
    }
    held[index].1 += figures;
}

fn within<T: Copy>(held: &VecDeque<(i64, T)>, first: i64, end: i64) -> impl Iterator<Item = T> {
    let begin = held.partition_point(|it| it.0 < first);
    held.iter().skip(begin).take_while(move |it| it.0 < end).map(|it| it.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_what_happened_in_them_however_old_it_is() {
        let mut series = Series::<u64>::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        for (second, figure) in [(61, 1), (60, 10), (119, 100), (120, 1_000)] {
            series.add(at(second), figure);
        }
        assert_eq!(series.between(at(60), at(120)), 111);
        assert_eq!(series.between(at(61), at(121)), 1_101);
        assert_eq!(series.between(at(121), at(500)), 0);
        let within_a_second = Timestamp::from_millis(119_001);
        assert_eq!(series.between(at(60), within_a_second), 111, "the second that runs");
        assert_eq!(series.between(within_a_second, at(121)), 1_000, "and not once more");
        series.add(at(SECONDS_KEPT + 200), 5);
        assert_eq!(series.between(at(60), at(120)), 111, "by the minute now");
        assert_eq!((series.seconds.len(), series.minutes.len()), (1, 2));
        series.add(at((MINUTES_KEPT + 60) * 60), 7);
        series.add(at((MINUTES_KEPT + 60) * 60 + SECONDS_KEPT + 1), 7);
        assert_eq!(series.between(at(0), at(i64::MAX / 2_000)), 14, "what is older than days is gone");
    }
}
