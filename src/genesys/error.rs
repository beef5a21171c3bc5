//! What a call can end in other than success, and what is known about its effect.

use tokio::time::Instant;

use crate::model::outcome::ReceivedResponse;

/// Why a call did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CallError {
    pub kind: CallErrorKind,
    /// For people: what happened, with what, and what to do where that is known.
    /// Never holds a secret.
    pub reason: String,
    /// For the record: the reply, or why there was none.
    pub response: Box<ReceivedResponse>,
}

impl CallError {
    /// An error without a reply; the record says the reason.
    pub(super) fn without_reply(kind: CallErrorKind, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let response =
            ReceivedResponse { status: None, body: None, error: Some(reason.clone()), correlation_id: None };
        Self { kind, reason, response: Box::new(response) }
    }

    /// A prepared request is sent only where it is what its caller says: after a crash it comes
    /// from the record.
    pub(super) fn refuse_unless(is_ours: bool, what: impl FnOnce() -> String) -> Result<(), Self> {
        let refused = || {
            Self::without_reply(CallErrorKind::Rejected, format!("not sent: this is no possible {}", what()))
        };
        is_ours.then_some(()).ok_or_else(refused)
    }

    /// Whether the platform answered, and the answer is no: about this request, not about the
    /// platform. The same request again gets the same answer.
    pub fn is_refusal(&self) -> bool {
        use CallErrorKind::{Conflict, Forbidden, NotFound, Rejected};
        matches!(self.kind, Conflict | Forbidden | NotFound | Rejected)
    }

    /// Whether a call that writes may have changed something although it failed:
    /// read the platform back before anything else is done.
    pub fn effect_is_unknown(&self) -> bool {
        matches!(self.kind, CallErrorKind::NoReply | CallErrorKind::Server { .. })
    }
}

/// What went wrong, for programs. Except for [`NoReply`](Self::NoReply) and
/// [`Server`](Self::Server) nothing was changed on the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallErrorKind {
    /// 412 or 409: someone else changed the object since it was read.
    Conflict,
    /// 409 to something that takes its time: the object is locked, or something else runs on
    /// it. Not before `until` is it worth trying again.
    Busy { until: Instant },
    /// 429: the budget is spent; nobody calls before `until`.
    RateLimited { until: Instant },
    /// 401, also with a fresh token, or the credentials themselves are refused.
    Unauthorized,
    /// 403: the OAuth client lacks a permission.
    Forbidden,
    /// 404: there is no such object.
    NotFound,
    /// Another status below 500 that is no success: the request itself is refused.
    Rejected,
    /// 5xx. A write may have had its effect.
    Server { status: u16 },
    /// Sent, but no usable reply: timeout, reset, truncated; for a write also a reply
    /// that is not the API's. A write may have had its effect.
    NoReply,
    /// Never sent: no connection or no token.
    NotSent,
    /// A read was answered with something that is not the API's: HTML, broken
    /// JSON, missing or impossible values.
    Malformed,
    /// The scope's deadline passed before the request was sent, or for a read before its reply.
    DeadlinePassed,
    /// The scope was cancelled before the request was sent, or for a read before its reply.
    Cancelled,
    /// Not sent: the endpoint group's breaker is open, the shared budget cannot be
    /// asked, or too many calls wait. `until` says when to try again, where known.
    Paused { until: Option<Instant> },
}

impl CallErrorKind {
    /// For metric labels and reason codes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Busy { .. } => "busy",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Rejected => "rejected",
            Self::Server { .. } => "server_error",
            Self::NoReply => "no_reply",
            Self::NotSent => "not_sent",
            Self::Malformed => "malformed",
            Self::DeadlinePassed => "deadline_passed",
            Self::Cancelled => "cancelled",
            Self::Paused { .. } => "paused",
        }
    }
}

/// The settings do not make a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{name} = {value:?} is not a URL: {problem}; give one such as https://api.mypurecloud.com")]
    Url { name: &'static str, value: String, problem: String },
    #[error("genesys.requests_per_minute is 0: allow at least 1 call")]
    NoBudget,
    #[error("the HTTP client cannot be built: {0}")]
    Http(#[source] reqwest::Error),
}
