//! What can be set about the load of decisions.

use serde::{Deserialize, Serialize};

/// A load of questions to a decision service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DecisionSettings {
    /// Addresses of the service's instances without a path, 1–16; each question goes to one of them.
    pub to: Vec<String>,
    /// API key sent as bearer token. Never shown.
    #[serde(skip_serializing)]
    pub key: Option<String>,
    /// 1–100; each interaction asks one of them.
    pub configuration_ids: Vec<String>,
    /// Above 0, at most 20 000.
    pub rate_per_second: f64,
    /// Share of questions that were asked before, 0–1.
    pub repeat_share: f64,
    /// Questions under way at once, 1–1 000.
    pub concurrency: usize,
    /// After so long the flow takes its default, 1–60 000.
    pub timeout_ms: u64,
    /// Ends after so many questions. None: when it is stopped.
    pub limit: Option<u64>,
    /// A dispatcher: each interaction then goes through the flow that the answer names.
    pub dispatch: bool,
    /// Where a dispatcher sends those without an answer; they leave where it is none.
    pub default_flow_id: Option<String>,
}

impl Default for DecisionSettings {
    fn default() -> Self {
        Self {
            to: Vec::new(),
            key: None,
            configuration_ids: Vec::new(),
            rate_per_second: 10.0,
            repeat_share: 0.05,
            concurrency: 64,
            timeout_ms: 1_000,
            limit: None,
            dispatch: false,
            default_flow_id: None,
        }
    }
}

impl DecisionSettings {
    /// All that is impossible, one sentence each.
    pub(crate) fn problems(&self) -> Vec<String> {
        let is_address =
            |to: &String| reqwest::Url::parse(to).is_ok_and(|url| ["http", "https"].contains(&url.scheme()));
        let addresses = (1..=16).contains(&self.to.len()) && self.to.iter().all(is_address);
        let rate = self.rate_per_second;
        [
            (addresses, "to must hold 1 to 16 http or https addresses".to_owned()),
            (
                (1..=100).contains(&self.configuration_ids.len()),
                "configurationIds must hold 1 to 100 ids".to_owned(),
            ),
            (rate > 0.0 && rate <= 20_000.0, format!("ratePerSecond {rate} must be above 0, at most 20000")),
            (
                (0.0..=1.0).contains(&self.repeat_share),
                format!("repeatShare {} must be from 0 to 1", self.repeat_share),
            ),
            (
                (1..=1_000).contains(&self.concurrency),
                format!("concurrency {} must be 1 to 1000", self.concurrency),
            ),
            (
                (1..=60_000).contains(&self.timeout_ms),
                format!("timeoutMs {} must be 1 to 60000", self.timeout_ms),
            ),
        ]
        .into_iter()
        .filter(|(allowed, _)| !allowed)
        .map(|(_, problem)| problem)
        .collect()
    }
}
