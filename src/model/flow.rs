//! Facts about Architect flows and their versions.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Interactions with one version of a flow in one minute of event time.
///
/// Told anew, with greater numbers, until it is complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowMinute<'a> {
    #[serde(borrow)]
    pub flow_id: Cow<'a, str>,
    /// Empty where the source does not tell versions apart.
    #[serde(borrow)]
    pub flow_version: Cow<'a, str>,
    /// The minute's beginning.
    pub minute: Timestamp,
    pub total: u64,
    pub errors: u64,
    /// `errors / total`, 0 where nothing happened.
    pub error_rate: f64,
    /// Every event of the minute is in: later ones are late events.
    pub complete: bool,
    pub source: MinuteSource,
}

/// Where a flow's minutes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MinuteSource {
    /// Counted from conversation events.
    Events,
    /// Asked of the platform's measures.
    Polled,
}

/// Interactions with one version of a flow in one minute, as the platform's own measures
/// have them. Asked again while the minute lasts, the numbers may differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowHealth<'a> {
    #[serde(borrow)]
    pub flow_id: Cow<'a, str>,
    /// Empty where the measure does not tell versions apart.
    #[serde(borrow)]
    pub flow_version: Cow<'a, str>,
    /// The minute's beginning.
    pub minute: Timestamp,
    pub total: u64,
    pub errors: u64,
    /// When the platform was asked.
    pub observed_at: Timestamp,
    /// The minute was over and its measures had settled when it was asked. A minute that
    /// could not be measured is told with nothing in it, and not complete.
    pub complete: bool,
}

/// What one partition of conversation events has to say to the partitions of flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FlowTally<'a> {
    /// So many until now: a later count of the same minute takes this one's place.
    #[serde(borrow)]
    Counted(FlowCount<'a>),
    /// No more counts of any flow before this time will come from the partition.
    Closed(FlowClosed),
}

impl FlowTally<'_> {
    /// Key of what is of no one flow.
    pub const NO_FLOW: &'static str = "";

    pub fn key(&self) -> &str {
        match self {
            FlowTally::Counted(count) => &count.flow_id,
            FlowTally::Closed(_) => Self::NO_FLOW,
        }
    }
}

/// Interactions counted in one partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowCount<'a> {
    #[serde(borrow)]
    pub flow_id: Cow<'a, str>,
    #[serde(borrow)]
    pub flow_version: Cow<'a, str>,
    /// The minute's beginning.
    pub minute: Timestamp,
    /// The partition of conversation events.
    pub partition: i32,
    pub total: u64,
    pub errors: u64,
}

/// How far a partition of conversation events has come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowClosed {
    pub partition: i32,
    /// How many partitions there are to wait for.
    pub partitions: i32,
    /// The beginning of the earliest minute that is still open.
    pub before: Timestamp,
}

/// The publish timeline of one flow, newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowVersions<'a> {
    pub flow_id: Cow<'a, str>,
    pub observed_at: Timestamp,
    pub versions: Vec<FlowVersion<'a>>,
}

/// One version of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FlowVersion<'a> {
    pub version: Cow<'a, str>,
    /// As the platform spells it: `active`, `published`, `archived` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_at: Option<Timestamp>,
    /// When another version took its place, where the platform tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_at: Option<Timestamp>,
}
