//! Campaign rules: the organisation's own automation, which may move what others have set.

use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::request::{Request, reference};
use super::{Endpoint, Outcome};
use crate::journal::{CampaignChange, Origin};
use crate::organization::{Moment, Organization};
use crate::reply::{Refusal, Reply};
use crate::scenario::id_of_name;

const PATH: &str = "/api/v2/outbound/campaignrules";
const VIEW: &[&str] = &["outbound:campaignRule:view"];
/// Rules one organisation may have.
pub(crate) const MAX_RULES: usize = 1_000;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: Method::GET, path: PATH, permissions: VIEW, perform: list },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/outbound/campaignrules/{campaignRuleId}",
        permissions: VIEW,
        perform: one,
    },
];

/// A rule: when it fires, it does one thing to each of its campaigns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CampaignRule {
    /// Its id is made from it.
    pub name: String,
    #[serde(default = "enabled")]
    pub enabled: bool,
    pub campaign_ids: Vec<String>,
    #[serde(flatten)]
    pub action: Action,
}

fn enabled() -> bool {
    true
}

/// As the platform spells it, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "actionType", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Action {
    SetCampaignMaxCallsPerAgent {
        max_calls_per_agent: f64,
    },
    /// Percent.
    SetCampaignAbandonRate {
        abandon_rate: f64,
    },
    SetCampaignNumberOfLines {
        outbound_line_count: u32,
    },
    TurnOffCampaign,
    TurnOnCampaign,
}

impl Action {
    fn name_and_parameters(self) -> (&'static str, Value) {
        match self {
            Self::SetCampaignMaxCallsPerAgent { max_calls_per_agent } => {
                ("setCampaignMaxCallsPerAgent", json!({ "maxCallsPerAgent": max_calls_per_agent }))
            }
            Self::SetCampaignAbandonRate { abandon_rate } => {
                ("setCampaignAbandonRate", json!({ "abandonRate": abandon_rate }))
            }
            Self::SetCampaignNumberOfLines { outbound_line_count } => {
                ("setCampaignNumberOfLines", json!({ "outboundLineCount": outbound_line_count }))
            }
            Self::TurnOffCampaign => ("turnOffCampaign", json!({})),
            Self::TurnOnCampaign => ("turnOnCampaign", json!({})),
        }
    }

    /// What it changes about a campaign.
    fn change(self) -> Value {
        match self {
            Self::TurnOffCampaign => json!({ "campaignStatus": "stopping" }),
            Self::TurnOnCampaign => json!({ "campaignStatus": "on" }),
            other => other.name_and_parameters().1,
        }
    }
}

impl CampaignRule {
    pub(crate) fn id(&self) -> String {
        id_of_name("campaign rule", &self.name)
    }

    fn shown(&self) -> Value {
        let id = self.id();
        let campaign = |id: &String| reference(id, None, "/api/v2/outbound/campaigns");
        let campaigns: Vec<Value> = self.campaign_ids.iter().map(campaign).collect();
        let (action, parameters) = self.action.name_and_parameters();
        json!({
            "id": id,
            "name": self.name,
            "version": 1,
            "enabled": self.enabled,
            "matchAnyConditions": false,
            "campaignRuleEntities": { "campaigns": campaigns, "sequences": [] },
            "campaignRuleConditions": [{
                "id": id_of_name("condition", &self.name),
                "conditionType": "campaignProgress",
                "parameters": { "operator": "greaterThan", "value": "0.5" },
            }],
            "campaignRuleActions": [{
                "id": id_of_name("action", &self.name),
                "actionType": action,
                "parameters": parameters,
                "campaignRuleActionEntities": { "campaigns": campaigns, "sequences": [], "useTriggeringEntity": false },
            }],
            "selfUri": format!("{PATH}/{id}"),
        })
    }
}

fn list(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let page = request.page(25, 100)?;
    let rules = organization.platform.campaign_rules.iter().map(CampaignRule::shown).collect();
    Ok((request.listing(page, rules), None))
}

fn one(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let found = organization.platform.campaign_rules.iter().find(|rule| rule.id() == request.id());
    let rule = found.ok_or_else(|| unknown(request.id()))?;
    Ok((Reply::json(StatusCode::OK, &rule.shown()), None))
}

fn unknown(id: &str) -> Refusal {
    let message = format!("Unable to find a campaign rule with id {id}");
    Refusal::new(StatusCode::NOT_FOUND, "not.found", message).about(id)
}

/// Lets a rule do what it does, as if what it waits for had happened.
///
/// # Errors
/// 404 for an unknown rule or campaign, 409 for one that is not enabled, 400 for an impossible change.
pub(crate) fn fire(
    organization: &mut Organization,
    id: &str,
    moment: Moment,
) -> Result<Vec<CampaignChange>, Refusal> {
    let rule = organization.platform.campaign_rules.iter().find(|rule| rule.id() == id);
    let rule = rule.cloned().ok_or_else(|| unknown(id))?;
    if !rule.enabled {
        let message = format!("campaign rule {:?} is not enabled", rule.name);
        return Err(Refusal::new(StatusCode::CONFLICT, "general.conflict", message));
    }
    let change = rule.action.change();
    rule.campaign_ids
        .iter()
        .map(|campaign| organization.overrule(campaign, &change, Origin::Rule, moment))
        .collect()
}
