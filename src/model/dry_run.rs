//! What a change of run-time settings would have come to, had it been in force before.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Timestamp;

/// Decisions of one loop on record, taken again as if the change had been in force. Nothing was applied.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRun {
    pub r#loop: String,
    /// Decided at this time or later.
    pub from: Timestamp,
    /// Decided before this time.
    pub to: Timestamp,
    /// Decisions that were looked at.
    pub decisions: u64,
    /// The same in action, reason and value.
    pub identical: u64,
    pub different: u64,
    /// The record does not have what it takes to take them again.
    pub not_taken: u64,
    /// Whether all of the time was looked at; there is a limit of time and of decisions.
    pub complete: bool,
    /// By what was done and what would have been, the most frequent pair first.
    pub actions: Vec<Actions>,
    /// The first differences.
    pub items: Vec<Changed>,
}

/// How many decisions did this, and would have done that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Actions {
    pub recorded: String,
    pub replayed: String,
    pub decisions: u64,
}

/// One decision that would have been another.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    pub decision_id: Value,
    pub key: String,
    pub decided_at: Timestamp,
    pub recorded: Said,
    pub replayed: Said,
}

/// What a decision says.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Said {
    pub action: String,
    pub reason: String,
    /// The rate, the destination, the share, the consumers, or the version judged.
    pub value: Value,
}
