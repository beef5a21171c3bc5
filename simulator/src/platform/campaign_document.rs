//! A campaign as Genesys Cloud's own interface shows it and lets it be changed.
//!
//! The lever is `maxCallsPerAgentDecimal`: in the world it is the dial rate, which the other
//! dialect calls `predictedDialRate`. `maxCallsPerAgent` is its rounded view.

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::request::{missing, not_one_of, reference};
use crate::definition::{Definition, Replacement};
use crate::input::invalid;
use crate::reply::Refusal;
use crate::scenario::CampaignScenario;

/// Lines per agent no ceiling may be below.
pub(super) const MIN_CALLS_PER_AGENT: f64 = 1.0;
const DIALING_MODES: &[&str] = &["agentless", "preview", "power", "predictive", "progressive", "external"];
const STATUSES: &[&str] = &["on", "stopping", "off", "complete", "invalid", "forced_off", "forced_stopping"];
/// Members the platform owns: what clients send for them is ignored.
const READ_ONLY: &[&str] = &["id", "dateCreated", "dateModified", "version", "errors", "selfUri"];
/// The lever's members, which are kept as a rate.
const LEVER: &[&str] = &["maxCallsPerAgent", "maxCallsPerAgentDecimal"];
/// All other members clients may set.
const WRITABLE: &[&str] = &[
    "abandonRate",
    "agentOwnedColumn",
    "alwaysRunning",
    "callAnalysisLanguage",
    "callAnalysisResponseSet",
    "callableTimeSet",
    "callbackAutoAnswer",
    "callerAddress",
    "callerName",
    "campaignStatus",
    "contactList",
    "contactListFilters",
    "contactSort",
    "contactSorts",
    "diagnosticsSettings",
    "dialingMode",
    "division",
    "dncLists",
    "dynamicContactQueueingSettings",
    "dynamicLineBalancingSettings",
    "edgeGroup",
    "name",
    "noAnswerTimeout",
    "outboundLineCount",
    "phoneColumns",
    "preciseDialingEnabled",
    "previewAutoEnd",
    "previewTimeOutSeconds",
    "priority",
    "queue",
    "ruleSets",
    "script",
    "site",
    "skillColumns",
    "skipPreviewDisabled",
];
/// Members of the other dialect's document that are not shown here.
const OF_SEED: &[&str] = &["dialerSettings", "selfUri"];

/// What a new campaign has that only this interface shows.
pub(crate) fn initial(scenario: &CampaignScenario) -> Map<String, Value> {
    let id = |kind: &str| crate::scenario::id_of_name(kind, "simulated");
    let document = json!({
        "queue": reference(&home_queue_id(&scenario.id), Some(&scenario.name), "/api/v2/routing/queues"),
        "script": reference(&id("script"), None, "/api/v2/scripts"),
        "site": reference(&id("site"), None, "/api/v2/telephony/providers/edges/sites"),
        "callAnalysisResponseSet":
            reference(&id("response set"), None, "/api/v2/outbound/callanalysisresponsesets"),
        "division": reference(&id("division"), Some("Home"), "/api/v2/authorization/divisions"),
        "abandonRate": 3.0,
        "alwaysRunning": false,
        "noAnswerTimeout": 22,
        "outboundLineCount": 0,
        "dncLists": [],
        "ruleSets": [],
        "contactListFilters": [],
        "errors": [],
        "dynamicLineBalancingSettings": { "enabled": false, "relativeWeight": 0 },
    });
    let Value::Object(document) = document else { unreachable!("the literal above is an object") };
    document
}

/// The queue a campaign's agents are in.
pub(super) fn home_queue_id(campaign_id: &str) -> String {
    crate::scenario::id_of_name("queue of campaign", campaign_id)
}

pub(super) fn shown(definition: &Definition) -> Map<String, Value> {
    let mut shown = definition.outbound().clone();
    let shared = definition.document().iter().filter(|(name, _)| !OF_SEED.contains(&name.as_str()));
    shown.extend(shared.map(|(name, value)| (name.clone(), value.clone())));
    let rate = definition.rates().predicted;
    shown.insert("version".into(), json!(definition.version()));
    shown.insert("maxCallsPerAgent".into(), json!(rate.round() as u64));
    shown.insert("maxCallsPerAgentDecimal".into(), json!(rate));
    shown.insert("selfUri".into(), json!(format!("/api/v2/outbound/campaigns/{}", definition.id())));
    shown
}

