//! Outbound campaigns: their definition, their lever, and what holds for all of them.
//!
//! The platform has no dial rate. Its pacing ceiling `maxCallsPerAgent` is the lever: calls per
//! agent, with fraction, from 1 up to the organisation's own greatest value.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::campaigns::{Campaign, Definition};
use super::super::dialect::{CampaignChange, Pacing};
use super::super::organization::OutboundSettings;
use super::super::path::PathSegment;
use super::Told;
use crate::model::outcome::SentRequest;

/// A ceiling below one call per agent has no meaning.
pub(crate) const LEAST_RATE: f64 = 1.0;
/// What no organisation can set more than.
const GREATEST_RATE: f64 = 15.0;

const LOW_RATE_ALERT: &str = "/diagnosticsSettings/reportLowMaxCallsPerAgentAlert";

pub(crate) const SETTINGS_PATH: &str = "/api/v2/outbound/settings";

pub(crate) fn campaign_path(id: &str) -> String {
    format!("/api/v2/outbound/campaigns/{}", PathSegment(id))
}

/// Campaigns in one list at most: their ids stand in its URL.
pub(crate) const LISTED: usize = 50;

pub(crate) fn list_path(ids: &[String]) -> String {
    let asked = ids.iter().map(|id| format!("&id={}", PathSegment(id)));
    asked.fold(format!("/api/v2/outbound/campaigns?pageSize={LISTED}"), |path, id| path + &id)
}

/// Reads a list of campaigns as [`read`] reads one.
pub(crate) fn read_list(
    body: &[u8],
    settings: &OutboundSettings,
    pacing: Pacing,
) -> Result<BTreeMap<String, Told<Campaign>>, String> {
    #[derive(Deserialize)]
    struct Page {
        entities: Vec<Value>,
    }
    let page: Page = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let told = page.entities.into_iter().filter_map(|whole| {
        let id = whole.get("id")?.as_str()?.to_owned();
        let campaign = read_whole(&id, whole, settings, pacing);
        Some((id, campaign))
    });
    Ok(told.collect())
}

/// The request that gives `campaign` this rate. A patch names the lever alone and the last
/// writer wins; a put sends the campaign as it was read, and the platform refuses it where
/// somebody changed it since.
pub(crate) fn rate_request(campaign: &Campaign, rate: f64, change: CampaignChange) -> SentRequest {
    let path = campaign_path(&campaign.id);
    let (method, path, body) = match (change, &campaign.definition) {
        (CampaignChange::Whole, Some(definition)) => {
            let mut body = definition.whole.clone();
            body["maxCallsPerAgentDecimal"] = json!(rate);
            body["maxCallsPerAgent"] = json!(rate.round() as i64);
            ("PUT", format!("{path}?useMaxCallsPerAgentDecimal=true"), body)
        }
        _ => ("PATCH", path, json!({ "maxCallsPerAgent": rate })),
    };
    SentRequest { method: method.to_owned(), path, if_match: None, body }
}

/// Whether this is a possible change of this campaign's rate and of nothing else.
pub(crate) fn is_rate_request(id: &str, request: &SentRequest) -> bool {
    let path = campaign_path(id);
    let rate = match request.method.as_str() {
        "PATCH" if request.path == path => {
            let members = request.body.as_object();
            members.filter(|members| members.len() == 1).and_then(|members| members.get("maxCallsPerAgent"))
        }
        "PUT" if request.path.strip_suffix("?useMaxCallsPerAgentDecimal=true") == Some(&path) => {
            let is_it = request.body.get("id").and_then(Value::as_str) == Some(id);
            request.body.get("maxCallsPerAgentDecimal").filter(|_| is_it)
        }
        _ => None,
    };
    rate.and_then(Value::as_f64).is_some_and(|rate| rate.is_finite() && rate >= LEAST_RATE)
}

/// The version that a request is for, where it names one.
pub(crate) fn version_named_by(request: &SentRequest) -> Option<String> {
    let version = request.body.get("version").filter(|_| request.method == "PUT")?;
    version.as_i64().map(|version| version.to_string())
}

