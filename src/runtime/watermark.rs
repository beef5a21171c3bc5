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
use crate::pipeline::latest_possible;

/// The latest event time met in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

    /// Takes a watermark back that is further ahead of the clock than any fact may be:
    /// some other clock has moved it. Answers by how much, in milliseconds.
    pub fn heal(&mut self, at: Timestamp) -> Option<i64> {
        let ahead = self.0.filter(|watermark| is_from_the_future(*watermark, at))?;
        self.0 = Some(at);
        Some(ahead.millis_since(at))
    }
}

/// Whether a fact claims to have happened after a clock's time, its record's or the reader's,
/// by more than clocks may differ. One such fact would make everything after it late.
pub fn is_from_the_future(event_time: Timestamp, clock: Timestamp) -> bool {
    event_time > latest_possible(clock)
}

/// For how long a record bears the clock out.
const WITNESS_SPAN: Duration = Duration::from_secs(60);

/// How far behind this machine's clock the records are that were read lately. A clock that is
/// ahead finds every record behind it: what it says about a partition without records must not
/// go further than records elsewhere bear out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Witnesses {
    /// Least distance of a record's own time behind the clock, in milliseconds: of this span
    /// and of the one before it.
    present: Option<i64>,
    before: Option<i64>,
    ends: Timestamp,
}

impl Witnesses {
    /// A record written at `written_at` was read at `at`.
    pub fn add(&mut self, written_at: Timestamp, at: Timestamp) {
        if at >= self.ends || at.plus(WITNESS_SPAN) < self.ends {
            let is_next = at < self.ends.plus(WITNESS_SPAN) && at >= self.ends;
            self.before = self.present.take().filter(|_| is_next);
            self.ends = at.plus(WITNESS_SPAN);
        }
        let behind_ms = at.millis_since(written_at).max(0);
        self.present = Some(self.present.map_or(behind_ms, |least| least.min(behind_ms)));
    }

    /// The latest time that a record bears out; `None` before the first record.
    pub fn borne_out(&self, at: Timestamp) -> Option<Timestamp> {
        let behind_ms = [self.present, self.before].into_iter().flatten().min()?;
        Some(at.minus(Duration::from_millis(behind_ms.unsigned_abs())))
    }
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
    fn a_watermark_ahead_of_the_clock_heals_and_one_that_may_be_stays() {
        let mut ahead = watermark(3_000);
        assert_eq!(ahead.heal(at(0)), Some(3_000_000));
        assert_eq!(ahead.get(), Some(at(0)));
        let mut within = watermark(60);
        assert_eq!(within.heal(at(0)), None);
        assert_eq!(within.get(), Some(at(60)));
    }

    #[test]
    fn a_clock_is_borne_out_by_the_newest_record_read_lately() {
        let mut witnesses = Witnesses::default();
        assert_eq!(witnesses.borne_out(at(0)), None);
        witnesses.add(at(-3_000), at(0));
        assert_eq!(witnesses.borne_out(at(0)), Some(at(-3_000)), "the clock is ahead, or the record old");
        witnesses.add(at(-1), at(1));
        assert_eq!(witnesses.borne_out(at(30)), Some(at(28)), "time goes on from there");
        // The clock is put forward by 50 minutes; the old witnesses are forgotten with time.
        witnesses.add(at(30), at(3_030));
        assert_eq!(witnesses.borne_out(at(3_030)), Some(at(30)));
        witnesses.add(at(20), at(20));
        assert_eq!(witnesses.borne_out(at(20)), Some(at(20)), "and put back");
        witnesses.add(at(99), at(9));
        assert_eq!(witnesses.borne_out(at(20)), Some(at(20)), "a record ahead bears out no more than now");
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
