//! A conversation as its events and the platform's analytics together tell it.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;
use super::borrow::borrowed;
use super::conversation::InteractionOutcome;

/// One conversation, told anew when more is known about it. What several events say
/// differently is as the last of them by event time has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnrichedConversation<'a> {
    #[serde(borrow)]
    pub conversation_id: Cow<'a, str>,
    /// Event times of the earliest and the latest event seen.
    pub first_event_at: Timestamp,
    pub last_event_at: Timestamp,
    /// An event said that the conversation is over.
    pub ended: bool,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub media_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub direction: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub flow_version: Option<Cow<'a, str>>,
    /// How the last interaction with a flow ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<InteractionOutcome>,
    /// When the called or calling person, a queue and an agent were first in it, as events tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_joined_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_joined_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_joined_at: Option<Timestamp>,
    /// When the platform's analytics gave the details.
    pub enriched_at: Timestamp,
    /// The event time up to which the details were asked for; earlier than
    /// `lastEventAt` while newer events wait to be asked about.
    pub enriched_up_to: Timestamp,
    /// The analytics' own answer about this conversation, as it came; absent where it
    /// is too large for the topic: `audit.conversations` has it whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Cow<'a, Value>>,
}
