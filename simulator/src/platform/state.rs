//! What an organisation has that only Genesys Cloud's own interface shows, and its manners where
//! nobody outside knows the platform's.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::outbound_settings::OutboundSettings;
use crate::time::Timestamp;

#[derive(Debug)]
pub struct State {
    pub manners: Manners,
    pub settings: OutboundSettings,
}

/// How a write with an old `version` is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StaleVersion {
    #[default]
    Conflict,
    BadRequest,
}

impl StaleVersion {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Conflict => StatusCode::CONFLICT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
        }
    }
}

/// What can be set about the interface over `/simulator/platform`. Times are real ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Manners {
    /// Default `conflict`: 409.
    pub stale: StaleVersion,
}

impl State {
    pub fn new(created_at: Timestamp) -> Self {
        Self { manners: Manners::default(), settings: OutboundSettings::new(created_at) }
    }
}
