//! The server that takes the points.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};

use super::{DriftError, NotDelivered, Settings};
use crate::genesys::retry_after;
use crate::model::excerpt::excerpt;

/// How much of an error's body is kept for the log, in bytes, and how much is read: the token may
/// lie across.
const EXCERPT_BYTES: usize = 512;
const READ_BYTES: usize = 2_048;
/// A server that asks for a longer pause than this is asked again after it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

pub(super) struct Server {
    http: reqwest::Client,
    url: Url,
    token: SecretString,
}

impl Server {
    pub(super) fn new(settings: &Settings) -> Result<Self, DriftError> {
        // Both TLS users of the process want the same provider; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(15))
            .build()
            .map_err(DriftError::Http)?;
        let base = settings.url.trim_end_matches('/');
        let problem = |problem: String| DriftError::Url { url: settings.url.clone(), problem };
        let mut url =
            Url::parse(&format!("{base}/api/v2/write")).map_err(|error| problem(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(problem(format!("{} is neither http nor https", url.scheme())));
        }
        url.query_pairs_mut().append_pair("org", &settings.org).append_pair("bucket", &settings.bucket);
        Ok(Self { http, url, token: settings.token.clone() })
    }

    /// Writes lines; 204 alone is success.
    pub(super) async fn write(&self, lines: &[String]) -> Result<(), NotDelivered> {
        let later = |reason: String| NotDelivered::Later(reason, None);
        let mut authorization = HeaderValue::from_str(&format!("Token {}", self.token.expose_secret()))
            .map_err(|_| {
                NotDelivered::Refused("influx.token holds characters that no header can".to_owned())
            })?;
        authorization.set_sensitive(true);
        let mut response = self
            .http
            .post(self.url.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(lines.join("\n"))
            .send()
            .await
            .map_err(|error| later(error.without_url().to_string()))?;
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = header("retry-after").and_then(|value| retry_after(value, header("date"), LONGEST_PAUSE));
        let mut read = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = READ_BYTES - read.len();
            read.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if read.len() == READ_BYTES {
                break;
            }
        }
        let told = excerpt(&read, EXCERPT_BYTES, &[self.token.expose_secret()]);
        let reason = format!("HTTP {}: {told}", status.as_u16());
        Err(match status.as_u16() {
            400 | 413 | 422 => NotDelivered::RefusedSome(reason),
            429 => NotDelivered::Later(reason, wait),
            400..=499 => NotDelivered::Refused(reason),
            _ => NotDelivered::Later(reason, wait),
        })
    }
}
