//! Campaigns: their dial rate with its limits, and statistics.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::super::campaigns::{Campaign, CampaignStatistics};
use super::super::path::PathSegment;
use crate::model::outcome::SentRequest;

pub(crate) fn campaign_path(id: &str) -> String {
    format!("/api/v2/campaigns/{}", PathSegment(id))
}

pub(crate) fn campaign_statistics_path(id: &str) -> String {
    format!("/api/v2/campaigns/{}/stats", PathSegment(id))
}

/// The partial update that the seed sends: what is not named stays as it is.
pub(crate) fn dial_rate_request(id: &str, rate: f64, revision: &str) -> SentRequest {
    SentRequest {
        method: "PUT".to_owned(),
        path: campaign_path(id),
        if_match: Some(revision.to_owned()),
        body: json!({ "dialerSettings": { "predictedDialRate": rate } }),
    }
}

/// Whether this is a possible change of this campaign's rate from a state that it names.
pub(crate) fn is_dial_rate_request(id: &str, request: &SentRequest) -> bool {
    request.method == "PUT"
        && request.path == campaign_path(id)
        && request.if_match.is_some()
        && requested_dial_rate(request).is_some()
}

/// The rate that such a request asks for, where it asks for a possible one.
fn requested_dial_rate(request: &SentRequest) -> Option<f64> {
    let rate = request.body.pointer("/dialerSettings/predictedDialRate")?.as_f64()?;
    is_rate(rate).then_some(rate)
}

/// Reads a campaign. The error says which value is impossible.
pub(crate) fn read_campaign(id: &str, etag: Option<String>, body: &[u8]) -> Result<Campaign, String> {
    let read: WireCampaign = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if read.id != id {
        return Err(format!("it is about campaign {:?}", cut(&read.id)));
    }
    let revision = etag.ok_or("the ETag header is missing or not ASCII")?;
    let settings = read.dialer_settings;
    for (name, value) in [
        ("predictedDialRate", settings.predicted_dial_rate),
        ("minDialRate", settings.min_dial_rate),
        ("maxDialRate", settings.max_dial_rate),
    ] {
        if !is_rate(value) {
            return Err(format!("dialerSettings.{name} is {value}; rates are 0 or more"));
        }
    }
    Ok(Campaign {
        id: read.id,
        name: read.name,
        dial_rate: settings.predicted_dial_rate,
        min_dial_rate: settings.min_dial_rate,
        max_dial_rate: settings.max_dial_rate,
        revision,
        definition: None,
    })
}

/// Reads statistics. The error says which value is impossible.
pub(crate) fn read_campaign_statistics(body: &[u8]) -> Result<CampaignStatistics, String> {
    let read: WireStatistics = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if !(0.0..=1.0).contains(&read.answer_rate) {
        return Err(format!("answerRate is {}; it is a share from 0 to 1", read.answer_rate));
    }
    Ok(CampaignStatistics {
        answer_rate: read.answer_rate,
        agents_idle: read.agent_available,
        agents_busy: read.agent_busy,
        calls_delivered: read.calls_delivered,
        attempts: read.attempts,
        answers: read.answers,
        abandoned: read.abandoned,
        age: Duration::ZERO,
    })
}

fn is_rate(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// Foreign text in a message stays short.
fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCampaign {
    id: String,
    name: Option<String>,
    dialer_settings: WireDialerSettings,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDialerSettings {
    predicted_dial_rate: f64,
    max_dial_rate: f64,
    min_dial_rate: f64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatistics {
    answer_rate: f64,
    agent_available: u32,
    calls_delivered: u64,
    agent_busy: u32,
    attempts: Option<u64>,
    answers: Option<u64>,
    abandoned: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMPAIGN: &str = r#"{"id":"c","name":"Spring","surprise":[1],
        "dialerSettings":{"predictedDialRate":1.5,"maxDialRate":3,"minDialRate":0.5,"other":{}}}"#;

    #[test]
    fn a_campaign_is_read_and_unknown_fields_are_ignored() {
        let campaign = read_campaign("c", Some("W/\"7\"".into()), CAMPAIGN.as_bytes()).unwrap();
        assert_eq!(campaign.name.as_deref(), Some("Spring"));
        assert_eq!((campaign.dial_rate, campaign.min_dial_rate, campaign.max_dial_rate), (1.5, 0.5, 3.0));
        assert_eq!(campaign.revision, "W/\"7\"");
    }

    #[test]
    fn limits_that_contradict_each_other_are_passed_on() {
        let body = CAMPAIGN.replace(r#""maxDialRate":3"#, r#""maxDialRate":0.1"#);
        let campaign = read_campaign("c", Some("1".into()), body.as_bytes()).unwrap();
        assert!(campaign.max_dial_rate < campaign.min_dial_rate);
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let refused = |id: &str, etag: Option<&str>, body: &str| {
            read_campaign(id, etag.map(str::to_owned), body.as_bytes()).unwrap_err()
        };
        assert!(refused("d", Some("1"), CAMPAIGN).contains("\"c\""));
        assert!(refused("c", None, CAMPAIGN).contains("ETag"));
        assert!(refused("c", Some("1"), &CAMPAIGN.replace("1.5", "-1.5")).contains("predictedDialRate"));
        assert!(!refused("c", Some("1"), &CAMPAIGN.replace("1.5", "1e999")).is_empty());
        assert!(!refused("c", Some("1"), &CAMPAIGN[..40]).is_empty());

        let statistics = r#"{"answerRate":0.5,"agentAvailable":1,"callsDelivered":2,"agentBusy":3}"#;
        assert_eq!(read_campaign_statistics(statistics.as_bytes()).unwrap().answers, None);
        for (from, to) in [("0.5", "1.01"), ("0.5", "-0.1"), ("0.5", "null"), (":1", ":-1"), (":3", ":9e9")] {
            let body = statistics.replace(from, to);
            assert!(read_campaign_statistics(body.as_bytes()).is_err(), "{body}");
        }
    }

    #[test]
    fn the_update_names_the_rate_alone() {
        let request = dial_rate_request("a b/../c", 2.35, "\"3\"");
        assert_eq!(request.path, "/api/v2/campaigns/a%20b%2F..%2Fc");
        assert_eq!(request.body.to_string(), r#"{"dialerSettings":{"predictedDialRate":2.35}}"#);
        assert_eq!(requested_dial_rate(&request), Some(2.35));
        assert_eq!(requested_dial_rate(&dial_rate_request("a", f64::NAN, "1")), None);
        assert_eq!(requested_dial_rate(&dial_rate_request("a", -1.0, "1")), None);
        assert_eq!(campaign_path(".."), "/api/v2/campaigns/%252E%252E");
    }
}
