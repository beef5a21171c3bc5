//! What is too large to be sent.

use super::dead_letter::{PER_RECORD, Reason, overhead};
use crate::pipeline::{Declaration, Output, PartitionState};
use crate::topics::Topic;

/// `bytes` are those of key and value.
pub(super) fn state_too_large(changelog: &Topic, bytes: usize) -> Option<Reason> {
    let (bytes, limit) = (bytes + PER_RECORD, changelog.max_message_bytes);
    (bytes > limit).then_some(Reason::StateTooLarge { bytes, limit })
}

/// The bytes of an output and the limit that it is over.
pub(super) fn output_too_large(output: &Output<'_>) -> Option<(usize, usize)> {
    let bytes = output.key.len() + output.value.len() + overhead(output.topic);
    let limit = output.topic.max_message_bytes;
    (bytes > limit).then_some((bytes, limit))
}

/// Whether what a step has just made of its key's state is too large for the changelog.
pub(super) fn change_too_large(
    declaration: &Declaration,
    state: &impl PartitionState,
    scratch: &mut Vec<u8>,
) -> Option<Reason> {
    scratch.clear();
    let key = state.last_change(declaration.state_version, scratch)?;
    state_too_large(declaration.changelog, key.len() + scratch.len())
}
