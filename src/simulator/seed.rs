//! The seed dialect (`genesys-api.md` §1): paths as the project was asked for.

use axum::http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::journal::Effect;
use super::organization::{Moment, Organization, unknown_campaign};
use super::reply::{Refusal, Reply, refusal_for_status};
use super::tokens::{GrantProblem, SCOPE_READ, SCOPE_WRITE};

/// A call of the dialect.
#[derive(Clone, Debug, PartialEq)]
pub enum Call<'a> {
    Token,
    Campaign(&'a str),
    Stats(&'a str),
    Change(&'a str),
}

impl<'a> Call<'a> {
    /// Finds the call a request is for.
    ///
    /// # Errors
    /// 404 for a path there is none for, 405 for another method.
    pub fn find(method: &Method, path: &'a str) -> Result<Self, Refusal> {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (segments.as_slice(), method) {
            (["oauth", "token"], &Method::POST) => Ok(Self::Token),
            (["api", "v2", "campaigns", id], &Method::GET) => Ok(Self::Campaign(id)),
            (["api", "v2", "campaigns", id], &Method::PUT) => Ok(Self::Change(id)),
            (["api", "v2", "campaigns", id, "stats"], &Method::GET) => Ok(Self::Stats(id)),
            (
                ["oauth", "token"] | ["api", "v2", "campaigns", _] | ["api", "v2", "campaigns", _, "stats"],
                _,
            ) => {
                let message = format!("{method} is not allowed here");
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method.not.allowed", message))
            }
            _ => Err(refusal_for_status(StatusCode::NOT_FOUND)),
        }
    }

    /// The scope a client needs; none for the token itself.
    pub fn scope(&self) -> Option<&'static str> {
        match self {
            Self::Token => None,
            Self::Campaign(_) | Self::Stats(_) => Some(SCOPE_READ),
            Self::Change(_) => Some(SCOPE_WRITE),
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
    headers: &HeaderMap,
    body: &[u8],
    moment: Moment,
) -> Result<(Reply, Option<Effect>), Refusal> {
    match call {
        Call::Token => Ok((token(organization, headers, body, moment), None)),
        Call::Campaign(id) => Ok((campaign(organization, id)?, None)),
        Call::Stats(id) => Ok((stats(organization, id)?, None)),
        Call::Change(id) => {
            let (reply, effect) = change(organization, id, headers, body, moment)?;
            Ok((reply, Some(effect)))
        }
    }
}

/// Token errors have a body of their own (`genesys-api.md` §4).
fn token(organization: &mut Organization, headers: &HeaderMap, body: &[u8], moment: Moment) -> Reply {
    let lifetime_seconds = organization.tokens.lifetime().as_secs();
    let authorization = text_of(headers, header::AUTHORIZATION);
    let problem = match organization.tokens.grant(authorization, body, moment.elapsed) {
        Ok((token, _)) => {
            let body = json!({
                "access_token": token,
                "token_type": "bearer",
                "expires_in": lifetime_seconds,
            });
            return Reply::json(StatusCode::OK, &body).with_header(header::CACHE_CONTROL, "no-store");
        }
        Err(problem) => problem,
    };
    let (status, error, description) = match problem {
        GrantProblem::Malformed => (400, "invalid_request", "the credentials or the form cannot be read"),
        GrantProblem::GrantType => {
            (400, "unsupported_grant_type", "grant_type must be exactly client_credentials")
        }
        GrantProblem::Credentials => (401, "invalid_client", "client not found or secret invalid"),
    };
    let status = StatusCode::from_u16(status).expect("the statuses above are valid");
    let body = json!({ "error": error, "description": description, "error_description": description });
    Reply::json(status, &body)
}

fn campaign(organization: &Organization, id: &str) -> Result<Reply, Refusal> {
    let definition = organization.definitions.get(id).ok_or_else(|| unknown_campaign(id))?;
    let body = Value::Object(definition.document().clone());
    Ok(Reply::json(StatusCode::OK, &body).with_header(header::ETAG, &definition.etag()))
}

fn stats(organization: &Organization, id: &str) -> Result<Reply, Refusal> {
    let snapshot = organization.world.snapshot(id).ok_or_else(|| unknown_campaign(id))?;
    let mut body = json!({
        "answerRate": snapshot.answer_rate,
        "agentAvailable": snapshot.agents.idle,
        "agentBusy": snapshot.agents.talking + snapshot.agents.wrapping_up,
        "callsDelivered": snapshot.calls.delivered,
    });
    if organization.manners.counters_in_stats {
        body["attempts"] = json!(snapshot.calls.attempts);
        body["answers"] = json!(snapshot.calls.answers);
        body["abandoned"] = json!(snapshot.calls.abandoned);
    }
    Ok(Reply::json(StatusCode::OK, &body))
}

fn change(
    organization: &mut Organization,
    id: &str,
    headers: &HeaderMap,
    body: &[u8],
    moment: Moment,
) -> Result<(Reply, Effect), Refusal> {
    let manners = organization.manners;
    let definition = organization.definitions.get_mut(id).ok_or_else(|| unknown_campaign(id))?;
    require_json(headers)?;
    let partial: Value = serde_json::from_slice(body).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "bad.request", format!("the body is no JSON: {error}"))
    })?;
    let if_match = text_of(headers, header::IF_MATCH)
        .ok_or_else(|| refusal_for_status(StatusCode::PRECONDITION_REQUIRED).about(id))?;
    if !definition.matches(if_match) {
        return Err(refusal_for_status(manners.stale).about(id));
    }
    let (old_rate, old_etag) = (definition.rates().predicted, definition.etag());
    definition.amend(&partial, &moment.wall.to_string()).map_err(|refusal| refusal.about(id))?;
    let effect = Effect {
        campaign_id: id.to_owned(),
        old_rate,
        new_rate: Some(definition.rates().predicted),
        old_etag,
        new_etag: Some(definition.etag()),
    };
    let in_force = definition.rates().in_force();
    organization.world.set_dial_rate(id, in_force);
    // No ETag here: a partial body is not what is stored (RFC 9110 §9.3.4).
    Ok((Reply::empty(manners.written), effect))
}

/// A missing content type is forgiven, a wrong one is not.
fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    let kind = text_of(headers, header::CONTENT_TYPE).unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(refusal_for_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
    }
}

/// A header's value; one that is no text counts as absent.
pub fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
