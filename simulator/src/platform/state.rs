//! What an organisation has that only Genesys Cloud's own interface shows, and its manners where
//! nobody outside knows the platform's.

use std::time::Duration;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::aggregates::check_share;
use super::audits::AuditLog;
use super::campaign_rules::CampaignRule;
use super::jobs::Jobs;
use super::outbound_settings::OutboundSettings;
use super::usage::Usage;
use crate::input::invalid;
use crate::reply::Refusal;
use crate::time::Timestamp;

#[derive(Debug)]
pub(crate) struct State {
    pub manners: Manners,
    pub settings: OutboundSettings,
    pub jobs: Jobs,
    pub campaign_rules: Vec<CampaignRule>,
    pub usage: Usage,
    pub audit_log: AuditLog,
    /// Somebody has had everything before it restated.
    restated_by_hand_until: Option<Timestamp>,
}

/// How a write with an old `version` is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StaleVersion {
    #[default]
    Conflict,
    BadRequest,
}

impl StaleVersion {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Conflict => StatusCode::CONFLICT,
            Self::BadRequest => StatusCode::BAD_REQUEST,
        }
    }
}

/// What can be set about the interface over `/simulator/platform`. Times are real ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Manners {
    /// Default `conflict`: 409.
    pub stale: StaleVersion,
    /// A publish takes so long, and so many seconds of the world. Defaults 2000 and 0.
    pub publish_ms: u64,
    pub publish_simulated_seconds: u64,
    /// Whether publishes that are begun from now on fail at their end.
    pub publish_fails: bool,
    /// Aggregates know what happened so long ago. Default 0.
    pub analytics_lag_ms: u64,
    /// Share of abandoned calls that aggregates lack until they are restated, 0–1. Default 0.
    pub missing_abandoned_share: f64,
    /// They are restated so long after. Default 48 h.
    pub restated_after_ms: u64,
    /// A job of details takes so long. Default 1000.
    pub jobs_ms: u64,
    /// Jobs know conversations that ended so long ago. Default 0.
    pub jobs_lag_ms: u64,
    /// Queries of usage and audits take so long. Default 500.
    pub queries_ms: u64,
}

/// Longest span that can be set: 60 days.
const MAX_SPAN_MS: u64 = 60 * 86_400_000;

impl Default for Manners {
    fn default() -> Self {
        Self {
            stale: StaleVersion::default(),
            publish_ms: 2_000,
            publish_simulated_seconds: 0,
            publish_fails: false,
            analytics_lag_ms: 0,
            missing_abandoned_share: 0.0,
            restated_after_ms: 48 * 3_600_000,
            jobs_ms: 1_000,
            jobs_lag_ms: 0,
            queries_ms: 500,
        }
    }
}

impl Manners {
    /// # Errors
    /// 400 for what is impossible.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        check_share("missingAbandonedShare", self.missing_abandoned_share)?;
        let spans = [
            self.publish_ms,
            self.publish_simulated_seconds.saturating_mul(1_000),
            self.analytics_lag_ms,
            self.restated_after_ms,
            self.jobs_ms,
            self.jobs_lag_ms,
            self.queries_ms,
        ];
        if spans.iter().all(|span| *span <= MAX_SPAN_MS) {
            return Ok(());
        }
        Err(invalid(format!("spans of time must be at most {MAX_SPAN_MS} ms")))
    }
}

impl State {
    pub(crate) fn new(created_at: Timestamp) -> Self {
        Self {
            manners: Manners::default(),
            settings: OutboundSettings::new(created_at),
            jobs: Jobs::new(),
            campaign_rules: Vec::new(),
            usage: Usage::default(),
            audit_log: AuditLog::default(),
            restated_by_hand_until: None,
        }
    }

    /// Up to when analytics have been restated: their figures are final before.
    pub(crate) fn restated_until(&self, now: Timestamp) -> Timestamp {
        let by_age = now.minus(Duration::from_millis(self.manners.restated_after_ms));
        self.restated_by_hand_until.map_or(by_age, |by_hand| by_hand.max(by_age))
    }

    /// Restates everything up to now, without waiting for its night.
    pub(crate) fn restate(&mut self, now: Timestamp) {
        self.restated_by_hand_until = Some(now);
    }
}
