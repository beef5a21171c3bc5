//! Stages whose state belongs to a partition as a whole.

use std::time::Duration;

use serde::de::Deserialize;

use super::{Declaration, Outputs, Record, Step};
use crate::model::Timestamp;

/// A step from one topic to others with state per partition of the input, in a shape
/// of the stage's own.
///
/// A stage's answers depend only on what `step` and `advance` are given.
pub trait PartitionStage: Send + Sync + 'static {
    /// One record's value; may borrow from the record.
    type Input<'a>: Deserialize<'a>;
    /// What is kept per partition.
    type State: PartitionState;

    /// How topics are connected; see [`Declaration`].
    fn declaration(&self) -> &'static Declaration;

    /// How far behind the partition's watermark a fact may be; older ones are late.
    fn lateness(&self) -> Duration {
        self.declaration().lateness
    }

    /// A partition that is read to its end and has had no record for this long lets its
    /// watermark move with the clock, this far behind it and no further than the records read
    /// lately bear the clock out. `None`: only facts move it.
    fn idle_after(&self) -> Option<Duration> {
        None
    }

    /// Whether records that cannot be used are set aside. Not where another stage that reads the
    /// same topic does so: each is to be a dead letter once.
    fn sets_aside(&self) -> bool {
        true
    }

    /// The key a value belongs under. A record whose key differs is a dead letter.
    fn key<'i>(input: &'i Self::Input<'_>) -> &'i str;

    /// When the value's fact happened.
    fn event_time(input: &Self::Input<'_>) -> Timestamp;

    /// One step. Outputs are sent, and the state's changes are kept, only if the whole
    /// batch commits.
    fn step(
        &self,
        record: &Record<'_>,
        state: &mut Self::State,
        input: Self::Input<'_>,
        outputs: &mut Outputs,
    ) -> Step;

    /// What time brings: called for every partition at the end of every batch, and several
    /// times a second without records. Outputs and changes of the state commit together.
    fn advance(&self, moment: &Moment, state: &mut Self::State, outputs: &mut Outputs) {
        let _ = (moment, state, outputs);
    }
}

/// How far a partition has come when it is [advanced](PartitionStage::advance).
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The runtime's clock.
    pub at: Timestamp,
    pub partition: i32,
    /// Partitions of the input, whoever holds them.
    pub partitions: i32,
    /// The latest event time met, or what the clock says where the partition is idle;
    /// `None` before the first of both. Never far ahead of `at`.
    pub watermark: Option<Timestamp>,
    /// The watermark follows the clock: the partition is read to its end, and silent.
    pub by_clock: bool,
    /// The clock when the partition was taken. What is missed since is missed; before, nobody
    /// may have looked.
    pub held_since: Timestamp,
}

/// Clocks may differ by this much.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// The latest time that a fact may have by a clock. State that is kept by event time and is
/// further ahead was put there by a wrong clock: it must not outlast it.
pub fn latest_possible(clock: Timestamp) -> Timestamp {
    clock.plus(CLOCK_TOLERANCE)
}

/// The state of one partition, and how it stands on the changelog. `Default` is the
/// state of a partition nothing is known of.
pub trait PartitionState: Default + Send {
    /// Takes over one record of the changelog; without a value the key is gone.
    /// `known` is the [`state_version`](Declaration::state_version) of this program.
    ///
    /// # Errors
    /// When the record is of a newer version or makes no sense.
    fn restore(&mut self, known: u32, key: &[u8], value: Option<&[u8]>) -> Result<(), UnreadableState>;

    /// Whether anything has changed since the last [`committed`](Self::committed).
    fn is_changed(&self) -> bool;

    /// Hands every change since the last [`committed`](Self::committed) to `write`, but what has
    /// [`settled`](Self::settled).
    ///
    /// # Errors
    /// Those of `write`.
    fn changes<E>(&self, version: u32, write: impl FnMut(Change<'_>) -> Result<(), E>) -> Result<(), E>;

    /// Hands those changes to `write` that will not change again before they are
    /// [`committed`](Self::committed), to travel while more is read; [`changes`](Self::changes)
    /// then leaves them out. Asked after every step that was applied.
    ///
    /// # Errors
    /// Those of `write`.
    fn settled<E>(&mut self, version: u32, write: impl FnMut(Change<'_>) -> Result<(), E>) -> Result<(), E> {
        let _ = (version, write);
        Ok(())
    }

    /// The changes are on the changelog.
    fn committed(&mut self);

    /// Keys held, for people to look at.
    fn keys(&self) -> usize;

    /// Whether anything may come of it that the partition's time gets as far as `time` without a record.
    fn minds(&self, time: Timestamp) -> bool {
        let _ = time;
        true
    }

    /// The change that the last step has made, to find the record that made it too large
    /// for the changelog. `None` where the state keeps its changes small by itself.
    fn last_change(&self, version: u32, buffer: &mut Vec<u8>) -> Option<&[u8]> {
        let _ = (version, buffer);
        None
    }
}

/// One record for the changelog.
#[derive(Clone, Copy, Debug)]
pub struct Change<'c> {
    /// Does not begin with NUL: such keys are the runtime's own.
    pub key: &'c [u8],
    /// `None` removes the key.
    pub value: Option<&'c [u8]>,
    /// Offset of the record that changed it last.
    pub by_offset: i64,
}

/// A record of a changelog that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableState {
    #[error(
        "the changelog was written with state version {found}, this program knows up to {known}: \
         start the newer program, or delete the changelog and the consumer group to begin anew"
    )]
    Newer { found: u32, known: u32 },
    #[error("state of key {key:?} cannot be read: {cause}")]
    Malformed { key: String, cause: String },
}
