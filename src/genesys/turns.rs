//! Which of the calls that wait for a permit is next: by priority, then in order of arrival.
//!
//! Changes of dial rates that want more than there is leave every third permit to reads: without
//! what they read there would be no reason to change the rates of some campaigns, ever.

use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use super::budget::{Permit, StoreError};
use super::priority::Priority;

/// Calls that may wait for a permit at once; more are turned away.
const WAITING_LIMIT: usize = 4_096;
/// Changes of dial rates that go before a read which waits.
const CHANGES_PER_READ: u32 = 2;
/// Why a call got no permit.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NoPermit {
    /// The store could not be asked.
    Store(String),
    /// Too many calls wait already.
    Full,
}

#[derive(Default)]
pub(super) struct Waiting {
    /// Rollbacks and changes of dial rates.
    urgent: BinaryHeap<WaitingCall>,
    reads: Reads,
    arrivals: u64,
    /// Changes that went before the first read.
    gone_before: u32,
    /// Refusals that the store does not know of yet.
    pub untold_refusal: Option<Option<Duration>>,
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
    pub(super) fn push(
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
    pub(super) fn first(&mut self) -> Option<Priority> {
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
    pub(super) fn give(&mut self, permit: Permit) {
        while let Some(call) = self.take_first() {
            if call.reply.send(Ok(permit)).is_ok() {
                return;
            }
        }
    }

    pub(super) fn turn_away(&mut self, error: &StoreError) {
        for call in self.urgent.drain().chain(self.reads.shared.drain(..)).chain(self.reads.single.drain(..))
        {
            // Nobody waits for it any more: nothing to tell.
            let _ = call.reply.send(Err(NoPermit::Store(error.0.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::BucketShape;
    use super::*;

    fn shape(requests: u32) -> BucketShape {
        BucketShape::new(requests, Duration::from_secs(60))
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
}
