//! The calls of this instance that wait for a permit.
//!
//! A call takes one permit, right before it is sent. Permits come from a
//! [`PermitStore`] that all instances share; here the calls that wait are served
//! by priority, then in order of arrival. Changes of dial rates that want more than there is
//! leave every third permit to reads: without what they read there would be no reason to change
//! the rates of some campaigns, ever.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::BoxFuture;
use super::budget::{BucketShape, Limits, Permit, PermitStore, StoreError, Take, UNTOLD_WAIT};
use super::priority::Priority;
use crate::health::Part;

/// Calls that may wait for a permit at once; more are turned away.
const WAITING_LIMIT: usize = 4_096;
/// Changes of dial rates that go before a read which waits.
const CHANGES_PER_READ: u32 = 2;
/// Longest time between two questions to the store while a call waits: another
/// instance may have been corrected meanwhile.
const LONGEST_NAP: Duration = Duration::from_secs(5);
/// Longest time a store may take to answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a call got no permit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NoPermit {
    /// The store could not be asked.
    Store(String),
    /// Too many calls wait already.
    Full,
}

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

#[derive(Default)]
struct Waiting {
    /// Rollbacks and changes of dial rates.
    urgent: BinaryHeap<WaitingCall>,
    reads: Reads,
    arrivals: u64,
    /// Changes that went before the first read.
    gone_before: u32,
    /// Refusals that the store does not know of yet.
    untold_refusal: Option<Option<Duration>>,
}

/// Reads, each kind in the order they came. Those that answer for many and those that answer for
/// one take turns: with a short budget the latter wait for as long as they may, most of them in vain.
#[derive(Default)]
struct Reads {
    shared: VecDeque<WaitingCall>,
    single: VecDeque<WaitingCall>,
    /// The last one that went was for many.
    shared_went: bool,
}

struct WaitingCall {
    priority: Priority,
    arrival: u64,
    reply: oneshot::Sender<Result<Permit, NoPermit>>,
}

impl Ord for WaitingCall {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.priority.cmp(&other.priority).then(other.arrival.cmp(&self.arrival))
    }
}

impl PartialOrd for WaitingCall {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for WaitingCall {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for WaitingCall {}

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

impl Reads {
    fn push(&mut self, call: WaitingCall) {
        match call.priority {
            Priority::SharedRead { .. } => self.shared.push_back(call),
            _ => self.single.push_back(call),
        }
    }

    fn len(&self) -> usize {
        self.shared.len() + self.single.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of whose turn it is.
    fn next(&mut self) -> &mut VecDeque<WaitingCall> {
        for calls in [&mut self.shared, &mut self.single] {
            while calls.front().is_some_and(|call| call.reply.is_closed()) {
                calls.pop_front();
            }
        }
        let is_shared = !self.shared.is_empty() && (self.single.is_empty() || !self.shared_went);
        if is_shared { &mut self.shared } else { &mut self.single }
    }

    fn first(&mut self) -> Option<Priority> {
        self.next().front().map(|call| call.priority)
    }

    fn take_first(&mut self) -> Option<WaitingCall> {
        let call = self.next().pop_front()?;
        self.shared_went = matches!(call.priority, Priority::SharedRead { .. });
        Some(call)
    }
}

impl Waiting {
    /// Says whether the new call is now the first.
    fn push(
        &mut self,
        priority: Priority,
        reply: oneshot::Sender<Result<Permit, NoPermit>>,
    ) -> Result<bool, NoPermit> {
        if self.len() >= WAITING_LIMIT {
            self.urgent.retain(|call| !call.reply.is_closed());
            self.reads.shared.retain(|call| !call.reply.is_closed());
            self.reads.single.retain(|call| !call.reply.is_closed());
        }
        if self.len() >= WAITING_LIMIT {
            return Err(NoPermit::Full);
        }
        let first = self.first().is_none_or(|first| priority > first);
        self.arrivals += 1;
        let call = WaitingCall { priority, arrival: self.arrivals, reply };
        if priority.is_read() {
            self.reads.push(call);
        } else {
            self.urgent.push(call);
        }
        Ok(first)
    }

