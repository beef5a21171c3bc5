//! What a reply says, and how much of it is kept.

use reqwest::StatusCode;
use serde::Deserialize;
use tokio::time::Instant;

use super::budget::Limits;
use super::error::CallErrorKind as Kind;
use super::transport::RawReply;
use crate::model::outcome::ReceivedResponse;

/// How much of a reply is kept for the record, in bytes.
const EXCERPT_LIMIT: usize = 2 * 1024;
/// Longest entity tag or correlation id.
const HEADER_LIMIT: usize = 1024;

/// What a status that is no success means. The time of a 429 is filled in later.
pub(super) fn judge_status(status: StatusCode, response: &ReceivedResponse) -> (Kind, String) {
    let message = response.body.as_deref().and_then(api_message);
    // The platform's own API has two ways to say that a version is stale.
    let is_stale = message.as_ref().is_some_and(|message| message.contains(STALE_VERSION));
    let kind = match status {
        StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => Kind::Conflict,
        StatusCode::BAD_REQUEST if is_stale => Kind::Conflict,
        StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited { until: Instant::now() },
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN => Kind::Forbidden,
        StatusCode::NOT_FOUND => Kind::NotFound,
        status if status.is_server_error() => Kind::Server { status: status.as_u16() },
        _ => Kind::Rejected,
    };
    let mut reason = format!("HTTP {}", status.as_u16());
    if status.is_redirection() {
        reason.push_str(": redirects are not followed; check genesys.base_url");
    }
    if let Some(message) = message {
        reason.push_str(": ");
        reason.push_str(&message);
    }
    (kind, reason)
}

const STALE_VERSION: &str = "does not match the current version";

/// The message of the platform's own error body.
fn api_message(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct WireError {
        message: String,
    }
    let error: WireError = serde_json::from_str(body).ok()?;
    Some(error.message.chars().filter(|c| !c.is_control()).take(400).collect())
}

/// `inin-ratelimit-*`, where complete.
pub(super) fn limits(reply: &RawReply) -> Option<Limits> {
    let number = |name: &str| {
        let value: f64 = reply.header(name)?.trim().parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    };
    let (count, allowed) = (number("inin-ratelimit-count")?, number("inin-ratelimit-allowed")?);
    Some(Limits { allowed, remaining: allowed - count, reset_seconds: number("inin-ratelimit-reset")? })
}

/// Which family of calls alone a 429 is about; `None` is all of them. By the error body of the
/// platform's own API.
pub(super) fn throttled_family(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct WireError {
        limit: WireLimit,
    }
    #[derive(Deserialize)]
    struct WireLimit {
        namespace: String,
    }
    let error: WireError = serde_json::from_slice(body).ok()?;
    let namespace = error.limit.namespace;
    (namespace != EVERYTHING && namespace.len() <= 64 && !namespace.is_empty()).then_some(namespace)
}

const EVERYTHING: &str = "platform.api";

pub(super) fn bounded_header(reply: &RawReply, name: &str) -> Option<String> {
    reply.header(name).filter(|value| value.len() <= HEADER_LIMIT).map(str::to_owned)
}

/// The first 2 KiB as text that a database takes, secrets blacked out.
pub(super) fn excerpt(body: &[u8], secrets: &[&str]) -> String {
    crate::model::excerpt::excerpt(body, EXCERPT_LIMIT, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_version_is_a_conflict_and_other_bad_requests_are_not() {
        let judge = |message: &str| {
            let body = Some(format!(r#"{{"message":"{message}","status":400}}"#));
            let response = ReceivedResponse { status: None, body, error: None, correlation_id: None };
            judge_status(StatusCode::BAD_REQUEST, &response).0.name()
        };
        assert_eq!(judge("The version 3 does not match the current version 4"), "conflict");
        assert_eq!(judge("Invalid transition from <COMPLETE> to <OFF>"), "rejected");
    }

    #[test]
    fn a_refusal_of_one_family_of_calls_is_told_from_one_of_all() {
        let all = include_str!("platform/fixtures/error_rate_limit.json");
        assert_eq!(throttled_family(all.as_bytes()), None);
        let one = all.replace("platform.api", "analytics");
        assert_eq!(throttled_family(one.as_bytes()).as_deref(), Some("analytics"));
        assert_eq!(throttled_family(b"{\"status\":429}"), None);
    }

    #[test]
    fn every_status_has_its_meaning() {
        let kind = |status: u16| judge_status(StatusCode::from_u16(status).unwrap(), &EMPTY).0.name();
        const EMPTY: ReceivedResponse =
            ReceivedResponse { status: None, body: None, error: None, correlation_id: None };
        for (status, expected) in [
            (301, "rejected"),
            (400, "rejected"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (404, "not_found"),
            (409, "conflict"),
            (412, "conflict"),
            (415, "rejected"),
            (429, "rate_limited"),
            (500, "server_error"),
            (503, "server_error"),
        ] {
            assert_eq!(kind(status), expected, "{status}");
        }
    }
}
