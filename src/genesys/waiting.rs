//! The calls of this instance that wait for a permit.
//!
//! A call takes one permit, right before it is sent. Permits come from a
//! [`PermitStore`] that all instances share; here the calls that wait are served
//! in the order of [`Waiting`].

use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::BoxFuture;
use super::budget::{BucketShape, Limits, Permit, PermitStore, StoreError, Take, UNTOLD_WAIT};
use super::priority::Priority;
use super::turns::{NoPermit, Waiting};
use crate::health::Part;

/// Longest time between two questions to the store while a call waits: another
/// instance may have been corrected meanwhile.
const LONGEST_NAP: Duration = Duration::from_secs(5);
/// Longest time a store may take to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// This instance's door to the budget.
#[derive(Debug)]
pub(super) struct Budget {
    inner: Arc<Inner>,
    _dispatcher: AbortOnDropHandle<()>,
}

struct Inner {
    store: Arc<dyn PermitStore>,
    shape: BucketShape,
    waiting: Mutex<Waiting>,
    /// The call to be served next is another one, or there was none before.
    changed: Notify,
    correcting: AtomicBool,
    health: Part,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Budget {
    /// Needs a running tokio runtime; its task ends with the last clone of the client.
    pub(super) fn new(store: Arc<dyn PermitStore>, shape: BucketShape, health: Part) -> Self {
        health.ready();
        let inner = Arc::new(Inner {
            store,
            shape,
            waiting: Mutex::default(),
            changed: Notify::new(),
            correcting: AtomicBool::new(false),
            health,
        });
        let dispatcher = AbortOnDropHandle::new(tokio::spawn(dispatch(inner.clone())));
        Self { inner, _dispatcher: dispatcher }
    }

    /// Waits for a permit; dropping the future gives up the place in the queue.
    pub(super) async fn permit(&self, priority: Priority) -> Result<Permit, NoPermit> {
        let (reply, answer) = oneshot::channel();
        if self.inner.waiting().push(in_order(priority), reply)? {
            self.inner.changed.notify_one();
        }
        answer.await.unwrap_or_else(|_| Err(NoPermit::Store("the client is shutting down".to_owned())))
    }

    /// Takes note of a reply that was no 429. Never waits.
    pub(super) fn accepted(&self, permit: Permit, limits: Option<Limits>) {
        // A token or two of difference are calls on their way.
        let limits = limits.filter(|limits| self.inner.shape.ceiling(*limits) < permit.left - 2.0);
        if permit.refusals > 0 {
            // All others wait for this.
            let inner = self.inner.clone();
            tokio::spawn(async move {
                log_failure("accepted", bounded(inner.store.accepted()).await);
                inner.changed.notify_one();
            });
        }
        let Some(limits) = limits else { return };
        if self.inner.correcting.swap(true, Atomic::AcqRel) {
            return;
        }
        let inner = self.inner.clone();
        tokio::spawn(async move {
            tracing::info!(
                remaining = limits.remaining,
                reset_seconds = limits.reset_seconds,
                "the platform has counted more calls than this budget: lowered"
            );
            log_failure("correct", bounded(inner.store.correct(limits)).await);
            inner.correcting.store(false, Atomic::Release);
        });
    }

    /// Takes note of a 429 and says until when nobody calls. The store is told
    /// even if this future is dropped.
    pub(super) async fn refused(&self, retry_after: Option<Duration>) -> Instant {
        let received = Instant::now();
        let inner = self.inner.clone();
        let telling = tokio::spawn(async move { bounded(inner.store.refused(retry_after)).await });
        match telling.await {
            Ok(Ok(wait)) => received + wait,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a 429 could not be told to the shared budget yet");
                self.inner.waiting().untold_refusal = Some(retry_after);
                received + retry_after.unwrap_or(UNTOLD_WAIT)
            }
            Err(_) => received + retry_after.unwrap_or(UNTOLD_WAIT),
        }
    }
}

/// What its urgency is worth; for comparison tests can make nothing of it.
fn in_order(priority: Priority) -> Priority {
    fail::fail_point!("first-come-first-served", |_| Priority::Read);
    priority
}

fn log_failure(what: &str, result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::warn!(%error, what, "the shared budget could not be updated");
    }
}

async fn bounded<T>(asked: BoxFuture<'_, Result<T, StoreError>>) -> Result<T, StoreError> {
    timeout(STORE_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(StoreError(format!("no answer within {} s", STORE_TIMEOUT.as_secs()))))
}

