//! What a caller who brings events in is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of the events of one request. Those accepted are on their topic, on all replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    pub accepted: u64,
    /// Events that stand in the request more than once, beyond the first.
    pub duplicates: u64,
    /// Those that cannot be used; kept as dead letters.
    pub rejected: Vec<Rejected>,
    /// The platform's words about anything but conversations; absent where there were none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One event that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rejected {
    /// Place of the envelope in the request, from 0.
    pub index: u64,
    /// Place in the envelope's `detail` where that is a list, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail_index: Option<u64>,
    /// A code a program can branch on, then details after a colon.
    pub reason: String,
}

/// Why a request was not taken in at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is of a type that is not read here.
    #[error("{0}")]
    UnsupportedMediaType(String),
    /// There is nothing in the body that could be an event.
    #[error("{0}")]
    Malformed(String),
    #[error("the body is over {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("{events} events, the limit is {limit}")]
    TooMany { events: usize, limit: usize },
    /// Too much is under way.
    #[error("{0}")]
    Busy(String),
    /// The brokers did not take all events in time. Some may be there: send all again.
    #[error("{0}")]
    NotDelivered(String),
}
