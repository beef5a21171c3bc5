//! When things that repeat are due.

use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::model::Timestamp;

/// Something that happens once per interval, at its own point of it: a hash of
/// the key spreads many of them evenly, the same on every instance.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    interval_ms: i64,
    phase_ms: i64,
}

impl Schedule {
    /// An interval is at least a millisecond.
    pub(super) fn new(key: &str, interval: Duration) -> Self {
        let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
        let digest = Sha256::digest(key);
        let hash = u64::from_be_bytes(digest[..8].try_into().expect("eight bytes"));
        // Below interval_ms, so it fits.
        let phase_ms = (hash % interval_ms.unsigned_abs()) as i64;
        Self { interval_ms, phase_ms }
    }

    /// How long to wait at `now`, after the last time: to the next point, but at
    /// least half an interval. Points that were missed are left out.
    pub(super) fn wait(&self, now: Timestamp) -> Duration {
        let into = (now.as_millis() - self.phase_ms).rem_euclid(self.interval_ms);
        let mut wait = self.interval_ms - into;
        if wait < self.interval_ms / 2 {
            wait += self.interval_ms;
        }
        Duration::from_millis(wait.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    #[test]
    fn a_key_keeps_its_own_point_of_the_interval() {
        let schedule = Schedule::new("a", INTERVAL);
        let mut now = Timestamp::from_millis(1_767_323_045_678);
        now = now.plus(schedule.wait(now));
        for late_ms in [0, 1, 400, 14_999] {
            let next = now.plus(Duration::from_millis(late_ms));
            let next = next.plus(schedule.wait(next));
            assert_eq!(next.millis_since(now), 30_000, "{late_ms} ms late");
            now = next;
        }
        let behind = now.plus(Duration::from_millis(15_001));
        assert_eq!(
            behind.plus(schedule.wait(behind)).millis_since(now),
            60_000,
            "the missed one is left out"
        );
    }

    #[test]
    fn a_wait_is_between_half_and_one_and_a_half_intervals() {
        for offset in 0..100 {
            let now = Timestamp::from_millis(1_767_323_045_678 + offset * 997);
            let wait = Schedule::new("b", INTERVAL).wait(now);
            assert!((15_000..45_000).contains(&wait.as_millis()), "{wait:?}");
        }
    }

    #[test]
    fn many_keys_are_spread_over_the_interval() {
        let mut thirds = [0; 3];
        for key in 0..300 {
            let schedule = Schedule::new(&key.to_string(), INTERVAL);
            thirds[(schedule.phase_ms / 10_001) as usize] += 1;
        }
        assert!(thirds.iter().all(|count| (70..130).contains(count)), "{thirds:?}");
    }
}
