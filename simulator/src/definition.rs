//! A campaign as its owners see it: a JSON document with an entity tag, and what only Genesys
//! Cloud's own interface shows of it (`platform/campaign_document.rs`).

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::platform;
use crate::reply::Refusal;
use crate::scenario::{CampaignScenario, MAX_DIAL_RATE};

/// A document may not grow beyond this, however many properties clients add.
pub(crate) const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

/// Members the platform owns: what clients send for them is ignored.
const READ_ONLY: [&str; 4] = ["id", "selfUri", "dateCreated", "dateModified"];

/// Lines per idle agent: what is set and between which limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    pub predicted: f64,
    pub min: f64,
    pub max: f64,
}

impl Rates {
    /// What the dialer works with: another writer may have moved the limits past the rate.
    pub(crate) fn in_force(self) -> f64 {
        self.predicted.max(self.min).min(self.max)
    }
}

/// One campaign's document. Every accepted change, even to the same values, gives a new tag.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    document: Map<String, Value>,
    /// Members that only Genesys Cloud's own interface has.
    outbound: Map<String, Value>,
    id: String,
    seed: u64,
    revision: u64,
    rates: Rates,
}

impl Definition {
    /// `created_at` is RFC 3339.
    pub(crate) fn new(scenario: &CampaignScenario, seed: u64, created_at: &str) -> Self {
        let rates =
            Rates { predicted: scenario.dial_rate, min: scenario.min_dial_rate, max: scenario.max_dial_rate };
        let document = json!({
            "id": scenario.id,
            "name": scenario.name,
            "dateCreated": created_at,
            "dateModified": created_at,
            "dialingMode": "predictive",
            "campaignStatus": "on",
            "callerName": "Trunkline Test Lines",
            "callerAddress": "+13175550100",
            "contactList": { "id": "5f8c1d3e-2f6a-4c1b-9a63-0d6f1f0f7a11", "name": "Contacts" },
            "phoneColumns": [{ "columnName": "home", "type": "home" }],
            "priority": 3,
            "dialerSettings": {
                "predictedDialRate": rates.predicted,
                "maxDialRate": rates.max,
                "minDialRate": rates.min,
                "noAnswerTimeoutSeconds": 22,
            },
            "selfUri": format!("/api/v2/campaigns/{}", scenario.id),
        });
        let Value::Object(document) = document else { unreachable!("the literal above is an object") };
        let outbound = platform::initial_campaign(scenario);
        Self { document, outbound, id: scenario.id.clone(), seed, revision: 1, rates }
    }

    pub(crate) fn document(&self) -> &Map<String, Value> {
        &self.document
    }

