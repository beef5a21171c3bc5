//! The token endpoint (`docs/platform.md`).

use axum::http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::input::text_of;
use crate::organization::{Moment, Organization};
use crate::reply::Reply;
use crate::tokens::GrantProblem;

/// Its errors have a body of their own.
pub(super) fn give(
    organization: &mut Organization,
    headers: &HeaderMap,
    body: &[u8],
    moment: Moment,
) -> Reply {
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
