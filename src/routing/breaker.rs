//! Whether the counters are worth waiting for.

use std::time::Duration;

use tokio::time::Instant;

/// More failures in a row than this open the breaker (`docs/routing.md`).
const TOLERATED: u32 = 3;
/// Pauses between attempts double from here.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Counts failures in a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Breaker {
    failures: u32,
    /// Longest pause; between probes while open.
    pause: Duration,
    next_attempt: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(pause: Duration) -> Self {
        Self { failures: 0, pause, next_attempt: None }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let pause = if self.is_open() { self.pause } else { (FIRST_PAUSE * self.failures).min(self.pause) };
        self.next_attempt = Some(now + pause);
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
        self.next_attempt = None;
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures > TOLERATED
    }

    pub(super) fn is_whole(&self) -> bool {
        self.failures == 0
    }

    /// When something nobody waits for may be tried again; `None`: at once.
    pub(super) fn next_attempt(&self) -> Option<Instant> {
        self.next_attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_failure_in_a_row_opens_it_and_one_success_closes_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(Duration::from_secs(1));
        for _ in 0..3 {
            breaker.failed(now);
            assert!(!breaker.is_open() && !breaker.is_whole());
        }
        breaker.failed(now);
        assert!(breaker.is_open());
        assert_eq!(breaker.next_attempt(), Some(now + Duration::from_secs(1)));
        breaker.succeeded();
        assert!(breaker.is_whole() && breaker.next_attempt().is_none());
        breaker.failed(now);
        assert!(!breaker.is_open(), "in a row means in a row");
    }
}
