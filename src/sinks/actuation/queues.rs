//! One decision at a time per key; keys beside each other.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio_util::sync::CancellationToken;

/// A decision that has its turn.
#[derive(Debug)]
pub(super) struct Turn<T> {
    pub work: T,
    /// A newer decision for the same key has arrived.
    pub superseded: CancellationToken,
}

/// Decisions in the order of their arrival, per key.
#[derive(Debug)]
pub(super) struct KeyQueues<K, T> {
    queues: HashMap<K, Queue<T>>,
}

#[derive(Debug)]
struct Queue<T> {
    running: CancellationToken,
    waiting: VecDeque<Turn<T>>,
}

impl<K, T> Default for KeyQueues<K, T> {
    fn default() -> Self {
        Self { queues: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, T> KeyQueues<K, T> {
    /// A decision has arrived. Returns it where it is its turn at once.
    pub(super) fn arrive(&mut self, key: &K, work: T) -> Option<Turn<T>> {
        let superseded = CancellationToken::new();
        let turn = Turn { work, superseded: superseded.clone() };
        match self.queues.get_mut(key) {
            Some(queue) => {
                queue.waiting.push_back(turn);
                None
            }
            None => {
                self.queues.insert(key.clone(), Queue { running: superseded, waiting: VecDeque::new() });
                Some(turn)
            }
        }
    }

    /// A newer decision has taken the place of all that are there.
    pub(super) fn supersede(&mut self, key: &K) {
        if let Some(queue) = self.queues.get(key) {
            queue.running.cancel();
            queue.waiting.iter().for_each(|turn| turn.superseded.cancel());
        }
    }

    /// The running decision has ended. Returns the next one that is still wanted; others
    /// are dropped.
    pub(super) fn leave(&mut self, key: &K, is_wanted: impl Fn(&T) -> bool) -> Option<Turn<T>> {
        let here = self.queues.get_mut(key)?;
        while let Some(next) = here.waiting.pop_front() {
            if is_wanted(&next.work) {
                here.running = next.superseded.clone();
                return Some(next);
            }
        }
        self.queues.remove(key);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_newest_supersedes_the_rest() {
        let mut queues = KeyQueues::default();
        let newer = |queues: &mut KeyQueues<_, _>, work| {
            queues.supersede(&"a");
            queues.arrive(&"a", work)
        };
        let first = newer(&mut queues, 1).expect("an empty queue");
        assert!(queues.arrive(&"b", 9).is_some(), "keys do not wait for each other");
        assert!(newer(&mut queues, 2).is_none());
        assert!(first.superseded.is_cancelled());
        assert!(newer(&mut queues, 3).is_none());
        let second = queues.leave(&"a", |_| true).expect("its turn");
        assert_eq!(second.work, 2);
        assert!(second.superseded.is_cancelled(), "by the third");
        let third = queues.leave(&"a", |_| true).expect("its turn");
        assert!(!third.superseded.is_cancelled(), "the newest");
        queues.supersede(&"a");
        assert!(third.superseded.is_cancelled());
        assert!(queues.leave(&"a", |_| true).is_none());
        assert!(queues.arrive(&"a", 4).is_some(), "an empty queue is forgotten");
    }

    #[test]
    fn what_nobody_wants_any_more_is_passed_over() {
        let mut queues = KeyQueues::default();
        assert!(queues.arrive(&"a", 1).is_some());
        (2..=4).for_each(|work| assert!(queues.arrive(&"a", work).is_none()));
        assert_eq!(queues.leave(&"a", |work| *work > 3).expect("its turn").work, 4);
        assert!(queues.leave(&"a", |_| true).is_none());
    }
}