    fn len(&self) -> usize {
        self.urgent.len() + self.reads.len()
    }

    /// As what the first call asks for its permit; calls that were given up are dropped on the way.
    fn first(&mut self) -> Option<Priority> {
        while self.urgent.peek().is_some_and(|call| call.reply.is_closed()) {
            self.urgent.pop();
        }
        let urgent = self.urgent.peek().map(|call| call.priority);
        let read = self.reads.first();
        match (urgent, read) {
            (Some(Priority::DialChange { .. }), Some(read)) if self.gone_before >= CHANGES_PER_READ => {
                Some(read.in_turn())
            }
            (urgent, read) => urgent.or(read),
        }
    }

    fn take_first(&mut self) -> Option<WaitingCall> {
        let first = self.first()?;
        if first.is_read() {
            self.gone_before = 0;
            return self.reads.take_first();
        }
        if first != Priority::Rollback && !self.reads.is_empty() {
            self.gone_before += 1;
        }
        self.urgent.pop()
    }

    /// Gives the permit to the first call that still wants it.
    fn give(&mut self, permit: Permit) {
        while let Some(call) = self.take_first() {
            if call.reply.send(Ok(permit)).is_ok() {
                return;
            }
        }
    }

    fn turn_away(&mut self, error: &StoreError) {
        for call in self.urgent.drain().chain(self.reads.shared.drain(..)).chain(self.reads.single.drain(..))
        {
            // Nobody waits for it any more: nothing to tell.
            let _ = call.reply.send(Err(NoPermit::Store(error.0.clone())));
        }
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

    #[test]
    fn reads_have_every_third_permit_however_many_changes_wait() {
        let mut waiting = Waiting::default();
        let mut replies = Vec::new();
        let mut ask = |waiting: &mut Waiting, priority| {
            let (reply, answer) = oneshot::channel();
            replies.push(answer);
            waiting.push(priority, reply).unwrap();
        };
        for number in 0..30 {
            ask(&mut waiting, Priority::DialChange { size_hundredths: number });
            ask(&mut waiting, Priority::Poll { stretch_hundredths: 100 });
        }
        let served: Vec<bool> = (0..30).map(|_| waiting.take_first().unwrap().priority.is_read()).collect();
        assert_eq!(served.iter().filter(|is_read| **is_read).count(), 10, "{served:?}");
        assert!(served.chunks(3).all(|three| three == [false, false, true]), "{served:?}");
        // It needs no more than a change does, and a rollback still goes before it.
        (0..2).for_each(|_| drop(waiting.take_first()));
        let turn = waiting.first().unwrap();
        assert_eq!(turn, Priority::ReadInTurn { polls_wanted_hundredths: 100 });
        assert_eq!(shape(300).needed(turn), shape(300).needed(Priority::DialChange { size_hundredths: 1 }));
        ask(&mut waiting, Priority::Rollback);
        assert_eq!(waiting.take_first().unwrap().priority, Priority::Rollback);
        assert!(waiting.take_first().unwrap().priority.is_read());
    }

    #[test]
    fn reads_for_many_and_for_one_take_turns() {
        let mut waiting = Waiting::default();
        let mut replies = Vec::new();
        for number in 0..6 {
            let priority = Priority::Poll { stretch_hundredths: 100 };
            let (reply, answer) = oneshot::channel();
            replies.push(answer);
            waiting.push(if number < 4 { priority } else { priority.shared() }, reply).unwrap();
        }
        drop(replies.remove(1));
        let served: Vec<u64> = std::iter::from_fn(|| waiting.take_first()).map(|call| call.arrival).collect();
        assert_eq!(served, [5, 1, 6, 3, 4]);
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
