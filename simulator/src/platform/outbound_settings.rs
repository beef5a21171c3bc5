//! The organisation's outbound settings: limits of all campaigns, and what abandoned calls are
//! measured against.

use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::campaign_document::{MIN_CALLS_PER_AGENT, stale};
use super::request::{Request, missing};
use super::{Endpoint, Outcome};
use crate::input::invalid;
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::scenario::id_of_name;
use crate::time::Timestamp;

const PATH: &str = "/api/v2/outbound/settings";
/// Lines per agent no organisation may allow more of.
const MAX_CONFIGURABLE_CALLS_PER_AGENT: u32 = 15;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: Method::GET, path: PATH, permissions: &["outbound:settings:view"], perform: show },
    Endpoint { method: Method::PATCH, path: PATH, permissions: &["outbound:settings:edit"], perform: change },
];

/// What the platform divides abandoned calls by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Denominator {
    /// Calls placed, busy and unanswered ones too.
    AllCalls,
    /// Calls that were given to the queue: here all that a person answered.
    #[default]
    CallsThatReachedQueue,
}

#[derive(Clone, Debug)]
pub(crate) struct OutboundSettings {
    version: u64,
    max_calls_per_agent: f64,
    max_line_utilization: f64,
    abandon_seconds: f64,
    pub denominator: Denominator,
    modified_at: Timestamp,
}

impl OutboundSettings {
    pub(crate) fn new(created_at: Timestamp) -> Self {
        Self {
            version: 1,
            max_calls_per_agent: f64::from(MAX_CONFIGURABLE_CALLS_PER_AGENT),
            max_line_utilization: 1.0,
            abandon_seconds: 2.0,
            denominator: Denominator::default(),
            modified_at: created_at,
        }
    }

    /// Lines per agent no campaign may be set above.
    pub(crate) fn max_calls_per_agent(&self) -> f64 {
        self.max_calls_per_agent
    }

    /// The share of abandoned calls as this organisation counts it; 0 before the first call.
    pub(crate) fn abandon_rate(&self, calls: &crate::dialer::CallCounts) -> f64 {
        let counted = match self.denominator {
            Denominator::AllCalls => calls.attempts,
            Denominator::CallsThatReachedQueue => calls.abandoned + calls.delivered,
        };
        if counted == 0 { 0.0 } else { calls.abandoned as f64 / counted as f64 }
    }
}

fn show(organization: &mut Organization, _: &Request<'_>) -> Outcome {
    let settings = &organization.platform.settings;
    let body = json!({
        "id": id_of_name("settings", "outbound"),
        "name": "settings",
        "version": settings.version,
        "dateModified": settings.modified_at,
        "maxCallsPerAgent": settings.max_calls_per_agent.round() as u64,
        "maxCallsPerAgentDecimal": settings.max_calls_per_agent,
        "maxConfigurableCallsPerAgent": MAX_CONFIGURABLE_CALLS_PER_AGENT,
        "maxLineUtilization": settings.max_line_utilization,
        "abandonSeconds": settings.abandon_seconds,
        "complianceAbandonRateDenominator": settings.denominator,
        "rescheduleTimeZoneSkippedContacts": false,
        "selfUri": PATH,
    });
    Ok((Reply::json(StatusCode::OK, &body), None))
}

/// Changes what the body names, of the version it names.
fn change(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let body: Map<String, Value> = request.body()?;
    let counts_decimal = request.query_as("useMaxCallsPerAgentDecimal", false)?;
    let version = body.get("version").and_then(Value::as_u64).ok_or_else(|| missing("version"))?;
    if version != organization.platform.settings.version {
        return Err(stale(organization.platform.manners.stale.status()));
    }
    let mut changed = organization.platform.settings.clone();
    let name = if counts_decimal { "maxCallsPerAgentDecimal" } else { "maxCallsPerAgent" };
    let highest = f64::from(MAX_CONFIGURABLE_CALLS_PER_AGENT);
    for (name, place, low, high) in [
        (name, &mut changed.max_calls_per_agent, MIN_CALLS_PER_AGENT, highest),
        ("maxLineUtilization", &mut changed.max_line_utilization, 0.0, 1.0),
        ("abandonSeconds", &mut changed.abandon_seconds, 0.0, 60.0),
    ] {
        if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
            *place = number(name, value, low, high)?;
        }
    }
    if let Some(value) = body.get("complianceAbandonRateDenominator").filter(|value| !value.is_null()) {
        changed.denominator = serde_json::from_value(value.clone()).map_err(|_| {
            invalid("complianceAbandonRateDenominator must be ALL_CALLS or CALLS_THAT_REACHED_QUEUE")
        })?;
    }
    changed.version += 1;
    changed.modified_at = request.moment.wall;
    organization.platform.settings = changed;
    Ok((Reply::empty(StatusCode::NO_CONTENT), None))
}

fn number(name: &str, value: &Value, low: f64, high: f64) -> Result<f64, Refusal> {
    let number = value.as_f64().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| invalid(format!("{name} must be from {low} to {high}")))
}
