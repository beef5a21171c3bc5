//! Genesys Cloud's own interface (`docs/platform.md`), a file per family of calls.
//!
//! Members of a request nobody knows are ignored; what is required, what is one of a list and
//! what has a limit is checked as strictly as the platform is known to.

mod aggregates;
mod audits;
mod campaign_document;
mod campaign_rules;
mod campaigns;
mod conversation;
mod details;
mod filter;
mod flows;
mod interval;
mod jobs;
mod observations;
mod outbound_settings;
mod request;
mod state;
mod usage;
mod vocabulary;

use axum::http::{Method, StatusCode};

use super::dialect::Dialect;
use super::exchange::Received;
use super::journal::Effect;
use super::organization::{Moment, Organization};
use super::reply::{Refusal, Reply, refusal_for_status};
use super::scenario::Scenario;
use super::tokens::Client;
use request::Request;
pub(crate) use state::{Manners, State};

pub(crate) use campaign_document::{initial as initial_campaign, split_change};
pub(crate) use campaign_rules::{CampaignRule, MAX_RULES, fire};
pub(crate) use flows::gone;
pub(crate) use usage::month_of;

/// What a call comes to: its reply and what it has changed.
type Outcome = Result<(Reply, Option<Effect>), Refusal>;

/// One call of the interface.
#[derive(Debug)]
pub(crate) struct Endpoint {
    method: Method,
    /// A segment in braces stands for any text.
    pub path: &'static str,
    /// One of them is enough.
    permissions: &'static [&'static str],
    perform: fn(&mut Organization, &Request<'_>) -> Outcome,
}

/// In a path that two entries fit the earlier one counts.
const FAMILIES: &[&[Endpoint]] = &[
    campaigns::ENDPOINTS,
    outbound_settings::ENDPOINTS,
    aggregates::ENDPOINTS,
    observations::ENDPOINTS,
    flows::ENDPOINTS,
    details::ENDPOINTS,
    jobs::ENDPOINTS,
    campaign_rules::ENDPOINTS,
    usage::ENDPOINTS,
    audits::ENDPOINTS,
];

/// A request's endpoint and what stands in its path where the template has braces.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub endpoint: &'static Endpoint,
    ids: Vec<&'a str>,
}

impl<'a> Call<'a> {
    /// # Errors
    /// 404 for a path there is no call for, 405 for another method.
    pub(crate) fn find(method: &Method, path: &'a str) -> Result<Self, Refusal> {
        let mut is_known = false;
        for endpoint in FAMILIES.iter().copied().flatten() {
            let Some(ids) = fit(endpoint.path, path) else { continue };
            if endpoint.method == method {
                return Ok(Self { endpoint, ids });
            }
            is_known = true;
        }
        if is_known {
            let message = format!("HTTP method {method} is not allowed here");
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method.not.allowed", message));
        }
        Err(refusal_for_status(StatusCode::NOT_FOUND))
    }

    /// # Errors
    /// 403 with the permissions of which the client needs one.
    pub(crate) fn check_client(&self, client: &Client) -> Result<(), Refusal> {
        let needed = self.endpoint.permissions;
        if needed.is_empty() || needed.iter().any(|permission| client.scopes.contains(*permission)) {
            return Ok(());
        }
        let template = "Unable to perform the requested action. You must have at least one of the following permissions assigned: {permissions}";
        let listed = format!("[{}]", needed.join(", "));
        let params = [("permissions", listed.as_str())];
        Err(Refusal::worded(StatusCode::FORBIDDEN, "missing.any.permissions", template, &params))
    }

    /// # Errors
    /// What the platform refuses.
    pub(crate) fn perform(
        &self,
        organization: &mut Organization,
        (received, client): (&Received, &str),
        moment: Moment,
    ) -> Outcome {
        let request = Request { received, client, ids: &self.ids, moment };
        (self.endpoint.perform)(organization, &request)
    }
}

/// What stands in the path for the template's braces, if it fits.
fn fit<'a>(template: &str, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut names, mut given) = (template.split('/'), path.trim_end_matches('/').split('/'));
    let mut ids = Vec::new();
    loop {
        match (names.next(), given.next()) {
            (None, None) => return Some(ids),
            (Some(name), Some(id)) if name.starts_with('{') && !id.is_empty() => ids.push(id),
            (Some(name), Some(text)) if name == text => {}
            _ => return None,
        }
    }
}

/// The scenario as this interface can show it: no campaign dials less than one line per agent.
pub(crate) fn fit_scenario(dialect: Dialect, mut scenario: Scenario) -> Scenario {
    if dialect == Dialect::Platform {
        for campaign in &mut scenario.campaigns {
            campaign.dial_rate = campaign.dial_rate.max(campaign_document::MIN_CALLS_PER_AGENT);
            campaign.max_dial_rate = campaign.max_dial_rate.max(campaign.dial_rate);
        }
    }
    scenario
}

/// Every permission a call asks for: what the demo's client has.
pub(crate) fn permissions() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().copied().flatten().flat_map(|endpoint| endpoint.permissions.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_call_and_what_stands_in_it() {
        let found = Call::find(&Method::GET, "/api/v2/outbound/campaigns/c1/stats").unwrap();
        assert_eq!(
            (found.endpoint.path, &found.ids[..]),
            ("/api/v2/outbound/campaigns/{campaignId}/stats", &["c1"][..])
        );
        let refused = |method, path| Call::find(&method, path).unwrap_err().status.as_u16();
        assert_eq!(refused(Method::DELETE, "/api/v2/outbound/settings"), 405);
        assert_eq!(refused(Method::GET, "/api/v2/outbound/campaigns//stats"), 404);
        assert_eq!(refused(Method::GET, "/api/v2/campaigns/c1"), 404);
    }

    #[test]
    fn no_two_calls_have_method_and_path_in_common() {
        let all: Vec<_> =
            FAMILIES.iter().copied().flatten().map(|it| (it.method.to_string(), it.path)).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
