//! What the advice for a group goes by, as its decisions record it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What helps a group is judged by this beside its evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdvisedOn {
    /// Partitions of the source that knows the members.
    pub parts: u32,
    /// Members when there last were any.
    pub members_before: u32,
    /// All that has the worst status may mend itself yet.
    pub may_mend_itself: bool,
    /// Consumers that would do, not bounded by the partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u32>,
}
