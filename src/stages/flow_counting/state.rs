//! What one partition has counted in its open minutes, and which events it knows.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::changelog::{self, Record};
use super::flow_version::{FlowVersion, FlowVersionRef};
use super::identity::Identity;
use crate::model::Timestamp;
use crate::pipeline::{Change, PartitionState, UnreadableState};

/// Events known at once in one partition: some 120 MB. At the default lateness that is
/// 20 000 a second for one partition.
pub(super) const MOST_EVENTS: usize = 4_000_000;
/// Flow versions counted at once in the open minutes of one partition.
pub(super) const MOST_COUNTS: usize = 20_000;

/// See the module.
#[derive(Default)]
pub struct State {
    /// Minutes that begin before this are closed.
    closed_before: Option<Timestamp>,
    minutes: BTreeMap<Timestamp, Minute>,
    /// Counts in all of them.
    counts: usize,
    /// The events counted, each with the minute it is of. Those of closed minutes are as if
    /// they were not there.
    events: HashMap<Identity, Second>,
    /// Minutes closed since the last commit: what the changelog holds of them has to go.
    closed: Vec<(Timestamp, Minute)>,
    is_changed: bool,
    /// The minute whose new events fill a record.
    filled: Option<Timestamp>,
    /// Closed minutes were opened again, and nobody was told.
    is_reopened: bool,
    /// When the counts were told last. Not kept: after a restart all are told again.
    told_at: Option<Timestamp>,
    is_untold: bool,
}

#[derive(Default)]
struct Minute {
    counts: HashMap<FlowVersion, Count>,
    /// Records of events that were written.
    event_records: u32,
    /// Events that it does not have yet: fewer than fill a record, once a step is done.
    new_events: Vec<Identity>,
}

impl Minute {
    /// The record of the events that the changelog does not have yet.
    fn next_record(&self, minute: Timestamp, version: u32, key: &mut Vec<u8>, value: &mut Vec<u8>) {
        changelog::events_key(key, minute, self.event_records);
        changelog::events_value(value, version, &self.new_events);
    }
}

/// Interactions of one flow version in one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub total: u64,
    pub errors: u64,
    is_changed: bool,
    is_untold: bool,
}

/// A minute's beginning in whole seconds since the Unix epoch: small, for there are many.
/// Minutes are at least a second long, so that no two begin in the same one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Second(u32);

impl Second {
    fn of(minute: Timestamp) -> Self {
        // Events are of the years 2000 to 2099.
        Self(u32::try_from(minute.as_millis().div_euclid(1_000)).unwrap_or(0))
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Once,
    /// It is known already.
    Again,
    /// Its minute is closed.
    TooLate,
    TooManyEvents,
    TooManyCounts,
}

impl State {
    /// Counts an event in its minute, if it is new. Anything but [`Counted::Once`] leaves
    /// the state as it was.
    pub fn count(
        &mut self,
        minute: Timestamp,
        event: Identity,
        of: FlowVersionRef<'_>,
        is_error: bool,
    ) -> Counted {
        if self.closed_before.is_some_and(|closed| minute < closed) {
            return Counted::TooLate;
        }
        let oldest_open = self.closed_before.map(Second::of);
        let is_full = self.events.len() >= MOST_EVENTS;
        let place = match self.events.entry(event) {
            Entry::Occupied(known) if oldest_open.is_none_or(|oldest| *known.get() >= oldest) => {
                return Counted::Again;
            }
            _ if is_full => return Counted::TooManyEvents,
            place => place,
        };
        let held = self.minutes.entry(minute).or_default();
        let count = match held.counts.get_mut(&of) {
            Some(count) => count,
            None if self.counts >= MOST_COUNTS => return Counted::TooManyCounts,
            None => {
                self.counts += 1;
                held.counts.entry(of.to_owned()).or_default()
            }
        };
        count.total += 1;
        count.errors += u64::from(is_error);
        count.is_changed = true;
        count.is_untold = true;
        held.new_events.push(event);
        if held.new_events.len() >= changelog::EVENTS_PER_RECORD {
            self.filled = Some(minute);
        }
        place.insert(Second::of(minute));
        self.is_changed = true;
        self.is_untold = true;
        Counted::Once
    }

    pub fn closed_before(&self) -> Option<Timestamp> {
        self.closed_before
    }

    /// Whether there are counts that were not told, and the last telling was at or before
    /// `told_before` (or is later than `at`: the clock went back).
    pub fn is_to_be_told(&self, told_before: Timestamp, at: Timestamp) -> bool {
        self.is_untold && self.told_at.is_none_or(|told_at| told_at <= told_before || told_at > at)
    }

