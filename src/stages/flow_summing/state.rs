//! Open minutes of the flows of one partition, and how far the partitions of events are.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::flow::{FlowClosed, FlowCount};
use crate::pipeline::versioned::{read, read_key, written};
use crate::pipeline::{Change, PartitionState, UnreadableState};

/// Flow versions summed at once in the open minutes of one partition, and remembered
/// after.
pub(super) const MOST_SUMS: usize = 50_000;

/// See the module.
#[derive(Default)]
pub struct State {
    upstream: Upstream,
    /// Minutes that begin before this are complete.
    closed_before: Option<Timestamp>,
    sums: BTreeMap<Timestamp, BTreeMap<FlowVersion, Sum>>,
    /// Sums in all minutes.
    held: usize,
    /// The last complete minute in which each flow version had interactions.
    last_minutes: BTreeMap<FlowVersion, Timestamp>,
    /// What is not on the changelog yet as it is here, or is no more.
    changed: BTreeSet<Key>,
    is_untold: bool,
}

/// How far the partitions of events are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Upstream {
    /// How many there are; 0 before the first was heard of.
    partitions: i32,
    /// Their earliest open minutes.
    before: BTreeMap<i32, Timestamp>,
}

/// A flow and its version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowVersion {
    pub flow_id: Box<str>,
    pub version: Box<str>,
}

/// Total and errors that each partition of events has told, by partition.
#[derive(Default)]
struct Sum {
    parts: Vec<(i32, u64, u64)>,
    is_untold: bool,
}

impl Sum {
    fn value(&self) -> (u64, u64) {
        self.parts.iter().fold((0, 0), |(total, errors), (_, more, failed)| (total + more, errors + failed))
    }
}

/// One key of the changelog, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    Upstream,
    ClosedBefore,
    Sum(Timestamp, FlowVersion),
    LastMinute(FlowVersion),
}

/// What became of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summed {
    Changed,
    Unchanged,
    /// Its minute is complete.
    Complete,
    TooMany,
}

impl State {
    /// A partition of events has come so far; its last word counts, for it may have opened
    /// minutes again. Answers whether that is news.
    pub fn pass(&mut self, closed: FlowClosed) -> bool {
        let known = self.upstream.before.get(&closed.partition);
        let is_news = self.upstream.partitions != closed.partitions || known != Some(&closed.before);
        if is_news {
            self.upstream.partitions = closed.partitions;
            self.upstream.before.insert(closed.partition, closed.before);
            self.changed.insert(Key::Upstream);
        }
        is_news
    }

    /// Takes over what a partition of events has counted until now.
    pub fn sum(&mut self, count: &FlowCount<'_>) -> Summed {
        if self.closed_before.is_some_and(|closed| count.minute < closed) {
            return Summed::Complete;
        }
        let of = FlowVersion { flow_id: (*count.flow_id).into(), version: (*count.flow_version).into() };
        let sums = self.sums.entry(count.minute).or_default();
        if !sums.contains_key(&of) {
            if self.held >= MOST_SUMS {
                return Summed::TooMany;
            }
            self.held += 1;
        }
        let sum = sums.entry(of.clone()).or_default();
        let part = (count.partition, count.total, count.errors);
        match sum.parts.iter_mut().find(|(partition, ..)| *partition == count.partition) {
            Some(known) if *known == part => return Summed::Unchanged,
            Some(known) => *known = part,
            None => sum.parts.push(part),
        }
        sum.is_untold = true;
        self.is_untold = true;
        self.changed.insert(Key::Sum(count.minute, of));
        Summed::Changed
    }

    /// The time before which no partition of events will count any more, once all have spoken.
    pub fn passed_by_all(&self) -> Option<Timestamp> {
        let Upstream { partitions, before } = &self.upstream;
        if *partitions == 0 {
            return None;
        }
        (0..*partitions).map(|partition| before.get(&partition).copied()).min().flatten()
    }

    /// The earliest minute before `until` that is to be closed.
    pub fn next_to_close(&self, until: Timestamp) -> Option<Timestamp> {
        let minute = match self.last_minutes.is_empty() {
            // Nobody waits for minutes without interactions.
            true => self.sums.keys().next().copied(),
            false => self.closed_before,
        };
        minute.filter(|minute| *minute < until)
    }

