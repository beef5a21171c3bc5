//! Who may do what.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::problem::{Kind, Problem};
use super::session::{Digest32, Presented};

/// What an API key is for. `operate` may do everything, the others only their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Looks at the ledger, status and metrics.
    Read,
    /// Brings events in.
    Publish,
    /// Asks for routing decisions.
    Decide,
    /// Changes how the loops run.
    Operate,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Read, Role::Publish, Role::Decide, Role::Operate];

    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Publish => "publish",
            Role::Decide => "decide",
            Role::Operate => "operate",
        }
    }

    fn permits(self, needed: Role) -> bool {
        self == needed || self == Role::Operate
    }
}

/// Why an API key in the settings cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    #[error("\"{0}\" is no role; one of read, publish, decide, operate")]
    Role(String),
    #[error("not the SHA-256 of a key: 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them")]
    Digest,
}

impl FromStr for Role {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        Role::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| ApiKeyError::Role(text.to_owned()))
    }
}

/// A key that opens part of the interface. The key itself is nowhere, only its digest.
#[derive(Clone)]
pub struct ApiKey {
    /// For the log.
    pub name: String,
    pub role: Role,
    sha256: [u8; 32],
}

impl ApiKey {
    /// # Errors
    /// When `sha256` is not 64 hexadecimal digits.
    pub fn new(name: impl Into<String>, role: Role, sha256: &str) -> Result<Self, ApiKeyError> {
        let digits = sha256.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(ApiKeyError::Digest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| ApiKeyError::Digest)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| ApiKeyError::Digest)?;
        }
        Ok(Self { name: name.into(), role, sha256: bytes })
    }

    /// Tells it from other keys where not even its digest may stand.
    pub(super) fn identity(&self) -> Digest32 {
        Sha256::digest(self.sha256).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}, {})", self.name, self.role.name())
    }
}

/// What a route asks of its caller. There is no default: a route without a rule does
/// not compile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody: liveness and readiness.
    Open,
    Needs(Role),
}

/// Who asks: an extension of every request that was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's name; `local` where none are configured.
    pub name: String,
    via: Via,
    may_operate: bool,
}

/// How a caller was known.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Via {
    /// Anybody may ask for this.
    Nothing,
    /// No keys are configured, and the caller is on this machine. What our pages know and no
    /// other page in the same browser does.
    Local(Digest32),
    Key,
    Session(Presented),
}

impl Caller {
    /// Whether it may change how the loops run.
    pub fn may_operate(&self) -> bool {
        self.may_operate
    }

    /// The digest of its session's token, where it has a session.
    pub(super) fn session(&self) -> Option<Digest32> {
        match &self.via {
            Via::Session(presented) => Some(presented.token_digest),
            Via::Nothing | Via::Local(_) | Via::Key => None,
        }
    }

    /// What a form of ours carries, so that no other page can send one.
    pub(super) fn csrf(&self) -> String {
        let token = match &self.via {
            Via::Session(presented) => presented.csrf,
            Via::Local(secret) => *secret,
            Via::Nothing | Via::Key => return String::new(),
        };
        token.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether a form with this token is one of ours. Programs with a key send it themselves: no
    /// page can make a browser add it.
    pub(super) fn made(&self, token: &[u8]) -> bool {
        self.via == Via::Key || self.csrf().as_bytes().ct_eq(token).into()
    }

    /// Whether a browser sends its credentials by itself, whoever made it ask.
    pub(super) fn is_by_cookie(&self) -> bool {
        matches!(self.via, Via::Session(_))
    }
}

/// The guard at the door.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    keys: Vec<ApiKey>,
    /// For forms where no keys are configured; another one at each start.
    secret: Digest32,
}

impl Guard {
    pub(super) fn new(keys: Vec<ApiKey>) -> Self {
        Self { keys, secret: rand::random() }
    }

    /// Whether this address may be listened on: without keys only loopback.
    pub(super) fn may_listen_on(&self, address: SocketAddr) -> bool {
        !self.keys.is_empty() || address.ip().is_loopback()
    }

