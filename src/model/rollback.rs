//! What a rollback decision is taken from, and what it asks for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::flow::MinuteSource;

/// Candidates a decision names at most.
pub const CANDIDATES_LIMIT: usize = 16;

/// What is asked of the platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackParameters {
    /// The version judged; empty where the source does not tell versions apart.
    pub flow_version: String,
    /// Errors per interaction over the buckets in `inputs`, 0–1.
    pub error_rate: f64,
    /// What it was held against.
    pub threshold: f64,
    /// Versions to go back to, best first: the first that the platform still has is taken.
    /// Where none is left nothing is changed and people are told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub candidates: Vec<Candidate>,
}

/// A version to go back to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    pub flow_version: String,
    pub reason: CandidateReason,
}

/// Why a version may be gone back to. The last two are doubtful and come last; one that a
/// rollback took back is never a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CandidateReason {
    /// The decision's own baseline.
    Baseline,
    /// It was in force before, for as long as a publish can be taken back, without a breach.
    Proven,
    /// It was in force before, not for so long, and without a breach.
    InForceBefore,
    /// It was published before by the platform's timeline; how it did is not known.
    PublishedBefore,
    /// People went back from it to an older one.
    LeftForOlder,
    /// It was replaced while it failed.
    ReplacedWhileFailing,
}

/// Evidence about one version of one flow: what the rule is asked with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RollbackInputs {
    pub flow_id: String,
    pub flow_version: String,
    /// Where the minutes came from.
    pub source: MinuteSource,
    /// The newest minute that was looked at.
    pub minute: Timestamp,
    /// Length of a minute in milliseconds: 60 000, or less for a simulator run fast.
    pub minute_ms: u64,
    /// Since when this version has been in force, as far as known.
    pub in_force_since: Timestamp,
    /// Until when it may be rolled back; after that people are told only.
    pub armed_until: Timestamp,
    /// Closed buckets of the current streak or, without one, the newest; oldest first.
    #[schemars(length(max = 8))]
    pub buckets: Vec<Bucket>,
    /// The last 15 minutes held too few interactions for a bucket, or none has closed yet.
    pub inconclusive: bool,
    /// No complete minute has come for as long: nothing is decided on what was seen before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmeasured: bool,
    /// Closed buckets in a row over the threshold.
    pub breaches: u32,
    /// Closed buckets in a row at or below the re-arming rate, as long as they matter.
    pub recoveries: u32,
    /// The version before; absent where it has too few interactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    pub statistics: Statistics,
    /// No new decision to act before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<Timestamp>,
    /// Something was decided on this version already and its rate has not come down since.
    pub fired: bool,
    /// Maintenance windows open for this flow: their scopes.
    pub maintenance: Vec<String>,
    /// When the publish timeline used was observed; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions_observed_at: Option<Timestamp>,
}

/// Minutes added up until they hold enough interactions to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bucket {
    /// Beginning of its first minute.
    pub from: Timestamp,
    /// End of its last minute.
    pub until: Timestamp,
    pub total: u64,
    pub errors: u64,
}

/// What the version before did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    pub flow_version: String,
    pub total: u64,
    pub errors: u64,
    /// Whether these are the hours of the day that this version has seen too, or all
    /// hours because those hold too few.
    pub same_hours: bool,
    /// The error rate a version no worse than it is granted: 1.25 × the upper end of
    /// the one-sided 95 % Wilson interval.
    pub granted_rate: f64,
}

/// Shiryaev–Roberts statistics, each the mean over its alternatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Against the baseline's granted rate.
    pub worse_than_before: f64,
    /// Against the greater of that and the threshold.
    pub severe: f64,
    /// Minutes with interactions since the statistics began.
    pub minutes: u32,
    /// Errors since the statistics began.
    pub errors: u64,
}

/// What was in force before and after a rollback, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionChange {
    pub previous_version: String,
    pub version: String,
    pub error_rate: f64,
    pub threshold: f64,
}