/// Reads a campaign under the organisation's settings and the limits configured here. The
/// error says which value is impossible.
pub(crate) fn read(
    id: &str,
    body: &[u8],
    settings: &OutboundSettings,
    pacing: Pacing,
) -> Result<Campaign, String> {
    let whole: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    read_whole(id, whole, settings, pacing)
}

fn read_whole(
    id: &str,
    whole: Value,
    settings: &OutboundSettings,
    pacing: Pacing,
) -> Result<Campaign, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        id: String,
        name: Option<String>,
        version: i64,
        campaign_status: Option<String>,
        max_calls_per_agent: Option<f64>,
        max_calls_per_agent_decimal: Option<f64>,
        queue: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        id: String,
    }
    let wire = Wire::deserialize(&whole).map_err(|error| error.to_string())?;
    if wire.id != id {
        let other: String = wire.id.chars().take(64).collect();
        return Err(format!("it is about campaign {other:?}"));
    }
    // Without one of its own a campaign has the organisation's.
    let rate = wire.max_calls_per_agent_decimal.or(wire.max_calls_per_agent);
    let rate = rate.unwrap_or(settings.max_calls_per_agent);
    if !(rate.is_finite() && rate >= 0.0) {
        return Err(format!("maxCallsPerAgentDecimal is {rate}; rates are 0 or more"));
    }
    Ok(Campaign {
        id: wire.id,
        name: wire.name,
        dial_rate: rate,
        min_dial_rate: pacing.min.max(LEAST_RATE),
        max_dial_rate: pacing.max.min(settings.max_calls_per_agent),
        revision: wire.version.to_string(),
        definition: Some(Arc::new(Definition {
            queue_id: wire.queue.map(|queue| queue.id),
            status: wire.campaign_status,
            reports_low_rate: whole.pointer(LOW_RATE_ALERT).and_then(Value::as_bool) != Some(false),
            whole,
        })),
    })
}

