//! What a simulated organisation is made of: read from TOML, or the built-in one.

mod built_in;
mod campaign;
mod consumer_group;
mod flow;
mod queue;

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use campaign::{Answering, CampaignScenario};
pub use consumer_group::{ConsumerGroupScenario, EventTypeScenario};
pub use flow::{FlowScenario, VersionScenario, VersionStatus};
pub(super) use flow::{MAX_VERSIONS, possible_version_id};
pub use queue::QueueScenario;

/// Campaigns one organisation may have: bounds the work of a simulated second.
pub(crate) const MAX_CAMPAIGNS: usize = 10_000;
/// Flows, queues and consumer groups, each, one organisation may have.
pub(crate) const MAX_FLOWS: usize = 1_000;
/// Agents one campaign or queue may have.
pub(crate) const MAX_AGENTS: u32 = 10_000;
/// Lines per idle agent nothing may exceed.
pub(crate) const MAX_DIAL_RATE: f64 = 100.0;

/// A simulated organisation. As TOML: lists of `[[campaigns]]`, `[[flows]]`, `[[queues]]`
/// and `[[consumer_groups]]`, every field but `name` optional, campaigns needed.
///
/// ```
/// let scenario = simulator::Scenario::from_toml(r#"
///     [[campaigns]]
///     name = "Renewals"
///     agents = 20
///     dial_rate = 1.5
///     answering = { kind = "drifting", start = 0.3, min = 0.1, max = 0.5, per_minute = 0.01 }
///
///     [[campaigns]]
///     name = "Jump"
///     answering = { kind = "steps", steps = [[0, 0.15], [7200, 0.40]] }
///
///     [[flows]]
///     name = "Main menu"
///     interactions_per_minute = 45.0
///     queue = "Service"
///     versions = [
///         { id = "1.0", status = "published", error_rate = 0.01 },
///         { id = "2.0", status = "active", error_rate = 0.02 },
///     ]
///
///     [[queues]]
///     name = "Service"
/// "#).unwrap();
/// assert_eq!((scenario.campaigns.len(), scenario.flows.len()), (2, 1));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub campaigns: Vec<CampaignScenario>,
    #[serde(default)]
    pub flows: Vec<FlowScenario>,
    #[serde(default)]
    pub queues: Vec<QueueScenario>,
    #[serde(default)]
    pub consumer_groups: Vec<ConsumerGroupScenario>,
}

/// All that is wrong with a scenario, one sentence each.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("scenario: {}", .0.join("; "))]
pub struct ScenarioError(pub Vec<String>);

impl Scenario {
    /// An organisation that has campaigns and nothing else.
    pub fn of_campaigns(campaigns: Vec<CampaignScenario>) -> Self {
        Self { campaigns, flows: Vec::new(), queues: Vec::new(), consumer_groups: Vec::new() }
    }

    /// Reads TOML and gives everything without an id its own.
    ///
    /// # Errors
    /// Syntax, unknown fields, or all impossible values in one go.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Scenario =
            toml::from_str(text).map_err(|error| ScenarioError(vec![error.to_string()]))?;
        let scenario = scenario.with_ids();
        scenario.validate()?;
        Ok(scenario)
    }

    /// # Errors
    /// All impossible values, each naming the thing, the field and what is allowed.
    pub fn validate(&self) -> Result<(), ScenarioError> {
        let mut problems = Vec::new();
        if self.campaigns.is_empty() || self.campaigns.len() > MAX_CAMPAIGNS {
            problems.push(format!("1 to {MAX_CAMPAIGNS} campaigns are needed, not {}", self.campaigns.len()));
        }
        for (kind, held) in [
            ("flows", self.flows.len()),
            ("queues", self.queues.len()),
            ("consumer groups", self.consumer_groups.len()),
        ] {
            if held > MAX_FLOWS {
                problems.push(format!("at most {MAX_FLOWS} {kind} are allowed, not {held}"));
            }
        }
        self.campaigns.iter().for_each(|campaign| campaign.find_problems(&mut problems));
        self.flows.iter().for_each(|flow| flow.find_problems(&self.queues, &mut problems));
        self.queues.iter().for_each(|queue| queue.find_problems(&mut problems));
        self.consumer_groups.iter().for_each(|group| group.find_problems(&mut problems));
        find_doubles(
            "consumer group",
            self.consumer_groups.iter().map(|it| (&it.name, &it.name)),
            &mut problems,
        );
        find_doubles("campaign", self.campaigns.iter().map(|it| (&it.id, &it.name)), &mut problems);
        find_doubles("flow", self.flows.iter().map(|it| (&it.id, &it.name)), &mut problems);
        find_doubles("queue", self.queues.iter().map(|it| (&it.id, &it.name)), &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(ScenarioError(problems)) }
    }

    /// Gives everything without an id the one its name stands for.
    pub fn with_ids(mut self) -> Self {
        let fill = |kind: &str, id: &mut String, name: &str| {
            if id.is_empty() {
                *id = id_of_name(kind, name);
            }
        };
        self.campaigns.iter_mut().for_each(|it| fill("campaign", &mut it.id, &it.name));
        self.flows.iter_mut().for_each(|it| fill("flow", &mut it.id, &it.name));
        self.queues.iter_mut().for_each(|it| fill("queue", &mut it.id, &it.name));
        self
    }
}