    /// Decides about one request. `access` is that of the matched route; `None`, where
    /// no route matched, needs some key, so that strangers learn nothing. A key in the request
    /// comes before a session.
    ///
    /// # Errors
    /// 401 without a valid key, 403 where the key's role does not permit it.
    pub(super) fn admit(
        &self,
        access: Option<Access>,
        headers: &HeaderMap,
        session: Option<Presented>,
    ) -> Result<Caller, Problem> {
        if access == Some(Access::Open) {
            return Ok(Caller { name: "anybody".to_owned(), via: Via::Nothing, may_operate: false });
        }
        if self.keys.is_empty() {
            admit_locally(headers)?;
            return Ok(Caller { name: "local".to_owned(), via: Via::Local(self.secret), may_operate: true });
        }
        let (keys, via) = match (bearer(headers), session) {
            (None, Some(session)) => (self.keys_behind(&session.key_digest), Via::Session(session)),
            (key, _) => (self.keys_of(key.unwrap_or_default()), Via::Key),
        };
        let Some(first) = keys.first() else {
            let detail = "no API key, or none that is known";
            return Err(Problem::new(Kind::Unauthorized, detail, "send `Authorization: Bearer KEY`"));
        };
        let admitted = match access {
            Some(Access::Needs(needed)) => {
                keys.iter().find(|key| key.role.permits(needed)).ok_or_else(|| forbidden(needed))?
            }
            _ => first,
        };
        let may_operate = keys.iter().any(|key| key.role == Role::Operate);
        Ok(Caller { name: admitted.name.clone(), via, may_operate })
    }

    /// Whether sessions are needed: without keys nobody has one.
    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The key that opens a session, if it may look at the console; the one that may do most.
    pub(super) fn entrant(&self, presented: &[u8]) -> Option<&ApiKey> {
        let keys = self.keys_of(presented);
        [Role::Operate, Role::Read]
            .into_iter()
            .find_map(|role| keys.iter().find(|key| key.role == role).copied())
    }

    /// The keys that a session was opened with, under their roles, while they are configured.
    fn keys_behind(&self, identity: &Digest32) -> Vec<&ApiKey> {
        self.keys.iter().filter(|key| key.identity() == *identity).collect()
    }

    /// All keys that are this one, under their roles. Every key is compared in full, so that
    /// the time taken tells nothing.
    fn keys_of(&self, presented: &[u8]) -> Vec<&ApiKey> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let matches: Vec<Choice> = self.keys.iter().map(|key| key.sha256.ct_eq(&digest)).collect();
        let matching = self.keys.iter().zip(matches).filter(|(_, matches)| bool::from(*matches));
        matching.map(|(key, _)| key).collect()
    }
}

fn forbidden(needed: Role) -> Problem {
    let detail = format!("the API key has not the role `{}`", needed.name());
    let remedy = format!("use a key with the role `{}` or `operate`", needed.name());
    Problem::new(Kind::Forbidden, detail, remedy)
}

/// Without keys only programs on this machine are served, but a web page could make a
/// browser on this machine ask for it under a name of its own: such names are refused.
fn admit_locally(headers: &HeaderMap) -> Result<(), Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if is_local(host) {
        return Ok(());
    }
    let remedy = "ask for 127.0.0.1 or localhost, or configure http.api_keys";
    Err(Problem::new(Kind::Forbidden, "without API keys only local names are served", remedy))
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_told_from_others() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "example.com", "127.0.0.1.example.com", "10.0.0.1:8080", "[2001:db8::1]", "localhost.evil"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn digests_are_read_and_everything_else_is_refused() {
        assert!(ApiKey::new("a", Role::Read, &"aB".repeat(32)).is_ok());
        for wrong in ["", "ab", &"g0".repeat(32), &"ab".repeat(33), &"é".repeat(32)] {
            assert_eq!(ApiKey::new("a", Role::Read, wrong).unwrap_err(), ApiKeyError::Digest, "{wrong}");
        }
    }
}
