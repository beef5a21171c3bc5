//! Facts about consumer groups, and what is made of them.
//!
//! Text is owned: a thousand samples a second are few, and much of what they say is kept.

mod advised_on;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::decision::Action;
pub use advised_on::AdvisedOn;

/// One thing seen of one consumer group in one poll: a partition it reads, or an
/// event type where the platform's analytics were asked.
///
/// All samples of a poll share `observedAt` and stand behind each other on one
/// partition of the topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagSample {
    /// The group's name; `cluster:name` for groups of other clusters than trunkline's own.
    pub consumer_group: String,
    pub source: LagSource,
    /// What kind of group it is; absent where nobody told, as in analytics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_type: Option<GroupType>,
    /// When the poll began.
    pub observed_at: Timestamp,
    /// Samples of this group that belong to the poll, this one included.
    #[schemars(range(min = 1))]
    pub poll_samples: u32,
    pub observation: Observation,
}

/// How a group shares its partitions among its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GroupType {
    /// By the protocol in which a member assigns the partitions, or without any members.
    Classic,
    /// By the brokers (KIP-848).
    Consumer,
    /// Records are shared, not partitions (KIP-932): there is no offset to be behind of.
    Share,
    /// By the brokers, for the tasks of a Kafka Streams topology (KIP-1071).
    Streams,
    /// Of a kind that nothing here can judge.
    Other,
    /// A share group, or a streams group that has not committed yet: over TLS or SASL they are
    /// not told apart.
    Unknown,
}

impl GroupType {
    pub fn name(self) -> &'static str {
        match self {
            GroupType::Classic => "classic",
            GroupType::Consumer => "consumer",
            GroupType::Share => "share",
            GroupType::Streams => "streams",
            GroupType::Other => "other",
            GroupType::Unknown => "unknown",
        }
    }
}

/// Who was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LagSource {
    /// The brokers of a Kafka cluster.
    Broker,
    /// The platform's event analytics.
    Analytics,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Observation {
    Partition(PartitionLag),
    EventType(EventLag),
    /// The group exists and has neither commits nor partitions.
    Idle {
        members: u32,
    },
    /// The group is required and was not found.
    Missing {},
    /// The group exists, and is of a kind that has no offsets to judge it by.
    NotJudged {
        reason: String,
    },
    /// The poll itself failed: nothing is known.
    Failed {
        reason: String,
    },
}

/// How far a group is in one partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PartitionLag {
    pub topic: String,
    /// The topic's identity: with another one it is another log. Absent where the brokers
    /// tell none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
    pub partition: i32,
    /// Offset of the next record to read; absent where nothing was ever committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// First offset that is still there.
    pub log_start: i64,
    /// Last stable offset: where a `read_committed` reader's log ends.
    pub log_end: i64,
    /// Where the log ends with what open transactions hold; absent where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<i64>,
    /// The first data record from `committed` on; absent where there is none before `logEnd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// Data records from the head to `logEnd`, where they were counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    /// Members of the group at the time of the poll.
    pub members: u32,
    /// Whom the partition is assigned to; absent where nobody can tell, as while members
    /// are being assigned anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned: Option<Assigned>,
    /// Sum of all offsets the group has committed, over all partitions: whether it commits
    /// at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_sum: Option<i64>,
}

/// Who of a group's members reads a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Assigned {
    /// A live member is assigned it.
    Here,
    /// No member is, and members are assigned other partitions.
    Elsewhere,
    /// No member is assigned anything, or there is none.
    Nowhere,
}

/// The record at the head of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    pub offset: i64,
    /// The record's own time.
    pub written_at: Timestamp,
}

/// What the platform's analytics say about a group and an event type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventLag {
    pub event_type: String,
    /// Events within the interval asked for.
    pub event_count: u64,
    pub processing_latency_ms: f64,
    /// Length of the interval that `eventCount` covers.
    pub interval_seconds: f64,
}

/// How a group is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LagStatus {
    /// Retention passed the group by: records were removed unread.
    DataLoss,
    /// The committed offset lies behind the end of the log: the next reader is reset.
    BeyondEnd,
    /// Behind, and the group's members read other partitions than this one.
    Abandoned,
    /// Behind, and nobody reads.
    Stopped,
    /// Behind, somebody is there, and nothing moves.
    Stalled,
    /// The committed offset went down and has not recovered.
    Rewind,
    Error,
    Warning,
    /// A required group does not exist.
    MissingGroup,
    /// Our own poll failed.
    Unknown,
    /// Nothing was ever committed.
    Uncommitted,
    Ok,
}

impl LagStatus {
    /// All of them, worst first.
    pub const ALL: [LagStatus; 12] = [
        LagStatus::DataLoss,
        LagStatus::BeyondEnd,
        LagStatus::Abandoned,
        LagStatus::Stopped,
        LagStatus::Stalled,
        LagStatus::Rewind,
        LagStatus::Error,
        LagStatus::Warning,
        LagStatus::MissingGroup,
        LagStatus::Unknown,
        LagStatus::Uncommitted,
        LagStatus::Ok,
    ];

