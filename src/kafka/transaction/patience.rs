//! How long a step of a transaction is tried, and what is served meanwhile.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use tokio_util::sync::CancellationToken;

use super::verdict::{TransactionError, Verdict, is_retriable};
use super::watch::Watch;

/// One call into librdkafka waits at most this long, so that a shutdown is noticed.
pub(super) const SLICE: Duration = Duration::from_millis(250);
/// After a shutdown was asked for, the open transaction gets this long to end.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(1_500);

/// How long to go on trying.
pub(super) struct Patience<'a> {
    started: Instant,
    limit: Duration,
    shutdown: &'a CancellationToken,
    shutdown_seen: Cell<Option<Instant>>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(limit: Duration, shutdown: &'a CancellationToken) -> Self {
        Self { started: Instant::now(), limit, shutdown, shutdown_seen: Cell::new(None) }
    }

    pub(super) fn is_over(&self) -> bool {
        if self.shutdown.is_cancelled() {
            let seen = self.shutdown_seen.get().unwrap_or_else(Instant::now);
            self.shutdown_seen.set(Some(seen));
            if seen.elapsed() >= SHUTDOWN_GRACE {
                return true;
            }
        }
        self.started.elapsed() >= self.limit
    }

    /// Calls `step`, in slices, until it ends with anything but "try again".
    pub(super) fn retry(
        &self,
        name: &'static str,
        client: &BaseProducer<Watch>,
        step: impl Fn() -> Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        loop {
            let before = Instant::now();
            match step() {
                Ok(()) => return Ok(()),
                Err(cause) if is_retriable(&cause) => {
                    if self.is_over() {
                        return Err(TransactionError { verdict: Verdict::Unknown, step: name, cause });
                    }
                    // An answer of "try again" that came at once must not spin.
                    let at_once = before.elapsed() < SLICE / 5;
                    serve(client, if at_once { Duration::from_millis(20) } else { Duration::ZERO });
                }
                Err(cause) => return Err(TransactionError::new(name, cause)),
            }
        }
    }
}

/// Serves what waits, then sleeps. Not `poll` with a timeout: that spins through the
/// last millisecond of it.
pub(super) fn serve(client: &BaseProducer<Watch>, sleep: Duration) {
    client.poll(Duration::ZERO);
    std::thread::sleep(sleep);
}

/// Serves the events that wait. One call of `poll` serves one.
pub(super) fn drain(client: &BaseProducer<Watch>) {
    for _ in 0..16 {
        client.poll(Duration::ZERO);
    }
}
