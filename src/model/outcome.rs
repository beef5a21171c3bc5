//! What became of a decision.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use super::campaign::DialParameters;
use super::decision::{Decision, DecisionId, Loop};
use super::delivery::Publication;
use super::rollback::VersionChange;

/// How a decision ended. Every decision ends in exactly one of these; a rollback that
/// was applied is verified later and then has `recovered` or `not_recovered` beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutcomeStatus {
    /// The platform confirmed the change.
    Applied,
    /// Nothing had to be changed.
    Unchanged,
    /// The loop is in shadow: recorded only.
    Shadowed,
    /// A newer decision for the same key took its place before it was sent.
    Superseded,
    /// It was older than its expiry before it could be sent.
    Expired,
    /// Another writer kept changing the object until attempts ran out.
    Conflicted,
    /// The platform refused it, or it could not be carried out.
    Failed,
    /// After a rollback the flow's error rate came down.
    Recovered,
    /// After a rollback the flow's error rate did not come down.
    NotRecovered,
}

impl OutcomeStatus {
    pub fn name(self) -> &'static str {
        match self {
            OutcomeStatus::Applied => "applied",
            OutcomeStatus::Unchanged => "unchanged",
            OutcomeStatus::Shadowed => "shadowed",
            OutcomeStatus::Superseded => "superseded",
            OutcomeStatus::Expired => "expired",
            OutcomeStatus::Conflicted => "conflicted",
            OutcomeStatus::Failed => "failed",
            OutcomeStatus::Recovered => "recovered",
            OutcomeStatus::NotRecovered => "not_recovered",
        }
    }
}

/// The end of one decision, with the last request and reply. Never holds a
/// token or another secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub decision_id: DecisionId,
    pub r#loop: Loop,
    pub key: String,
    /// The decision's sequence.
    pub sequence: u64,
    pub status: OutcomeStatus,
    /// Why it ended so: a short code, then details after a colon where there are any.
    pub reason: String,
    /// Requests sent that could have changed something.
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<SentRequest>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ReceivedResponse>,
    /// When the last such request was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    /// What was in force before and after, where something was `applied`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Where it was refused for a while: what is decided on facts from before this is refused
    /// again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// How long it was held up, and by what; absent where it needed neither turn nor call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waited: Option<Waited>,
}

/// What held a decision up on its way to the platform. After a restart calls and pauses count anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waited {
    /// Milliseconds from the decision until its turn came: on its topic, behind others, for the lease.
    pub turn_ms: u64,
    /// Milliseconds that its calls waited for the budget that all calls share.
    pub budget_ms: u64,
    /// Milliseconds between tries: for the platform, or because of an error.
    pub pauses_ms: u64,
    /// What the longest of these pauses was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_for: Option<String>,
}

impl Outcome {
    /// How a decision ended before anything was sent for it.
    pub fn of<I, P, C>(
        decision: &Decision<'_, I, P, C>,
        status: OutcomeStatus,
        reason: String,
        finished_at: Timestamp,
    ) -> Self {
        Self {
            decision_id: decision.decision_id,
            r#loop: decision.r#loop,
            key: decision.key.clone().into_owned(),
            sequence: decision.sequence,
            status,
            reason,
            attempts: 0,
            request: None,
            response: None,
            requested_at: None,
            finished_at,
            effect: None,
            not_before: None,
            waited: None,
        }
    }

    /// The reason without its details.
    pub fn code(&self) -> &str {
        self.reason.split_once(':').map_or(&*self.reason, |(code, _)| code)
    }
}

impl Waited {
    /// As it was recorded.
    pub fn of(recorded: &Value) -> Option<Self> {
        Self::deserialize(recorded).ok()
    }
}

/// `0.2 s for its turn, 12.4 s for the shared budget, 5.0 s between tries (HTTP 503)`.
impl std::fmt::Display for Waited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        let (turn, budget) = (seconds(self.turn_ms), seconds(self.budget_ms));
        write!(f, "{turn:.1} s for its turn, {budget:.1} s for the shared budget")?;
        if self.pauses_ms > 0 {
            write!(f, ", {:.1} s between tries", seconds(self.pauses_ms))?;
        }
        self.paused_for.as_ref().map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// What a decision changed on the platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Effect {
    DialRate(DialParameters),
    FlowVersion(VersionChange),
    Published(Publication),
}

impl Effect {
    /// The change of a dial rate, if it is one.
    pub fn dial_rate(&self) -> Option<DialParameters> {
        match self {
            Effect::DialRate(change) => Some(*change),
            Effect::FlowVersion(_) | Effect::Published(_) => None,
        }
    }
}

/// A request as it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SentRequest {
    pub method: String,
    /// Path and query, without the host.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_match: Option<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub body: Value,
}

/// A reply as it was received, or why there was none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedResponse {
    /// HTTP status; absent when no reply came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The body, cut to its first 2 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// What went wrong on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The platform's correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}
