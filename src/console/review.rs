//! What a change of run-time settings would come to, asked before it is made. Another room answers: it has
//! the record and the rules.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::problem::{Kind, Problem};
use super::routing::Routing;
use super::{Console, Inner};
use crate::model::dry_run::DryRun;
use crate::postgres;

/// A change that is asked for, its value checked; null withdraws.
#[derive(Clone, Copy, Debug)]
pub struct Proposed<'a> {
    pub scope: &'a str,
    pub value: &'a Value,
}

/// Who plays changes of settings again before they are made.
pub trait SettingsReview: Send + Sync + 'static {
    /// Whether the change may be made. It takes `within` at most.
    ///
    /// # Errors
    /// Why not; also when that cannot be found out.
    fn admit<'a>(&'a self, proposed: Proposed<'a>, within: Duration) -> Routing<'a, Result<(), ReviewError>>;

    /// What would have been decided differently in the last hour. It takes `within` at most.
    ///
    /// # Errors
    /// When it cannot be found out.
    fn dry_run<'a>(
        &'a self,
        proposed: Proposed<'a>,
        within: Duration,
    ) -> Routing<'a, Result<DryRun, ReviewError>>;
}

/// Why a change is not made, or not played.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// More would be abandoned than the campaign's cap allows.
    #[error("{why}; {remedy}")]
    BreaksCap { why: String, remedy: String },
    /// It cannot be found out what would come of it.
    #[error("{why}; {remedy}")]
    Unknown { why: String, remedy: String },
    /// Changes of this scope are not played.
    #[error("{why}; {remedy}")]
    NotPlayed { why: String, remedy: String },
    #[error(transparent)]
    Database(#[from] postgres::Error),
}

impl From<ReviewError> for Problem {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::BreaksCap { why, remedy } => Problem::new(Kind::BreaksCap, why, remedy),
            ReviewError::Unknown { why, remedy } => Problem::new(Kind::NotReviewed, why, remedy),
            ReviewError::NotPlayed { why, remedy } => Problem::new(Kind::BadBody, why, remedy),
            ReviewError::Database(error) => error.into(),
        }
    }
}

impl Console {
    /// Asks this review before settings are changed.
    ///
    /// # Panics
    /// When it serves already.
    #[must_use]
    pub fn with_review(mut self, review: Arc<dyn SettingsReview>) -> Self {
        Arc::get_mut(&mut self.shared).expect("not served yet").review = Some(review);
        self
    }
}

/// The part of a request's time that a review may take: what is left is for the change itself.
const REVIEW_SHARE: f64 = 0.8;

impl Inner {
    /// Whether the change may be made. Without a review it may.
    pub(super) async fn admit(&self, scope: &str, value: &Value, who: &str) -> Result<(), Problem> {
        let Some(review) = &self.review else { return Ok(()) };
        let within = self.limits.request_timeout.mul_f64(REVIEW_SHARE);
        review.admit(Proposed { scope, value }, within).await.map_err(|error| {
            tracing::warn!(scope, who, "a change of settings is refused: {error}");
            error.into()
        })
    }

    /// What would have been decided differently. Half of the time: there is a page to be made of it.
    pub(super) async fn dry_run(&self, scope: &str, value: &Value) -> Result<DryRun, Problem> {
        let Some(review) = &self.review else {
            let remedy = "ask an instance that `trunkline run` has started";
            return Err(Problem::new(Kind::Unavailable, "this instance plays no changes", remedy));
        };
        Ok(review.dry_run(Proposed { scope, value }, self.limits.request_timeout / 2).await?)
    }
}
