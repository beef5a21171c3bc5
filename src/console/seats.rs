//! Who may stay connected. A connection that has sent no whole request costs little and is
//! worth little: when seats run out the oldest of these has to go, so that no number of slow
//! clients keeps anybody else out. A few seats are kept for questions that must be answered
//! however busy the rest is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Seats beside the ordinary ones.
const RESERVED: usize = 32;
/// How long it may take until a connection that has to go is gone.
const EVICTION: Duration = Duration::from_millis(50);

/// All seats of a listener.
#[derive(Clone)]
pub(super) struct Seats {
    ordinary: Arc<Semaphore>,
    reserved: Arc<Semaphore>,
    idle: Arc<Idle>,
}

/// One connection's seat; free again when dropped.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    /// A reserved one: see [`Claim::Vital`].
    reserved: bool,
    ordinary: Arc<Semaphore>,
    idle: Arc<Idle>,
    number: u64,
    /// Cancelled when it has to go.
    pub evicted: CancellationToken,
}

/// What a request on a seat may ask for. Held until its answer is sent.
pub(super) enum Claim {
    Anything(#[allow(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>),
    /// Only what must be answered however busy we are.
    Vital,
}

/// Connections without a request, those that never had one first, then by age.
#[derive(Default)]
struct Idle {
    next: AtomicU64,
    connections: Mutex<BTreeMap<(bool, u64), CancellationToken>>,
}

impl Seats {
    pub(super) fn new(ordinary: usize) -> Self {
        Self {
            ordinary: Arc::new(Semaphore::new(ordinary)),
            reserved: Arc::new(Semaphore::new(RESERVED)),
            idle: Arc::default(),
        }
    }

    /// A seat for a connection just accepted. Waits only while every seat has a request.
    pub(super) async fn take(&self) -> Seat {
        if let Ok(permit) = Arc::clone(&self.ordinary).try_acquire_owned() {
            return self.seat(permit, false);
        }
        let ordinary = Arc::clone(&self.ordinary).acquire_owned();
        tokio::pin!(ordinary);
        if self.idle.evict_oldest()
            && let Ok(Ok(permit)) = tokio::time::timeout(EVICTION, &mut ordinary).await
        {
            return self.seat(permit, false);
        }
        tokio::select! {
            biased;
            permit = &mut ordinary => self.seat(permit.expect("never closed"), false),
            permit = Arc::clone(&self.reserved).acquire_owned() => self.seat(permit.expect("never closed"), true),
        }
    }

    fn seat(&self, permit: OwnedSemaphorePermit, reserved: bool) -> Seat {
        let seat = Seat {
            _permit: permit,
            reserved,
            ordinary: Arc::clone(&self.ordinary),
            idle: Arc::clone(&self.idle),
            number: self.idle.next.fetch_add(1, Ordering::Relaxed),
            evicted: CancellationToken::new(),
        };
        self.idle.insert((false, seat.number), seat.evicted.clone());
        seat
    }
}

impl Seat {
    /// A whole request has come.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        for served in [false, true] {
            self.idle.remove((served, self.number));
        }
        let claim = match self.reserved {
            false => Claim::Anything(None),
            true => match Arc::clone(&self.ordinary).try_acquire_owned() {
                Ok(permit) => Claim::Anything(Some(permit)),
                Err(_) => Claim::Vital,
            },
        };
        Busy { seat: Arc::clone(self), claim }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        for served in [false, true] {
            self.idle.remove((served, self.number));
        }
    }
}

/// A request is being answered; when dropped, its connection is idle.
pub(super) struct Busy {
    seat: Arc<Seat>,
    claim: Claim,
}

impl Busy {
    pub(super) fn may_ask_for_anything(&self) -> bool {
        matches!(self.claim, Claim::Anything(_))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.seat.idle.insert((true, self.seat.number), self.seat.evicted.clone());
    }
}

impl Idle {
    fn insert(&self, key: (bool, u64), evicted: CancellationToken) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(key, evicted);
    }

    fn remove(&self, key: (bool, u64)) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// `false` when none is idle.
    fn evict_oldest(&self) -> bool {
        let oldest = self.connections.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
        oldest.is_some_and(|(_, evicted)| {
            evicted.cancel();
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_without_a_request_go_first_and_those_with_one_stay() {
        let seats = Seats::new(2);
        let (busy, slow) = (Arc::new(seats.take().await), Arc::new(seats.take().await));
        let request = busy.begin();
        assert!(request.may_ask_for_anything());
        let evicted = slow.evicted.clone();
        let gone = tokio::spawn(async move {
            slow.evicted.cancelled().await;
            drop(slow);
        });
        let third = Arc::new(seats.take().await);
        gone.await.unwrap();
        assert!(evicted.is_cancelled() && !busy.evicted.is_cancelled());
        let other = third.begin();
        assert!(other.may_ask_for_anything(), "it has the seat of the one that went");
        // All seats are at work: what must be answered still has one.
        let fourth = Arc::new(seats.take().await);
        let vital = fourth.begin();
        assert!(!vital.may_ask_for_anything());
        drop((vital, other, third));
        assert!(fourth.begin().may_ask_for_anything(), "as soon as there is room");
    }
}
