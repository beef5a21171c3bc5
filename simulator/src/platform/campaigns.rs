//! Outbound campaigns: definition, statistics, and the changes clients make to them.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::campaign_document::{check_transition, home_queue_id, patched, replaced, shown, stale};
use super::request::{Request, missing, reference};
use super::{Endpoint, Outcome};
use crate::definition::Definition;
use crate::dialer::Snapshot;
use crate::input::invalid;
use crate::journal::Effect;
use crate::organization::{Organization, unknown_campaign};
use crate::reply::{Refusal, Reply};

const VIEW: &[&str] = &["outbound:campaign:view"];
const EDIT: &[&str] = &["outbound:campaign:edit"];
/// Campaigns one bulk query may name.
const MAX_IDS: usize = 1_000;
/// Lines of the organisation's trunks, which no campaign uses up.
const LINES_AVAILABLE: u64 = 100_000;

/// What a list can be narrowed or ordered by, and is not here.
const NOT_SIMULATED: [&str; 9] = [
    "name",
    "contactListId",
    "dncListIds",
    "distributionQueueId",
    "edgeGroupId",
    "callAnalysisResponseSetId",
    "divisionId",
    "sortBy",
    "sortOrder",
];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: Method::GET, path: "/api/v2/outbound/campaigns", permissions: VIEW, perform: list },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/outbound/campaigns/{campaignId}",
        permissions: VIEW,
        perform: document,
    },
    Endpoint {
        method: Method::PATCH,
        path: "/api/v2/outbound/campaigns/{campaignId}",
        permissions: EDIT,
        perform: patch,
    },
    Endpoint {
        method: Method::PUT,
        path: "/api/v2/outbound/campaigns/{campaignId}",
        permissions: EDIT,
        perform: replace,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/outbound/campaigns/{campaignId}/stats",
        permissions: VIEW,
        perform: stats,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/outbound/campaigns/{campaignId}/diagnostics",
        permissions: VIEW,
        perform: diagnostics,
    },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/outbound/campaigns/{campaignId}/start",
        permissions: &["outbound:campaign:start"],
        perform: start,
    },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/outbound/campaigns/{campaignId}/stop",
        permissions: &["outbound:campaign:stop"],
        perform: stop,
    },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/outbound/campaigns/performance/query",
        permissions: VIEW,
        perform: performance,
    },
];

fn found<'a>(organization: &'a Organization, id: &str) -> Result<&'a Definition, Refusal> {
    organization.definitions.get(id).ok_or_else(|| unknown_campaign(id))
}

fn whole(definition: &Definition) -> Reply {
    Reply::json(StatusCode::OK, &Value::Object(shown(definition)))
}

/// Those of the ids that the query names, or all. Ids nobody has are left out.
fn list(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let page = request.page(25, 100)?;
    if let Some(filter) = NOT_SIMULATED.iter().find(|filter| request.query(filter).is_some()) {
        let message = format!("the simulator cannot list campaigns by {filter}");
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "not.implemented", message));
    }
    let asked = request.list("id");
    let is_asked = |id: &str| asked.is_empty() || asked.contains(id);
    let definitions = organization.definitions.iter().filter(|(id, _)| is_asked(id));
    let entities = definitions.map(|(_, definition)| Value::Object(shown(definition))).collect();
    Ok((request.listing(page, entities), None))
}

fn document(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    Ok((whole(found(organization, request.id())?), None))
}

/// Changes what the body names. There is no version: the last writer wins.
fn patch(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let id = request.id();
    let body: Value = request.body()?;
    let ceiling = organization.platform.settings.max_calls_per_agent();
    let is_home = |id: &str| organization.definitions.keys().any(|campaign| home_queue_id(campaign) == id);
    let is_queue = |id: &str| organization.queues.percentage(id).is_ok() || is_home(id);
    let replacement =
        patched(found(organization, id)?, &body, ceiling, is_queue).map_err(|it| it.about(id))?;
    let modified_at = request.moment.wall.to_string();
    let effect =
        organization.change_campaign(id, |definition| definition.replace(replacement, &modified_at))?;
    Ok((Reply::empty(StatusCode::NO_CONTENT), Some(Effect::Campaign(effect))))
}

/// Puts the whole campaign in place of the one of the same version.
fn replace(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let id = request.id();
    let body: Map<String, Value> = request.body()?;
    let counts_decimal = request.query_as("useMaxCallsPerAgentDecimal", false)?;
    let definition = found(organization, id)?;
    let version = body.get("version").and_then(Value::as_u64).ok_or_else(|| missing("version").about(id))?;
    if version != definition.version() {
        return Err(stale(organization.platform.manners.stale.status()).about(id));
    }
    let ceiling = organization.platform.settings.max_calls_per_agent();
    let replacement = replaced(definition, &body, counts_decimal, ceiling).map_err(|it| it.about(id))?;
    let modified_at = request.moment.wall.to_string();
    let effect =
        organization.change_campaign(id, |definition| definition.replace(replacement, &modified_at))?;
    Ok((whole(found(organization, id)?), Some(Effect::Campaign(effect))))
}

