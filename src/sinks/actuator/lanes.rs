//! One decision at a time per campaign; campaigns beside each other.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use tokio_util::sync::CancellationToken;

/// A decision that has its turn.
#[derive(Debug)]
pub struct Turn<T> {
    pub work: T,
    /// A newer decision for the same campaign has arrived.
    pub superseded: CancellationToken,
}

/// Decisions in the order of their arrival, per campaign.
#[derive(Debug)]
pub struct Lanes<K, T> {
    lanes: HashMap<K, Lane<T>>,
}

#[derive(Debug)]
struct Lane<T> {
    running: CancellationToken,
    waiting: VecDeque<Turn<T>>,
}

impl<K, T> Default for Lanes<K, T> {
    fn default() -> Self {
        Self { lanes: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, T> Lanes<K, T> {
    /// A decision has arrived: all before it in its lane are superseded. Returns
    /// it where it is its turn at once.
    pub fn arrive(&mut self, lane: &K, work: T) -> Option<Turn<T>> {
        self.supersede(lane);
        let superseded = CancellationToken::new();
        let turn = Turn { work, superseded: superseded.clone() };
        match self.lanes.get_mut(lane) {
            Some(lane) => {
                lane.waiting.push_back(turn);
                None
            }
            None => {
                self.lanes.insert(lane.clone(), Lane { running: superseded, waiting: VecDeque::new() });
                Some(turn)
            }
        }
    }

    /// A decision that needs no turn of its own has taken the place of all before it.
    pub fn supersede(&mut self, lane: &K) {
        if let Some(lane) = self.lanes.get(lane) {
            lane.running.cancel();
            lane.waiting.iter().for_each(|turn| turn.superseded.cancel());
        }
    }

    /// The running decision has ended. Returns the next one.
    pub fn leave(&mut self, lane: &K) -> Option<Turn<T>> {
        let here = self.lanes.get_mut(lane)?;
        match here.waiting.pop_front() {
            Some(next) => {
                here.running = next.superseded.clone();
                Some(next)
            }
            None => {
                self.lanes.remove(lane);
                None
            }
        }
    }

    /// Forgets every lane that `gone` names.
    pub fn forget(&mut self, gone: impl Fn(&K) -> bool) {
        self.lanes.retain(|lane, _| !gone(lane));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_newest_supersedes_the_rest() {
        let mut lanes = Lanes::default();
        let first = lanes.arrive(&"a", 1).expect("an empty lane");
        assert!(lanes.arrive(&"b", 9).is_some(), "campaigns do not wait for each other");
        assert!(lanes.arrive(&"a", 2).is_none());
        assert!(first.superseded.is_cancelled());
        assert!(lanes.arrive(&"a", 3).is_none());
        let second = lanes.leave(&"a").expect("its turn");
        assert_eq!(second.work, 2);
        assert!(second.superseded.is_cancelled(), "by the third");
        let third = lanes.leave(&"a").expect("its turn");
        assert!(!third.superseded.is_cancelled(), "the newest");
        lanes.supersede(&"a");
        assert!(third.superseded.is_cancelled());
        assert!(lanes.leave(&"a").is_none());
        assert!(lanes.arrive(&"a", 4).is_some(), "an empty lane is forgotten");
        lanes.forget(|lane| *lane == "b");
        assert!(lanes.arrive(&"b", 5).is_some());
    }
}
