//! How many events an instance takes per second, and when brokers that are away are tried again.

use std::time::{Duration, Instant};

/// A bucket that fills at the rate and holds one second of it. More than that at once is
/// taken from a full bucket and worked off afterwards.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    /// `per_second` is at least 1.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self { per_second, left: per_second, at: now }
    }

    /// # Errors
    /// How long it takes until that many may come; nothing is taken then.
    pub(super) fn take(&mut self, events: usize, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.per_second);
        self.at = now;
        let wanted = events as f64;
        let needed = wanted.min(self.per_second);
        if self.left < needed {
            return Err(Duration::from_secs_f64((needed - self.left) / self.per_second));
        }
        self.left -= wanted;
        Ok(())
    }
}

/// Lets requests through while the brokers take records; after a failure one at a time,
/// so that nobody waits in vain and nothing piles up.
#[derive(Debug, Default)]
pub(super) struct Gate {
    next_try: Option<Instant>,
}

impl Gate {
    /// Whether a request may go to the brokers now.
    pub(super) fn admits(&mut self, now: Instant, pause: Duration) -> bool {
        match self.next_try {
            None => true,
            Some(next_try) if now < next_try => false,
            Some(_) => {
                self.next_try = Some(now + pause);
                true
            }
        }
    }

    pub(super) fn failed(&mut self, now: Instant, pause: Duration) {
        self.next_try = Some(now + pause);
    }

    pub(super) fn worked(&mut self) {
        self.next_try = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_rate_holds_over_time_and_large_requests_come_through() {
        let start = Instant::now();
        let mut rate = Rate::new(100, start);
        assert_eq!(rate.take(60, start), Ok(()));
        assert!(rate.take(60, start).is_err());
        assert_eq!(rate.take(40, start), Ok(()));
        let wait = rate.take(50, start).unwrap_err();
        assert!((wait.as_secs_f64() - 0.5).abs() < 1e-9, "{wait:?}");
        assert_eq!(rate.take(50, start + SECOND / 2), Ok(()));
        // A minute's idleness is no minute's credit.
        let later = start + 60 * SECOND;
        assert_eq!(rate.take(1_000, later), Ok(()));
        assert!(rate.take(1, later + 9 * SECOND).is_err());
        assert_eq!(rate.take(1, later + 10 * SECOND), Ok(()));
    }

    #[test]
    fn after_a_failure_one_request_at_a_time_tries_again() {
        let start = Instant::now();
        let mut gate = Gate::default();
        assert!(gate.admits(start, SECOND) && gate.admits(start, SECOND));
        gate.failed(start, SECOND);
        assert!(!gate.admits(start, SECOND));
        let later = start + SECOND;
        assert!(gate.admits(later, SECOND) && !gate.admits(later, SECOND));
        gate.worked();
        assert!(gate.admits(later, SECOND) && gate.admits(later, SECOND));
    }
}
