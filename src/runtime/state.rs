//! State per key, in memory and as it stands on a changelog; and how stages that
//! keep theirs so are run as all others.

use std::hash::BuildHasher;
use std::time::Duration;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::timers::Timers;
use super::watermark::Watermark;
use crate::model::Timestamp;
use crate::pipeline::{
    Change, Declaration, Moment, Outputs, PartitionStage, PartitionState, Record, Stage, Step,
    UnreadableState, Waking, versioned,
};

/// Stages with state per key keep a table of them for each partition.
impl<S: Stage> PartitionStage for S {
    type Input<'a> = S::Input<'a>;
    type State = Table<S::State>;

    fn declaration(&self) -> &'static Declaration {
        Stage::declaration(self)
    }

    fn lateness(&self) -> Duration {
        Stage::declaration(self).lateness
    }

    fn key<'i>(input: &'i S::Input<'_>) -> &'i str {
        <S as Stage>::key(input)
    }

    fn event_time(input: &S::Input<'_>) -> Timestamp {
        <S as Stage>::event_time(input)
    }

    fn step(
        &self,
        record: &Record<'_>,
        table: &mut Table<S::State>,
        input: S::Input<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        match table.find(record.key) {
            Place::Held(place) => {
                let step = Stage::step(self, record, table.state_mut(place), input, outputs);
                if step == Step::Applied {
                    table.mark_changed(place, record.position.offset);
                    table.set_timer(self, place);
                }
                step
            }
            Place::Free { hash } => {
                let mut state = S::State::default();
                let step = Stage::step(self, record, &mut state, input, outputs);
                if step == Step::Applied {
                    let place = table.insert(hash, record.key, state);
                    table.mark_changed(place, record.position.offset);
                    table.set_timer(self, place);
                }
                step
            }
        }
    }

    fn idle_after(&self) -> Option<Duration> {
        Stage::idle_after(self)
    }

    fn advance(&self, moment: &Moment, table: &mut Table<S::State>, outputs: &mut Outputs) {
        if std::mem::take(&mut table.is_restored) {
            (0..table.slots.len()).for_each(|place| table.set_timer(self, place as u32));
        }
        let Some(time) = moment.watermark else { return };
        for _ in 0..WAKES_AT_ONCE {
            let Some(place) = table.timers.next(time) else { break };
            let slot = &mut table.slots[place as usize];
            // Put off since it was set, or gone.
            if slot.is_removed || Stage::due(self, &slot.state).is_none_or(|due| due > time) {
                table.set_timer(self, place);
                continue;
            }
            let waking = Waking {
                key: &slot.key,
                time,
                at: moment.at,
                by_clock: moment.by_clock,
                held_since: moment.held_since,
            };
            if Stage::wake(self, &waking, &mut slot.state, outputs) {
                let by_offset = slot.changed_by;
                table.mark_changed(place, by_offset);
            }
            table.set_timer(self, place);
        }
        table.timers.end_of_turn();
    }
}

/// Keys woken in one batch and partition. The rest waits for the next: a transaction has its limits.
const WAKES_AT_ONCE: usize = 1_000;

/// The state of one partition's keys, with a list of those changed since the last commit.
pub struct Table<T> {
    /// Places in `slots` by hash of the key: the keys themselves stand there only once.
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    changed: Vec<u32>,
    /// Changed by the last step.
    last_changed: Option<u32>,
    hasher: DefaultHashBuilder,
    timers: Timers,
    /// Keys came from the changelog, and their timers are not set yet.
    is_restored: bool,
}

struct Slot<T> {
    key: Box<str>,
    state: T,
    changed: bool,
    /// Offset of the record that changed it last.
    changed_by: i64,
    is_removed: bool,
}

/// Where a key's state stands, or would.
#[derive(Clone, Copy)]
enum Place {
    Held(u32),
    Free { hash: u64 },
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            slots: Vec::new(),
            changed: Vec::new(),
            last_changed: None,
            hasher: Default::default(),
            timers: Timers::default(),
            is_restored: false,
        }
    }
}

impl<T> Table<T> {
    fn find(&self, key: &str) -> Place {
        let hash = self.hasher.hash_one(key);
        match self.index.find(hash, |place| &*self.slots[*place as usize].key == key) {
            Some(place) => Place::Held(*place),
            None => Place::Free { hash },
        }
    }

