//! The seed dialect (`docs/platform.md`): paths as the project was asked for.

mod campaigns;
mod details;
mod event_filter;
mod events;
mod flows;
mod routing;
mod token;

use axum::http::{HeaderMap, Method, StatusCode, header};
use serde::de::DeserializeOwned;

use super::exchange::{Received, Span};
use super::journal::Effect;
use super::organization::{Moment, Organization};
use super::reply::{Refusal, Reply, refusal_for_status};
use super::scopes;

/// A call of the dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Call<'a> {
    Token,
    Campaign(&'a str),
    Stats(&'a str),
    Change(&'a str),
    DetailsQuery,
    DetailsPage,
    FlowVersions(&'a str),
    Activation { flow_id: &'a str, version: &'a str },
    Measures,
    Availability(&'a str),
    RoutingPublish(&'a str),
    EventQuery,
}

impl<'a> Call<'a> {
    /// Finds the call a request is for.
    ///
    /// # Errors
    /// 404 for a path there is none for, 405 for another method.
    pub fn find(method: &Method, path: &'a str) -> Result<Self, Refusal> {
        let offered = Self::at(path);
        if offered.is_empty() {
            return Err(refusal_for_status(StatusCode::NOT_FOUND));
        }
        offered.into_iter().find(|(offered, _)| offered == method).map(|(_, call)| call).ok_or_else(|| {
            let message = format!("{method} is not allowed here");
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method.not.allowed", message)
        })
    }

    /// All calls of one path, by method.
    fn at(path: &'a str) -> Vec<(Method, Self)> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["oauth", "token"] => vec![(Method::POST, Self::Token)],
            ["api", "v2", "campaigns", id] => {
                vec![(Method::GET, Self::Campaign(id)), (Method::PUT, Self::Change(id))]
            }
            ["api", "v2", "campaigns", id, "stats"] => vec![(Method::GET, Self::Stats(id))],
            ["api", "v2", "analytics", "conversations", "details", "query"] => {
                vec![(Method::POST, Self::DetailsQuery), (Method::GET, Self::DetailsPage)]
            }
            ["api", "v2", "architect", "flows", id, "versions"] => {
                vec![(Method::GET, Self::FlowVersions(id))]
            }
            ["api", "v2", "architect", "deployments", flow_id, "versions", version] => {
                vec![(Method::PATCH, Self::Activation { flow_id, version })]
            }
            ["api", "v2", "analytics", "events", "details", "query"] => {
                vec![(Method::POST, Self::EventQuery)]
            }
            ["api", "v2", "analytics", "queues", id, "availability"] => {
                vec![(Method::GET, Self::Availability(id))]
            }
            ["api", "v2", "routing", "configuration", id, "publish"] => {
                vec![(Method::POST, Self::RoutingPublish(id))]
            }
            ["api", "v2", "analytics", "measures", "conversations"] => vec![(Method::GET, Self::Measures)],
            _ => Vec::new(),
        }
    }

    /// The scopes a client needs, all of them; none for the token itself, and for what any
    /// token opens.
    pub fn scopes(&self) -> &'static [&'static str] {
        match self {
            Self::Token | Self::Availability(_) => &[],
            Self::Campaign(_) | Self::Stats(_) => &[scopes::SCOPE_READ],
            Self::Change(_) => &[scopes::SCOPE_WRITE],
            Self::DetailsQuery | Self::DetailsPage => scopes::DETAILS,
            Self::FlowVersions(_) => &[scopes::VIEW_CONFIGURATION],
            Self::Activation { .. } => &[scopes::WRITE_CONFIGURATION],
            Self::Measures => &[scopes::VIEW_METRICS],
            Self::RoutingPublish(_) => scopes::ROUTING,
            Self::EventQuery => scopes::EVENTS,
        }
    }
}

/// The campaign a path names, whatever else is wrong with the request.
pub fn campaign_in(path: &str) -> Option<&str> {
    path.strip_prefix("/api/v2/campaigns/")?.split('/').next().filter(|id| !id.is_empty())
}

/// Carries a call out for a client who may.
///
/// # Errors
/// What the platform refuses.
pub fn perform(
    call: &Call<'_>,
    organization: &mut Organization,
    received: &Received,
    span: Span,
    moment: Moment,
) -> Result<(Reply, Option<Effect>), Refusal> {
    let (headers, body) = (&received.headers, received.body.as_ref());
    let reply = match call {
        Call::Token => token::give(organization, headers, body, moment),
        Call::Campaign(id) => campaigns::document(organization, id)?,
        Call::Stats(id) => campaigns::stats(organization, id)?,
        Call::Change(id) => {
            let (reply, effect) = campaigns::change(organization, id, headers, body, moment)?;
            return Ok((reply, Some(effect)));
        }
        Call::DetailsQuery => details::query(organization, received, moment)?,
        Call::DetailsPage => details::page(organization, received)?,
        Call::FlowVersions(id) => flows::versions(organization, id)?,
        Call::Activation { flow_id, version } => {
            let (reply, effect) = flows::activate(organization, (flow_id, version), received, span, moment)?;
            return Ok((reply, Some(effect)));
        }
        Call::Measures => flows::measures(organization, received)?,
        Call::EventQuery => events::query(organization, received)?,
        Call::Availability(id) => routing::availability(organization, id)?,
        Call::RoutingPublish(id) => {
            let (reply, effect) = routing::publish(id, received)?;
            return Ok((reply, Some(effect)));
        }
    };
    Ok((reply, None))
}

/// Reads a JSON body. A missing content type is forgiven, a wrong one is not; members
/// nobody asked for are ignored, as the platform does.
///
/// # Errors
/// 415, or 400 with what is wrong about the body.
fn json_body<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Refusal> {
    let kind = text_of(headers, header::CONTENT_TYPE).unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(refusal_for_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "bad.request", format!("the body cannot be read: {error}"))
    })
}

/// A value the platform does not take.
fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid.value", message)
}

/// A header's value; one that is no text counts as absent.
pub fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
