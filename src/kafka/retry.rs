//! Waits between tries of threads that poll.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// 200 ms, doubling to 10 s.
pub(crate) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(200)
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(Duration::from_secs(10))
}

/// Sleeps, but not through a shutdown.
pub(crate) fn wait(duration: Duration, shutdown: &CancellationToken) {
    let until = Instant::now() + duration;
    while !shutdown.is_cancelled() {
        match until.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => std::thread::sleep(left.min(Duration::from_millis(50))),
            _ => return,
        }
    }
}
