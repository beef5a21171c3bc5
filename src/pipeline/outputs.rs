//! Records a stage wants sent.

use serde::Serialize;

use super::json;
use crate::topics::Topic;

/// Records a stage wants sent, serialised into one reused buffer.
#[derive(Default)]
pub struct Outputs {
    bytes: Vec<u8>,
    records: Vec<Stored>,
}

struct Stored {
    topic: &'static Topic,
    destination: Destination,
    key_end: usize,
    value_end: usize,
}

/// Which partitions of its topic a record goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The one its key belongs to.
    Key,
    /// Each of them: for what all readers of the topic have to know.
    EveryPartition,
}

/// One record to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Output<'o> {
    pub topic: &'static Topic,
    pub destination: Destination,
    pub key: &'o [u8],
    pub value: &'o [u8],
}

impl Outputs {
    /// Sends `value` under `key`.
    ///
    /// # Panics
    /// When `value` cannot be written as JSON, which for our own types is a bug.
    pub fn send(&mut self, topic: &'static Topic, key: &str, value: &impl Serialize) {
        self.store(topic, Destination::Key, key, value);
    }

    /// Sends `value` to every partition of the topic.
    ///
    /// # Panics
    /// As [`send`](Self::send).
    pub fn send_to_every_partition(&mut self, topic: &'static Topic, key: &str, value: &impl Serialize) {
        self.store(topic, Destination::EveryPartition, key, value);
    }

    fn store(&mut self, topic: &'static Topic, destination: Destination, key: &str, value: &impl Serialize) {
        self.bytes.extend_from_slice(key.as_bytes());
        let key_end = self.bytes.len();
        json::append(&mut self.bytes, value);
        self.records.push(Stored { topic, destination, key_end, value_end: self.bytes.len() });
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Everything sent since the last [`clear`](Self::clear), in order.
    pub fn iter(&self) -> impl Iterator<Item = Output<'_>> {
        let mut start = 0;
        self.records.iter().map(move |stored| {
            let key = &self.bytes[start..stored.key_end];
            let value = &self.bytes[stored.key_end..stored.value_end];
            start = stored.value_end;
            Output { topic: stored.topic, destination: stored.destination, key, value }
        })
    }

    /// Forgets the records, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    #[test]
    fn outputs_come_back_in_order_with_their_bytes() {
        let mut outputs = Outputs::default();
        for round in 0..2 {
            outputs.send(&topics::OUTCOMES, "a", &round);
            outputs.send_to_every_partition(&topics::DIAL_DECISIONS, "bb", &"x");
            let written = round.to_string();
            let first = Output {
                topic: &topics::OUTCOMES,
                destination: Destination::Key,
                key: b"a",
                value: written.as_bytes(),
            };
            let second = Output {
                topic: &topics::DIAL_DECISIONS,
                destination: Destination::EveryPartition,
                key: b"bb",
                value: b"\"x\"",
            };
            assert_eq!(outputs.iter().collect::<Vec<_>>(), [first, second]);
            outputs.clear();
            assert!(outputs.is_empty());
        }
    }
}
