//! What holds a decision up on its way to the platform.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;
use crate::model::outcome::Waited;

#[derive(Debug, Default)]
pub(super) struct Waits {
    turn_ms: u64,
    /// Of all calls.
    budget_ms: Arc<AtomicU64>,
    pauses: Duration,
    longest: Duration,
    paused_for: Option<String>,
}

impl Waits {
    pub(super) fn for_its_turn(&mut self, decided_at: Timestamp, now: Timestamp) {
        self.turn_ms = u64::try_from(now.millis_since(decided_at)).unwrap_or(0);
    }

    /// Where calls add what they wait, in milliseconds.
    pub(super) fn for_the_budget(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.budget_ms)
    }

    pub(super) fn for_a_pause(&mut self, took: Duration, reason: Option<&str>) {
        self.pauses = self.pauses.saturating_add(took);
        if took >= self.longest {
            self.longest = took;
            // Postgres keeps no U+0000 in texts.
            self.paused_for = reason.map(|reason| reason.replace('\0', "\u{fffd}"));
        }
    }

    pub(super) fn told(&self) -> Waited {
        Waited {
            turn_ms: self.turn_ms,
            budget_ms: self.budget_ms.load(Ordering::Relaxed),
            pauses_ms: u64::try_from(self.pauses.as_millis()).unwrap_or(u64::MAX),
            paused_for: self.paused_for.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_the_longest_pause_names_its_reason() {
        let mut waits = Waits::default();
        let at = Timestamp::from_millis(1_000);
        waits.for_its_turn(at, at.plus(Duration::from_millis(40)));
        waits.for_the_budget().fetch_add(7, Ordering::Relaxed);
        waits.for_the_budget().fetch_add(5, Ordering::Relaxed);
        for (ms, reason) in [(10, "first"), (30, "HTTP 503\0"), (20, "last")] {
            waits.for_a_pause(Duration::from_millis(ms), Some(reason));
        }
        let told = waits.told();
        assert_eq!((told.turn_ms, told.budget_ms, told.pauses_ms), (40, 12, 60));
        assert_eq!(told.paused_for.as_deref(), Some("HTTP 503\u{fffd}"));
        waits.for_its_turn(at, at.minus(Duration::from_secs(1)));
        assert_eq!(waits.told().turn_ms, 0, "clocks differ");
    }
}
