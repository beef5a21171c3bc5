//! One HTTP exchange under all limits, and what is certain when it fails.

use std::error::Error as _;
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Request, StatusCode};
use tracing::{Instrument as _, Span};

use super::Settings;
use super::error::ClientError;

/// How long a connection may idle before it is not used again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Sends requests; follows no redirect, repeats nothing.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    body_limit: usize,
}

/// A reply whose head arrived.
#[derive(Debug)]
pub(super) struct RawReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Result<Vec<u8>, BodyProblem>,
}

/// Why a body is not there whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyProblem {
    /// More bytes than allowed, after decompression.
    TooLarge(usize),
    /// It ended early, stalled or could not be decompressed.
    Broken(String),
}

/// No head of a reply arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// There was no connection: the request surely had no effect.
    NotSent(String),
    /// It may have arrived.
    NoReply(String),
}

impl Transport {
    pub(super) fn new(settings: &Settings) -> Result<Self, ClientError> {
        install_tls();
        let http = reqwest::Client::builder()
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Before a gateway closes it: a write on a dying connection leaves its effect in doubt.
            .pool_idle_timeout(KEEP_ALIVE)
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .timeout(settings.total_timeout)
            .build()
            .map_err(ClientError::Http)?;
        Ok(Self { http, body_limit: settings.body_limit })
    }

    /// For building requests.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// One request, a span of its own in the trace of whoever needs it.
    pub(super) async fn exchange(&self, request: Request) -> Result<RawReply, Silence> {
        let span = tracing::info_span!(
            "call",
            otel.name = format!("call {}", request.method()),
            otel.kind = "client",
            otel.status_code = tracing::field::Empty,
            http.request.method = %request.method(),
            server.address = request.url().host_str(),
            url.path = request.url().path(),
            http.response.status_code = tracing::field::Empty,
        );
        self.send(request).instrument(span.clone()).await.inspect_err(|_| failed(&span)).inspect(|reply| {
            span.record("http.response.status_code", reply.status.as_u16());
            if !reply.status.is_success() {
                failed(&span);
            }
        })
    }

    async fn send(&self, request: Request) -> Result<RawReply, Silence> {
        let mut response = self.http.execute(request).await.map_err(|error| {
            let certain = error.is_connect() || error.is_builder();
            let text = explain(error);
            if certain { Silence::NotSent(text) } else { Silence::NoReply(text) }
        })?;
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let body = read_body(response, self.body_limit).await;
        Ok(RawReply { status, headers, body })
    }
}

impl RawReply {
    /// A header's value where it is ASCII text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn is_json(&self) -> bool {
        let Some(content_type) = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    }
}

fn failed(span: &Span) {
    span.record("otel.status_code", "ERROR");
}

async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, BodyProblem> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(BodyProblem::TooLarge(limit)),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(BodyProblem::Broken(explain(error))),
        }
    }
}

impl std::fmt::Display for BodyProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BodyProblem::TooLarge(limit) => write!(f, "the body is larger than {limit} bytes"),
            BodyProblem::Broken(problem) => write!(f, "the body broke off: {problem}"),
        }
    }
}

/// The whole chain of causes without the URL, which says nothing new.
fn explain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// One TLS implementation for the whole process.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that another part has already installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
