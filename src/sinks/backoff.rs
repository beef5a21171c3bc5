//! Pauses between tries.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Pauses that double.
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub fn new((shortest, longest): (Duration, Duration)) -> Self {
        Self { shortest, longest, next: shortest }
    }

    pub fn reset(&mut self) {
        self.next = self.shortest;
    }

    pub fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(self.longest);
        pause
    }

    /// `false` when shutdown ended the wait.
    pub async fn wait(&mut self, shutdown: &CancellationToken) -> bool {
        let pause = self.next();
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }
}