/// A UUID that looks random (version 8, RFC 9562) and depends on the name alone.
pub(super) fn id_of_name(kind: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("{kind} {name}").as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    Uuid::from_bytes(bytes).to_string()
}

fn find_doubles<'a>(
    kind: &str,
    things: impl Iterator<Item = (&'a String, &'a String)>,
    problems: &mut Vec<String>,
) {
    let mut ids = BTreeSet::new();
    for (id, name) in things {
        if !ids.insert(id) {
            problems
                .push(format!("{kind} {name:?}: id {id} is used twice (equal names need ids of their own)"));
        }
    }
}

/// Collects what is wrong about one thing.
struct Checker<'a> {
    kind: &'static str,
    name: &'a str,
    problems: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn check(&mut self, allowed: bool, field: &str, value: &dyn Debug, rule: &str) {
        if !allowed {
            let Self { kind, name, .. } = self;
            self.problems.push(format!("{kind} {name:?}: {field} = {value:?}, allowed is {rule}"));
        }
    }

    fn check_name_and_id(&mut self, id: &str) {
        let name = self.name;
        self.check(!name.is_empty() && name.len() <= 200, "name", &name, "1 to 200 bytes of text");
        self.check(Uuid::try_parse(id).is_ok(), "id", &id, "a UUID");
    }

    fn check_fraction(&mut self, field: &str, value: f64) {
        self.check((0.0..=1.0).contains(&value), field, &value, "0 to 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_scenario_is_valid_and_survives_toml() {
        let scenario = Scenario::default();
        scenario.validate().unwrap();
        let text = toml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::from_toml(&text).unwrap(), scenario);
    }

    #[test]
    fn a_name_is_enough_and_its_id_is_stable() {
        let text = "[[campaigns]]\nname = \"A\"\n[[campaigns]]\nname = \"B\"\nagents = 3";
        let scenario = Scenario::from_toml(text).unwrap();
        assert_eq!(scenario, Scenario::from_toml(text).unwrap());
        assert_ne!(scenario.campaigns[0].id, scenario.campaigns[1].id);
        assert_eq!(scenario.campaigns[1].agents, 3);
    }

    #[test]
    fn all_problems_are_told_in_one_go() {
        let text = r#"
            [[campaigns]]
            name = "A"
            agents = 20000
            dial_rate = 9.0
            talk_seconds = nan
            answering = { kind = "drifting", start = 0.9, min = 0.1, max = 0.5, per_minute = 0.01 }
            [[campaigns]]
            name = "A"
        "#;
        let ScenarioError(problems) = Scenario::from_toml(text).unwrap_err();
        for field in ["agents", "dial_rate", "talk_seconds", "answering", "used twice"] {
            assert!(problems.iter().any(|problem| problem.contains(field)), "{field}: {problems:#?}");
        }
        assert_eq!(problems.len(), 5, "{problems:#?}");
        assert!(Scenario::from_toml("[[campaigns]]\nname = \"A\"\nagent = 1").is_err());
    }
}
