//! State per key, in memory and as it stands on a changelog.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::watermark::Watermark;

/// The state of one partition's keys, with a list of those changed since the last commit.
pub(super) struct Table<T> {
    /// Places in `slots` by hash of the key: the keys themselves stand there only once.
    index: HashTable<u32>,
    slots: Vec<Slot<T>>,
    changed: Vec<u32>,
    hasher: DefaultHashBuilder,
}

struct Slot<T> {
    key: Box<str>,
    state: T,
    changed: bool,
    /// Offset of the record that changed it last.
    changed_by: i64,
}

/// Where a key's state stands, or would.
#[derive(Clone, Copy)]
pub(super) enum Place {
    Held(u32),
    Free { hash: u64 },
}

impl<T> Table<T> {
    pub fn new() -> Self {
        Self { index: HashTable::new(), slots: Vec::new(), changed: Vec::new(), hasher: Default::default() }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn find(&self, key: &str) -> Place {
        let hash = self.hasher.hash_one(key);
        match self.index.find(hash, |place| &*self.slots[*place as usize].key == key) {
            Some(place) => Place::Held(*place),
            None => Place::Free { hash },
        }
    }

    pub fn state_mut(&mut self, place: u32) -> &mut T {
        &mut self.slots[place as usize].state
    }

    pub fn insert(&mut self, hash: u64, key: &str, state: T) -> u32 {
        let place = u32::try_from(self.slots.len()).expect("fewer than four thousand million keys");
        self.slots.push(Slot { key: key.into(), state, changed: false, changed_by: -1 });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.index.insert_unique(hash, place, |place| hasher.hash_one(&*slots[*place as usize].key));
        place
    }

    pub fn mark_changed(&mut self, place: u32, by_offset: i64) {
        let slot = &mut self.slots[place as usize];
        slot.changed_by = by_offset;
        if !slot.changed {
            slot.changed = true;
            self.changed.push(place);
        }
    }

    /// Keys changed since the last [`committed`](Self::committed): key, state, offset of the last change.
    pub fn changed(&self) -> impl Iterator<Item = (&str, &T, i64)> {
        self.changed.iter().map(|place| {
            let slot = &self.slots[*place as usize];
            (&*slot.key, &slot.state, slot.changed_by)
        })
    }

    pub fn committed(&mut self) {
        for place in self.changed.drain(..) {
            self.slots[place as usize].changed = false;
        }
    }

    /// Sets a key's state as it was read back.
    pub fn restore(&mut self, key: &str, state: T) {
        match self.find(key) {
            Place::Held(place) => self.slots[place as usize].state = state,
            Place::Free { hash } => {
                self.insert(hash, key, state);
            }
        }
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
    /// Offset of the first record that is not in the state.
    pub next_offset: i64,
    /// Partitions the input had: with another number, keys stand elsewhere.
    pub partitions: i32,
}

/// A changelog that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error(
        "the changelog was written with state version {found}, this program knows up to {known}: \
         start the newer program, or delete the changelog and the consumer group to begin anew"
    )]
    Newer { found: u32, known: u32 },
    #[error("state of key {key:?} cannot be read: {cause}")]
    Unreadable { key: String, cause: serde_json::Error },
    #[error(
        "the state was written when the input had {then} partitions, now it has {now}, so keys have moved: \
         give the topic its former number of partitions, or delete the changelog and the consumer group to begin anew"
    )]
    Repartitioned { then: i32, now: i32 },
}

/// Appends `{"v":<version>,"s":<state>}` to `buffer`.
pub(super) fn write_state(buffer: &mut Vec<u8>, version: u32, state: &impl Serialize) {
    #[derive(Serialize)]
    struct Versioned<'a, T> {
        v: u32,
        s: &'a T,
    }
    serde_json::to_writer(buffer, &Versioned { v: version, s: state }).expect("own state is JSON");
}

/// Reads what [`write_state`] wrote, this version's or an older one's.
pub(super) fn read_state<T: DeserializeOwned>(known: u32, key: &str, value: &[u8]) -> Result<T, StateError> {
    #[derive(Deserialize)]
    struct Versioned<'a> {
        v: u32,
        #[serde(borrow)]
        s: &'a RawValue,
    }
    let unreadable = |cause| StateError::Unreadable { key: key.to_owned(), cause };
    let versioned: Versioned<'_> = serde_json::from_slice(value).map_err(unreadable)?;
    check_version(known, versioned.v)?;
    serde_json::from_str(versioned.s.get()).map_err(unreadable)
}

/// Reads a [`Progress`] record.
pub(super) fn read_progress(known: u32, value: &[u8]) -> Result<Progress, StateError> {
    let unreadable = |cause| StateError::Unreadable { key: "progress".to_owned(), cause };
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let version: Version = serde_json::from_slice(value).map_err(unreadable)?;
    check_version(known, version.v)?;
    serde_json::from_slice(value).map_err(unreadable)
}

fn check_version(known: u32, found: u32) -> Result<(), StateError> {
    if found > known { Err(StateError::Newer { found, known }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[test]
    fn a_changed_key_is_listed_once_until_committed() {
        let mut table = Table::new();
        for number in 0..1_000 {
            let Place::Free { hash } = table.find(&number.to_string()) else { panic!("new key") };
            table.insert(hash, &number.to_string(), number);
        }
        let Place::Held(place) = table.find("7") else { panic!("known key") };
        *table.state_mut(place) += 100;
        table.mark_changed(place, 41);
        table.mark_changed(place, 42);
        assert_eq!(table.changed().collect::<Vec<_>>(), [("7", &107, 42)]);
        table.committed();
        assert_eq!(table.changed().count(), 0);
        table.mark_changed(place, 43);
        assert_eq!(table.changed().count(), 1, "and again after the next change");
        assert_eq!(table.len(), 1_000);
    }

    #[test]
    fn state_survives_the_changelog_and_newer_versions_are_refused() {
        let mut bytes = Vec::new();
        write_state(&mut bytes, 3, &vec![1.5, 2.0]);
        assert_eq!(bytes, br#"{"v":3,"s":[1.5,2.0]}"#);
        assert_eq!(read_state::<Vec<f64>>(3, "a", &bytes).unwrap(), [1.5, 2.0]);
        assert_eq!(read_state::<Vec<f64>>(4, "a", &bytes).unwrap(), [1.5, 2.0]);
        let refused = read_state::<Vec<f64>>(2, "a", &bytes).unwrap_err();
        assert!(matches!(refused, StateError::Newer { found: 3, known: 2 }), "{refused}");
        let broken = read_state::<Vec<f64>>(3, "a", b"{\"v\":3,\"s\":[\"x\"]}").unwrap_err();
        assert!(matches!(broken, StateError::Unreadable { .. }), "{broken}");
    }

    #[test]
    fn progress_survives_the_changelog() {
        let mut watermark = Watermark::default();
        watermark.advance(Timestamp::from_millis(1_767_323_045_678));
        let progress = Progress { v: 2, watermark, next_offset: 77, partitions: 6 };
        let bytes = serde_json::to_vec(&progress).unwrap();
        assert_eq!(read_progress(2, &bytes).unwrap(), progress);
        assert!(matches!(read_progress(1, &bytes), Err(StateError::Newer { .. })));
    }
}