    /// Hands every count that was not told since it changed to `tell`.
    pub fn tell(&mut self, at: Timestamp, mut tell: impl FnMut(Timestamp, FlowVersionRef<'_>, &Count)) {
        self.told_at = Some(at);
        self.is_untold = false;
        for (minute, held) in &mut self.minutes {
            for (of, count) in held.counts.iter_mut().filter(|(_, count)| count.is_untold) {
                count.is_untold = false;
                tell(*minute, of.borrow(), count);
            }
        }
    }

    /// Closes every minute that begins before `before`, and forgets its events.
    pub fn close(&mut self, before: Timestamp) {
        let open = self.minutes.split_off(&before);
        let closed = std::mem::replace(&mut self.minutes, open);
        self.counts -= closed.values().map(|minute| minute.counts.len()).sum::<usize>();
        self.closed.extend(closed);
        self.closed_before = Some(before);
        self.is_changed = true;
        let oldest_open = Second::of(before);
        self.events.retain(|_, minute| *minute >= oldest_open);
        // What a burst took is given back.
        if self.events.capacity() > 8 * self.events.len().max(1_024) {
            self.events.shrink_to(2 * self.events.len());
        }
    }

    /// Minutes that begin at `before` or later are open, whatever was said.
    pub fn reopen(&mut self, before: Timestamp) {
        if self.closed_before.is_some_and(|closed| before < closed) {
            self.closed_before = Some(before);
            self.is_reopened = true;
            self.is_changed = true;
        }
    }

    /// Whether minutes were [opened again](Self::reopen) since this was last asked.
    pub fn take_reopened(&mut self) -> bool {
        std::mem::take(&mut self.is_reopened)
    }

    fn restore_record(&mut self, record: Record<'_>) {
        match record {
            Record::ClosedBefore(before) => {
                self.close(before);
                self.closed.clear();
            }
            Record::Count { minute, flow_id, version, count: Some((total, errors)) } => {
                let key = FlowVersionRef { flow_id, version }.to_owned();
                let count = Count { total, errors, is_changed: false, is_untold: true };
                self.is_untold = true;
                if self.minutes.entry(minute).or_default().counts.insert(key, count).is_none() {
                    self.counts += 1;
                }
            }
            // What was of a closed minute has gone with it.
            Record::Count { count: None, .. } | Record::Events { events: None, .. } => {}
            Record::Events { minute, number, events: Some(events) } => {
                let held = self.minutes.entry(minute).or_default();
                held.event_records = held.event_records.max(number + 1);
                let minute = Second::of(minute);
                self.events.extend(events.map(|event| (event, minute)));
            }
        }
    }
}

impl PartitionState for State {
    fn restore(&mut self, known: u32, key: &[u8], value: Option<&[u8]>) -> Result<(), UnreadableState> {
        // A record of a minute that was closed before it is of one that was opened again.
        self.restore_record(changelog::read(known, key, value)?);
        self.is_changed = false;
        Ok(())
    }

    fn is_changed(&self) -> bool {
        self.is_changed
    }

    fn changes<E>(&self, version: u32, mut write: impl FnMut(Change<'_>) -> Result<(), E>) -> Result<(), E> {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        // Records are small by themselves: no event is to blame for one.
        let mut put = |key: &[u8], value: Option<&[u8]>| write(Change { key, value, by_offset: -1 });
        for (minute, held) in &self.closed {
            for of in held.counts.keys() {
                changelog::count_key(&mut key, *minute, of.borrow());
                put(&key, None)?;
            }
            for number in 0..held.event_records {
                changelog::events_key(&mut key, *minute, number);
                put(&key, None)?;
            }
        }
        for (minute, held) in &self.minutes {
            for (of, count) in held.counts.iter().filter(|(_, count)| count.is_changed) {
                changelog::count_key(&mut key, *minute, of.borrow());
                changelog::count_value(&mut value, version, count.total, count.errors);
                put(&key, Some(&value))?;
            }
            if !held.new_events.is_empty() {
                held.next_record(*minute, version, &mut key, &mut value);
                put(&key, Some(&value))?;
            }
        }
        if let Some(before) = self.closed_before.filter(|_| self.is_changed) {
            changelog::closed_value(&mut value, version, before);
            put(changelog::CLOSED_KEY, Some(&value))?;
        }
        Ok(())
    }

    /// Of the events, those that fill a record: no event joins them any more.
    fn settled<E>(
        &mut self,
        version: u32,
        mut write: impl FnMut(Change<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(minute) = self.filled.take() else { return Ok(()) };
        let Some(held) = self.minutes.get_mut(&minute) else { return Ok(()) };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        held.next_record(minute, version, &mut key, &mut value);
        held.event_records += 1;
        held.new_events.clear();
        write(Change { key: &key, value: Some(&value), by_offset: -1 })
    }

    fn committed(&mut self) {
        self.closed.clear();
        self.is_changed = false;
        for held in self.minutes.values_mut() {
            held.event_records += u32::from(!held.new_events.is_empty());
            held.new_events.clear();
            held.counts.values_mut().for_each(|count| count.is_changed = false);
        }
    }

    fn keys(&self) -> usize {
        self.counts
    }
}

#[cfg(test)]
mod tests;
