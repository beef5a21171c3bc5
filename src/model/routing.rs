//! Weighted distribution: which group gets a conversation (`docs/routing.md`).

use std::borrow::Cow;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::borrow::borrowed;

/// Parts of an interaction where nothing else is said.
pub const BILLION: i64 = 1_000_000_000;

/// A queue, or another thing a conversation can be sent to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Destination {
    /// The platform's word, such as `QUEUE_ID`.
    #[schemars(length(min = 1, max = 64))]
    pub r#type: String,
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
}

/// One group and its weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteRule {
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    /// Kept for the platform; the distribution does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Kept for the platform; the distribution does not look at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub expression: Option<String>,
    pub destination: Destination,
    /// Of any scale: only the ratio between the rules counts, and it is kept exactly. At least
    /// 0; what comes to less than 1 % of all is raised to it. In the smallest whole numbers of
    /// their proportions all weights together come to 10^15 at most.
    #[schemars(range(min = 0))]
    pub weight: f64,
    /// Gets nothing, whatever its weight.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

/// Whether a configuration distributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RouteStatus {
    #[default]
    Enabled,
    /// Everything goes to the default destination.
    Disabled,
}

/// What answers while the counters cannot be reached at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteFallback {
    /// The same rule, from the last known state of this instance.
    #[default]
    Local,
    /// The default destination.
    Default,
}

/// A configuration of groups as people write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteConfiguration {
    #[schemars(length(min = 1, max = 128))]
    pub id: String,
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The platform's word, such as `SINGLE_QUEUE`.
    #[serde(default = "single_queue")]
    #[schemars(length(min = 1, max = 64))]
    pub routing_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Destination>,
    /// 1 to 50, each with a destination of its own.
    #[schemars(length(min = 1, max = 50))]
    pub rules: Vec<RouteRule>,
    #[serde(default)]
    pub status: RouteStatus,
    /// Gets a conversation when nobody else can. Without it the rule with the greatest weight does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_destination: Option<Destination>,
    #[serde(default)]
    pub fallback: RouteFallback,
}

fn single_queue() -> String {
    "SINGLE_QUEUE".to_owned()
}

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteSource {
    /// From the counters that all instances share, recorded before it was given.
    Exact,
    /// The counters were slow: from the last known state, recorded afterwards.
    Cached,
    /// The counters could not be reached: by the configured fallback, recorded afterwards.
    Fallback,
}

impl RouteSource {
    pub const ALL: [RouteSource; 3] = [RouteSource::Exact, RouteSource::Cached, RouteSource::Fallback];

    /// The source of this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            RouteSource::Exact => "exact",
            RouteSource::Cached => "cached",
            RouteSource::Fallback => "fallback",
        }
    }
}

/// Why a destination was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteReason {
    /// Its turn by weights and deficits.
    Share,
    /// No group can take it: the default destination.
    NobodyAvailable,
    /// The configuration is disabled: the default destination.
    Disabled,
    /// The counters could not be reached and `fallback` is `default`.
    FallbackDefault,
}

impl RouteReason {
    pub fn name(self) -> &'static str {
        match self {
            RouteReason::Share => "share",
            RouteReason::NobodyAvailable => "nobody_available",
            RouteReason::Disabled => "disabled",
            RouteReason::FallbackDefault => "fallback_default",
        }
    }
}

/// The answer to "which group gets this conversation?": flat, for a data action.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteAnswer {
    pub conversation_id: Arc<str>,
    pub configuration_id: Arc<str>,
    pub destination_id: Arc<str>,
    /// Revision of the configuration it was given under.
    pub revision: u64,
    /// Its number among the configuration's decisions; null until a `cached` or `fallback`
    /// answer is recorded.
    pub sequence: Option<u64>,
    pub source: RouteSource,
    pub decided_at: Timestamp,
}

/// One group as it stood before a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteGroup<'a> {
    #[serde(borrow)]
    pub destination_id: Cow<'a, str>,
    /// Its part of all, in billionths, rounded; 0 while it drains or is not available.
    pub share_billionths: i64,
    /// How many interactions it was behind its share, in billionths of one, rounded.
    pub deficit_billionths: i64,
    /// The same in `unit` parts, exactly; absent where that is billionths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deficit: Option<i64>,
}

impl<'a> RouteGroup<'a> {
    /// `share` and `deficit` in parts of which an interaction has `unit`.
    pub fn of(destination_id: &'a str, unit: i64, share: i64, deficit: i64) -> Self {
        let billionths = |parts: i64| {
            let (parts, unit) = (i128::from(parts) * i128::from(BILLION), i128::from(unit));
            // The nearest one; of both signs alike.
            ((2 * parts.abs() + unit) / (2 * unit) * parts.signum()).clamp(i64::MIN.into(), i64::MAX.into())
                as i64
        };
        let exact = |parts: i64| (unit != BILLION).then_some(parts);
        Self {
            destination_id: Cow::Borrowed(destination_id),
            share_billionths: billionths(share),
            deficit_billionths: billionths(deficit),
            share: exact(share),
            deficit: exact(deficit),
        }
    }
}

/// What a routing decision was taken from: enough to take it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteInputs<'a> {
    /// Revision of the configuration.
    pub revision: u64,
    /// Parts of an interaction that `share` and `deficit` of the groups are counted in, a
    /// multiple of the sum of the weights. Absent: billionths.
    #[serde(default = "billion", skip_serializing_if = "is_billion")]
    pub unit: i64,
    #[serde(borrow)]
    pub groups: Vec<RouteGroup<'a>>,
}

fn billion() -> i64 {
    BILLION
}

fn is_billion(unit: &i64) -> bool {
    *unit == BILLION
}

/// What a routing decision says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteParameters<'a> {
    #[serde(borrow)]
    pub conversation_id: Cow<'a, str>,
    #[serde(borrow)]
    pub destination_id: Cow<'a, str>,
    pub source: RouteSource,
}

/// How many of a queue's agents could take a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QueueAvailability<'a> {
    #[serde(borrow)]
    pub queue_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<Cow<'a, str>>,
    /// Share of the queue's agents who are available, 0–1. A queue at 0 gets nothing.
    pub availability: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available_agents: Option<u32>,
    /// When the platform was asked.
    pub observed_at: Timestamp,
}

/// Why a routing decision was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteRefusal {
    #[error("conversationId must be text of 1 to 128 bytes without control characters")]
    BadConversation,
    #[error("no configuration {0} is in force")]
    Unknown(String),
    /// Neither known here nor to be asked for.
    #[error("configuration {id} is not known here yet and the database cannot be asked: {reason}")]
    Unavailable { id: String, reason: String },
    #[error("too many requests wait already")]
    Overloaded,
    #[error("this instance is stopping")]
    Stopping,
}

/// What came of asking the platform to publish as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlatformPublication {
    /// It has published it.
    Applied,
    /// Routing is in shadow: it was not asked.
    Shadowed,
    /// It is not to be asked.
    NotConfigured,
    /// It has not, or nobody knows: publish again to ask again.
    Failed,
}

/// What a publication came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoutePublication {
    pub configuration_id: String,
    /// In force now.
    pub revision: u64,
    pub platform: PlatformPublication,
    /// Why the platform has not published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
