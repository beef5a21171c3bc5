//! Which form of the platform's interface is spoken, and which of its calls a request is for.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::exchange::{Received, Span};
use super::journal::Effect;
use super::organization::{Moment, Organization};
use super::reply::{Refusal, Reply};
use super::tokens::Client;
use super::{platform, seed};

/// One world is behind all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// The paths the project was asked for.
    #[default]
    Seed,
    /// Genesys Cloud's own.
    Platform,
    /// Both at once. Of the one path both have (the details query) the body tells which it is.
    Both,
}

/// A call of either form.
#[derive(Debug)]
pub(crate) enum Call<'a> {
    Seed(seed::Call<'a>),
    Platform(platform::Call<'a>),
}

/// The path both forms have.
const DETAILS_QUERY: &str = "/api/v2/analytics/conversations/details/query";

impl<'a> Call<'a> {
    /// Finds the call a request is for.
    ///
    /// # Errors
    /// 404 for a path there is none for, 405 for another method.
    pub(crate) fn find(dialect: Dialect, received: &'a Received) -> Result<Self, Refusal> {
        let (method, path) = (&received.method, received.path.as_str());
        let of_seed = || seed::Call::find(method, path).map(Self::Seed);
        let of_platform = || platform::Call::find(method, path).map(Self::Platform);
        match dialect {
            _ if seed::Call::find(method, path) == Ok(seed::Call::Token) => of_seed(),
            Dialect::Seed => of_seed(),
            Dialect::Platform => of_platform(),
            Dialect::Both if path == DETAILS_QUERY && is_of_seed(received) => of_seed(),
            Dialect::Both => match of_platform() {
                Err(refusal) if refusal.status == StatusCode::NOT_FOUND => of_seed(),
                found => found,
            },
        }
    }

    pub(crate) fn is_token(&self) -> bool {
        matches!(self, Self::Seed(seed::Call::Token))
    }

    /// The path with names for what changes in it, where the platform has the call.
    pub(crate) fn template(&self) -> Option<&'static str> {
        match self {
            Self::Seed(_) => None,
            Self::Platform(call) => Some(call.endpoint.path),
        }
    }

    /// # Errors
    /// 403 with what the client lacks.
    pub(crate) fn check_client(&self, client: &Client) -> Result<(), Refusal> {
        match self {
            Self::Seed(call) => {
                let lacking = call.scopes().iter().find(|scope| !client.scopes.contains(**scope));
                let Some(scope) = lacking else { return Ok(()) };
                let message =
                    format!("Unable to perform the requested action. You must be granted the scope {scope}.");
                Err(Refusal::new(StatusCode::FORBIDDEN, "missing.permissions", message))
            }
            Self::Platform(call) => call.check_client(client),
        }
    }

    /// Carries the call out for a client who may.
    ///
    /// # Errors
    /// What the platform refuses.
    pub(crate) fn perform(
        &self,
        organization: &mut Organization,
        (received, client): (&Received, &str),
        span: Span,
        moment: Moment,
    ) -> Result<(Reply, Option<Effect>), Refusal> {
        match self {
            Self::Seed(call) => seed::perform(call, organization, received, span, moment),
            Self::Platform(call) => call.perform(organization, (received, client), moment),
        }
    }
}

/// Genesys Cloud's interval is `start/end`; the seed's is a period.
fn is_of_seed(received: &Received) -> bool {
    if received.method == Method::GET {
        return true;
    }
    let body: Value = serde_json::from_slice(&received.body).unwrap_or_default();
    body.get("groupBy").is_some() || body["interval"].as_str().is_some_and(|interval| !interval.contains('/'))
}

/// The campaign a path names, whatever else is wrong with the request.
pub(crate) fn campaign_in(path: &str) -> Option<&str> {
    let rest = ["/api/v2/campaigns/", "/api/v2/outbound/campaigns/"]
        .into_iter()
        .find_map(|prefix| path.strip_prefix(prefix))?;
    rest.split('/').next().filter(|id| !id.is_empty())
}
