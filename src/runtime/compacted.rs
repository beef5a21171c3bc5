//! A changelog on its way into memory, without what was written over: brokers compact late, and
//! reading a state costs more than passing over it.

use std::hash::BuildHasher;

use hashbrown::hash_table::Entry as Place;
use hashbrown::{DefaultHashBuilder, HashTable};

/// What is live is handed on beyond this many bytes, so that keys without end cost no memory twice.
const LIVE_BYTES: usize = 128 << 20;
/// Overwritten bytes are let be up to this many, or as many as are live.
const DEAD_BYTES: usize = 4 << 20;

/// The newest record of each key, in the order in which these were read: what compaction by the
/// brokers would have left of the changelog, or of a part of it.
#[derive(Default)]
pub(super) struct Compacted {
    /// Key and value of each record, one behind the other.
    bytes: Vec<u8>,
    records: Vec<Record>,
    /// Places in `records` by hash of partition and key.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    live_bytes: usize,
}

#[derive(Clone, Copy)]
struct Record {
    partition: i32,
    start: usize,
    key: u32,
    /// `None` removes the key.
    value: Option<u32>,
    is_live: bool,
}

impl Record {
    fn len(&self) -> usize {
        self.key as usize + self.value.unwrap_or_default() as usize
    }

    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.start..][..self.key as usize]
    }

    fn value<'b>(&self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        self.value.map(|len| &bytes[self.start + self.key as usize..][..len as usize])
    }
}

impl Compacted {
    /// Takes a record, which overwrites that of its key.
    pub(super) fn push(&mut self, partition: i32, key: &[u8], value: Option<&[u8]>) {
        let len = |bytes: &[u8]| u32::try_from(bytes.len()).expect("no record is so large");
        let record = Record {
            partition,
            start: self.bytes.len(),
            key: len(key),
            value: value.map(len),
            is_live: true,
        };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.live_bytes += record.len();
        let place = u32::try_from(self.records.len()).expect("fewer than four thousand million records");
        self.records.push(record);
        let Self { bytes, records, index, hasher, .. } = self;
        let is_same = |other: &u32| {
            let other = &records[*other as usize];
            other.partition == partition && other.key(bytes) == key
        };
        let hash_of = |place: &u32| hash(hasher, &records[*place as usize], bytes);
        match index.entry(hash(hasher, &record, bytes), is_same, hash_of) {
            Place::Occupied(mut held) => {
                let former = std::mem::replace(held.get_mut(), place);
                let former = &mut records[former as usize];
                former.is_live = false;
                self.live_bytes -= former.len();
            }
            Place::Vacant(free) => {
                free.insert(place);
            }
        }
        if self.bytes.len() - self.live_bytes > self.live_bytes.max(DEAD_BYTES) {
            self.compact();
        }
    }

    /// Whether what is here should be handed on before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.live_bytes > LIVE_BYTES
    }

    /// Hands on what is left, and holds nothing any more.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn drain<E>(
        &mut self,
        mut take: impl FnMut(i32, &[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let live = self.records.iter().filter(|record| record.is_live);
        let taken = live
            .map(|record| (record.partition, record.key(&self.bytes), record.value(&self.bytes)))
            .try_for_each(|(partition, key, value)| take(partition, key, value));
        self.bytes.clear();
        self.records.clear();
        self.index.clear();
        self.live_bytes = 0;
        taken
    }

    fn compact(&mut self) {
        let Self { bytes, records, index, hasher, .. } = self;
        records.retain(|record| record.is_live);
        let mut end = 0;
        for record in records.iter_mut() {
            bytes.copy_within(record.start..record.start + record.len(), end);
            record.start = end;
            end += record.len();
        }
        bytes.truncate(end);
        index.clear();
        let hash_of = |place: &u32| hash(hasher, &records[*place as usize], bytes);
        for place in 0..records.len() as u32 {
            index.insert_unique(hash_of(&place), place, hash_of);
        }
    }
}

fn hash(hasher: &DefaultHashBuilder, record: &Record, bytes: &[u8]) -> u64 {
    hasher.hash_one((record.partition, record.key(bytes)))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    type Owned = (i32, Vec<u8>, Option<Vec<u8>>);

    fn drained(compacted: &mut Compacted) -> Vec<Owned> {
        let mut all = Vec::new();
        let taken = compacted.drain(|partition, key, value| {
            all.push((partition, key.to_vec(), value.map(<[u8]>::to_vec)));
            Ok::<(), Infallible>(())
        });
        let Ok(()) = taken;
        all
    }

    proptest! {
        #[test]
        fn the_newest_of_each_key_is_left_in_the_order_it_was_read(
            log in prop::collection::vec(
                (0..2_i32, prop::collection::vec(0..2_u8, 0..3),
                 prop::option::of(prop::collection::vec(any::<u8>(), 0..5))),
                0..200,
            ),
            every in 1_usize..50,
        ) {
            let mut compacted = Compacted::default();
            for (number, (partition, key, value)) in log.iter().enumerate() {
                compacted.push(*partition, key, value.as_deref());
                if number.is_multiple_of(every) {
                    compacted.compact();
                }
            }
            let is_newest = |number: usize| {
                let (partition, key, _) = &log[number];
                !log[number + 1..].iter().any(|(of, other, _)| of == partition && other == key)
            };
            let expected: Vec<Owned> =
                (0..log.len()).filter(|number| is_newest(*number)).map(|number| log[number].clone()).collect();
            prop_assert_eq!(drained(&mut compacted), expected);
            prop_assert!(drained(&mut compacted).is_empty(), "and nothing twice");
        }
    }

    #[test]
    fn what_is_written_over_does_not_add_up() {
        let (mut compacted, value) = (Compacted::default(), vec![7; 1 << 20]);
        for number in 0..100_u8 {
            compacted.push(0, &[number % 3], Some(&value));
            assert!(compacted.bytes.len() <= 8 << 20, "{number}: {}", compacted.bytes.len());
        }
        assert!(!compacted.is_full());
        assert_eq!(drained(&mut compacted).len(), 3);
    }

    #[test]
    fn it_is_full_when_keys_go_on() {
        let (mut compacted, value) = (Compacted::default(), vec![7; 1 << 20]);
        for number in 0..=127_u8 {
            assert!(!compacted.is_full(), "{number}");
            compacted.push(0, &[number], Some(&value));
        }
        assert!(compacted.is_full());
        drained(&mut compacted);
        assert!(!compacted.is_full());
    }
}
