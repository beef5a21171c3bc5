//! What is known of logs without reading them again: until the committed offset
//! passes it, the head of the line stays where it is.

use std::collections::HashMap;

use crate::kafka::groups::TopicPartition;
use crate::kafka::log_heads::Found;

/// No data from `from` up to `to`, and there the head, if it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: i64,
    to: i64,
    head: Option<Found>,
    /// Data records from the head up to this offset, where they were counted.
    counted: Option<(i64, u64)>,
    /// Asked for since the last [`Spans::forget_unused`].
    used: bool,
}

/// What is known for an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// The first record from there on.
    Head(Found),
    /// There is none before the end.
    Nothing,
    /// Read from this offset on.
    ReadFrom(i64),
}

/// Spans of all partitions, shared by the groups that read them.
#[derive(Debug, Default)]
pub(super) struct Spans {
    places: HashMap<TopicPartition, Vec<Span>>,
}

impl Spans {
    /// What is known of the log from `from` to its stable end.
    pub(super) fn look_up(&mut self, place: &TopicPartition, from: i64, end: i64) -> Known {
        if from >= end {
            return Known::Nothing;
        }
        let Some(spans) = self.places.get_mut(place) else { return Known::ReadFrom(from) };
        // A head beyond the end is of a log that is not there any more.
        spans.retain(|span| span.head.is_none_or(|head| head.offset < end));
        match spans.iter_mut().find(|span| span.from <= from && from <= span.to) {
            None => Known::ReadFrom(from),
            Some(span) => {
                span.used = true;
                match span.head {
                    Some(head) => Known::Head(head),
                    None if span.to >= end => Known::Nothing,
                    None => Known::ReadFrom(span.to),
                }
            }
        }
    }

    /// Keeps what reading from `from` brought: a head, or nothing before `end`. What was
    /// written after the end was asked for is not kept: to [`look_up`](Spans::look_up) it
    /// would be of another log, and be read for ever.
    pub(super) fn learn(&mut self, place: &TopicPartition, from: i64, end: i64, found: Option<Found>) {
        let found = found.filter(|head| head.offset < end);
        let to = found.map_or(end, |head| head.offset);
        let spans = self.places.entry(place.clone()).or_default();
        match spans.iter_mut().find(|span| span.head.is_none() && span.to == from) {
            Some(span) => *span = Span { to, head: found, counted: None, used: true, ..*span },
            None => spans.push(Span { from, to, head: found, counted: None, used: true }),
        }
    }

    /// Data records from the head at `offset` up to `end`, where they were counted; else where
    /// to count on from, and those before.
    pub(super) fn counted(&self, place: &TopicPartition, offset: i64, end: i64) -> Result<u64, (i64, u64)> {
        let spans = self.places.get(place).map_or(&[][..], Vec::as_slice);
        let of_head = spans.iter().filter(|span| span.head.is_some_and(|head| head.offset == offset));
        match of_head.filter_map(|span| span.counted).max() {
            Some((to, records)) if to >= end => Ok(records),
            Some(so_far) => Err(so_far),
            None => Err((offset, 0)),
        }
    }

    /// Keeps that there are so many data records from the head at `offset` up to `end`.
    pub(super) fn learn_count(&mut self, place: &TopicPartition, offset: i64, end: i64, records: u64) {
        let Some(spans) = self.places.get_mut(place) else { return };
        let of_head = spans.iter_mut().filter(|span| span.head.is_some_and(|head| head.offset == offset));
        of_head.for_each(|span| span.counted = Some((end, records)));
    }

    /// The topic was made anew: nothing that was read of it is true any more.
    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.places.retain(|(of, _), _| of != topic);
    }

    /// Drops what nobody asked for since the last time: at most one span per group and
    /// partition stays.
    pub(super) fn forget_unused(&mut self) {
        self.places.retain(|_, spans| {
            spans.retain(|span| span.used);
            spans.iter_mut().for_each(|span| span.used = false);
            !spans.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> TopicPartition {
        ("t".to_owned(), 3)
    }

    fn found(offset: i64) -> Found {
        Found { offset, timestamp_ms: Some(1_000 + offset) }
    }

    #[test]
    fn a_head_is_read_once_until_the_group_passes_it() {
        let mut spans = Spans::default();
        assert_eq!(spans.look_up(&place(), 5, 9), Known::ReadFrom(5));
        // 5 and 6 are markers.
        spans.learn(&place(), 5, 9, Some(found(7)));
        assert_eq!(spans.look_up(&place(), 5, 20), Known::Head(found(7)));
        assert_eq!(spans.look_up(&place(), 7, 20), Known::Head(found(7)), "committed over the markers");
        assert_eq!(spans.look_up(&place(), 8, 20), Known::ReadFrom(8));
        assert_eq!(spans.look_up(&place(), 4, 20), Known::ReadFrom(4), "after a rewind");
    }

    #[test]
    fn what_holds_no_data_is_not_read_again_when_the_log_grows() {
        let mut spans = Spans::default();
        spans.learn(&place(), 5, 9, None);
        assert_eq!(spans.look_up(&place(), 5, 9), Known::Nothing);
        assert_eq!(spans.look_up(&place(), 5, 12), Known::ReadFrom(9));
        spans.learn(&place(), 9, 12, Some(found(10)));
        assert_eq!(spans.look_up(&place(), 5, 12), Known::Head(found(10)));
        assert_eq!(spans.look_up(&place(), 12, 12), Known::Nothing, "at the end");
    }

    #[test]
    fn a_record_that_is_newer_than_the_end_answers_the_question() {
        let mut spans = Spans::default();
        // 5 and 6 are markers; 7 came after the end was asked for.
        spans.learn(&place(), 5, 7, Some(found(7)));
        assert_eq!(spans.look_up(&place(), 5, 7), Known::Nothing);
        assert_eq!(spans.look_up(&place(), 5, 9), Known::ReadFrom(7));
    }

    #[test]
    fn records_are_counted_on_from_where_the_count_ended() {
        let mut spans = Spans::default();
        spans.learn(&place(), 5, 9, Some(found(7)));
        assert_eq!(spans.counted(&place(), 7, 9), Err((7, 0)));
        spans.learn_count(&place(), 7, 9, 1);
        assert_eq!(spans.counted(&place(), 7, 9), Ok(1));
        assert_eq!(spans.counted(&place(), 7, 20), Err((9, 1)));
        spans.learn(&place(), 8, 20, Some(found(8)));
        assert_eq!(spans.counted(&place(), 8, 20), Err((8, 0)), "of another head");
    }

    #[test]
    fn what_was_known_of_a_log_is_not_true_of_another_one() {
        let mut spans = Spans::default();
        spans.learn(&place(), 5, 900, Some(found(800)));
        assert_eq!(spans.look_up(&place(), 5, 20), Known::ReadFrom(5), "it ends before that head");
        spans.learn(&place(), 5, 20, Some(found(5)));
        spans.forget_topic("another");
        assert_eq!(spans.look_up(&place(), 5, 20), Known::Head(found(5)));
        spans.forget_topic("t");
        assert_eq!(spans.look_up(&place(), 5, 20), Known::ReadFrom(5));
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let mut spans = Spans::default();
        for from in 0..100 {
            spans.learn(&place(), from * 10, from * 10 + 5, None);
        }
        spans.forget_unused();
        assert_eq!(spans.look_up(&place(), 10, 12), Known::Nothing);
        spans.forget_unused();
        assert_eq!(spans.places[&place()].len(), 1);
        spans.forget_unused();
        assert!(spans.places.is_empty());
    }
}