    /// Members that only Genesys Cloud's own interface has.
    pub(crate) fn outbound(&self) -> &Map<String, Value> {
        &self.outbound
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Raised by every change, as the entity tag is changed by it.
    pub(crate) fn version(&self) -> u64 {
        self.revision
    }

    /// `on`, `stopping`, `off`, `complete` …
    pub(crate) fn status(&self) -> &str {
        self.document.get("campaignStatus").and_then(Value::as_str).unwrap_or_default()
    }

    /// Lines per idle agent the dialer works with: none unless the campaign is on.
    pub(crate) fn dialed_rate(&self) -> f64 {
        if self.status() == "on" { self.rates.in_force() } else { 0.0 }
    }

    /// The last line of a campaign that stops has ended. No change anybody made.
    pub(crate) fn settle_off(&mut self) {
        self.document.insert("campaignStatus".into(), json!("off"));
    }

    pub(crate) fn name(&self) -> &str {
        self.document.get("name").and_then(Value::as_str).unwrap_or_default()
    }

    pub(crate) fn rates(&self) -> Rates {
        self.rates
    }

    /// Opaque and strong, quotes included. Made from a revision that only rises, so
    /// a value that comes back does not bring its old tag back.
    pub(crate) fn etag(&self) -> String {
        let digest = Sha256::digest(format!("{} {} {}", self.seed, self.id, self.revision).as_bytes());
        let hex: String = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("\"{hex}\"")
    }

    /// Whether an `If-Match` header names this version: strong comparison, lists and `*` (RFC 9110 §13.1.1).
    pub(crate) fn matches(&self, if_match: &str) -> bool {
        let current = self.etag();
        if_match.split(',').map(str::trim).any(|tag| tag == "*" || tag == current)
    }

    /// Merges a partial document, as a client may.
    ///
    /// # Errors
    /// 400 for a body that is no object, and for rates that are no numbers or out of bounds.
    pub(crate) fn amend(&mut self, partial: &Value, modified_at: &str) -> Result<(), Refusal> {
        let (document, rates) = self.merged(partial)?;
        if rates.min > rates.max {
            return Err(invalid(format!(
                "dialerSettings.minDialRate {} is greater than dialerSettings.maxDialRate {}",
                rates.min, rates.max
            )));
        }
        if !(rates.min..=rates.max).contains(&rates.predicted) {
            return Err(invalid(format!(
                "dialerSettings.predictedDialRate {} must be between {} and {}",
                rates.predicted, rates.min, rates.max
            )));
        }
        self.keep(document, rates, modified_at);
        Ok(())
    }

    /// Merges a partial document as the organisation's own administrators can: limits
    /// may end up on the wrong side of each other or of the rate.
    ///
    /// # Errors
    /// 400 when it is no object, or a rate no number from 0 to 100.
    pub(crate) fn overrule(&mut self, partial: &Value, modified_at: &str) -> Result<(), Refusal> {
        let (partial, outbound) = platform::split_change(partial, &self.document);
        let (document, rates) = self.merged(&partial)?;
        self.outbound.extend(outbound);
        self.keep(document, rates, modified_at);
        Ok(())
    }

    /// Puts all that Genesys Cloud's own interface writes in place. Limits that only the other
    /// dialect has make room for the rate.
    ///
    /// # Errors
    /// 400 when there is too much of it.
    pub(crate) fn replace(&mut self, replacement: Replacement, modified_at: &str) -> Result<(), Refusal> {
        let Replacement { mut document, outbound, predicted } = replacement;
        let rates =
            Rates { predicted, min: self.rates.min.min(predicted), max: self.rates.max.max(predicted) };
        document["dialerSettings"]["predictedDialRate"] = json!(rates.predicted);
        document["dialerSettings"]["minDialRate"] = json!(rates.min);
        document["dialerSettings"]["maxDialRate"] = json!(rates.max);
        check_size(&outbound)?;
        check_size(&document)?;
        self.outbound = outbound;
        self.keep(document, rates, modified_at);
        Ok(())
    }

    fn merged(&self, partial: &Value) -> Result<(Map<String, Value>, Rates), Refusal> {
        let Value::Object(partial) = partial else {
            return Err(invalid("the body must be a JSON object".into()));
        };
        let mut document = self.document.clone();
        for (name, value) in partial.iter().filter(|(name, _)| !READ_ONLY.contains(&name.as_str())) {
            merge(document.entry(name.clone()).or_insert(Value::Null), value);
        }
        let settings = document.get("dialerSettings");
        let rate = |name: &str| {
            settings
                .and_then(|settings| settings.get(name)?.as_f64())
                .filter(|rate| (0.0..=MAX_DIAL_RATE).contains(rate))
                .ok_or_else(|| {
                    invalid(format!("dialerSettings.{name} must be a number from 0 to {MAX_DIAL_RATE}"))
                })
        };
        let rates = Rates {
            predicted: rate("predictedDialRate")?,
            min: rate("minDialRate")?,
            max: rate("maxDialRate")?,
        };
        check_size(&document)?;
        Ok((document, rates))
    }

    fn keep(&mut self, mut document: Map<String, Value>, rates: Rates, modified_at: &str) {
        document.insert("dateModified".into(), modified_at.into());
        self.document = document;
        self.rates = rates;
        self.revision += 1;
    }
}

/// What Genesys Cloud's own interface makes of a campaign.
#[derive(Clone, Debug)]
pub(crate) struct Replacement {
    pub document: Map<String, Value>,
    pub outbound: Map<String, Value>,
    /// Lines per idle agent.
    pub predicted: f64,
}

impl Replacement {
    /// Everything as it is.
    pub(crate) fn of(definition: &Definition) -> Self {
        Self {
            document: definition.document.clone(),
            outbound: definition.outbound.clone(),
            predicted: definition.rates.predicted,
        }
    }
}

fn check_size(document: &Map<String, Value>) -> Result<(), Refusal> {
    let bytes = serde_json::to_vec(document).map_or(usize::MAX, |text| text.len());
    if bytes <= MAX_DOCUMENT_BYTES {
        return Ok(());
    }
    Err(invalid(format!("a campaign may have {MAX_DOCUMENT_BYTES} bytes")))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid.value", message)
}

/// Objects are merged member by member, everything else is replaced. The depth is
/// bounded by the parser's (127).
fn merge(target: &mut Value, change: &Value) {
    match (target, change) {
        (Value::Object(target), Value::Object(change)) => {
            for (name, value) in change {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (target, change) => *target = change.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn definition() -> Definition {
        Definition::new(&Scenario::default().campaigns[0], 1, "2026-01-01T00:00:00.000Z")
    }

    #[test]
    fn a_partial_body_changes_what_it_names_and_keeps_the_rest() {
        let mut definition = definition();
        let before = definition.clone();
        let change =
            json!({"id": "other", "dialerSettings": {"predictedDialRate": 2.25}, "mine": {"a": [1]}});
        definition.amend(&change, "2026-01-02T00:00:00.000Z").unwrap();
        assert_eq!(definition.rates(), Rates { predicted: 2.25, ..before.rates() });
        let mut expected = before.document.clone();
        expected["dialerSettings"]["predictedDialRate"] = json!(2.25);
        expected.insert("mine".into(), json!({"a": [1]}));
        expected["dateModified"] = json!("2026-01-02T00:00:00.000Z");
        assert_eq!(definition.document, expected);
    }

    #[test]
    fn tags_never_come_back() {
        let mut definition = definition();
        let mut tags = vec![definition.etag()];
        for rate in [2.0, 3.0, 2.0, 2.0] {
            definition.amend(&json!({"dialerSettings": {"predictedDialRate": rate}}), "").unwrap();
            assert!(!tags.contains(&definition.etag()));
            tags.push(definition.etag());
        }
        assert!(definition.matches(tags.last().unwrap()) && definition.matches("*"));
        assert!(definition.matches(&format!("\"x\", {}", tags.last().unwrap())));
        assert!(!definition.matches(&tags[0]) && !definition.matches(&format!("W/{}", tags.last().unwrap())));
    }

    #[test]
    fn impossible_changes_are_refused_and_leave_no_trace() {
        let mut definition = definition();
        let tag = definition.etag();
        for change in [
            json!([1]),
            json!("text"),
            json!({"dialerSettings": null}),
            json!({"dialerSettings": {"predictedDialRate": "2"}}),
            json!({"dialerSettings": {"predictedDialRate": 6.01}}),
            json!({"dialerSettings": {"predictedDialRate": 0.49}}),
            json!({"dialerSettings": {"maxDialRate": 0.4}}),
            json!({"dialerSettings": {"maxDialRate": 101}}),
            json!({"huge": "x".repeat(MAX_DOCUMENT_BYTES)}),
        ] {
            let refusal = definition.amend(&change, "").unwrap_err();
            assert_eq!(refusal.status, StatusCode::BAD_REQUEST, "{change}");
            assert_eq!(definition.etag(), tag);
        }
    }

    #[test]
    fn administrators_can_set_limits_that_make_every_rate_impossible() {
        let mut definition = definition();
        definition.overrule(&json!({"dialerSettings": {"minDialRate": 5, "maxDialRate": 2}}), "").unwrap();
        assert_eq!(definition.rates().in_force(), 2.0);
        assert!(definition.amend(&json!({"dialerSettings": {"predictedDialRate": 3}}), "").is_err());
        assert!(definition.overrule(&json!({"dialerSettings": {"minDialRate": -1}}), "").is_err());
    }
}