    fn state_mut(&mut self, place: u32) -> &mut T {
        &mut self.slots[place as usize].state
    }

    fn insert(&mut self, hash: u64, key: &str, state: T) -> u32 {
        let place = u32::try_from(self.slots.len()).expect("fewer than four thousand million keys");
        self.slots.push(Slot { key: key.into(), state, changed: false, changed_by: -1, is_removed: false });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, place, |place| hasher.hash_one(&*slots[*place as usize].key));
        place
    }

    fn mark_changed(&mut self, place: u32, by_offset: i64) {
        let slot = &mut self.slots[place as usize];
        slot.changed_by = by_offset;
        self.last_changed = Some(place);
        if !slot.changed {
            slot.changed = true;
            self.changed.push(place);
        }
    }

    fn set_timer(&mut self, stage: &impl Stage<State = T>, place: u32) {
        let slot = &self.slots[place as usize];
        if let Some(due) = stage.due(&slot.state).filter(|_| !slot.is_removed) {
            self.timers.set(place, due);
        }
    }

    /// Takes a key out. Its slot stays empty: only a tombstone on the changelog, which
    /// no stage with state per key writes, ever does this.
    fn remove(&mut self, key: &str) {
        let hash = self.hasher.hash_one(key);
        let slots = &self.slots;
        if let Ok(entry) = self.index.find_entry(hash, |place| &*slots[*place as usize].key == key) {
            let (place, _) = entry.remove();
            self.slots[place as usize].is_removed = true;
        }
    }
}

impl<T: Default + Serialize + DeserializeOwned + Send> PartitionState for Table<T> {
    fn restore(&mut self, known: u32, key: &[u8], value: Option<&[u8]>) -> Result<(), UnreadableState> {
        let key = String::from_utf8_lossy(key);
        let Some(value) = value else {
            self.remove(&key);
            return Ok(());
        };
        let state = versioned::read(known, key.as_bytes(), value)?;
        self.is_restored = true;
        match self.find(&key) {
            Place::Held(place) => self.slots[place as usize].state = state,
            Place::Free { hash } => {
                self.insert(hash, &key, state);
            }
        }
        Ok(())
    }

    fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn changes<E>(&self, version: u32, mut write: impl FnMut(Change<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut buffer = Vec::new();
        self.changed.iter().try_for_each(|place| {
            let slot = &self.slots[*place as usize];
            buffer.clear();
            versioned::append(&mut buffer, version, &slot.state);
            write(Change { key: slot.key.as_bytes(), value: Some(&buffer), by_offset: slot.changed_by })
        })
    }

    fn committed(&mut self) {
        for place in self.changed.drain(..) {
            self.slots[place as usize].changed = false;
        }
    }

    fn keys(&self) -> usize {
        self.index.len()
    }

    fn minds(&self, time: Timestamp) -> bool {
        self.is_restored || self.timers.earliest().is_some_and(|due| due <= time)
    }

    fn last_change(&self, version: u32, buffer: &mut Vec<u8>) -> Option<&[u8]> {
        let slot = &self.slots[self.last_changed? as usize];
        versioned::append(buffer, version, &slot.state);
        Some(slot.key.as_bytes())
    }
}

/// Key of the record that says how far a partition had been read. Cannot be the
/// key of a fact: those hold no NUL.
pub(super) const PROGRESS_KEY: &[u8] = b"\0progress";

/// How far a partition had been read when its state was as the changelog has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Progress {
    /// State version of the writer.
    pub v: u32,
    pub watermark: Watermark,
    /// Time by the clock, while the partition was silent.
    #[serde(default)]
    pub silent_until: Watermark,
    /// Offset of the first record that is not in the state.
    pub next_offset: i64,
    /// Partitions the input had: with another number, keys stand elsewhere.
    pub partitions: i32,
    /// Which topic of the input's name it was, where the brokers tell: the offset is one in that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<Uuid>,
}

/// A changelog that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(transparent)]
    Unreadable(#[from] UnreadableState),
    #[error(
        "the state was written when the input had {then} partitions, now it has {now}, so keys have moved: \
         give the topic its former number of partitions, or delete the changelog and the consumer group to begin anew"
    )]
    Repartitioned { then: i32, now: i32 },
}

