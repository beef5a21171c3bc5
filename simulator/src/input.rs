//! Reading what a request brings: headers and JSON bodies.

use axum::http::{HeaderMap, StatusCode, header};
use serde::de::DeserializeOwned;

use super::reply::{Refusal, refusal_for_status};

/// Reads a JSON body. A missing content type is forgiven, a wrong one is not; members
/// nobody asked for are ignored, as the platform does.
///
/// # Errors
/// 415, or 400 with what is wrong about the body.
pub(crate) fn json_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    let kind = text_of(headers, header::CONTENT_TYPE).unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(refusal_for_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "bad.request", format!("the body cannot be read: {error}"))
    })
}

/// A value the platform does not take.
pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid.value", message)
}

/// A header's value; one that is no text counts as absent.
pub(crate) fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
