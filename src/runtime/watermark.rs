//! How far event time has come.
//!
//! Lateness is judged per input partition: the answer then depends on the order
//! within the partition alone, and not on which instance reads which partitions.
//! The stage's own watermark, the least over partitions that are not idle, is for
//! people to look at.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// A fact may be this far ahead of the time its record was written.
pub const FUTURE_TOLERANCE: Duration = Duration::from_secs(60);

/// The latest event time met in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watermark(Option<Timestamp>);

impl Watermark {
    pub fn get(self) -> Option<Timestamp> {
        self.0
    }

    /// Whether a fact of this time is more than `lateness` behind. Exactly
    /// `lateness` behind is still in time.
    pub fn is_late(self, event_time: Timestamp, lateness: Duration) -> bool {
        self.0.is_some_and(|watermark| event_time < watermark.minus(lateness))
    }

    /// Never goes back.
    pub fn advance(&mut self, event_time: Timestamp) {
        self.0 = self.0.max(Some(event_time));
    }
}

/// Whether a fact claims to have happened after its record was written, by more
/// than clocks may differ. One such fact would make everything after it late.
pub fn is_from_the_future(event_time: Timestamp, written_at: Timestamp) -> bool {
    event_time > written_at.plus(FUTURE_TOLERANCE)
}

/// The watermarks of all partitions that one process reads for one stage.
#[derive(Debug)]
pub struct Watermarks {
    idle_after: Duration,
    partitions: BTreeMap<i32, (Watermark, Instant)>,
}

impl Watermarks {
    /// A partition without records for `idle_after` no longer holds the others back.
    pub fn new(idle_after: Duration) -> Self {
        Self { idle_after, partitions: BTreeMap::new() }
    }

    /// The partition was read at `now` and has come to `watermark`.
    pub fn read(&mut self, partition: i32, watermark: Watermark, now: Instant) {
        self.partitions.insert(partition, (watermark, now));
    }

    pub fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }

    /// The least watermark of the partitions that are not idle; the greatest of all
    /// where every one is idle; `None` before the first fact.
    pub fn least(&self, now: Instant) -> Option<Timestamp> {
        let busy = self
            .partitions
            .values()
            .filter(|(_, read_at)| now.saturating_duration_since(*read_at) < self.idle_after)
            .filter_map(|(watermark, _)| watermark.get());
        busy.min().or_else(|| self.partitions.values().filter_map(|(watermark, _)| watermark.get()).max())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000 + seconds * 1_000)
    }

    fn watermark(seconds: i64) -> Watermark {
        Watermark(Some(at(seconds)))
    }

    #[test]
    fn lateness_begins_one_millisecond_after_the_allowance() {
        let allowance = Duration::from_secs(10);
        assert!(!Watermark::default().is_late(Timestamp::MIN, allowance), "nothing is late at first");
        assert!(!watermark(100).is_late(at(90), allowance));
        let just_before = Timestamp::from_millis(at(90).as_millis() - 1);
        assert!(watermark(100).is_late(just_before, allowance));
    }

    #[test]
    fn a_watermark_never_goes_back() {
        let mut watermark = Watermark::default();
        watermark.advance(at(5));
        watermark.advance(at(3));
        assert_eq!(watermark.get(), Some(at(5)));
    }

    #[test]
    fn a_minute_ahead_is_a_clock_and_more_is_the_future() {
        assert!(!is_from_the_future(at(60), at(0)));
        assert!(is_from_the_future(Timestamp::from_millis(at(60).as_millis() + 1), at(0)));
    }

    #[test]
    fn an_idle_partition_does_not_hold_the_others_back() {
        let mut watermarks = Watermarks::new(Duration::from_secs(30));
        let start = Instant::now();
        assert_eq!(watermarks.least(start), None);
        watermarks.read(0, watermark(10), start);
        watermarks.read(1, watermark(50), start + Duration::from_secs(20));
        assert_eq!(watermarks.least(start + Duration::from_secs(29)), Some(at(10)));
        assert_eq!(watermarks.least(start + Duration::from_secs(30)), Some(at(50)));
        assert_eq!(watermarks.least(start + Duration::from_secs(300)), Some(at(50)), "all idle");
        watermarks.forget(1);
        assert_eq!(watermarks.least(start + Duration::from_secs(300)), Some(at(10)));
    }
}
