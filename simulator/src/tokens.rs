//! OAuth client credentials: who may ask for a token, and which tokens still live.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

/// Live tokens kept at most; the oldest go first.
const MAX_TOKENS: usize = 10_000;

/// Clients that may be made while it runs, besides those it began with.
const MAX_CLIENTS: usize = 100;

/// An OAuth client of the organisation.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub secret: SecretString,
    pub scopes: BTreeSet<String>,
}

/// Why a request's token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TokenProblem {
    Missing,
    Unknown,
    Expired,
}

/// Why no token is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum GrantProblem {
    /// Unreadable credentials or body.
    Malformed,
    /// `grant_type` is not exactly `client_credentials`.
    GrantType,
    /// Unknown client or wrong secret.
    Credentials,
}

#[derive(Clone, Debug)]
struct Token {
    client: usize,
    /// Since the simulator started.
    expires_at: Duration,
}

/// Times are monotonic, since the simulator started.
#[derive(Debug)]
pub(crate) struct Tokens {
    clients: Vec<Client>,
    lifetime: Duration,
    live: HashMap<String, Token>,
}

impl Tokens {
    pub(crate) fn new(clients: Vec<Client>, lifetime: Duration) -> Self {
        Self { clients, lifetime, live: HashMap::new() }
    }

    pub(crate) fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Gives a token for the credentials of `Authorization: Basic`, or else of the form.
    ///
    /// # Errors
    /// See [`GrantProblem`].
    pub(crate) fn grant(
        &mut self,
        authorization: Option<&str>,
        form: &[u8],
        now: Duration,
    ) -> Result<(String, &Client), GrantProblem> {
        let form = Form::read(form).ok_or(GrantProblem::Malformed)?;
        if form.field("grant_type").is_none_or(|grant| grant.raw != "client_credentials") {
            return Err(GrantProblem::GrantType);
        }
        let (id, secret) = match authorization {
            Some(header) => basic_credentials(header).ok_or(GrantProblem::Malformed)?,
            None => {
                let id = form.field("client_id").ok_or(GrantProblem::Credentials)?;
                let secret = form.field("client_secret").ok_or(GrantProblem::Credentials)?;
                (id, secret)
            }
        };
        let client = self
            .clients
            .iter()
            .position(|client| id.is(&client.id) && secret.is(client.secret.expose_secret()))
            .ok_or(GrantProblem::Credentials)?;
        let token = new_token();
        self.make_room(now);
        self.live.insert(token.clone(), Token { client, expires_at: now + self.lifetime });
        Ok((token, &self.clients[client]))
    }

    /// The client whose live token stands in `Authorization: Bearer`.
    ///
    /// # Errors
    /// See [`TokenProblem`].
    pub(crate) fn authenticate(
        &self,
        authorization: Option<&str>,
        now: Duration,
    ) -> Result<&Client, TokenProblem> {
        let header = authorization.ok_or(TokenProblem::Missing)?;
        let (scheme, token) = header.split_once(' ').ok_or(TokenProblem::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenProblem::Missing);
        }
        let token = self.live.get(token.trim()).ok_or(TokenProblem::Unknown)?;
        if now >= token.expires_at {
            return Err(TokenProblem::Expired);
        }
        Ok(&self.clients[token.client])
    }

    /// Gives a client another secret, or makes one that may do what all others may. Tokens
    /// live on unless `revoke` ends those of this client; says how many it ended, `None` where
    /// there are too many clients.
    pub(crate) fn set_secret(&mut self, id: &str, secret: SecretString, revoke: bool) -> Option<usize> {
        let known = self.clients.iter().position(|client| client.id == id);
        let client = match known {
            Some(client) => client,
            None if self.clients.len() >= MAX_CLIENTS => return None,
            None => {
                let scopes = self.clients.iter().flat_map(|client| client.scopes.clone()).collect();
                self.clients.push(Client { id: id.to_owned(), secret: secret.clone(), scopes });
                self.clients.len() - 1
            }
        };
        self.clients[client].secret = secret;
        let before = self.live.len();
        self.live.retain(|_, token| !revoke || token.client != client);
        Some(before - self.live.len())
    }

    /// Every token given so far is unknown from now on; returns how many were forgotten.
    pub(crate) fn revoke_all(&mut self) -> usize {
        std::mem::take(&mut self.live).len()
    }

    /// Tokens stay a while after their end, so that their users hear "expired".
    fn make_room(&mut self, now: Duration) {
        if self.live.len() >= MAX_TOKENS {
            self.live.retain(|_, token| token.expires_at > now);
        }
        if self.live.len() >= MAX_TOKENS {
            let oldest = self.live.iter().min_by_key(|(_, token)| token.expires_at);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.live.remove(&name);
            }
        }
    }
}

/// 43 characters nobody can guess.
fn new_token() -> String {
    let bytes: [u8; 32] = rand::random();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// One value as it was sent and as it reads when percent-decoded: clients differ in
/// whether they escape, so both spellings count.
struct Spelled {
    raw: String,
    decoded: String,
}

impl Spelled {
    fn is(&self, expected: &str) -> bool {
        let equal = |text: &str| text.as_bytes().ct_eq(expected.as_bytes());
        (equal(&self.raw) | equal(&self.decoded)).into()
    }
}

struct Form(Vec<(String, Spelled)>);

impl Form {
    fn read(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim();
        let fields = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, raw) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), spelled(raw))
        });
        Some(Self(fields.collect()))
    }

    fn field(&self, name: &str) -> Option<Spelled> {
        let found = self.0.iter().find(|field| field.0 == name)?;
        Some(Spelled { raw: found.1.raw.clone(), decoded: found.1.decoded.clone() })
    }
}

