//! What a stage is: data in, data out. No clock, no I/O, no async; the runtime
//! and the in-memory driver run the same stages through this interface.
//!
//! Most stages keep their state per key and are a [`Stage`]; time goes by for them in
//! [`wake`](Stage::wake). Those that count over a whole partition are a [`PartitionStage`];
//! to the runtime every [`Stage`] is one too.

pub mod json;
mod outputs;
mod partition;
pub mod row;
mod silence;
pub mod versioned;

use std::time::Duration;

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::role::{Kind, Role};
use crate::topics::{self, Topic};

pub use outputs::{Destination, Output, Outputs};
pub use partition::{Change, Moment, PartitionStage, PartitionState, UnreadableState, latest_possible};
pub use silence::Silence;

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

    /// When the key wants to be [woken](Self::wake), in event time; `None` is never. Asked
    /// after every step and wake that was applied, and after a restore.
    fn due(&self, state: &Self::State) -> Option<Timestamp> {
        let _ = state;
        None
    }

    /// The time that was [due](Self::due) has come without a step that put it off. Answers
    /// whether state or outputs changed. One that is due again at once waits for the next batch.
    fn wake(&self, waking: &Waking<'_>, state: &mut Self::State, outputs: &mut Outputs) -> bool {
        let _ = (waking, state, outputs);
        false
    }

    /// See [`PartitionStage::idle_after`]; a stage that is [woken](Self::wake) needs it, or
    /// nothing is due in a partition where all keys are silent.
    fn idle_after(&self) -> Option<Duration> {
        None
    }
}

/// A key whose time has come.
#[derive(Clone, Copy, Debug)]
pub struct Waking<'a> {
    pub key: &'a str,
    /// How far event time has come in the key's partition: at or after what was due.
    pub time: Timestamp,
    /// The runtime's clock.
    pub at: Timestamp,
    /// The partition is silent and read to its end: nothing about the key is on its way.
    pub by_clock: bool,
    /// The clock when the partition was taken. What is missed since is missed; before, nobody
    /// may have looked.
    pub held_since: Timestamp,
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

/// Where the runtime puts what a stage cannot apply.
static SETS_ASIDE: &[&Topic] = &[&topics::LATE_EVENTS, &topics::DEAD_LETTERS];

impl Declaration {
    /// The role that runs the stage. What cannot be applied the runtime sets aside, whatever the
    /// stage.
    pub const fn role(&'static self) -> Role {
        Role {
            name: self.name,
            kind: Kind::Stage,
            description: self.description,
            reads: std::slice::from_ref(&self.input),
            writes: self.outputs,
            sets_aside: SETS_ASIDE,
            keeps: std::slice::from_ref(&self.changelog),
            outside: &[],
        }
    }

    /// Asserts that its outputs name the topic.
    ///
    /// # Panics
    /// In debug builds, when they do not.
    pub fn assert_sends(&self, topic: &Topic) {
        debug_assert!(
            self.outputs.contains(&topic),
            "stage {} sends to {topic:?}, which its declaration does not name",
            self.name
        );
    }
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