/// What somebody changes past all client rules, in the other dialect's form, and the members that
/// only this interface has.
pub(crate) fn split_change(change: &Value, document: &Map<String, Value>) -> (Value, Map<String, Value>) {
    let Value::Object(members) = change else { return (change.clone(), Map::new()) };
    let is_outbound =
        |name: &str| WRITABLE.contains(&name) && !document.contains_key(name) && !LEVER.contains(&name);
    let (outbound, mut rest): (Map<_, _>, Map<_, _>) =
        members.clone().into_iter().partition(|(name, _)| is_outbound(name));
    for name in LEVER {
        if let Some(rate) = rest.remove(*name) {
            rest.insert("dialerSettings".into(), json!({ "predictedDialRate": rate }));
        }
    }
    (Value::Object(rest), outbound)
}

/// The campaign after a `PATCH`. `is_queue` tells whether there is a queue of an id.
///
/// # Errors
/// 400 for a body that is no object and for impossible values.
pub(super) fn patched(
    definition: &Definition,
    patch: &Value,
    ceiling: f64,
    is_queue: impl Fn(&str) -> bool,
) -> Result<Replacement, Refusal> {
    let Value::Object(patch) = patch else { return Err(invalid("the body must be a JSON object")) };
    let given = |name: &str| patch.get(name).filter(|value| !value.is_null());
    let mut replacement = Replacement::of(definition);
    for name in ["outboundLineCount", "abandonRate"] {
        if let Some(value) = given(name) {
            check_number(name, value)?;
            replacement.outbound.insert(name.into(), value.clone());
        }
    }
    if let Some(rate) = given("maxCallsPerAgent") {
        replacement.predicted = lever("maxCallsPerAgent", rate, ceiling)?;
    }
    if let Some(settings) = given("dynamicLineBalancingSettings") {
        let settings = settings.as_object().ok_or_else(|| missing("dynamicLineBalancingSettings"))?;
        let held = replacement.outbound.entry("dynamicLineBalancingSettings").or_insert(json!({}));
        for name in ["enabled", "relativeWeight"] {
            if let Some(value) = settings.get(name).filter(|value| !value.is_null()) {
                held[name] = value.clone();
            }
        }
    }
    if let Some(queue) = given("queue") {
        let id = queue["id"].as_str().ok_or_else(|| missing("queue.id"))?;
        if !is_queue(id) {
            return Err(invalid(format!("queue.id {id} names no queue")).with_detail("not.found", "queue"));
        }
        replacement.outbound.insert("queue".into(), reference(id, None, "/api/v2/routing/queues"));
    }
    Ok(replacement)
}

/// The campaign after a `PUT` of all its members. A member that is not in it is gone; one the
/// platform does not know stays only where it was there already.
///
/// # Errors
/// 400 for what is missing or impossible and for a status it cannot have next. The version is
/// looked at by whoever asks.
pub(super) fn replaced(
    definition: &Definition,
    body: &Map<String, Value>,
    counts_decimal: bool,
    ceiling: f64,
) -> Result<Replacement, Refusal> {
    check_required(body)?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    check_transition(definition.status(), text("campaignStatus"))?;
    let name = if counts_decimal { "maxCallsPerAgentDecimal" } else { "maxCallsPerAgent" };
    let predicted = match body.get(name).filter(|value| !value.is_null()) {
        Some(value) if !counts_decimal && !value.is_u64() => {
            return Err(
                invalid("maxCallsPerAgent must be a whole number here").with_detail("invalid.value", name)
            );
        }
        Some(value) => lever(name, value, ceiling)?,
        // Without a ceiling of its own the organisation's counts.
        None => ceiling,
    };
    let current = Replacement::of(definition);
    let keeps = |name: &str| OF_SEED.contains(&name) || READ_ONLY.contains(&name);
    let mut replacement = Replacement {
        document: current
            .document
            .iter()
            .filter(|it| keeps(it.0))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect(),
        outbound: current
            .outbound
            .iter()
            .filter(|it| keeps(it.0))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect(),
        predicted,
    };
    for (name, value) in body.iter().filter(|(name, value)| !keeps(name) && !value.is_null()) {
        let known = WRITABLE.contains(&name.as_str());
        if current.document.contains_key(name) {
            replacement.document.insert(name.clone(), value.clone());
        } else if !LEVER.contains(&name.as_str()) && (known || current.outbound.contains_key(name)) {
            replacement.outbound.insert(name.clone(), value.clone());
        }
    }
    if text("campaignStatus") == "off" && definition.status() == "on" {
        replacement.document.insert("campaignStatus".into(), json!("stopping"));
    }
    Ok(replacement)
}

