//! The version in force: its minutes become buckets, streaks and statistics.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attribution::ShiryaevRoberts;
use super::history::{InteractionCounts, Past, Standing};
use super::rule::{Rule, exceeds};
use crate::model::Timestamp;
use crate::model::rollback::{Baseline, Bucket, Statistics};

/// Closed buckets kept for the record.
const BUCKETS_KEPT: usize = 8;

/// One complete minute of the version in force.
#[derive(Clone, Copy, Debug)]
pub struct Minute {
    pub from: Timestamp,
    pub total: u64,
    pub errors: u64,
}

/// Errors per interaction over these buckets, 0–1; 0 without any.
pub(super) fn error_rate(buckets: &[Bucket]) -> f64 {
    let total: u64 = buckets.iter().map(|bucket| bucket.total).sum();
    let errors: u64 = buckets.iter().map(|bucket| bucket.errors).sum();
    if total == 0 { 0.0 } else { errors as f64 / total as f64 }
}

/// What is known about the version in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watch {
    pub version: String,
    pub since: Timestamp,
    pub armed_until: Timestamp,
    /// Newest minute seen.
    pub minute: Timestamp,
    /// Minutes without interactions in a row, up to the newest.
    pub silent: u32,
    pub counts: InteractionCounts,
    open: Option<Bucket>,
    pub closed: Vec<Bucket>,
    pub inconclusive: bool,
    pub breaches: u32,
    pub recoveries: u32,
    worse: ShiryaevRoberts,
    severe: ShiryaevRoberts,
    minutes: u32,
    errors: u64,
    /// Something was decided, and the rate has not come down since.
    pub fired: bool,
    /// It was decided to take it back.
    pub bad: bool,
    /// And that because it is worse than the one before.
    pub proven_worse: bool,
    in_maintenance: bool,
    /// Since when there was no row of breaches: its beginning, or the end of the last one.
    #[serde(default = "never")]
    clear_since: Timestamp,
    /// It proved good when it was in force before.
    #[serde(default)]
    was_proven: bool,
}

/// For states from before: nothing is proven by them.
fn never() -> Timestamp {
    Timestamp::from_millis(i64::MAX)
}

impl Watch {
    pub fn new(version: String, since: Timestamp, armed_until: Timestamp, counts: InteractionCounts) -> Self {
        Self {
            clear_since: since,
            was_proven: false,
            version,
            since,
            armed_until,
            minute: Timestamp::MIN,
            silent: 0,
            counts,
            open: None,
            closed: Vec::new(),
            inconclusive: true,
            breaches: 0,
            recoveries: 0,
            worse: ShiryaevRoberts::default(),
            severe: ShiryaevRoberts::default(),
            minutes: 0,
            errors: 0,
            fired: false,
            bad: false,
            proven_worse: false,
            in_maintenance: false,
        }
    }

    /// One more minute, later than all before. A minute in between that is missing leaves
    /// streak and statistics as they are.
    pub fn feed(&mut self, rule: &Rule, minute: Minute, baseline: Option<&Baseline>, maintenance: bool) {
        if self.in_maintenance && !maintenance {
            self.begin_anew();
        }
        self.in_maintenance = maintenance;
        self.minute = minute.from;
        self.silent = if minute.total == 0 { self.silent.saturating_add(1) } else { 0 };
        if !maintenance {
            self.counts.add(minute.from, minute.total, minute.errors);
        }
        self.weigh(rule, minute, baseline);
        if let Some(bucket) = self.fill(rule, minute) {
            self.close(rule, bucket);
        }
    }

    /// The evidence of streaks and statistics is forgotten; what was decided is not.
    fn begin_anew(&mut self) {
        self.open = None;
        self.closed.clear();
        self.inconclusive = true;
        (self.breaches, self.recoveries) = (0, 0);
        self.forget_statistics();
    }

    fn forget_statistics(&mut self) {
        (self.worse, self.severe) = Default::default();
        (self.minutes, self.errors) = (0, 0);
    }

    /// A minute without interactions says nothing.
    fn weigh(&mut self, rule: &Rule, minute: Minute, baseline: Option<&Baseline>) {
        if minute.total == 0 {
            return;
        }
        self.minutes = self.minutes.saturating_add(1);
        self.errors = self.errors.saturating_add(minute.errors);
        if let Some(baseline) = baseline {
            let granted = baseline.granted_rate;
            self.worse.feed(granted, minute.errors, minute.total);
            self.severe.feed(granted.max(rule.threshold), minute.errors, minute.total);
        }
    }

    /// Adds the minute to the open bucket; a bucket closes at a minute's edge.
    fn fill(&mut self, rule: &Rule, minute: Minute) -> Option<Bucket> {
        let until = minute.from.plus(rule.minute);
        let mut bucket = self.open.take().unwrap_or(Bucket { from: minute.from, until, total: 0, errors: 0 });
        bucket.until = until;
        bucket.total = bucket.total.saturating_add(minute.total);
        bucket.errors = bucket.errors.saturating_add(minute.errors);
        if bucket.total >= rule.bucket_interactions {
            return Some(bucket);
        }
        if until >= bucket.from.plus(rule.minutes(rule.bucket_minutes)) {
            // Given up: neither a breach nor healthy.
            self.inconclusive = true;
        } else {
            self.open = Some(bucket);
        }
        None
    }