    /// Closes the minute from `minute` to `next`. Versions that had interactions in it or,
    /// at or after `oldest`, before it are handed to `tell` with total and errors.
    pub fn close(
        &mut self,
        minute: Timestamp,
        next: Timestamp,
        oldest: Timestamp,
        mut tell: impl FnMut(&FlowVersion, Timestamp, (u64, u64)),
    ) {
        let open = self.sums.split_off(&next);
        let closed = std::mem::replace(&mut self.sums, open);
        for (minute, sums) in closed {
            self.held -= sums.len();
            for (of, sum) in sums {
                tell(&of, minute, sum.value());
                self.changed.insert(Key::Sum(minute, of.clone()));
                if self.last_minutes.len() < MOST_SUMS || self.last_minutes.contains_key(&of) {
                    self.changed.insert(Key::LastMinute(of.clone()));
                    self.last_minutes.insert(of, minute);
                }
            }
        }
        let changed = &mut self.changed;
        self.last_minutes.retain(|of, last| {
            let is_remembered = *last >= oldest;
            match is_remembered {
                true if *last < minute => tell(of, minute, (0, 0)),
                true => {}
                false => drop(changed.insert(Key::LastMinute(of.clone()))),
            }
            is_remembered
        });
        self.close_before(next);
    }

    /// What begins before this is complete from now on.
    pub fn close_before(&mut self, before: Timestamp) {
        if self.closed_before.is_none_or(|closed| closed < before) {
            self.closed_before = Some(before);
            self.changed.insert(Key::ClosedBefore);
        }
    }

    pub fn closed_before(&self) -> Option<Timestamp> {
        self.closed_before
    }

    /// Minutes that begin at `before` or later are open, whatever was said.
    pub fn reopen(&mut self, before: Timestamp) {
        if self.closed_before.is_none_or(|closed| closed <= before) {
            return;
        }
        self.closed_before = Some(before);
        self.changed.insert(Key::ClosedBefore);
        // Or a version would have no minutes until then.
        for (of, last) in self.last_minutes.iter_mut().filter(|(_, last)| **last >= before) {
            *last = before;
            self.changed.insert(Key::LastMinute(of.clone()));
        }
    }

    /// Hands every open sum that was not told since it changed to `tell`.
    pub fn tell_open(&mut self, mut tell: impl FnMut(&FlowVersion, Timestamp, (u64, u64))) {
        if !std::mem::take(&mut self.is_untold) {
            return;
        }
        for (minute, sums) in &mut self.sums {
            for (of, sum) in sums.iter_mut().filter(|(_, sum)| sum.is_untold) {
                sum.is_untold = false;
                tell(of, *minute, sum.value());
            }
        }
    }
}

impl PartitionState for State {
    fn restore(&mut self, known: u32, key: &[u8], value: Option<&[u8]>) -> Result<(), UnreadableState> {
        let of: Key = read_key(key)?;
        match (of, value) {
            (Key::Upstream, Some(value)) => self.upstream = read(known, key, value)?,
            (Key::ClosedBefore, Some(value)) => self.closed_before = Some(read(known, key, value)?),
            (Key::Sum(minute, of), Some(value)) => {
                let sum = Sum { parts: read(known, key, value)?, is_untold: false };
                if self.sums.entry(minute).or_default().insert(of, sum).is_none() {
                    self.held += 1;
                }
            }
            (Key::Sum(minute, of), None) => {
                let sums = self.sums.entry(minute).or_default();
                self.held -= usize::from(sums.remove(&of).is_some());
                if sums.is_empty() {
                    self.sums.remove(&minute);
                }
            }
            (Key::LastMinute(of), Some(value)) => {
                self.last_minutes.insert(of, read(known, key, value)?);
            }
            (Key::LastMinute(of), None) => {
                self.last_minutes.remove(&of);
            }
            (Key::Upstream, None) => self.upstream = Upstream::default(),
            (Key::ClosedBefore, None) => self.closed_before = None,
        }
        Ok(())
    }

    fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn changes<E>(&self, version: u32, mut write: impl FnMut(Change<'_>) -> Result<(), E>) -> Result<(), E> {
        self.changed.iter().try_for_each(|of| {
            let key = serde_json::to_vec(of).expect("own keys are JSON");
            let value = match of {
                Key::Upstream => Some(written(version, &self.upstream)),
                Key::ClosedBefore => self.closed_before.map(|before| written(version, &before)),
                Key::Sum(minute, of) => {
                    let sum = self.sums.get(minute).and_then(|sums| sums.get(of));
                    sum.map(|sum| written(version, &sum.parts))
                }
                Key::LastMinute(of) => self.last_minutes.get(of).map(|minute| written(version, minute)),
            };
            // Records are small by themselves: no count is to blame for one.
            write(Change { key: &key, value: value.as_deref(), by_offset: -1 })
        })
    }

    fn committed(&mut self) {
        self.changed.clear();
    }

    fn keys(&self) -> usize {
        self.held + self.last_minutes.len()
    }
}
