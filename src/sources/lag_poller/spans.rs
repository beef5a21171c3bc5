//! What is known of logs without reading them again: until the committed offset
//! passes it, the head of the line stays where it is.

use std::collections::HashMap;

use crate::runtime::groups::TopicPartition;
use crate::runtime::heads::Found;

/// No data from `from` up to `to`, and there the head, if it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: i64,
    to: i64,
    head: Option<Found>,
    /// Asked for since the last [`Spans::forget_unused`].
    used: bool,
}

/// What is known for an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The first record from there on.
    Head(Found),
    /// There is none before the end.
    Nothing,
    /// Read from this offset on.
    ReadFrom(i64),
}

/// Spans of all partitions, shared by the groups that read them.
#[derive(Debug, Default)]
pub struct Spans {
    places: HashMap<TopicPartition, Vec<Span>>,
}

impl Spans {
    /// What is known of the log from `from` to its stable end.
    pub fn look_up(&mut self, place: &TopicPartition, from: i64, end: i64) -> Known {
        if from >= end {
            return Known::Nothing;
        }
        let Some(spans) = self.places.get_mut(place) else { return Known::ReadFrom(from) };
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

    /// Keeps what reading from `from` brought: a head, or nothing before `end`.
    pub fn learn(&mut self, place: &TopicPartition, from: i64, end: i64, found: Option<Found>) {
        let to = found.map_or(end, |head| head.offset);
        let spans = self.places.entry(place.clone()).or_default();
        match spans.iter_mut().find(|span| span.head.is_none() && span.to == from) {
            Some(span) => *span = Span { to, head: found, used: true, ..*span },
            None => spans.push(Span { from, to, head: found, used: true }),
        }
    }

    /// Drops what nobody asked for since the last time: at most one span per group and
    /// partition stays.
    pub fn forget_unused(&mut self) {
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
