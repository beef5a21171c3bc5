//! Pauses between tries.

use std::thread;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pauses that double, each lengthened at random by up to its half: those who failed
/// together do not come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Shortest and longest pause between two runs of a thread that failed.
    pub const RESTART: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

    /// From the shortest to the longest, without what is added at random.
    pub const fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    pub fn reset(&mut self) {
        self.next = self.shortest;
    }

    /// Whether nothing has failed since the beginning, or the last [`reset`](Self::reset).
    pub fn is_fresh(&self) -> bool {
        self.next == self.shortest
    }

    pub fn pause(&mut self) -> Duration {
        self.next_at_least(None)
    }

    /// The next pause for whoever was told to wait so long, up to the longest.
    pub fn next_at_least(&mut self, told: Option<Duration>) -> Duration {
        let pause = told.map_or(self.next, |told| told.clamp(self.next, self.longest));
        self.next = (self.next * 2).min(self.longest);
        pause + pause.mul_f64(rand::random_range(0.0..=0.5))
    }

    /// When the next pause, begun now, is over.
    pub fn until(&mut self) -> Instant {
        Instant::now() + self.pause()
    }

    /// Waits on a thread of its own, but not through a shutdown.
    pub fn sleep(&mut self, shutdown: &CancellationToken) {
        sleep(self.pause(), shutdown);
    }

    /// `false` when shutdown ended the wait.
    pub async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let pause = self.pause();
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}

/// Sleeps on a thread of its own, but not through a shutdown.
pub fn sleep(mut pause: Duration, shutdown: &CancellationToken) {
    const LOOK: Duration = Duration::from_millis(50);
    while !pause.is_zero() && !shutdown.is_cancelled() {
        let nap = pause.min(LOOK);
        thread::sleep(nap);
        pause -= nap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_none_is_like_the_other() {
        let (shortest, longest) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut pauses: Vec<Backoff> = (0..20).map(|_| Backoff::new((shortest, longest))).collect();
        let mut due = shortest;
        for _ in 0..10 {
            let taken: Vec<Duration> = pauses.iter_mut().map(Backoff::pause).collect();
            assert!(taken.iter().all(|pause| (due..=due * 3 / 2).contains(pause)), "{taken:?}");
            assert!(taken.iter().any(|pause| *pause != taken[0]), "all at once: {taken:?}");
            due = (due * 2).min(longest);
        }
        pauses[0].reset();
        assert!(pauses[0].is_fresh() && pauses[0].pause() < shortest * 2);
    }

    #[test]
    fn what_one_is_told_to_wait_counts_where_it_is_longer_and_not_too_long() {
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        for (told, least) in [(0, 1), (7, 7), (3_600, 30)] {
            let pause = Backoff::new((shortest, longest)).next_at_least(Some(Duration::from_secs(told)));
            let least = Duration::from_secs(least);
            assert!((least..=least * 3 / 2).contains(&pause), "{pause:?} for {told} s");
        }
    }
}
