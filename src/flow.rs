//! What a stage is: data in, data out. No clock, no I/O, no async; the runtime
//! and the in-memory driver run the same stages through this interface.

use std::time::Duration;

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::topics::Topic;

/// A step from one topic to others with state per key.
///
/// A stage's answer depends only on what `step` is given: deciding the same
/// records again gives the same outputs.
pub trait Stage: Send + Sync + 'static {
    /// One record's value; may borrow from the record.
    type Input<'a>: Deserialize<'a>;
    /// What is kept per key. `Default` is the state of a key not seen before.
    type State: Default + Serialize + DeserializeOwned + Send;

    /// How topics are connected; see [`Declaration`].
    fn declaration(&self) -> &'static Declaration;

    /// The key a value belongs under. A record whose key differs is a dead letter.
    fn key<'i>(input: &'i Self::Input<'_>) -> &'i str;

    /// When the value's fact happened.
    fn event_time(input: &Self::Input<'_>) -> Timestamp;

    /// One step. Outputs are sent, and `state` is kept, only if the whole batch commits.
    fn step(
        &self,
        record: &Record<'_>,
        state: &mut Self::State,
        input: Self::Input<'_>,
        outputs: &mut Outputs,
    ) -> Step;
}

/// How a stage is wired, as data: topology, documentation and runtime read it.
#[derive(Debug)]
pub struct Declaration {
    /// Short name: `--stages`, metrics, consumer group, transactional ids.
    pub name: &'static str,
    pub description: &'static str,
    pub input: &'static Topic,
    pub outputs: &'static [&'static Topic],
    /// Where the state is kept. Has as many partitions as `input`.
    pub changelog: &'static Topic,
    /// Version of the state's serialisation. A changelog written by a newer
    /// version stops the stage; one written by an older version is read by
    /// `State`'s own `Deserialize`.
    pub state_version: u32,
    /// How far behind the partition's watermark a fact may be; older ones are late.
    pub lateness: Duration,
}

/// Where and when a record was met.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The runtime's clock at the start of the batch.
    pub at: Timestamp,
    pub key: &'a str,
    /// The JSON that the input was read from, for those who hand it on as it is.
    pub value: &'a str,
    pub position: Position<'a>,
}

/// What became of a record. Every record ends in exactly one of these, or as a
/// dead letter or late event of the runtime's own finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// State or outputs changed.
    Applied,
    /// Nothing to do, and why.
    NoOp(&'static str),
    /// The value contradicts itself: to the dead letters, with this reason.
    /// The state must be as it was.
    Rejected(String),
    /// Too old for its window: to the late events. The state must be as it was.
    Late,
}

/// Records a step wants sent, serialised into one reused buffer.
#[derive(Default)]
pub struct Outputs {
    bytes: Vec<u8>,
    records: Vec<Output>,
}

struct Output {
    topic: &'static Topic,
    key_end: usize,
    value_end: usize,
}

impl Outputs {
    /// Sends `value` under `key`.
    ///
    /// # Panics
    /// When `value` cannot be written as JSON, which for our own types is a bug.
    pub fn send(&mut self, topic: &'static Topic, key: &str, value: &impl Serialize) {
        self.bytes.extend_from_slice(key.as_bytes());
        let key_end = self.bytes.len();
        serde_json::to_writer(&mut self.bytes, value).expect("own values are JSON");
        self.records.push(Output { topic, key_end, value_end: self.bytes.len() });
    }

    /// Everything sent since the last [`clear`](Self::clear), in order: topic, key, value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Topic, &[u8], &[u8])> {
        let mut start = 0;
        self.records.iter().map(move |output| {
            let key = &self.bytes[start..output.key_end];
            let value = &self.bytes[output.key_end..output.value_end];
            start = output.value_end;
            (output.topic, key, value)
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
            outputs.send(&topics::DIAL_DECISIONS, "bb", &"x");
            let seen: Vec<_> = outputs
                .iter()
                .map(|(topic, key, value)| (topic.name, key.to_vec(), value.to_vec()))
                .collect();
            assert_eq!(
                seen,
                [
                    (topics::OUTCOMES.name, b"a".to_vec(), round.to_string().into_bytes()),
                    (topics::DIAL_DECISIONS.name, b"bb".to_vec(), b"\"x\"".to_vec()),
                ]
            );
            outputs.clear();
        }
    }
}