impl Inner {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the store for one permit after the other, always for the first call.
async fn dispatch(inner: Arc<Inner>) {
    loop {
        let Some(priority) = inner.waiting().first() else {
            inner.changed.notified().await;
            continue;
        };
        match next_permit(&inner, priority).await {
            Ok(Take::Granted(permit)) => {
                inner.health.ready();
                inner.waiting().give(permit);
            }
            Ok(Take::Wait(wait)) => {
                inner.health.ready();
                tokio::select! {
                    () = sleep(wait.clamp(Duration::from_millis(1), LONGEST_NAP)) => {}
                    () = inner.changed.notified() => {}
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the shared budget cannot be asked: no calls are made");
                inner.health.not_ready(format!("the shared budget cannot be asked: {error}"));
                inner.waiting().turn_away(&error);
            }
        }
    }
}

async fn next_permit(inner: &Inner, priority: Priority) -> Result<Take, StoreError> {
    let untold = inner.waiting().untold_refusal;
    if let Some(retry_after) = untold {
        bounded(inner.store.refused(retry_after)).await?;
        inner.waiting().untold_refusal = None;
    }
    bounded(inner.store.take(priority)).await
}

#[cfg(test)]
mod tests {
    use super::super::budget::InProcessPermits;
    use super::*;
    use crate::health::Health;

    const MINUTE: Duration = Duration::from_secs(60);

    fn shape(requests: u32) -> BucketShape {
        BucketShape::new(requests, MINUTE)
    }

    fn budget(store: Arc<dyn PermitStore>, requests: u32) -> Budget {
        Budget::new(store, shape(requests), Health::default().part("budget"))
    }

    #[tokio::test]
    async fn waiting_calls_are_served_by_priority_then_in_order_and_reads_have_their_turns() {
        let store = Arc::new(InProcessPermits::new(shape(60)));
        store.refused(Some(Duration::from_millis(300))).await.unwrap();
        let budget = Arc::new(budget(store, 60));
        let served = Arc::new(Mutex::new(Vec::new()));
        let change = |size_hundredths| Priority::DialChange { size_hundredths };
        let asked = [
            ("small", change(1)),
            ("read 1", Priority::Read),
            ("read 2", Priority::Read),
            ("big", change(100)),
            ("rollback", Priority::Rollback),
            ("big too", change(100)),
        ];
        let mut calls = Vec::new();
        for (name, priority) in asked {
            let (budget, served) = (budget.clone(), served.clone());
            calls.push(tokio::spawn(async move {
                let permit = budget.permit(priority).await.unwrap();
                served.lock().unwrap().push(name);
                budget.accepted(permit, None);
            }));
            tokio::task::yield_now().await;
        }
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(*served.lock().unwrap(), ["rollback", "big", "big too", "read 1", "small", "read 2"]);
    }

    #[tokio::test]
    async fn a_call_that_gave_up_costs_no_permit() {
        let store = Arc::new(InProcessPermits::new(shape(1)));
        store.refused(Some(Duration::from_millis(200))).await.unwrap();
        let budget = budget(store.clone(), 1);
        let gave_up = timeout(Duration::from_millis(50), budget.permit(Priority::Rollback)).await;
        assert!(gave_up.is_err());
        let permit = timeout(MINUTE / 2, budget.permit(Priority::Read)).await.expect("the only permit");
        assert!(permit.is_ok());
    }

    struct Unreachable;
    impl PermitStore for Unreachable {
        fn take(&self, _: Priority) -> BoxFuture<'_, Result<Take, StoreError>> {
            Box::pin(std::future::ready(Err(StoreError("connection refused".into()))))
        }
        fn correct(&self, _: Limits) -> BoxFuture<'_, Result<(), StoreError>> {
            Box::pin(std::future::pending())
        }
        fn refused(&self, _: Option<Duration>) -> BoxFuture<'_, Result<Duration, StoreError>> {
            Box::pin(std::future::pending())
        }
        fn accepted(&self) -> BoxFuture<'_, Result<(), StoreError>> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn without_the_store_nobody_calls_and_readiness_says_so() {
        let health = Health::default();
        let budget = Budget::new(Arc::new(Unreachable), shape(300), health.part("budget"));
        let refused = budget.permit(Priority::Rollback).await;
        assert_eq!(refused, Err(NoPermit::Store("connection refused".into())));
        assert!(health.reasons()[0].1.contains("connection refused"));
        let before = Instant::now();
        let until = budget.refused(Some(Duration::from_secs(7))).await;
        assert!(until >= before + Duration::from_secs(7), "an instance keeps a 429 itself at least");
    }
}