    fn close(&mut self, rule: &Rule, bucket: Bucket) {
        self.inconclusive = false;
        if exceeds(bucket.errors, bucket.total, rule.threshold) {
            if self.breaches == 0 {
                self.closed.clear();
            }
            self.breaches = self.breaches.saturating_add(1);
            if self.breaches >= rule.breaches {
                (self.clear_since, self.was_proven) = (bucket.until, false);
            }
        } else {
            self.breaches = 0;
            self.closed.clear();
        }
        if self.closed.len() == BUCKETS_KEPT {
            self.closed.remove(0);
        }
        self.closed.push(bucket);
        self.rearm(rule, bucket);
    }

    /// Hysteresis: what has fired may fire again once the rate has stayed low.
    fn rearm(&mut self, rule: &Rule, bucket: Bucket) {
        let low = !exceeds(bucket.errors, bucket.total, rule.rearm_rate);
        self.recoveries = if self.fired && low { self.recoveries + 1 } else { 0 };
        if self.fired && self.recoveries >= rule.rearm_buckets {
            self.fired = false;
            self.recoveries = 0;
            self.forget_statistics();
        }
    }

    /// It was in force before, and this is what is known of that.
    pub fn remember(&mut self, before: &Past) {
        self.was_proven = before.standing == Standing::Proven;
    }

    /// The version as it is remembered from now on, another one being in force; an `older` one,
    /// where people went back.
    /// What was counted from `mixed_from` on is not its own, and does not speak against it.
    pub fn into_past(self, rule: &Rule, older: bool, bad: bool, mixed_from: Option<Timestamp>) -> Past {
        let (armed, until) = (rule.minutes(rule.armed_minutes), self.minute.plus(rule.minute));
        let is_its_own = |bucket: &Bucket| mixed_from.is_none_or(|from| bucket.until <= from);
        let not_its_own = self.closed.last().is_some_and(|last| !is_its_own(last));
        let breaches = self.breaches.saturating_sub(not_its_own.into());
        let proven = self.was_proven || until >= self.clear_since.plus(armed);
        // One high minute is no more than chance in a version that proved good.
        let fails = breaches >= rule.breaches
            || self.fired
            || !proven
                && (breaches > 0
                    || self
                        .open
                        .filter(is_its_own)
                        .is_some_and(|it| exceeds(it.errors, it.total, rule.threshold)));
        let standing = match () {
            () if older => Standing::LeftForOlder,
            () if fails => Standing::Failing,
            () if proven => Standing::Proven,
            () => Standing::Unproven,
        };
        let established = self.was_proven || until >= self.since.plus(armed);
        Past { version: self.version, counts: self.counts, minute: self.minute, bad, standing, established }
    }

    /// A decision to take it back was refused: it stands as if it had not been taken.
    pub fn refused(&mut self) {
        (self.fired, self.bad, self.proven_worse) = (false, false, false);
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            worse_than_before: self.worse.mean(),
            severe: self.severe.mean(),
            minutes: self.minutes,
            errors: self.errors,
        }
    }

    /// Errors per interaction: of the closed buckets where there are any, else of the
    /// hours seen so far in the open one.
    pub fn error_rate(&self) -> f64 {
        error_rate(if self.closed.is_empty() { self.open.as_slice() } else { &self.closed[..] })
    }

    /// Whether nothing was heard of it for so long that another version's interactions
    /// mean that it is no longer in force.
    pub fn is_silent(&self, minutes: u32, at: Timestamp, minute: Duration) -> bool {
        self.silent >= minutes || at >= self.minute.plus(minute.saturating_mul(minutes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_MS: i64 = 60_000;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_767_323_040_000 + ms)
    }

    /// How a version is remembered that had good minutes and, as its last one, these errors; the one after
    /// it was published so many milliseconds after the last minute's beginning, where that is known.
    fn standing(total: u64, errors: u64, mixed_from: Option<i64>) -> Standing {
        let rule = Rule::default();
        let mut watch = Watch::new("1".to_owned(), at(0), at(0), InteractionCounts::default());
        for number in 0..3 {
            let minute = Minute { from: at(number * MINUTE_MS), total: 100, errors: 0 };
            watch.feed(&rule, minute, None, false);
        }
        let last = Minute { from: at(3 * MINUTE_MS), total, errors };
        watch.feed(&rule, last, None, false);
        watch.into_past(&rule, false, false, mixed_from.map(|ms| at(3 * MINUTE_MS + ms))).standing
    }

    #[test]
    fn errors_of_the_version_after_it_do_not_speak_against_one() {
        for (total, errors) in [(14, 1), (100, 30)] {
            assert_eq!(standing(total, errors, None), Standing::Failing, "its own, as far as is known");
            assert_eq!(standing(total, errors, Some(40_000)), Standing::Unproven, "published meanwhile");
            assert_eq!(standing(total, errors, Some(MINUTE_MS)), Standing::Failing, "published afterwards");
        }
    }
}
