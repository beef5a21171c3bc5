//! Progressive delivery of flows (`docs/delivery.md`): what is ordered, what both flows met in a
//! minute, and what a decision of the loop says.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::chain::Chain;

/// Scopes of orders begin so; the routing configuration's id follows. Only the commands of a canary
/// write them: each is one transaction with what it changes at the counters of routing.
pub const CANARY: &str = "canary/";

/// Steps a canary has at most.
pub const MAX_STEPS: usize = 20;
/// Longest time a step may be asked to last, minutes.
pub const MAX_HOLD_MINUTES: u32 = 7 * 24 * 60;
/// Parts of a share: two decimals of a percent.
const PARTS: f64 = 10_000.0;

/// What is asked of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CanaryRequest {
    Start,
    Abort,
    Promote,
}

/// The last word of people about the canary of a routing configuration: the value of scope
/// `canary/<configurationId>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CanaryOrder {
    pub canary_id: String,
    pub request: CanaryRequest,
    /// The flow in force.
    pub control_id: String,
    /// The flow that is tried out.
    pub candidate_id: String,
    /// Shares of the candidate, rising, 0–1; the last one is 1.
    pub steps: Vec<f64>,
    /// Minutes that a step lasts at least.
    pub hold_minutes: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Version of the control that a promotion publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// Shares of a candidate as people write them: percent, rising, the last one 100.
#[derive(Clone, Debug, PartialEq)]
pub struct Steps(pub Vec<f64>);

impl Default for Steps {
    fn default() -> Self {
        Self(vec![0.01, 0.05, 0.2, 0.5, 1.0])
    }
}

impl Steps {
    /// From shares, 0–1.
    ///
    /// # Errors
    /// A sentence that says what steps are.
    pub fn new(shares: Vec<f64>) -> Result<Self, String> {
        let is_share = |share: &f64| {
            let parts = share * PARTS;
            let is_whole = (parts - parts.round()).abs() < 1e-6;
            is_whole && (*share == 1.0 || (0.01..=0.99).contains(share))
        };
        let rises = shares.windows(2).all(|pair| pair[0] < pair[1]);
        let fits = (2..=MAX_STEPS).contains(&shares.len()) && shares.last() == Some(&1.0);
        if fits && rises && shares.iter().all(is_share) {
            return Ok(Self(shares));
        }
        Err(format!(
            "steps are 2 to {MAX_STEPS} percentages that rise from 1 to 100, the last one 100, none between 99 and 100, \
             with two decimals at most, such as 1,5,20,50,100"
        ))
    }
}

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = |part: &str| part.trim().parse::<f64>().map(|percent| (percent * 100.0).round() / PARTS);
        let exact = |part: &str| part.trim().split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 2);
        let shares: Result<Vec<f64>, _> = text.split(',').map(read).collect();
        match shares {
            Ok(shares) if text.split(',').all(exact) => Self::new(shares),
            _ => Self::new(Vec::new()),
        }
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percents = self.0.iter().map(|share| (share * PARTS).round() / 100.0);
        let texts: Vec<String> = percents.map(|percent| percent.to_string()).collect();
        f.write_str(&texts.join(","))
    }
}

/// Which of the two flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arm {
    Control,
    Candidate,
}

/// What a canary hears, under the key of its routing configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CanaryFact<'a> {
    /// A complete minute of one of both flows.
    #[serde(borrow)]
    Minute(CanaryMinute<'a>),
    Ordered(Ordered),
    Share(SettledShare),
}

impl CanaryFact<'_> {
    pub fn configuration_id(&self) -> &str {
        match self {
            CanaryFact::Minute(minute) => &minute.configuration_id,
            CanaryFact::Ordered(ordered) => &ordered.configuration_id,
            CanaryFact::Share(settled) => &settled.configuration_id,
        }
    }
}

/// A complete minute of one flow of a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryMinute<'a> {
    #[serde(borrow)]
    pub configuration_id: Cow<'a, str>,
    #[serde(borrow)]
    pub canary_id: Cow<'a, str>,
    pub arm: Arm,
    /// The minute's beginning.
    pub minute: Timestamp,
    pub total: u64,
    pub errors: u64,
}

/// An order with who gave it. Sent with the transaction that carried out of it what could not wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ordered {
    pub configuration_id: String,
    pub order: CanaryOrder,
    /// Of the setting that says so.
    pub revision: u64,
    pub who: String,
    pub when: Timestamp,
}

/// What became of a share, sent with the transaction that wrote it: minutes before say nothing of the step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettledShare {
    pub configuration_id: String,
    pub canary_id: String,
    /// Of the candidate, 0–1. Shares of one canary rise, so it names the step.
    pub share: f64,
    /// Whether it is in force. If not it came too late, and is to be decided again.
    pub is_in_force: bool,
    pub when: Timestamp,
}

/// Interactions of one flow, `errors` of them errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    pub total: u64,
    pub errors: u64,
}

