//! The seed dialect (`docs/platform.md`): paths as the project was asked for.

mod campaigns;
mod details;
mod event_filter;
mod events;
mod flows;
mod routing;
mod token;

use axum::http::{Method, StatusCode};

use super::exchange::{Received, Span};
use super::journal::Effect;
use super::organization::{Moment, Organization};
use super::reply::{Refusal, Reply, refusal_for_status};
use super::scopes;

/// A call of the dialect.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call<'a> {
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
    pub(crate) fn find(method: &Method, path: &'a str) -> Result<Self, Refusal> {
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
    pub(crate) fn scopes(&self) -> &'static [&'static str] {
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

/// Carries a call out for a client who may.
///
/// # Errors
/// What the platform refuses.
pub(crate) fn perform(
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