/// # Errors
/// 400 for a status a client cannot ask for from the one the campaign has.
pub(super) fn check_transition(from: &str, to: &str) -> Result<(), Refusal> {
    let allowed = from == to
        || match to {
            "on" => matches!(from, "off" | "stopping" | "forced_off"),
            "off" => matches!(from, "on" | "stopping" | "forced_off" | "forced_stopping" | "invalid"),
            _ => false,
        };
    if allowed {
        return Ok(());
    }
    let (from, to) = (from.to_uppercase(), to.to_uppercase());
    Err(invalid(format!("Invalid transition from <{from}> to <{to}>"))
        .with_detail("invalid.value", "campaignStatus"))
}

fn check_required(body: &Map<String, Value>) -> Result<(), Refusal> {
    let given = |name: &str| body.get(name).filter(|value| !value.is_null());
    for name in ["name", "callerName", "callerAddress"] {
        given(name).and_then(Value::as_str).filter(|text| !text.is_empty()).ok_or_else(|| missing(name))?;
    }
    given("contactList").and_then(|list| list["id"].as_str()).ok_or_else(|| missing("contactList.id"))?;
    let mode = one_of(given("dialingMode"), "dialingMode", DIALING_MODES)?;
    one_of(given("campaignStatus"), "campaignStatus", STATUSES)?;
    let columns = given("phoneColumns").and_then(Value::as_array).filter(|columns| !columns.is_empty());
    for column in columns.ok_or_else(|| missing("phoneColumns"))? {
        for member in ["columnName", "type"] {
            column[member].as_str().ok_or_else(|| missing(&format!("phoneColumns.{member}")))?;
        }
    }
    if matches!(mode, "power" | "predictive" | "progressive") {
        given("abandonRate").ok_or_else(|| missing("abandonRate"))?;
    }
    if mode == "agentless" {
        given("outboundLineCount").ok_or_else(|| missing("outboundLineCount"))?;
    } else {
        for name in ["queue", "script"] {
            given(name).and_then(|it| it["id"].as_str()).ok_or_else(|| missing(&format!("{name}.id")))?;
        }
    }
    for name in ["abandonRate", "outboundLineCount", "noAnswerTimeout", "priority"] {
        given(name).map_or(Ok(()), |value| check_number(name, value))?;
    }
    Ok(())
}

fn one_of<'a>(value: Option<&'a Value>, name: &str, allowed: &[&str]) -> Result<&'a str, Refusal> {
    let text = value.and_then(Value::as_str).ok_or_else(|| missing(name))?;
    if allowed.contains(&text) { Ok(text) } else { Err(not_one_of(name, text, &allowed.join(", "))) }
}

fn check_number(name: &str, value: &Value) -> Result<(), Refusal> {
    let whole = |low, high| value.as_u64().is_some_and(|number| (low..=high).contains(&number));
    let (possible, rule) = match name {
        // Percent.
        "abandonRate" => (value.as_f64().is_some_and(|it| it > 0.0 && it <= 100.0), "above 0, at most 100"),
        "priority" => (whole(1, 5), "1 to 5"),
        _ => (whole(0, 100_000), "a whole number from 0 to 100000"),
    };
    if possible {
        Ok(())
    } else {
        Err(invalid(format!("{name} must be {rule}")).with_detail("invalid.value", name))
    }
}

/// A ceiling of lines per agent within what the organisation allows.
fn lever(name: &str, value: &Value, ceiling: f64) -> Result<f64, Refusal> {
    let rate = value.as_f64().ok_or_else(|| missing(name))?;
    if (MIN_CALLS_PER_AGENT..=ceiling).contains(&rate) {
        return Ok(rate);
    }
    let message = format!("{name} {rate} must be from {MIN_CALLS_PER_AGENT} to the organisation's {ceiling}");
    Err(invalid(message).with_detail("invalid.value", name))
}

/// A version that is not the newest: the platform's words are those seen in the field.
pub(super) fn stale(status: StatusCode) -> Refusal {
    if status == StatusCode::CONFLICT {
        let message =
            "The version number of the modified resource must match the version number in the database.";
        return Refusal::new(status, "general.conflict", message);
    }
    Refusal::new(status, "bad.request", "The version does not match the current version")
}
