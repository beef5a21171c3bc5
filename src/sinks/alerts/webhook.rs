//! One message to one receiver.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use uuid::Uuid;

use super::address::is_allowed;
use super::signature::Keys;
use super::{Receiver, ReceiverError};
use crate::genesys::retry_after;
use crate::model::Timestamp;
use crate::model::excerpt::excerpt;

/// Look-up, connection and reply may take this long together.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a refusal is kept, in bytes, and how much of it is read: a secret may lie across.
const EXCERPT_BYTES: usize = 300;
const READ_BYTES: usize = 4_096;
/// A receiver that asks for a longer pause than this is asked again after it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// A receiver as messages are sent to it.
pub(super) struct Webhook {
    http: reqwest::Client,
    url: Url,
    keys: Keys,
    /// What its replies must not be quoted with: parts of the URL and the keys.
    secrets: Vec<SecretString>,
}

/// What is sent.
pub(super) struct Notice<'a> {
    /// The same whenever it is sent again.
    pub id: Uuid,
    pub body: &'a str,
    /// The trace that it is part of.
    pub traceparent: Option<&'a str>,
}

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub http_status: Option<u16>,
    pub reason: String,
    pub wish: Wish,
}

/// What a receiver asks for with its refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// To be left alone for this time, with whatever message; `None` leaves it to us how long.
    LeftAlone(Option<Duration>),
    /// Never to be asked again: 410 Gone.
    SwitchedOff,
}

impl Webhook {
    /// # Errors
    /// When URL or secrets cannot be used.
    pub(super) fn new(receiver: &Receiver, private: bool) -> Result<Self, ReceiverError> {
        let named = |problem: String| ReceiverError { name: receiver.name.clone(), problem };
        // Both TLS users of the process want the same provider; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url: Url = receiver
            .url
            .expose_secret()
            .parse()
            .map_err(|error| named(format!("its url cannot be read: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(named(
                "its url has a user or password in it; receivers know us by the signature".into(),
            ));
        }
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
        let secrets = secret_parts(&url).chain(receiver.secrets.iter().cloned()).collect();
        Ok(Self { http, url, keys, secrets })
    }

    /// Stands for the URL where it is kept: what is known of one address does not hold for another.
    pub(super) fn url_digest(&self) -> String {
        Sha256::digest(self.url.as_str()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Looks whether messages could go there, without sending any.
    ///
    /// # Errors
    /// When the name is not known, leads to an address that is not allowed, or nobody listens.
    pub(super) async fn reach(&self, private: bool) -> Result<(), String> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.url.port_or_known_default().unwrap_or(443);
        let connect = async {
            let addresses =
                allowed_addresses(host, port, private).await.map_err(|error| error.to_string())?;
            TcpStream::connect(addresses.as_slice()).await.map_err(|error| error.to_string())
        };
        match tokio::time::timeout(TIMEOUT, connect).await {
            Ok(connected) => connected.map(drop),
            Err(_) => Err(format!("no connection within {} s", TIMEOUT.as_secs())),
        }
    }

    /// Sends one message; any 2xx is success.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub(super) async fn send(&self, notice: &Notice<'_>, at: Timestamp) -> Result<StatusCode, Refusal> {
        let (id, timestamp) = (notice.id.to_string(), (at.as_millis() / 1_000).to_string());
        let signature = self.keys.sign(&id, &timestamp, notice.body);
        let no_reply =
            |error: reqwest::Error| Refusal { http_status: None, reason: told(error), wish: Wish::Nothing };
        let mut request = self.http.post(self.url.clone());
        if let Some(traceparent) = notice.traceparent {
            request = request.header("traceparent", traceparent);
        }
        let mut response = request
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(notice.body.to_owned())
            .send()
            .await
            .map_err(no_reply)?;
        let status = response.status();
        if status.is_success() {
            return Ok(status);
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let wait = header("retry-after").and_then(|value| retry_after(value, header("date"), LONGEST_PAUSE));
        let wish = match status {
            StatusCode::GONE => Wish::SwitchedOff,
            StatusCode::TOO_MANY_REQUESTS => Wish::LeftAlone(wait),
            _ => wait.map_or(Wish::Nothing, |wait| Wish::LeftAlone(Some(wait))),
        };
        let mut read = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            let room = READ_BYTES - read.len();
            read.extend_from_slice(&chunk[..chunk.len().min(room)]);
            if read.len() == READ_BYTES {
                break;
            }
        }
        let secrets: Vec<&str> = self.secrets.iter().map(ExposeSecret::expose_secret).collect();
        let excerpt = excerpt(&read, EXCERPT_BYTES, &secrets);
        let note = if status.is_redirection() { " (redirects are not followed)" } else { "" };
        let reason = format!("HTTP {}{note}: {excerpt}", status.as_u16());
        Err(Refusal { http_status: Some(status.as_u16()), reason, wish })
    }
}

/// What of a URL tells a receiver its senders by: everything behind the host, whole and in
/// parts, as written and decoded. Pages that say "not found" repeat it. Longest first.
fn secret_parts(url: &Url) -> impl Iterator<Item = SecretString> + use<> {
    /// Shorter ones are words such as `hook`.
    const SHORTEST: usize = 6;
    let behind_host = url.as_str().split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    let mut parts: Vec<String> = behind_host.map(|(_, path)| path.to_owned()).into_iter().collect();
    parts.push(url.path().trim_start_matches('/').to_owned());
    parts.extend(url.query().map(str::to_owned));
    parts.extend(url.path_segments().into_iter().flatten().map(str::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    let decoded: Vec<String> = parts.iter().map(|part| decoded(part)).collect();
    parts.extend(decoded);
    parts.retain(|part| part.len() >= SHORTEST);
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts.dedup();
    parts.into_iter().map(SecretString::from)
}

fn decoded(part: &str) -> String {
    let pairs = form_urlencoded::parse(part.as_bytes());
    pairs
        .map(|(name, value)| if value.is_empty() { name.into_owned() } else { format!("{name}={value}") })
        .collect()
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
            let allowed = allowed_addresses(name.as_str(), 0, private).await?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name that messages may go to.
async fn allowed_addresses(name: &str, port: u16, private: bool) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<_> = tokio::net::lookup_host((name, port)).await?.collect();
    let allowed: Vec<_> = found.iter().copied().filter(|address| is_allowed(address.ip(), private)).collect();
    match (allowed.is_empty(), found.first()) {
        (true, Some(address)) => Err(io::Error::other(not_allowed(address.ip()))),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url_that_may_be_secret_are_known_as_they_come_back() {
        let url = "https://hooks.example/services/T0AB%20CDE/hook?token=abc%2Fdef".parse().unwrap();
        let parts: Vec<_> = secret_parts(&url).map(|part| part.expose_secret().to_owned()).collect();
        for page in ["Cannot POST /services/T0AB%20CDE/hook", "no T0AB CDE here", "token abc/def is unknown"]
        {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let quoted = excerpt(page.as_bytes(), 300, &parts);
            assert!(!quoted.contains("CDE") && !quoted.contains("def"), "{quoted}");
        }
        assert!(!parts.iter().any(|part| part == "hook"), "{parts:?}");
    }

    #[test]
    fn receivers_with_credentials_or_without_a_public_address_are_refused() {
        for url in ["https://:canary@example.com/", "https://canary@example.com/", "https://168.63.129.16/"] {
            let receiver = Receiver {
                name: "ops".into(),
                url: url.into(),
                secrets: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into()],
                incident_types: Vec::new(),
            };
            let error = Webhook::new(&receiver, false).err().expect(url).to_string();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
