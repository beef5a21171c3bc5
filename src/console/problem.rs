//! Errors as RFC 9457 problem documents, each with its remedy.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::postgres;

/// Kinds of problems, each with a URN of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadParameters,
    BadBody,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    BodyTooLarge,
    BodyTooSlow,
    UnsupportedMediaType,
    Overloaded,
    TimedOut,
    Unavailable,
    Conflict,
    BreaksCap,
    NotReviewed,
    DatabaseUnavailable,
    Internal,
}

impl Kind {
    fn facts(self) -> (&'static str, &'static str, StatusCode) {
        match self {
            Kind::BadParameters => {
                ("bad-parameters", "Parameters are not as allowed", StatusCode::BAD_REQUEST)
            }
            Kind::BadBody => ("bad-body", "The body cannot be read", StatusCode::BAD_REQUEST),
            Kind::Unauthorized => ("unauthorized", "An API key is needed", StatusCode::UNAUTHORIZED),
            Kind::Forbidden => ("forbidden", "This caller may not do this", StatusCode::FORBIDDEN),
            Kind::NotFound => ("not-found", "There is no such thing", StatusCode::NOT_FOUND),
            Kind::MethodNotAllowed => {
                ("method-not-allowed", "The path does not take this method", StatusCode::METHOD_NOT_ALLOWED)
            }
            Kind::BodyTooLarge => ("body-too-large", "The body is too large", StatusCode::PAYLOAD_TOO_LARGE),
            Kind::BodyTooSlow => ("body-too-slow", "The body took too long", StatusCode::REQUEST_TIMEOUT),
            Kind::UnsupportedMediaType => (
                "unsupported-media-type",
                "The body is of a type that is not read here",
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ),
            Kind::Overloaded => ("overloaded", "Too many requests at once", StatusCode::SERVICE_UNAVAILABLE),
            Kind::TimedOut => ("timed-out", "The answer took too long", StatusCode::SERVICE_UNAVAILABLE),
            Kind::Unavailable => {
                ("unavailable", "This cannot be done at the moment", StatusCode::SERVICE_UNAVAILABLE)
            }
            Kind::Conflict => ("conflict", "This cannot be done as things are", StatusCode::CONFLICT),
            Kind::BreaksCap => ("breaks-cap", "The change would break a cap", StatusCode::CONFLICT),
            Kind::NotReviewed => {
                ("not-reviewed", "What the change would come to is not known", StatusCode::CONFLICT)
            }
            Kind::DatabaseUnavailable => {
                ("database-unavailable", "The database does not answer", StatusCode::SERVICE_UNAVAILABLE)
            }
            Kind::Internal => ("internal", "Something went wrong here", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// One problem on its way out.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    remedy: String,
    errors: Vec<ParameterError>,
}

/// What is wrong with one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct ParameterError {
    pub parameter: String,
    /// As it was given; null when it is missing.
    pub value: Option<String>,
    /// What would have been right.
    pub allowed: String,
}

/// A problem document (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(super) struct Document {
    /// A URN that stays the same for this kind of problem.
    r#type: String,
    title: &'static str,
    status: u16,
    /// What is wrong this time.
    detail: String,
    /// What to do about it.
    remedy: String,
    /// For `bad-parameters`: every one that is wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    errors: Vec<ParameterError>,
}

/// What clients are told to wait before they try again, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), remedy: remedy.into(), errors: Vec::new() }
    }

    pub(super) fn body_too_large(limit: usize) -> Self {
        Self::new(Kind::BodyTooLarge, format!("the body is over {limit} bytes"), "send less at once")
    }

    /// `errors` must not be empty.
    pub(super) fn bad_parameters(errors: Vec<ParameterError>) -> Self {
        let names: Vec<_> = errors.iter().map(|error| error.parameter.as_str()).collect();
        let detail = format!("not as allowed: {}", names.join(", "));
        let remedy = "see `errors` for what is allowed, and /openapi.json";
        Self { errors, ..Self::new(Kind::BadParameters, detail, remedy) }
    }
}

impl Problem {
    /// Title, detail and remedy, for people.
    pub(super) fn words(&self) -> (&'static str, &str, &str) {
        (self.kind.facts().1, &self.detail, &self.remedy)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.kind.facts().2
    }
}

impl From<postgres::Error> for Problem {
    fn from(error: postgres::Error) -> Self {
        if error.is_temporary() {
            tracing::warn!(%error, "a request was not answered");
            let remedy = "try again in a moment; /readyz says when the database is back";
            return Self::new(Kind::DatabaseUnavailable, "the ledger cannot be read at the moment", remedy);
        }
        tracing::error!(%error, "a request failed");
        let remedy = "look into the log of this instance, which names the cause";
        Self::new(Kind::Internal, "the ledger could not be read", remedy)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, title, status) = self.kind.facts();
        // For people it is shown in another form.
        let said = Arc::new(self.clone());
        let document = Document {
            r#type: format!("urn:trunkline:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            remedy: self.remedy,
            errors: self.errors,
        };
        let mut response = (status, Json(document)).into_response();
        response.extensions_mut().insert(said);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