fn snapshot(organization: &Organization, id: &str) -> Result<Snapshot, Refusal> {
    organization.world.snapshot(id).ok_or_else(|| unknown_campaign(id))
}

/// Counters run from the beginning of the world.
fn stats(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let snapshot = snapshot(organization, request.id())?;
    let mut body = dialing(&snapshot);
    let calls = snapshot.calls;
    body["contactRate"] = json!({ "attempts": calls.attempts, "connects": calls.answers, "connectRatio": connect_ratio(&snapshot) });
    body["timeZoneRescheduledCalls"] = json!(0);
    body["filteredOutContactsCount"] = json!(0);
    body["validAttempts"] = json!(calls.answers + calls.unanswered);
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn connect_ratio(snapshot: &Snapshot) -> f64 {
    match snapshot.calls.attempts {
        0 => 0.0,
        attempts => snapshot.calls.answers as f64 / attempts as f64,
    }
}

/// What statistics and bulk performance have in common.
fn dialing(snapshot: &Snapshot) -> Value {
    json!({
        "idleAgents": snapshot.agents.idle,
        "effectiveIdleAgents": f64::from(snapshot.agents.idle),
        "adjustedCallsPerAgent": snapshot.dial_rate,
        "outstandingCalls": snapshot.ringing,
        "scheduledCalls": 0,
        "rightPartyContactsCount": snapshot.calls.delivered,
        "linesUtilization":
            { "assignedOutboundLines": snapshot.ringing, "totalAvailableOutboundLines": LINES_AVAILABLE },
    })
}

/// Many campaigns at once, without their counters. Ids nobody has are left out.
fn performance(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let ids: Vec<String> = request.body()?;
    if !(1..=MAX_IDS).contains(&ids.len()) {
        return Err(invalid(format!("the body must be a list of 1 to {MAX_IDS} ids of campaigns")));
    }
    let of = |id: &String| {
        let definition = organization.definitions.get(id)?;
        let snapshot = organization.world.snapshot(id)?;
        let mut item = dialing(&snapshot);
        item["campaign"] = reference(id, Some(definition.name()), "/api/v2/outbound/campaigns");
        item["contactRate"] = json!({ "connectRatio": connect_ratio(&snapshot) });
        item["campaignStatus"] = json!(definition.status());
        item["dialingMode"] = definition.document().get("dialingMode").cloned().unwrap_or_default();
        Some(item)
    };
    let entities: Vec<Value> = ids.iter().filter_map(of).collect();
    Ok((Reply::json(StatusCode::OK, &json!({ "entities": entities })), None))
}

/// What hinders a campaign. A ceiling below the organisation's is told as an error of the
/// campaign, unless `diagnosticsSettings` says that it must not be.
fn diagnostics(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let id = request.id();
    let (definition, snapshot) = (found(organization, id)?, snapshot(organization, id)?);
    let ceiling = organization.platform.settings.max_calls_per_agent();
    let reports = definition.outbound().get("diagnosticsSettings");
    let reports = reports.is_none_or(|it| it["reportLowMaxCallsPerAgentAlert"] != json!(false));
    let mut errors: Vec<Value> = Vec::new();
    let rate = definition.rates().predicted;
    if reports && rate < ceiling {
        let details = format!("maxCallsPerAgent {rate} is below the organisation's {ceiling}");
        errors.push(json!({ "error": "LOW_MAX_CALLS_PER_AGENT", "details": details }));
    }
    let body = json!({
        "callableContacts": {},
        "ruleSetDiagnostics": [],
        "outstandingInteractionsCount": snapshot.ringing,
        "scheduledInteractionsCount": 0,
        "timeZoneRescheduledCallsCount": 0,
        "filteredOutContactsCount": 0,
        "idleAgents": snapshot.agents.idle,
        "effectiveIdleAgents": f64::from(snapshot.agents.idle),
        "numberOfContactsCalled": snapshot.calls.attempts,
        "campaignErrors": errors,
    });
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn start(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    set_status(organization, request, "on", "on")
}

/// Lines that ring are let ring: the campaign is off once they have ended.
fn stop(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    set_status(organization, request, "off", "stopping")
}

fn set_status(organization: &mut Organization, request: &Request<'_>, asked: &str, next: &str) -> Outcome {
    let id = request.id();
    let definition = found(organization, id)?;
    check_transition(definition.status(), asked).map_err(|it| it.about(id))?;
    let done = Reply::empty(StatusCode::NO_CONTENT);
    if [asked, next].contains(&definition.status()) {
        return Ok((done, None));
    }
    let modified_at = request.moment.wall.to_string();
    let effect = organization.change_campaign(id, |definition| {
        definition.overrule(&json!({ "campaignStatus": next }), &modified_at)
    })?;
    Ok((done, Some(Effect::Campaign(effect))))
}
