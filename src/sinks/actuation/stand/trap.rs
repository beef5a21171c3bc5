//! What befalls the calls of an execution.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// What befalls one call of an execution, to the platform or the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// The process is told to stop.
    Stop,
    /// Somebody else takes the lease.
    Robbed,
    /// The process dies before the call.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
    /// No word, and it had no effect.
    LostBefore,
    /// No word, and it had its effect.
    LostAfter,
    /// It takes long.
    Slow,
    /// It is refused for a while: 429, or no connection to the ledger.
    Refused,
}

pub(crate) const DISTURBANCES: [Disturbance; 8] = [
    Disturbance::Stop,
    Disturbance::Robbed,
    Disturbance::CrashBefore,
    Disturbance::CrashAfter,
    Disturbance::LostBefore,
    Disturbance::LostAfter,
    Disturbance::Slow,
    Disturbance::Refused,
];

/// Which calls are disturbed, counted from 0 over all executions of the decision.
#[derive(Clone, Default)]
pub(crate) struct Trap(pub(super) Arc<TrapState>);

#[derive(Default)]
pub(super) struct TrapState {
    calls: AtomicUsize,
    at: Mutex<BTreeMap<usize, Disturbance>>,
    pub crashed: Notify,
    pub stop: Mutex<CancellationToken>,
}

impl Trap {
    pub(crate) fn set(&self, disturbances: impl IntoIterator<Item = (usize, Disturbance)>) {
        self.0.at.lock().unwrap().extend(disturbances);
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The next call is being made. `rob` takes the lease away.
    pub(super) async fn next(&self, rob: impl FnOnce()) -> Option<Disturbance> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        let disturbance = self.0.at.lock().unwrap().get(&call).copied()?;
        match disturbance {
            Disturbance::Stop => self.0.stop.lock().unwrap().cancel(),
            Disturbance::Robbed => rob(),
            Disturbance::CrashBefore => self.crash().await,
            other => return Some(other),
        }
        None
    }

    pub(super) async fn crash<T>(&self) -> T {
        self.0.crashed.notify_one();
        std::future::pending().await
    }
}