/// Reads the organisation's settings. The error says which value is impossible.
pub(crate) fn read_settings(body: &[u8]) -> Result<OutboundSettings, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        max_calls_per_agent: Option<f64>,
        max_calls_per_agent_decimal: Option<f64>,
        abandon_seconds: Option<f64>,
        compliance_abandon_rate_denominator: Option<String>,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let most = wire.max_calls_per_agent_decimal.or(wire.max_calls_per_agent).unwrap_or(GREATEST_RATE);
    if !(LEAST_RATE..=1_000.0).contains(&most) {
        return Err(format!("maxCallsPerAgentDecimal is {most}; it is at least {LEAST_RATE}"));
    }
    Ok(OutboundSettings {
        max_calls_per_agent: most,
        abandon_seconds: wire.abandon_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
        abandon_denominator: wire.compliance_abandon_rate_denominator,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMPAIGN: &str = include_str!("fixtures/campaign.json");
    const ID: &str = "7b1b6a2e-1c0e-4d43-9b0e-0f6b9a1f2c01";
    const WIDE: Pacing = Pacing { min: 0.0, max: 100.0 };

    fn settings() -> OutboundSettings {
        read_settings(include_bytes!("fixtures/outbound_settings.json")).unwrap()
    }

    fn campaign() -> Campaign {
        read(ID, CAMPAIGN.as_bytes(), &settings(), WIDE).unwrap()
    }

    #[test]
    fn the_lever_is_the_decimal_between_one_and_the_organisations_own() {
        let read_one = campaign();
        assert_eq!((read_one.dial_rate, read_one.min_dial_rate, read_one.max_dial_rate), (2.25, 1.0, 15.0));
        let definition = read_one.definition.unwrap();
        assert_eq!((&*read_one.revision, definition.status.as_deref()), ("17", Some("on")));
        assert_eq!(definition.queue_id.as_deref(), Some("2d0f3a52-6a6e-4f0b-8a3d-7f0d6a0b1e02"));
        assert!(definition.reports_low_rate, "unless it is switched off");
        let narrow = read(ID, CAMPAIGN.as_bytes(), &settings(), Pacing { min: 1.5, max: 6.0 }).unwrap();
        assert_eq!((narrow.min_dial_rate, narrow.max_dial_rate), (1.5, 6.0), "what is configured");
        let whole = CAMPAIGN.replace(r#""maxCallsPerAgentDecimal":2.25,"#, "");
        assert_eq!(read(ID, whole.as_bytes(), &settings(), WIDE).unwrap().dial_rate, 2.0);
        let none = whole.replace(r#""maxCallsPerAgent":2,"#, "");
        assert_eq!(read(ID, none.as_bytes(), &settings(), WIDE).unwrap().dial_rate, 15.0);
    }

    #[test]
    fn a_list_tells_many_and_one_that_cannot_be_true_harms_no_other() {
        let path = list_path(&["a".to_owned(), "b c".to_owned()]);
        assert_eq!(path, "/api/v2/outbound/campaigns?pageSize=50&id=a&id=b%20c");
        let body = format!(r#"{{"entities":[{CAMPAIGN},{{"id":"b"}},{{}}],"pageCount":1}}"#);
        let told = read_list(body.as_bytes(), &settings(), WIDE).unwrap();
        assert_eq!(told.keys().collect::<Vec<_>>(), [ID, "b"]);
        assert_eq!(told[ID].as_ref().unwrap().dial_rate, 2.25);
        assert!(told["b"].as_ref().unwrap_err().contains("version"));
        assert!(read_list(b"{}", &settings(), WIDE).is_err());
    }

    #[test]
    fn settings_say_what_an_abandoned_call_is() {
        let read = settings();
        assert_eq!(read.abandon_denominator.as_deref(), Some("CALLS_THAT_REACHED_QUEUE"));
        assert_eq!(read.abandon_seconds, Some(2.0));
        assert_eq!(read_settings(b"{}").unwrap().max_calls_per_agent, 15.0);
        assert!(read_settings(br#"{"maxCallsPerAgentDecimal":0.5}"#).is_err());
    }

    #[test]
    fn a_patch_names_the_lever_and_a_put_sends_what_was_read() {
        let patch = rate_request(&campaign(), 2.25, CampaignChange::Lever);
        assert_eq!((patch.method.as_str(), patch.path.as_str()), ("PATCH", campaign_path(ID).as_str()));
        assert_eq!(patch.body.to_string(), r#"{"maxCallsPerAgent":2.25}"#);
        let put = rate_request(&campaign(), 3.5, CampaignChange::Whole);
        assert_eq!(put.path, format!("{}?useMaxCallsPerAgentDecimal=true", campaign_path(ID)));
        let mut expected: Value = serde_json::from_str(CAMPAIGN).unwrap();
        expected["maxCallsPerAgentDecimal"] = json!(3.5);
        expected["maxCallsPerAgent"] = json!(4);
        assert_eq!(put.body, expected, "version and status as read, unknown members kept");
        assert_eq!((version_named_by(&put).as_deref(), version_named_by(&patch)), (Some("17"), None));
        for request in [&patch, &put] {
            assert!(is_rate_request(ID, request), "{request:?}");
            assert!(!is_rate_request("another", request));
        }
    }

    #[test]
    fn nothing_but_a_possible_rate_is_sent() {
        let patch = |body: Value| SentRequest {
            method: "PATCH".to_owned(),
            path: campaign_path(ID),
            if_match: None,
            body,
        };
        for body in [
            json!({ "maxCallsPerAgent": 0.99 }),
            json!({ "maxCallsPerAgent": null }),
            json!({ "maxCallsPerAgent": 2.0, "abandonRate": 99.0 }),
            json!({ "abandonRate": 2.0 }),
            Value::Null,
        ] {
            assert!(!is_rate_request(ID, &patch(body.clone())), "{body}");
        }
        let nan = rate_request(&campaign(), f64::NAN, CampaignChange::Lever);
        assert!(!is_rate_request(ID, &nan));
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let refused = |id: &str, body: &str| read(id, body.as_bytes(), &settings(), WIDE).unwrap_err();
        assert!(refused("another", CAMPAIGN).contains(ID));
        assert!(refused(ID, &CAMPAIGN.replace("2.25", "-2.25")).contains("maxCallsPerAgentDecimal"));
        assert!(refused(ID, &CAMPAIGN.replace(r#""version":17,"#, "")).contains("version"));
        assert!(!refused(ID, &CAMPAIGN[..80]).is_empty());
    }
}
