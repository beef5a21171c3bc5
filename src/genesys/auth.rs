//! Access tokens by client credentials: fetched by one task for all calls,
//! renewed well before their end, never in a call's way.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::Settings;
use super::credentials::{Credentials, OauthClient};
use super::retry_after::retry_after;
use super::transport::{RawReply, Silence, Transport};
use crate::backoff::Backoff;
use crate::health::Part;
use crate::metrics;

/// A token as calls use it.
#[derive(Clone)]
pub(super) struct Token {
    /// `Bearer …`, marked sensitive.
    pub header: HeaderValue,
    pub text: SecretString,
    /// Counts the tokens of this process.
    pub generation: u64,
    expires_at: Instant,
    renew_at: Instant,
    /// Of the credentials that it was given for.
    revision: u64,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AuthError {
    /// The credentials are refused.
    Refused(String),
    /// The token endpoint gives no usable answer.
    Unavailable(String),
}

impl AuthError {
    pub(super) fn reason(&self) -> &str {
        match self {
            AuthError::Refused(reason) | AuthError::Unavailable(reason) => reason,
        }
    }
}

/// The current token, kept fresh by a task that ends with this value.
pub(super) struct Tokens {
    shared: Arc<Shared>,
    _keeper: AbortOnDropHandle<()>,
}

struct Shared {
    state: watch::Sender<State>,
    /// A call waits for a token.
    wanted: Notify,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// Attempts that have ended, well or badly.
    attempts: u64,
    /// How the last attempt failed, if it did.
    failure: Option<AuthError>,
}

impl Tokens {
    /// Needs a running tokio runtime.
    pub(super) fn new(transport: Transport, settings: &Settings, url: Url, health: Part) -> Self {
        let shared = Arc::new(Shared { state: watch::Sender::default(), wanted: Notify::new() });
        let endpoint = Endpoint {
            transport,
            url,
            credentials: settings.credentials.clone(),
            margin: settings.token_margin,
            retry_after_limit: settings.retry_after_limit,
            form_first: false,
        };
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(shared.clone(), endpoint, health)));
        Self { shared, _keeper: keeper }
    }

    /// The current token. Waits only when there is none, and then for the end of
    /// the next attempt to get one.
    pub(super) async fn current(&self) -> Result<Token, AuthError> {
        let mut states = self.shared.state.subscribe();
        let attempts_before = states.borrow().attempts;
        loop {
            {
                let state = states.borrow_and_update();
                if let Some(token) = state.token.as_ref().filter(|token| Instant::now() < token.expires_at) {
                    return Ok(token.clone());
                }
                if let Some(failure) = state.failure.as_ref().filter(|_| state.attempts > attempts_before) {
                    return Err(failure.clone());
                }
            }
            self.shared.wanted.notify_one();
            if states.changed().await.is_err() {
                return Err(AuthError::Unavailable("the client is shutting down".to_owned()));
            }
        }
    }

    /// The platform refused this token: the next call gets another one. Refusals
    /// of tokens already replaced change nothing.
    pub(super) fn reject(&self, generation: u64) {
        let rejected = self.shared.state.send_if_modified(|state| {
            let is_current = state.token.as_ref().is_some_and(|token| token.generation == generation);
            if is_current {
                state.token = None;
            }
            is_current
        });
        if rejected {
            tracing::info!("the platform refused the access token: getting another one");
            self.shared.wanted.notify_one();
        }
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn last_failure(&self) -> Option<AuthError> {
        self.shared.state.borrow().failure.clone()
    }
}

/// Least time between two attempts: a platform that refuses every token is not flooded.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// Pauses after failures, without what is added at random: 30 s at most with it.
const PAUSES: (Duration, Duration) = (LEAST_INTERVAL, Duration::from_secs(20));

/// Gets the first token at once and each further one when it is due or wanted.
async fn keep(shared: Arc<Shared>, mut endpoint: Endpoint, health: Part) {
    let mut generation = 0;
    let mut pauses = Backoff::new(PAUSES);
    loop {
        let revision = endpoint.credentials.revision();
        let is_of_these = |token: &&Token| token.revision == revision;
        let due = shared.state.borrow().token.as_ref().filter(is_of_these).map(|token| token.renew_at);
        if let Some(due) = due.filter(|due| *due > Instant::now()) {
            tokio::select! {
                () = sleep_until(due) => {}
                () = shared.wanted.notified() => {}
                () = endpoint.credentials.changed_since(revision) => {}
            }
            continue;
        }
        endpoint.credentials.look().await;
        let started = Instant::now();
        match endpoint.fetch(generation + 1).await {
            Ok(token) => {
                generation += 1;
                pauses.reset();
                metrics::GENESYS_TOKENS.counter(&["ok"]).increment(1);
                health.ready();
                shared.state.send_modify(|state| {
                    state.token = Some(token);
                    state.attempts += 1;
                    state.failure = None;
                });
                sleep_until(started + LEAST_INTERVAL).await;
            }
            Err(Failed { error, wait }) => {
                metrics::GENESYS_TOKENS.counter(&["failed"]).increment(1);
                tracing::warn!(reason = error.reason(), "no new access token");
                // The former token serves while it lives.
                match shared.state.borrow().token.as_ref().map(|token| token.expires_at) {
                    Some(end) if Instant::now() < end => health.impaired(error.reason()),
                    _ => health.not_ready(error.reason()),
                }
                shared.state.send_modify(|state| {
                    state.attempts += 1;
                    state.failure = Some(error);
                });
                let revision = endpoint.credentials.revision();
                tokio::select! {
                    () = sleep(wait.unwrap_or_else(|| pauses.pause())) => {}
                    // Others may be better, but nobody is flooded.
                    () = endpoint.credentials.changed_since(revision), if wait.is_none() => {
                        sleep_until(started + LEAST_INTERVAL).await;
                    }
                }
            }
        }
    }
}

