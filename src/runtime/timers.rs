//! When the keys of a partition want to be woken.
//!
//! Not part of the state: what is due follows from it. Setting one later than it stands costs
//! nothing, as most steps do: the timer stays where it is, and is set anew when its time comes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::Timestamp;

/// Timers by time, at most one for each place, and others that no longer count.
#[derive(Default)]
pub(super) struct Timers {
    due: BinaryHeap<Reverse<(Timestamp, u32)>>,
    /// For each place the time at which it stands in `due`.
    standing: Vec<Option<Timestamp>>,
    /// Set while timers are taken: they wait for the next turn.
    taken: bool,
    waiting: Vec<(u32, Timestamp)>,
}

impl Timers {
    /// Wakes this place at `due`, or earlier where it stands earlier: whoever takes it then
    /// sets it anew.
    pub(super) fn set(&mut self, place: u32, due: Timestamp) {
        if self.taken {
            self.waiting.push((place, due));
            return;
        }
        let index = place as usize;
        if index >= self.standing.len() {
            self.standing.resize(index + 1, None);
        }
        let standing = &mut self.standing[index];
        if standing.is_none_or(|standing| due < standing) {
            *standing = Some(due);
            self.due.push(Reverse((due, place)));
        }
    }

    /// When the earliest timer stands; it may have been put off.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }

    /// Takes the earliest timer that is due at `time`. Until the [end](Self::end_of_turn) of
    /// the turn none that is set comes up again.
    pub(super) fn next(&mut self, time: Timestamp) -> Option<u32> {
        self.taken = true;
        while let Some(Reverse((due, place))) = self.due.peek().copied().filter(|first| first.0.0 <= time) {
            self.due.pop();
            let standing = &mut self.standing[place as usize];
            if *standing == Some(due) {
                *standing = None;
                return Some(place);
            }
        }
        None
    }

    pub(super) fn end_of_turn(&mut self) {
        self.taken = false;
        for (place, due) in std::mem::take(&mut self.waiting) {
            self.set(place, due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn taken(timers: &mut Timers, time: i64) -> Vec<u32> {
        let taken = std::iter::from_fn(|| timers.next(at(time))).collect();
        timers.end_of_turn();
        taken
    }

    #[test]
    fn timers_come_in_the_order_of_their_time_and_each_once() {
        let mut timers = Timers::default();
        [(3, 30), (1, 10), (2, 20), (1, 5), (1, 40)]
            .into_iter()
            .for_each(|(place, due)| timers.set(place, at(due)));
        assert_eq!(taken(&mut timers, 4), [0; 0]);
        assert_eq!(taken(&mut timers, 20), [1, 2], "the earlier time of 1 counts, and 10 no more");
        assert_eq!(taken(&mut timers, 100), [3]);
        assert_eq!(taken(&mut timers, 100), [0; 0]);
    }

    #[test]
    fn one_that_is_put_off_with_every_step_takes_no_room() {
        let mut timers = Timers::default();
        (0..100_000).for_each(|second| timers.set(7, at(second)));
        assert_eq!((timers.due.len(), timers.standing.len()), (1, 8));
    }

    #[test]
    fn what_is_set_during_a_turn_waits_for_the_next() {
        let mut timers = Timers::default();
        timers.set(0, at(1));
        assert_eq!(timers.next(at(5)), Some(0));
        timers.set(0, at(2));
        assert_eq!(timers.next(at(5)), None);
        timers.end_of_turn();
        assert_eq!(taken(&mut timers, 5), [0]);
    }
}
