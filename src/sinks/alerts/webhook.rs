//! One message to one receiver.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{StatusCode, Url};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::address::is_allowed;
use super::signature::Keys;
use super::{Receiver, ReceiverError};
use crate::model::Timestamp;

/// Look-up, connection and reply may take this long together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a refusal is kept, in bytes.
const EXCERPT_BYTES: usize = 300;
/// A receiver that asks for a longer pause than this is asked again after it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// A receiver as messages are sent to it.
pub struct Webhook {
    http: reqwest::Client,
    url: Url,
    keys: Keys,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub http_status: Option<u16>,
    pub reason: String,
    /// How long the receiver asks to be left alone.
    pub wait: Option<Duration>,
}

impl Webhook {
    /// # Errors
    /// When URL or secrets cannot be used.
    pub fn new(receiver: &Receiver, private: bool) -> Result<Self, ReceiverError> {
        let named = |problem: String| ReceiverError { name: receiver.name.clone(), problem };
        // Both TLS users of the process want the same provider; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url: Url = receiver
            .url
            .expose_secret()
            .parse()
            .map_err(|error| named(format!("its url cannot be read: {error}")))?;
        let keys = Keys::read(&receiver.secrets).map_err(|error| named(error.to_string()))?;
        let http = reqwest::Client::builder()
            .user_agent(concat!("trunkline/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            // A proxy would connect where nobody has looked.
            .no_proxy()
            .no_gzip()
            .dns_resolver(Checked { private })
            .https_only(!private)
            .pool_max_idle_per_host(1)
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| named(error.to_string()))?;
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        if let Some(address) = literal.filter(|address| !is_allowed(*address, private)) {
            return Err(named(not_allowed(address)));
        }
        Ok(Self { http, url, keys })
    }

    /// Sends one message; any 2xx is success.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn send(&self, id: Uuid, at: Timestamp, body: &str) -> Result<StatusCode, Refusal> {
        let (id, timestamp) = (id.to_string(), (at.as_millis() / 1_000).to_string());
        let signature = self.keys.sign(&id, &timestamp, body);
        let no_reply = |error: reqwest::Error| Refusal { http_status: None, reason: told(error), wait: None };
        let mut response = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body.to_owned())
            .send()
            .await
            .map_err(no_reply)?;
        let status = response.status();
        if status.is_success() {
            return Ok(status);
        }
        let wait = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE));
        let mut excerpt = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = EXCERPT_BYTES - excerpt.len();
            excerpt.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if excerpt.len() == EXCERPT_BYTES {
                break;
            }
        }
        let excerpt = String::from_utf8_lossy(&excerpt).replace('\0', "\u{fffd}");
        let note = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        let reason = format!("HTTP {}{note}: {excerpt}", status.as_u16());
        Err(Refusal { http_status: Some(status.as_u16()), reason, wait })
    }
}

/// The error with its causes, without the URL, which may be a secret.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn not_allowed(address: IpAddr) -> String {
    format!(
        "its address {address} is not a public one; receivers on this machine or in private networks need \
         alerts.private_receivers = \"allow\""
    )
}

/// Looks names up and lets allowed addresses through alone: the client connects to
/// what was looked at, whatever the name says a moment later.
struct Checked {
    private: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let private = self.private;
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> =
                found.iter().copied().filter(|address| is_allowed(address.ip(), private)).collect();
            match (allowed.is_empty(), found.first()) {
                (true, Some(address)) => Err(io::Error::other(not_allowed(address.ip())).into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}