/// How long before its renewal a token of this life is used: up to `margin`
/// before its end, at half of a life too short for that.
fn renewal_after(life: Duration, margin: Duration) -> Duration {
    life.saturating_sub(margin).max(life / 2)
}

/// Where tokens come from.
struct Endpoint {
    transport: Transport,
    url: Url,
    credentials: Credentials,
    margin: Duration,
    retry_after_limit: Duration,
    /// The form was accepted where Basic was not: begin with it.
    form_first: bool,
}

struct Failed {
    error: AuthError,
    /// How long the endpoint wants to be left alone.
    wait: Option<Duration>,
}

/// Largest token, and longest life in seconds (48 h is the platform's own limit).
const TOKEN_LIMIT: usize = 16 * 1024;
const LIFE_LIMIT_SECONDS: f64 = 48.0 * 3600.0;

impl Endpoint {
    async fn fetch(&mut self, generation: u64) -> Result<Token, Failed> {
        let asked_at = Instant::now();
        let (client, revision) = self.credentials.in_force();
        let mut reply = self.ask(&client, self.form_first).await?;
        if matches!(reply.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED) {
            let other = self.ask(&client, !self.form_first).await?;
            if other.status == StatusCode::OK {
                self.form_first = !self.form_first;
                reply = other;
            }
        }
        let token = self.read(&reply, asked_at, generation)?;
        Ok(Token { revision, ..token })
    }

    async fn ask(&self, client: &OauthClient, in_form: bool) -> Result<RawReply, Failed> {
        let http = self.transport.http().post(self.url.clone());
        let (id, secret) = (&client.id, client.secret.expose_secret());
        let request = if in_form {
            http.form(&[("grant_type", "client_credentials"), ("client_id", id), ("client_secret", secret)])
        } else {
            // RFC 6749 §2.3.1 wants both form-encoded inside of Basic.
            http.basic_auth(form_encoded(id), Some(form_encoded(secret)))
                .form(&[("grant_type", "client_credentials")])
        };
        let unavailable = |problem: String| Failed {
            error: AuthError::Unavailable(format!("no access token from {}: {problem}", self.url)),
            wait: None,
        };
        let request = request.build().map_err(|error| unavailable(error.without_url().to_string()))?;
        self.transport.exchange(request).await.map_err(|silence| match silence {
            Silence::NotSent(problem) | Silence::NoReply(problem) => unavailable(problem),
        })
    }

    fn read(&self, reply: &RawReply, asked_at: Instant, generation: u64) -> Result<Token, Failed> {
        let wait = reply
            .header("retry-after")
            .and_then(|value| retry_after(value, reply.header("date"), self.retry_after_limit));
        let unavailable = |problem: &str| Failed {
            error: AuthError::Unavailable(format!("no access token from {}: {problem}", self.url)),
            wait,
        };
        match reply.status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason = format!(
                    "{} refuses the OAuth client (HTTP {}); check genesys.client_id and genesys.client_secret",
                    self.url,
                    reply.status.as_u16()
                );
                return Err(Failed { error: AuthError::Refused(reason), wait });
            }
            status => return Err(unavailable(&format!("HTTP {}", status.as_u16()))),
        }
        let body = reply.body.as_ref().map_err(|problem| unavailable(&problem.to_string()))?;
        // The parser's own message could quote the token.
        let read: WireToken =
            serde_json::from_slice(body).map_err(|_| unavailable("the reply is no token reply"))?;
        let text = read.access_token;
        let is_bearer = read.token_type.is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        let has_life = read.expires_in > 0.0;
        if text.is_empty() || text.len() > TOKEN_LIMIT || !is_bearer || !has_life {
            return Err(unavailable("the reply is no usable bearer token"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| unavailable("the token is not ASCII text"))?;
        header.set_sensitive(true);
        let life = Duration::from_secs_f64(read.expires_in.min(LIFE_LIMIT_SECONDS));
        Ok(Token {
            header,
            text: text.into(),
            generation,
            expires_at: asked_at + life,
            renew_at: asked_at + renewal_after(life, self.margin),
            revision: 0,
        })
    }
}

#[derive(Deserialize)]
struct WireToken {
    access_token: String,
    token_type: Option<String>,
    expires_in: f64,
}

/// `application/x-www-form-urlencoded`, for one value.
fn form_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => encoded.push(byte as char),
            b' ' => encoded.push('+'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Puts the token on a request.
pub(super) fn authorize(request: &mut reqwest::Request, token: &Token) {
    request.headers_mut().insert(AUTHORIZATION, token.header.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_300_s_before_the_end_or_at_half_of_a_shorter_life() {
        let margin = Duration::from_secs(300);
        let renewed = |life| renewal_after(Duration::from_secs(life), margin).as_secs();
        assert_eq!(renewed(86_400), 86_100);
        assert_eq!(renewed(600), 300);
        assert_eq!(renewed(400), 200);
        assert_eq!(renewed(10), 5);
    }

    #[test]
    fn credentials_with_any_character_survive_basic() {
        assert_eq!(form_encoded("a-b_c.d*e"), "a-b_c.d*e");
        assert_eq!(form_encoded("a b+c:%é"), "a+b%2Bc%3A%25%C3%A9");
    }
}