fn spelled(raw: &str) -> Spelled {
    // An escaped `=` or `&` inside a value stays inside it: the name is ours.
    let form = format!("v={raw}");
    let decoded = form_urlencoded::parse(form.as_bytes()).next().map(|pair| pair.1.into_owned());
    Spelled { raw: raw.to_owned(), decoded: decoded.unwrap_or_default() }
}

fn basic_credentials(header: &str) -> Option<(Spelled, Spelled)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((spelled(id), spelled(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scopes::SCOPE_READ;

    const FORM: &[u8] = b"grant_type=client_credentials";

    fn tokens() -> Tokens {
        let client = |id: &str, secret: &str| Client {
            id: id.into(),
            secret: secret.into(),
            scopes: [SCOPE_READ.to_owned()].into(),
        };
        Tokens::new(vec![client("one", "s+cr%t:&1"), client("two", "plain")], Duration::from_secs(60))
    }

    fn basic(credentials: &str) -> String {
        format!("Basic {}", STANDARD.encode(credentials))
    }

    #[test]
    fn credentials_are_read_from_either_place_in_either_spelling() {
        let mut tokens = tokens();
        for credentials in ["one:s+cr%t:&1", "one:s%2Bcr%25t%3A%261", "two:plain"] {
            assert!(tokens.grant(Some(&basic(credentials)), FORM, Duration::ZERO).is_ok(), "{credentials}");
        }
        for form in [
            "client_id=two&client_secret=plain&grant_type=client_credentials",
            "grant_type=client_credentials&client_id=one&client_secret=s%2Bcr%25t%3A%261",
        ] {
            assert!(tokens.grant(None, form.as_bytes(), Duration::ZERO).is_ok(), "{form}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let mut tokens = tokens();
        let mut refused = |header: Option<String>, form: &str| {
            tokens.grant(header.as_deref(), form.as_bytes(), Duration::ZERO).map(drop).unwrap_err()
        };
        assert_eq!(refused(Some(basic("two:plain")), "grant_type=password"), GrantProblem::GrantType);
        assert_eq!(refused(Some(basic("two:plain")), ""), GrantProblem::GrantType);
        assert_eq!(
            refused(Some(basic("two:plain2")), "grant_type=client_credentials"),
            GrantProblem::Credentials
        );
        assert_eq!(
            refused(Some(basic("one:plain")), "grant_type=client_credentials"),
            GrantProblem::Credentials
        );
        assert_eq!(refused(None, "grant_type=client_credentials"), GrantProblem::Credentials);
        assert_eq!(
            refused(Some("Basic !!".into()), "grant_type=client_credentials"),
            GrantProblem::Malformed
        );
    }

    #[test]
    fn a_token_lives_exactly_its_life() {
        let mut tokens = tokens();
        let start = Duration::from_secs(5);
        let (token, _) = tokens.grant(Some(&basic("two:plain")), FORM, start).unwrap();
        let header = format!("Bearer {token}");
        let last = start + Duration::from_secs(60) - Duration::from_nanos(1);
        assert_eq!(tokens.authenticate(Some(&header), last).unwrap().id, "two");
        let end = start + Duration::from_secs(60);
        assert_eq!(tokens.authenticate(Some(&header), end).unwrap_err(), TokenProblem::Expired);
        assert_eq!(tokens.authenticate(None, start).unwrap_err(), TokenProblem::Missing);
        assert_eq!(tokens.authenticate(Some(&basic("two:plain")), start).unwrap_err(), TokenProblem::Missing);
        assert_eq!(tokens.authenticate(Some("Bearer x"), start).unwrap_err(), TokenProblem::Unknown);
        assert_eq!(tokens.revoke_all(), 1);
        assert_eq!(tokens.authenticate(Some(&header), start).unwrap_err(), TokenProblem::Unknown);
    }

    #[test]
    fn a_secret_is_changed_with_or_without_an_end_of_its_tokens() {
        let mut tokens = tokens();
        let grant = |credentials: &str, tokens: &mut Tokens| {
            tokens.grant(Some(&basic(credentials)), FORM, Duration::ZERO).map(|(token, _)| token)
        };
        let token = grant("two:plain", &mut tokens).unwrap();
        assert_eq!(tokens.set_secret("two", "other".into(), false), Some(0));
        let bearer = format!("Bearer {token}");
        assert!(tokens.authenticate(Some(&bearer), Duration::ZERO).is_ok(), "lives on");
        assert!(grant("two:plain", &mut tokens).is_err() && grant("two:other", &mut tokens).is_ok());
        assert_eq!(tokens.set_secret("two", "third".into(), true), Some(2));
        assert!(tokens.authenticate(Some(&bearer), Duration::ZERO).is_err());
        assert_eq!(tokens.set_secret("three", "new".into(), true), Some(0));
        assert!(grant("three:new", &mut tokens).is_ok());
    }

    #[test]
    fn tokens_are_bounded_and_the_oldest_goes_first() {
        let mut tokens = tokens();
        let mut grant = |second| {
            let now = Duration::from_millis(second);
            let token = tokens.grant(Some(&basic("two:plain")), FORM, now).unwrap().0;
            (token, tokens.live.len())
        };
        let first = grant(0).0;
        let second = grant(1).0;
        let held = (2..=MAX_TOKENS as u64).map(|at| grant(at).1).max().unwrap();
        assert_eq!(held, MAX_TOKENS);
        let now = Duration::from_secs(11);
        assert!(tokens.authenticate(Some(&format!("Bearer {first}")), now).is_err());
        assert!(tokens.authenticate(Some(&format!("Bearer {second}")), now).is_ok());
    }
}
