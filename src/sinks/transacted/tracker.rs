//! Which records of a partition are under way. They end in any order; what came of them
//! leaves in the order of the offsets, without holes.

use std::collections::VecDeque;

/// What a record of the partition has become.
#[derive(Debug)]
struct Slot<T> {
    offset: i64,
    finished: Option<T>,
}

/// The records of one partition from the first that is not published yet.
#[derive(Debug)]
pub(super) struct Tracker<T> {
    slots: VecDeque<Slot<T>>,
}

impl<T> Default for Tracker<T> {
    fn default() -> Self {
        Self { slots: VecDeque::new() }
    }
}

impl<T> Tracker<T> {
    /// A record was read. False when it was seen before.
    pub(super) fn begin(&mut self, offset: i64) -> bool {
        if self.slots.back().is_some_and(|last| last.offset >= offset) {
            return false;
        }
        self.slots.push_back(Slot { offset, finished: None });
        true
    }

    /// A record has ended. Unknown offsets are passed over.
    pub(super) fn finish(&mut self, offset: i64, with: T) {
        if let Ok(index) = self.slots.binary_search_by_key(&offset, |slot| slot.offset) {
            self.slots[index].finished = Some(with);
        }
    }

    /// What can be published now, in order, `at_most` of it, and the offset after it.
    pub(super) fn publishable(&self, at_most: usize) -> (impl Iterator<Item = &T>, Option<i64>) {
        let ready = self.slots.iter().take(at_most).take_while(|slot| slot.finished.is_some()).count();
        let next = ready.checked_sub(1).map(|last| self.slots[last].offset + 1);
        (self.slots.iter().take(ready).filter_map(|slot| slot.finished.as_ref()), next)
    }

    /// The first record, once it has ended, with what came of it.
    pub(super) fn first(&mut self) -> Option<(i64, &mut T)> {
        let slot = self.slots.front_mut()?;
        slot.finished.as_mut().map(|finished| (slot.offset, finished))
    }

    /// Everything before `next` is published.
    pub(super) fn published(&mut self, next: i64) {
        while self.slots.front().is_some_and(|slot| slot.offset < next && slot.finished.is_some()) {
            self.slots.pop_front();
        }
    }

    /// Records read and not published.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_part_without_holes_is_published() {
        let mut tracker = Tracker::default();
        // Offsets have gaps: transaction markers take some.
        for offset in [3, 5, 6, 9] {
            assert!(tracker.begin(offset));
        }
        assert!(!tracker.begin(6), "seen before");
        tracker.finish(6, "six");
        tracker.finish(4, "never read");
        assert_eq!(tracker.publishable(10).1, None);
        tracker.finish(3, "three");
        tracker.finish(5, "five");
        let (ready, next) = tracker.publishable(10);
        assert_eq!((ready.copied().collect::<Vec<_>>(), next), (vec!["three", "five", "six"], Some(7)));
        let (ready, next) = tracker.publishable(1);
        assert_eq!((ready.copied().collect::<Vec<_>>(), next), (vec!["three"], Some(4)));
        tracker.published(7);
        assert_eq!(tracker.len(), 1);
        assert_eq!(tracker.publishable(10).1, None);
    }

    proptest! {
        #[test]
        fn any_order_of_ends_publishes_each_once_and_in_order(
            gaps in proptest::collection::vec(1i64..4, 1..40),
            order in any::<proptest::sample::Index>(),
            batch in 1usize..5,
            seed in any::<u64>(),
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut ends = offsets.clone();
            // A cheap permutation of its own: rotate and reverse by the inputs.
            ends.rotate_left(order.index(offsets.len()));
            if seed % 2 == 0 { ends.reverse(); }
            let mut tracker = Tracker::default();
            for offset in &offsets { tracker.begin(*offset); }
            let mut published = Vec::new();
            for offset in ends {
                tracker.finish(offset, offset);
                loop {
                    let (ready, next) = tracker.publishable(batch);
                    let ready: Vec<i64> = ready.copied().collect();
                    let Some(next) = next else { break };
                    prop_assert_eq!(next, ready[ready.len() - 1] + 1);
                    published.extend(ready);
                    tracker.published(next);
                }
            }
            prop_assert_eq!(published, offsets);
            prop_assert_eq!(tracker.len(), 0);
        }
    }
}