/// Reads a [`Progress`] record.
pub(super) fn read_progress(known: u32, value: &[u8]) -> Result<Progress, UnreadableState> {
    let malformed = malformed("progress");
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let version: Version = serde_json::from_slice(value).map_err(&malformed)?;
    check_version(known, version.v)?;
    serde_json::from_slice(value).map_err(&malformed)
}

fn malformed(key: &str) -> impl Fn(serde_json::Error) -> UnreadableState {
    move |cause| UnreadableState::Malformed { key: key.to_owned(), cause: cause.to_string() }
}

fn check_version(known: u32, found: u32) -> Result<(), UnreadableState> {
    if found > known { Err(UnreadableState::Newer { found, known }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn changes(table: &Table<i64>) -> Vec<(String, String, i64)> {
        let mut changes = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let written: Result<(), Infallible> = table.changes(1, |change| {
            changes.push((text(change.key), text(change.value.unwrap()), change.by_offset));
            Ok(())
        });
        let Ok(()) = written;
        changes
    }

    #[test]
    fn a_changed_key_is_listed_once_until_committed() {
        let mut table = Table::default();
        for number in 0..1_000 {
            let Place::Free { hash } = table.find(&number.to_string()) else { panic!("new key") };
            table.insert(hash, &number.to_string(), number);
        }
        let Place::Held(place) = table.find("7") else { panic!("known key") };
        *table.state_mut(place) += 100;
        table.mark_changed(place, 41);
        table.mark_changed(place, 42);
        assert_eq!(changes(&table), [("7".to_owned(), "{\"v\":1,\"s\":107}".to_owned(), 42)]);
        table.committed();
        assert!(!table.is_changed() && changes(&table).is_empty());
        table.mark_changed(place, 43);
        assert_eq!(changes(&table).len(), 1, "and again after the next change");
        assert_eq!(table.keys(), 1_000);
    }

    #[test]
    fn a_tombstone_takes_the_key_out_and_a_later_value_brings_it_back() {
        let mut table = Table::<i64>::default();
        for (key, value) in [("a", Some(1)), ("b", Some(2)), ("a", None), ("c", None)] {
            let value = value.map(|number: i64| format!("{{\"v\":1,\"s\":{number}}}").into_bytes());
            table.restore(1, key.as_bytes(), value.as_deref()).unwrap();
        }
        assert_eq!(table.keys(), 1);
        assert!(matches!(table.find("a"), Place::Free { .. }));
        table.restore(1, b"a", Some(b"{\"v\":1,\"s\":3}")).unwrap();
        let Place::Held(place) = table.find("a") else { panic!("it is back") };
        assert_eq!(*table.state_mut(place), 3);
    }

    #[test]
    fn state_survives_the_changelog_and_newer_versions_are_refused() {
        let mut bytes = Vec::new();
        versioned::append(&mut bytes, 3, &vec![1.5, 2.0]);
        assert_eq!(bytes, br#"{"v":3,"s":[1.5,2.0]}"#);
        assert_eq!(versioned::read::<Vec<f64>>(3, b"a", &bytes).unwrap(), [1.5, 2.0]);
        assert_eq!(versioned::read::<Vec<f64>>(4, b"a", &bytes).unwrap(), [1.5, 2.0]);
        let refused = versioned::read::<Vec<f64>>(2, b"a", &bytes).unwrap_err();
        assert!(matches!(refused, UnreadableState::Newer { found: 3, known: 2 }), "{refused}");
        let broken = versioned::read::<Vec<f64>>(3, b"a", b"{\"v\":3,\"s\":[\"x\"]}").unwrap_err();
        assert!(matches!(broken, UnreadableState::Malformed { .. }), "{broken}");
    }

    #[test]
    fn progress_survives_the_changelog() {
        let mut watermark = Watermark::default();
        watermark.advance(Timestamp::from_millis(1_767_323_045_678));
        let silent_until = Watermark::default();
        let progress =
            Progress { v: 2, watermark, silent_until, next_offset: 77, partitions: 6, topic_id: None };
        let bytes = serde_json::to_vec(&progress).unwrap();
        assert_eq!(read_progress(2, &bytes).unwrap(), progress);
        assert!(matches!(read_progress(1, &bytes), Err(UnreadableState::Newer { .. })));
        let of_topic = Progress { topic_id: Some(Uuid::from_u128(7)), ..progress };
        let bytes = serde_json::to_vec(&of_topic).unwrap();
        assert_eq!(read_progress(2, &bytes).unwrap(), of_topic);
    }
}