/// What is missing before the next step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// So many minutes of this step.
    Minutes(u32),
    /// So many interactions of the candidate.
    Interactions(u64),
    /// Certainty: the candidate's rate may be `excess` above the control's (its upper 95 % bound),
    /// and may be `allowed`.
    Certainty { excess: f64, allowed: f64 },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Missing::Minutes(1) => f.write_str("one more minute of this step is needed"),
            Missing::Minutes(minutes) => write!(f, "{minutes} more minutes of this step are needed"),
            Missing::Interactions(count) => {
                write!(f, "{count} more interactions of the candidate are needed")
            }
            Missing::Certainty { excess, allowed } => write!(
                f,
                "its error rate may be {:.1} points above the other's and only {:.1} are allowed",
                excess * 100.0,
                allowed * 100.0
            ),
        }
    }
}

/// A share as people read it: percent with two decimals at most.
pub fn share_in_percent(share: f64) -> String {
    format!("{} %", (share * PARTS).round() / 100.0)
}

/// Where a canary stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CanaryState {
    /// It is seen how the control does alone; the candidate gets nothing.
    Planned,
    /// At a step.
    Running,
    /// The candidate gets nothing any more.
    Aborted,
    /// The candidate has proven itself with everything.
    Done,
    /// Its content is about to be published.
    Promoting,
    /// It is published; the routing configuration is in force as it is written.
    Promoted,
}

impl CanaryState {
    pub const ALL: [CanaryState; 6] = [
        CanaryState::Planned,
        CanaryState::Running,
        CanaryState::Aborted,
        CanaryState::Done,
        CanaryState::Promoting,
        CanaryState::Promoted,
    ];

    pub fn name(self) -> &'static str {
        match self {
            CanaryState::Planned => "planned",
            CanaryState::Running => "running",
            CanaryState::Aborted => "aborted",
            CanaryState::Done => "done",
            CanaryState::Promoting => "promoting",
            CanaryState::Promoted => "promoted",
        }
    }

    /// Whether nothing comes of it any more.
    pub fn is_over(self) -> bool {
        matches!(self, CanaryState::Aborted | CanaryState::Promoted)
    }

    /// The state of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a decision of the loop was taken from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryInputs {
    /// The minute that led to it; absent where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minute: Option<Timestamp>,
    /// Both flows in that minute.
    pub control: Counts,
    pub candidate: Counts,
    /// Both flows at this step, with that minute.
    pub step_control: Counts,
    pub step_candidate: Counts,
    /// Minutes at this step that were evidence.
    pub step_minutes: u32,
    /// The control before that minute.
    pub control_before: Counts,
    /// What speaks against the candidate: the e-value, 1 says nothing.
    pub evidence: f64,
    /// The e-value that ends a canary.
    pub abort_at: f64,
    /// Minutes that a step lasts at least; absent in decisions of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_minutes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
    /// Scopes of maintenance windows and pauses that hold it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_by: Vec<String>,
    /// Who ordered it, and their words, where people did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_reason: Option<String>,
}

/// What a decision of the loop says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryParameters {
    pub canary_id: String,
    pub control_id: String,
    pub candidate_id: String,
    pub state: CanaryState,
    /// From 1; 0 before the first.
    pub step: u32,
    pub steps: Vec<f64>,
    /// Share of the candidate before and from now on, 0–1.
    pub previous_share: f64,
    pub share: f64,
    /// From the share that the rule goes on to, to the share decided.
    pub chain: Chain,
    /// Version of the control that a promotion publishes, where it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What was in force before a promotion, and what it publishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Publication {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    pub version: String,
}

/// What stands over a routing configuration while a canary has it: two flows and exact shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CanaryOverlay {
    pub canary_id: String,
    pub control_id: String,
    pub candidate_id: String,
    /// Of 10 000.
    pub candidate_parts: u32,
    /// Revision of the order.
    pub revision: i64,
}

impl CanaryOverlay {
    pub const PARTS: u32 = 10_000;

    /// A share as parts.
    pub fn parts_of(share: f64) -> u32 {
        // Between 0 and 1, so it fits.
        (share.clamp(0.0, 1.0) * PARTS).round() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_rise_to_everything() {
        assert_eq!("1,5,20,50,100".parse::<Steps>().unwrap(), Steps::default());
        assert_eq!("2.5, 50 ,100".parse::<Steps>().unwrap().to_string(), "2.5,50,100");
        for wrong in [
            "",
            "100",
            "1,5,20",
            "5,1,100",
            "0.5,100",
            "1,99.5,100",
            "1,1,100",
            "1.005,100",
            "a,100",
            "1,nan,100",
        ] {
            assert!(wrong.parse::<Steps>().is_err(), "{wrong}");
        }
        let many: Vec<String> = (1..=25).map(|step| step.to_string()).chain(["100".to_owned()]).collect();
        assert!(many.join(",").parse::<Steps>().is_err());
    }

    #[test]
    fn shares_are_whole_parts() {
        assert_eq!([0.0, 0.01, 0.025, 0.5, 1.0].map(CanaryOverlay::parts_of), [0, 100, 250, 5_000, 10_000]);
    }

    #[test]
    fn states_are_named_as_they_are_written() {
        for state in CanaryState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.name());
            assert_eq!(CanaryState::named(state.name()), Some(state));
        }
    }
}