    pub fn name(self) -> &'static str {
        match self {
            LagStatus::DataLoss => "DATA_LOSS",
            LagStatus::BeyondEnd => "BEYOND_END",
            LagStatus::Abandoned => "ABANDONED",
            LagStatus::Stopped => "STOPPED",
            LagStatus::Stalled => "STALLED",
            LagStatus::Rewind => "REWIND",
            LagStatus::Error => "ERROR",
            LagStatus::Warning => "WARNING",
            LagStatus::MissingGroup => "MISSING_GROUP",
            LagStatus::Unknown => "UNKNOWN",
            LagStatus::Uncommitted => "UNCOMMITTED",
            LagStatus::Ok => "OK",
        }
    }
}

/// What a monitoring cycle came to, in the names the seed's audit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AuditAction {
    LagThresholdExceeded,
    MonitorCycleComplete,
}

/// Everything a partition, or an event type, is judged by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagEvidence {
    pub observation: Observation,
    /// Data records between the head of the line and the end; where they were not counted,
    /// offsets, so that markers and aborted records among them count.
    pub lag: u64,
    /// How long the head of the line has waited, by its own time and within what the polls
    /// saw; 0 with nothing to read.
    pub age_ms: u64,
    /// Records that retention removed and that were not known to be none of data.
    pub lost: u64,
    /// Polls in a row in which the offset lay before the log's start of the poll before.
    #[serde(default)]
    pub lost_polls: u32,
    /// Polls in a row in which the offset lay behind the log's end.
    #[serde(default)]
    pub beyond_polls: u32,
    /// How long the group has been behind at this very committed offset.
    pub still_ms: u64,
    /// Polls in a row behind, without a member that is assigned the partition and without a
    /// commit that moved.
    pub deserted_polls: u32,
    /// A member was assigned it once, and nobody has committed without being one since.
    #[serde(default)]
    pub read_by_member: bool,
    /// Polls in a row in which the whole group has been silent: no commit for `silenceMs`.
    #[serde(default)]
    pub silent_polls: u32,
    /// After so long without any commit a group without members counts as silent.
    #[serde(default)]
    pub silence_ms: u64,
    /// How long records usually wait for the next commit of a group without members: so
    /// much age is usual.
    #[serde(default)]
    pub usual_wait_ms: u64,
    /// Polls in a row with an age above the threshold of ERROR, beside the usual.
    pub error_polls: u32,
    /// Polls in a row with an age above the threshold of WARNING, beside the usual.
    pub warning_polls: u32,
    /// Growth of the age, once there are enough polls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trend: Option<Trend>,
    /// The offset committed before it went down, until that is reached again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewound_from: Option<i64>,
    /// How long ago that was.
    #[serde(default)]
    pub rewound_ms: u64,
    /// For so long at least a transaction has been open; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_transaction_ms: Option<u64>,
}

/// A monotone trend: Theil–Sen slope, Mann–Kendall probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Trend {
    /// Seconds of age per second of time.
    pub slope: f64,
    /// Probability of so much growth, or more, where there is none.
    pub p_value: f64,
}

/// One rule that answered, and what about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagReason {
    pub status: LagStatus,
    /// Name of the rule.
    pub rule: String,
    /// Partitions or event types it answered for.
    pub count: u32,
    /// The worst of them: `topic/partition`, or the event type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<String>,
}

/// How a group is after a poll.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagEvaluation {
    pub consumer_group: String,
    /// What kind of group it is; absent where only analytics are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_type: Option<GroupType>,
    pub observed_at: Timestamp,
    /// After this nothing has been heard of the group for too long to say how it is.
    pub valid_until: Timestamp,
    pub status: LagStatus,
    /// When the status began.
    pub since: Timestamp,
    /// Worst first, at most one per rule.
    pub reasons: Vec<LagReason>,
    /// Records over all partitions; absent where only analytics are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Age of the worst partition, or lag of the worst event type.
    pub age_seconds: f64,
    /// Partitions, or event types.
    pub parts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u32>,
    /// Records per second that arrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrival_per_second: Option<f64>,
    /// Records per second that the group works off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_per_second: Option<f64>,
    /// `lag / (drain − arrival)`; absent where the group does not catch up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up_seconds: Option<f64>,
    /// For so long at least the oldest transaction has been open that holds records back;
    /// absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_transaction_seconds: Option<f64>,
    /// Consumers that would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What would help.
    pub recommended_action: Action,
    pub audit_action: AuditAction,
}

/// What an evaluation was decided from, beside the poll itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagInputs {
    /// The group as it was found to be.
    pub evaluation: LagEvaluation,
    /// What the worst partition or event type was judged by.
    pub worst: LagEvidence,
    /// The status before; absent at the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_status: Option<LagStatus>,
    /// When the episode began that is open, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode_since: Option<Timestamp>,
    /// When help was last asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_at: Option<Timestamp>,
    /// What the advice went by beside all this; absent in decisions of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advised_on: Option<AdvisedOn>,
}

/// What a lag decision asks for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LagParameters {
    pub status: LagStatus,
    /// Consumers that `scale_out` asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What would help, whether or not this decision asks for it.
    pub recommended_action: Action,
    pub audit_action: AuditAction,
}
