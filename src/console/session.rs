//! People's sessions: a cookie that stands for a key, kept by its digest for all instances.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use moka::sync::Cache;
use sha2::{Digest, Sha256};

use super::access::{Caller, Guard, Role};
use super::problem::Problem;
use crate::postgres::Database;
use crate::postgres::console::Session;

const COOKIE: &str = "trunkline_session";
/// How long a session lasts.
const LENGTH: Duration = Duration::from_secs(12 * 3_600);
/// How long an answer of the database about a session is believed: one that was closed at
/// another instance is good here for as long.
const BELIEVED: Duration = Duration::from_secs(2);
const MOST_BELIEVED: u64 = 10_000;

/// Takes the cookie back.
pub(super) const GONE: HeaderValue =
    HeaderValue::from_static("trunkline_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");

/// SHA-256 of something.
pub(super) type Digest32 = [u8; 32];

/// A session that a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Presented {
    pub token_digest: Digest32,
    /// Of the key it was opened with.
    pub key_digest: Digest32,
    /// What only pages of this session know.
    pub csrf: Digest32,
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Digests of keys by digests of tokens; `None` where there is no such session.
    believed: Cache<Digest32, Option<Digest32>>,
}

/// A cookie on its way to a browser.
pub(super) struct Cookie(String);

impl Cookie {
    /// Over TLS only where the request came over it: a proxy in front says so.
    pub(super) fn for_request(self, headers: &HeaderMap) -> HeaderValue {
        let over_tls = headers.get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let secure = if over_tls { "; Secure" } else { "" };
        let (token, seconds) = (self.0, LENGTH.as_secs());
        let text = format!("{COOKIE}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
        HeaderValue::from_str(&text).expect("hexadecimal digits")
    }
}

impl Sessions {
    pub(super) fn new() -> Self {
        Self { believed: Cache::builder().max_capacity(MOST_BELIEVED).time_to_live(BELIEVED).build() }
    }

    /// The session that a request belongs to, if it is one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub(super) async fn of(
        &self,
        database: &Database,
        headers: &HeaderMap,
    ) -> Result<Option<Presented>, Problem> {
        let Some(token) = token_of(headers) else { return Ok(None) };
        let token_digest: Digest32 = Sha256::digest(token).into();
        let key_digest = match self.believed.get(&token_digest) {
            Some(believed) => believed,
            None => {
                let found = database.session_key(&token_digest).await?;
                let found = found.and_then(|digest| Digest32::try_from(digest).ok());
                self.believed.insert(token_digest, found);
                found
            }
        };
        let csrf = Sha256::new().chain_update("csrf").chain_update(token).finalize().into();
        Ok(key_digest.map(|key_digest| Presented { token_digest, key_digest, csrf }))
    }

    /// Opens a session for whoever has this key, if it may look at the console.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub(super) async fn open(
        &self,
        database: &Database,
        guard: &Guard,
        key: &str,
    ) -> Result<Option<Cookie>, Problem> {
        let Some(entrant) = guard.entrant(key.as_bytes()) else {
            tracing::warn!("a login to the console was refused: no key, or none that may look");
            return Ok(None);
        };
        let token: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
        let session = Session { token_digest: Sha256::digest(&token).into(), key_digest: entrant.identity() };
        database.open_session(&session, LENGTH, &entrant.name, entrant.role.name()).await?;
        tracing::info!(
            key = entrant.name,
            role = entrant.role.name(),
            "somebody has logged in to the console"
        );
        Ok(Some(Cookie(token)))
    }

    /// Ends the caller's session, if it has one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub(super) async fn close(&self, database: &Database, caller: &Caller) -> Result<(), Problem> {
        if let Some(token_digest) = caller.session() {
            let role = if caller.may_operate() { Role::Operate } else { Role::Read };
            database.close_session(&token_digest, &caller.name, role.name()).await?;
            self.believed.invalidate(&token_digest);
        }
        Ok(())
    }
}

/// The token in the request's cookies, where it has the form of one.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let token = pairs.find(|(name, _)| *name == COOKIE)?.1;
    (token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_among_other_cookies_and_only_in_its_form() {
        let token = "ab".repeat(32);
        let headers = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_str(text).unwrap());
            headers
        };
        let found = headers(&format!("a=b; {COOKIE}={token}; c=d"));
        assert_eq!(token_of(&found), Some(&*token));
        for wrong in
            [format!("{COOKIE}=short"), format!("x{COOKIE}={token}"), format!("{COOKIE}={token}0"), "".into()]
        {
            assert_eq!(token_of(&headers(&wrong)), None, "{wrong}");
        }
        let cookie = Cookie(token.clone()).for_request(&HeaderMap::new());
        let text = cookie.to_str().unwrap();
        assert!(
            text.contains("HttpOnly; SameSite=Strict; Max-Age=43200") && !text.contains("Secure"),
            "{text}"
        );
    }
}
