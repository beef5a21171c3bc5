//! What goes into a batch and where its results go.

use super::dead_letter::{ErrorHeaders, Reason};
use super::limits::state_too_large;
use crate::model::Timestamp;
use crate::pipeline::{Change, Output};
use crate::topics::Topic;

/// A record as it was read from the input topic.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming<'r> {
    pub partition: i32,
    pub offset: i64,
    /// When the record was written, if it says.
    pub written_at: Option<Timestamp>,
    pub key: Option<&'r [u8]>,
    pub value: Option<&'r [u8]>,
}

/// Where a task's results go. What was written counts only once the batch commits.
pub(super) trait Writer {
    type Error;

    /// An output. The writer adds content type, schema and trace.
    fn output(&mut self, output: Output<'_>) -> Result<(), Self::Error>;

    /// The record being processed, byte for byte with its own headers (unless
    /// `keep_headers` is off: they would not fit) and these in addition.
    fn set_aside(
        &mut self,
        topic: &'static Topic,
        record: &Incoming<'_>,
        keep_headers: bool,
        errors: &ErrorHeaders,
    ) -> Result<(), Self::Error>;

    /// One record of state for a partition of the changelog; without a value the key is gone.
    fn changelog(
        &mut self,
        topic: &'static Topic,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Self::Error>;

    /// Bytes the headers of the record being processed take.
    fn headers_len(&self) -> usize;
}

/// Why a batch cannot commit.
#[derive(Debug)]
pub(super) enum Failure<E> {
    /// The writer failed.
    Writer(E),
    /// This record spoils the batch and has changed state already. Abort, restore, then
    /// [`condemn`](super::task::Task::condemn) it and read again: it becomes a dead letter.
    Spoilt { partition: i32, offset: i64, reason: Reason },
    /// Some record of this partition, this one at the latest, made its key's state too large.
    /// Abort, restore, then [`inspect`](super::task::Task::inspect) while reading again, which finds the very one.
    Suspect { partition: i32, offset: i64 },
    /// What a partition sends as time goes by is larger than its topic's records may be:
    /// a bug of the stage.
    OutputTooLarge { topic: &'static str, bytes: usize, limit: usize },
    /// A record that must be set aside is larger than the topic for that can hold.
    DoesNotFit { partition: i32, offset: i64, topic: &'static str, bytes: usize },
    /// A record of a partition that is not held: a bug of the caller.
    NotHeld { partition: i32 },
}

impl<E> From<E> for Failure<E> {
    fn from(error: E) -> Self {
        Failure::Writer(error)
    }
}

/// Writes one record of state, unless it is too large for the changelog.
pub(super) fn write_change<W: Writer>(
    writer: &mut W,
    topic: &'static Topic,
    partition: i32,
    change: &Change<'_>,
) -> Result<(), Failure<W::Error>> {
    let bytes = change.key.len() + change.value.map_or(0, <[u8]>::len);
    if state_too_large(topic, bytes).is_some() {
        return Err(Failure::Suspect { partition, offset: change.by_offset });
    }
    Ok(writer.changelog(topic, partition, change.key, change.value)?)
}
