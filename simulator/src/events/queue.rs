//! Deliveries in order of the time they are due.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Event;

/// An event on its way.
#[derive(Clone, Debug)]
pub(super) struct Delivery {
    pub event: Event,
    /// A second delivery of the same event.
    pub repeat: bool,
    pub late: bool,
}

#[derive(Debug)]
struct Queued {
    due: Duration,
    sequence: u64,
    delivery: Delivery,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

/// Equal times keep the order of pushing.
#[derive(Debug, Default)]
pub(super) struct DeliveryQueue {
    waiting: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
}

impl DeliveryQueue {
    pub(super) fn push(&mut self, due: Duration, delivery: Delivery) {
        self.sequence += 1;
        self.waiting.push(Reverse(Queued { due, sequence: self.sequence, delivery }));
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Up to so many that are due at `now`.
    pub(super) fn take_due(&mut self, now: Duration, limit: usize) -> Vec<Delivery> {
        let mut due = Vec::new();
        while due.len() < limit && self.waiting.peek().is_some_and(|next| next.0.due <= now) {
            let Some(Reverse(queued)) = self.waiting.pop() else { break };
            due.push(queued.delivery);
        }
        due
    }
}
