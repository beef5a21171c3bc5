//! Facts about conversations, as the platform's event stream tells them.

mod outcomes;
mod validity;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Timestamp;
use super::borrow::borrowed;

pub use outcomes::{OUTCOME_RULES, OutcomeRule, outcome_of};
pub use validity::InvalidEvent;

/// One event of one conversation. Text borrows from the record it was read from.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConversationEvent<'a> {
    /// The platform's own id of the event, or one derived from its content:
    /// a redelivery carries the same.
    #[serde(borrow)]
    pub event_id: Cow<'a, str>,
    /// The platform's name without conversation: `customer.end`, `flow.end`, `acd.start` …
    #[serde(borrow)]
    pub event_type: Cow<'a, str>,
    pub occurred_at: Timestamp,
    #[serde(borrow)]
    pub conversation_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub flow_version: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub media_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub direction: Option<Cow<'a, str>>,
    /// How the interaction with the flow ended. Only events that have one and name a
    /// flow are counted in its minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<InteractionOutcome>,
    /// The platform's event as it came.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub detail: Option<&'a RawValue>,
}

/// How an interaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InteractionOutcome {
    Success,
    /// The flow failed: the only outcome that counts as an error.
    Error,
    /// The customer left.
    Abandoned,
    /// An outcome this version does not know.
    #[serde(other)]
    Other,
}

impl InteractionOutcome {
    pub fn name(self) -> &'static str {
        match self {
            InteractionOutcome::Success => "success",
            InteractionOutcome::Error => "error",
            InteractionOutcome::Abandoned => "abandoned",
            InteractionOutcome::Other => "other",
        }
    }
}
