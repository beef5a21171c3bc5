//! How long transactions may take.

use std::time::Duration;

/// How long transactions may take.
#[derive(Clone, Debug)]
pub struct TransactionSettings {
    /// `transaction.timeout.ms`: after this the broker aborts a transaction left
    /// open, and readers of its partitions go on. Default 10 s.
    pub timeout: Duration,
    /// How long records wait for company before they are sent; the end of a
    /// transaction does not wait for it. Default 3 ms: longer, and they have left the caches.
    pub linger: Duration,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), linger: Duration::from_millis(3) }
    }
}
