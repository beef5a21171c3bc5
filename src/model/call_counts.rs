//! Calls of campaigns, counted, and where the counts come from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Calls of a campaign since some beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallCounts {
    /// Calls placed.
    pub attempts: u64,
    /// Calls answered.
    pub answers: u64,
    /// Answers without an agent within 2 s.
    pub abandoned: u64,
}

impl CallCounts {
    /// What came since `before`; `None` where anything fell: they began anew.
    pub fn since(self, before: Self) -> Option<Self> {
        Some(Self {
            attempts: self.attempts.checked_sub(before.attempts)?,
            answers: self.answers.checked_sub(before.answers)?,
            abandoned: self.abandoned.checked_sub(before.abandoned)?,
        })
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            attempts: self.attempts.saturating_add(other.attempts),
            answers: self.answers.saturating_add(other.answers),
            abandoned: self.abandoned.saturating_add(other.abandoned),
        }
    }
}

/// What one partition of conversation events tells of a campaign's calls, since its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionCounts {
    /// Partitions of conversation events.
    pub partitions: i32,
    #[serde(flatten)]
    pub counts: CallCounts,
}

impl PartitionCounts {
    /// What a campaign's counts of a partition stand under.
    pub fn key(campaign_id: &str, partition: i32) -> String {
        format!("{partition}/{campaign_id}")
    }
}

/// Where a count comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CountSource {
    /// The campaign's statistics count it.
    Statistics,
    /// Conversation events were counted.
    Events,
    /// Answers that events tell ÷ the answer rate that the statistics tell: events tell of
    /// answered calls alone.
    AnswerRate,
}

/// Where each count of a window comes from; absent where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CountSources {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<CountSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<CountSource>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<CountSource>,
}

impl CountSources {
    pub fn are_unknown(&self) -> bool {
        *self == Self::default()
    }
}
