//! Which partitions of the topic between two stages go from the one to the other directly, and
//! the offsets that their records will have.
//!
//! The brokers say a record's offset once they have it; decisions name it before. While nobody
//! else writes to a partition its offsets can be told: a transaction's records follow the marker
//! of the one before. Whether they do is looked at before each commit.

use std::time::{Duration, Instant};

/// After a failure everything is read from the brokers for this long.
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// What is known of each partition of the topic between.
pub(super) struct Links {
    partitions: Vec<Link>,
    /// After a failure nothing is linked before this.
    not_before: Instant,
}

#[derive(Clone, Default)]
struct Link {
    /// Both stages have the partition here.
    is_held: bool,
    /// Offset of the next record, where the partition is linked.
    next: Option<i64>,
    /// Where the last transaction's records ended, before its marker.
    ended: Option<i64>,
    /// It was looked whether the partition has been read to its end, since it is held.
    is_looked_at: bool,
    /// What `ended` is if the open transaction is committed.
    ends: Option<i64>,
}

impl Links {
    pub(super) fn new(partitions: i32) -> Self {
        let partitions = usize::try_from(partitions).expect("a number of partitions");
        Self { partitions: vec![Link::default(); partitions], not_before: Instant::now() }
    }

    /// Says which partitions both stages hold. Answers those that are not linked any more.
    pub(super) fn hold(&mut self, is_held: impl Fn(i32) -> bool) -> Vec<i32> {
        let mut cut = Vec::new();
        for (partition, link) in (0..).zip(&mut self.partitions) {
            match is_held(partition) {
                true => link.is_held = true,
                false => {
                    cut.extend(link.next.map(|_| partition));
                    *link = Link::default();
                }
            }
        }
        cut
    }

    /// Ends all links for a while. Answers where there were any.
    pub(super) fn cut_all(&mut self) -> Vec<i32> {
        self.not_before = Instant::now() + AFTER_FAILURE;
        let linked = self.linked().map(|(partition, _)| partition).collect();
        self.partitions.fill(Link::default());
        linked
    }

    /// Ends one; it begins again after the next transaction.
    pub(super) fn cut(&mut self, partition: i32) {
        self.partitions[partition as usize] = Link { is_looked_at: true, ..Link::default() };
    }

    pub(super) fn link(&mut self, partition: i32, next: i64) {
        self.partitions[partition as usize].next = Some(next);
    }

    pub(super) fn is_linked(&self, partition: i32) -> bool {
        self.partitions[partition as usize].next.is_some()
    }

    /// Linked partitions with the offsets of their next records.
    pub(super) fn linked(&self) -> impl Iterator<Item = (i32, i64)> {
        (0..).zip(&self.partitions).filter_map(|(partition, link)| Some((partition, link.next?)))
    }

    /// Whether the partition may now have been read to its end, `next` being the offset to go on
    /// from; `end` is then to be asked for and [`is_read`](Self::is_read).
    pub(super) fn may_be_read(&mut self, partition: i32, next: i64) -> bool {
        let link = &mut self.partitions[partition as usize];
        if !link.is_held || link.next.is_some() {
            return false;
        }
        let is_first_look = !std::mem::replace(&mut link.is_looked_at, true);
        is_first_look || link.ended == Some(next)
    }

    /// Whether nothing is left to be read from `next` on where the partition ends at `end`. What
    /// may stand there is the marker of the last transaction, whose records ended at `next`.
    pub(super) fn is_read(&self, partition: i32, next: i64, end: i64) -> bool {
        next == end || (self.partitions[partition as usize].ended == Some(next) && next + 1 == end)
    }

    /// Whether links may begin now.
    pub(super) fn may_begin(&self) -> bool {
        Instant::now() >= self.not_before
    }

    /// Of those that a transaction wrote to, the partitions whose ends matter.
    pub(super) fn held_of(&self, sent: impl Iterator<Item = (i32, i64)>) -> Vec<(i32, i64)> {
        sent.filter(|(partition, _)| self.partitions[*partition as usize].is_held).collect()
    }

    /// Offset of a linked partition's record that follows `nth` others in its transaction.
    pub(super) fn offset(&self, partition: i32, nth: i64) -> i64 {
        self.partitions[partition as usize].next.expect("only linked ones are handed over") + nth
    }

    /// Takes note of where a partition ends now that the brokers have the open transaction's
    /// `sent` records. Answers whether these have the offsets they were taken for.
    pub(super) fn see_end(&mut self, partition: i32, sent: i64, end: i64) -> bool {
        let link = &mut self.partitions[partition as usize];
        link.ends = Some(end);
        link.next.is_none_or(|next| next + sent == end)
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self) {
        for link in &mut self.partitions {
            if let Some(end) = link.ends.take() {
                link.ended = Some(end);
                // Its marker comes first.
                link.next = link.next.map(|_| end + 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linked(links: &Links) -> Vec<(i32, i64)> {
        links.linked().collect()
    }

    #[test]
    fn an_empty_partition_is_linked_and_its_offsets_follow_the_markers() {
        let mut links = Links::new(2);
        assert!(!links.may_be_read(0, 0), "not held");
        assert!(links.hold(|partition| partition == 0).is_empty());
        assert!(links.may_be_read(0, 0) && links.is_read(0, 0, 0));
        links.link(0, 0);
        assert_eq!((links.offset(0, 0), links.offset(0, 2)), (0, 2));
        assert!(links.see_end(0, 3, 3));
        links.committed();
        assert_eq!(linked(&links), [(0, 4)]);
    }

    #[test]
    fn a_record_of_somebody_else_is_noticed() {
        let mut links = Links::new(1);
        links.hold(|_| true);
        links.link(0, 10);
        assert!(!links.see_end(0, 3, 14));
        assert_eq!(linked(&links), [(0, 10)], "what is not committed moves nothing");
        assert_eq!(links.cut_all(), [0]);
        assert!(!links.may_begin() && linked(&links).is_empty());
    }

    #[test]
    fn a_marker_is_told_from_a_record_by_where_the_transaction_ended() {
        let mut links = Links::new(1);
        links.hold(|_| true);
        assert!(links.may_be_read(0, 5));
        assert!(!links.is_read(0, 5, 6), "what stands at 5 may be a record");
        assert!(!links.may_be_read(0, 5), "without news it is not asked again");
        assert!(links.see_end(0, 2, 8));
        links.committed();
        assert!(!links.may_be_read(0, 6), "its records are still to be read");
        assert!(links.may_be_read(0, 8));
        assert!(links.is_read(0, 8, 9));
        assert!(!links.is_read(0, 8, 10), "somebody has written since");
    }

    #[test]
    fn what_is_held_by_one_stage_alone_is_not_linked() {
        let mut links = Links::new(2);
        links.hold(|_| true);
        links.link(0, 1);
        links.link(1, 1);
        assert_eq!(links.hold(|partition| partition == 1), [0]);
        assert_eq!(linked(&links), [(1, 1)]);
        assert_eq!(links.held_of([(0, 4), (1, 2)].into_iter()), [(1, 2)]);
    }
}
