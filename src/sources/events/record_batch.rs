//! The records of one request, made ready before any is sent.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use super::ROLE;
use super::event::{Found, NoEvent};
use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::model::ingest::{Receipt, Refusal, Rejected};
use crate::pipeline::json;
use crate::runtime::dead_letter::{ErrorHeaders, Reason, overhead};
use crate::topics::CONVERSATION_EVENTS;

/// Where dead letters of the edge say they come from; their offset is the place in the request.
pub(super) const ORIGIN: &str = "POST /v1/events";
/// Longest type of a skipped event that is counted as such, in bytes.
const MAX_TYPE: usize = 128;
/// There is no partition.
pub(super) const NO_PARTITION: i32 = -1;

/// Keys and values in one piece of memory, and what the sender is told.
pub(super) struct RecordBatch {
    received_at: Timestamp,
    max_events: usize,
    bytes: Vec<u8>,
    events: Vec<Event>,
    dead_letters: Vec<(Place, ErrorHeaders)>,
    /// Conversation and event id of those in it.
    seen: HashSet<String>,
    /// Found beyond the limit: the request will be refused.
    too_many: usize,
    /// How many of what is not about conversations, by type.
    skipped: BTreeMap<String, u64>,
    receipt: Receipt,
}

struct Event {
    place: Place,
    index: usize,
    detail_index: Option<usize>,
}

struct Place {
    start: usize,
    key_end: usize,
    end: usize,
}

impl RecordBatch {
    /// Of a body of so many bytes with so many items.
    pub(super) fn new(body_len: usize, items: usize, max_events: usize, received_at: Timestamp) -> Self {
        Self {
            received_at,
            max_events,
            bytes: Vec::with_capacity(body_len + body_len / 2),
            events: Vec::with_capacity(items),
            dead_letters: Vec::new(),
            seen: HashSet::with_capacity(items),
            too_many: 0,
            skipped: BTreeMap::new(),
            receipt: Receipt::default(),
        }
    }

    /// Takes what was found at this place of the request.
    pub(super) fn take(&mut self, index: usize, found: Found<'_>) {
        // A list can hold more than the request has items.
        if self.events.len() + self.dead_letters.len() == self.max_events {
            self.too_many += 1;
            return;
        }
        let reason = match found.event {
            Ok(event) => {
                if !self.seen.insert([&*event.conversation_id, "\0", &*event.event_id].concat()) {
                    self.receipt.duplicates += 1;
                    return;
                }
                let start = self.bytes.len();
                self.bytes.extend_from_slice(event.conversation_id.as_bytes());
                let key_end = self.bytes.len();
                json::append(&mut self.bytes, &event);
                let place = Place { start, key_end, end: self.bytes.len() };
                let bytes = place.end - start + overhead(&CONVERSATION_EVENTS);
                if bytes <= CONVERSATION_EVENTS.max_message_bytes {
                    self.events.push(Event { place, index, detail_index: found.detail_index });
                    self.receipt.accepted += 1;
                    return;
                }
                self.bytes.truncate(start);
                Reason::TooLarge { bytes, limit: CONVERSATION_EVENTS.max_message_bytes }
            }
            Err(NoEvent::Elsewhere { event_type }) => {
                let event_type = event_type[..event_type.floor_char_boundary(MAX_TYPE)].to_owned();
                *self.skipped.entry(event_type).or_default() += 1;
                self.receipt.skipped += 1;
                return;
            }
            Err(NoEvent::Unusable(reason)) => reason,
        };
        self.set_aside(index, found.detail_index, &reason, &found.original);
    }

    fn set_aside(&mut self, index: usize, detail_index: Option<usize>, reason: &Reason, original: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(original);
        let place = Place { start, key_end: start, end: self.bytes.len() };
        self.reject(index, detail_index, reason, place);
    }

    /// An event that the brokers refuse, by its place in [`events`](Self::events).
    pub(super) fn refuse(&mut self, at: usize, why: &str) {
        let Event { place: Place { key_end, end, .. }, index, detail_index } = self.events[at];
        self.receipt.accepted -= 1;
        let reason = Reason::RefusedByBroker(why.to_owned());
        self.reject(index, detail_index, &reason, Place { start: key_end, key_end, end });
        self.receipt.rejected.sort_by_key(|rejected| (rejected.index, rejected.detail_index));
    }

    fn reject(&mut self, index: usize, detail_index: Option<usize>, reason: &Reason, place: Place) {
        let offset = i64::try_from(index).unwrap_or(i64::MAX);
        let position = Position { topic: ORIGIN, partition: NO_PARTITION, offset };
        let errors = ErrorHeaders::new(ROLE.name, reason, position, self.received_at);
        self.dead_letters.push((place, errors));
        self.receipt.rejected.push(Rejected {
            index: index as u64,
            detail_index: detail_index.map(|index| index as u64),
            reason: reason.to_string(),
        });
    }

    /// What the sender is told once everything is delivered.
    pub(super) fn into_receipt(self) -> Receipt {
        self.receipt
    }

    /// # Errors
    /// When there are more events than a request may bring.
    pub(super) fn admissible(&self) -> Result<(), Refusal> {
        match self.too_many {
            0 => Ok(()),
            more => Err(Refusal::TooMany { events: self.max_events + more, limit: self.max_events }),
        }
    }

    /// How many were skipped, by type.
    pub(super) fn take_skipped(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.skipped)
    }

    pub(super) fn event_count(&self) -> usize {
        self.events.len()
    }

    /// Keys and values.
    pub(super) fn events(&self, part: Range<usize>) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.events[part].iter().map(|Event { place, .. }| {
            (&self.bytes[place.start..place.key_end], &self.bytes[place.key_end..place.end])
        })
    }

    /// Items as they came, with why they are set aside.
    pub(super) fn dead_letters(&self) -> impl Iterator<Item = (&[u8], &ErrorHeaders)> {
        self.dead_letters.iter().map(|(place, errors)| (&self.bytes[place.start..place.end], errors))
    }
}
