//! What a call's end means for the decision.

use tokio::time::Instant;

use crate::genesys::{CallError, CallErrorKind as Kind};

/// What to do after a call that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Somebody else changed the campaign: read again, decide again.
    Conflict,
    /// Nobody calls before this.
    WaitUntil(Instant),
    /// Try again with growing pauses.
    Retry,
    /// The decision cannot be carried out, for this reason.
    Fail(&'static str),
    /// The process stops.
    Stop,
}

/// For reads and writes alike; what is known about a write's effect is asked of
/// [`CallError::effect_is_unknown`].
pub fn verdict(error: &CallError) -> Verdict {
    match error.kind {
        Kind::Conflict => Verdict::Conflict,
        Kind::RateLimited { until } | Kind::Paused { until: Some(until) } => Verdict::WaitUntil(until),
        // A deadline of ours that passed is met again at the top of the loop, where
        // the decision's own expiry is looked at.
        Kind::Server { .. }
        | Kind::NoReply
        | Kind::NotSent
        | Kind::Malformed
        | Kind::DeadlinePassed
        | Kind::Paused { until: None } => Verdict::Retry,
        Kind::NotFound => Verdict::Fail("campaign_not_found"),
        Kind::Unauthorized => Verdict::Fail("unauthorized"),
        Kind::Forbidden => Verdict::Fail("forbidden"),
        Kind::Rejected => Verdict::Fail("rejected"),
        Kind::Cancelled => Verdict::Stop,
    }
}
