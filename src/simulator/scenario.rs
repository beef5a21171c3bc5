//! What a simulated organisation is made of: read from TOML, or the built-in one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Campaigns one organisation may have: bounds the work of a simulated second.
pub const MAX_CAMPAIGNS: usize = 10_000;
/// Agents one campaign may have.
pub const MAX_AGENTS: u32 = 10_000;
/// Lines per idle agent nothing may exceed.
pub const MAX_DIAL_RATE: f64 = 100.0;

/// A simulated organisation. As TOML: a list of `[[campaigns]]`, every field but
/// `name` optional.
///
/// ```
/// let scenario = trunkline::simulator::Scenario::from_toml(r#"
///     [[campaigns]]
///     name = "Renewals"
///     agents = 20
///     dial_rate = 1.5
///     answering = { kind = "drifting", start = 0.3, min = 0.1, max = 0.5, per_minute = 0.01 }
///
///     [[campaigns]]
///     name = "Jump"
///     answering = { kind = "steps", steps = [[0, 0.15], [7200, 0.40]] }
/// "#).unwrap();
/// assert_eq!(scenario.campaigns.len(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub campaigns: Vec<CampaignScenario>,
}

/// One campaign: who calls, who is called, and how the dialer is set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CampaignScenario {
    /// UUID; empty for one derived from the name, the same on every run.
    pub id: String,
    pub name: String,
    /// Agents on the campaign, at most 10 000.
    pub agents: u32,
    /// Lines dialled per idle agent at the start.
    pub dial_rate: f64,
    /// Limits of the dial rate, 0–100.
    pub min_dial_rate: f64,
    pub max_dial_rate: f64,
    /// How many of the called pick up.
    pub answering: Answering,
    /// Attempts the reported answer rate looks back on.
    pub answer_rate_attempts: usize,
    /// Mean talk time, lognormal.
    pub talk_seconds: f64,
    /// Deviation ÷ mean of the talk time; 0 makes all calls equally long.
    pub talk_variation: f64,
    /// Mean after-call work, exponential; 0 for none.
    pub wrap_up_seconds: f64,
    /// Mean time worked between breaks, exponential; 0 for no breaks.
    pub break_every_seconds: f64,
    /// Mean length of a break, lognormal.
    pub break_seconds: f64,
    /// Time from login to logout; a call begun is finished first.
    pub shift_seconds: u64,
    /// Time from a logout to the next login at the same desk.
    pub away_seconds: u64,
    /// The first logins are spread over this time.
    pub login_spread_seconds: u64,
}

/// Probability that a called person answers, over time. All rates are fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answering {
    /// Always the same; the platform then reports exactly this rate.
    Constant { rate: f64 },
    /// A random walk between reflecting bounds; `per_minute` is the deviation
    /// of the change over one minute.
    Drifting { start: f64, min: f64, max: f64, per_minute: f64 },
    /// `[second, rate]` pairs in order of time, each in force from its second on.
    Steps { steps: Vec<(u64, f64)> },
}

impl Default for CampaignScenario {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            agents: 20,
            dial_rate: 1.5,
            min_dial_rate: 0.5,
            max_dial_rate: 6.0,
            answering: Answering::Drifting { start: 0.3, min: 0.1, max: 0.6, per_minute: 0.008 },
            answer_rate_attempts: 200,
            talk_seconds: 180.0,
            talk_variation: 0.7,
            wrap_up_seconds: 30.0,
            break_every_seconds: 5_400.0,
            break_seconds: 600.0,
            shift_seconds: 28_800,
            away_seconds: 300,
            login_spread_seconds: 120,
        }
    }
}

impl Default for Scenario {
    /// Nine campaigns that differ in what makes dialling hard: few agents, long
    /// calls, a drifting or jumping answer rate, and one that never changes.
    fn default() -> Self {
        let drifting = |start, min, max, per_minute| Answering::Drifting { start, min, max, per_minute };
        let campaign = |name: &str, agents, answering| CampaignScenario {
            name: name.into(),
            agents,
            answering,
            ..Default::default()
        };
        Self {
            campaigns: vec![
                campaign("Renewals", 20, drifting(0.30, 0.12, 0.55, 0.010)),
                CampaignScenario {
                    talk_seconds: 95.0,
                    max_dial_rate: 8.0,
                    ..campaign("Appointment reminders", 12, drifting(0.22, 0.08, 0.40, 0.006))
                },
                CampaignScenario {
                    dial_rate: 1.0,
                    max_dial_rate: 4.0,
                    ..campaign("Collections early stage", 5, drifting(0.18, 0.06, 0.35, 0.008))
                },
                CampaignScenario {
                    talk_seconds: 240.0,
                    wrap_up_seconds: 45.0,
                    max_dial_rate: 5.0,
                    ..campaign("Win-back", 40, drifting(0.35, 0.20, 0.60, 0.006))
                },
                CampaignScenario {
                    talk_seconds: 150.0,
                    dial_rate: 2.0,
                    max_dial_rate: 10.0,
                    ..campaign("Customer survey", 80, drifting(0.15, 0.05, 0.30, 0.005))
                },
                // Around the target of the proportional policy, where its rate goes up and down.
                CampaignScenario {
                    max_dial_rate: 3.0,
                    ..campaign("Scheduled call-backs", 30, drifting(0.85, 0.70, 0.98, 0.020))
                },
                CampaignScenario {
                    max_dial_rate: 3.0,
                    ..campaign("Expiring contracts", 15, drifting(0.80, 0.65, 0.97, 0.020))
                },
                campaign("Constant half", 15, Answering::Constant { rate: 0.5 }),
                campaign(
                    "Morning and evening",
                    25,
                    Answering::Steps {
                        steps: vec![(0, 0.15), (7_200, 0.40), (21_600, 0.20), (36_000, 0.35), (50_400, 0.15)],
                    },
                ),
            ],
        }
        .with_ids()
    }
}

/// All that is wrong with a scenario, one sentence each.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("scenario: {}", .0.join("; "))]
pub struct ScenarioError(pub Vec<String>);

impl Scenario {
    /// Reads TOML and gives campaigns without an id theirs.
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
    /// All impossible values, each naming the campaign, the field and what is allowed.
    pub fn validate(&self) -> Result<(), ScenarioError> {
        let mut problems = Vec::new();
        if self.campaigns.is_empty() || self.campaigns.len() > MAX_CAMPAIGNS {
            problems.push(format!("1 to {MAX_CAMPAIGNS} campaigns are needed, not {}", self.campaigns.len()));
        }
        let mut ids = BTreeSet::new();
        for campaign in &self.campaigns {
            campaign.find_problems(&mut problems);
            if !ids.insert(&campaign.id) {
                problems.push(format!(
                    "campaign {:?}: id {} is used twice (equal names need ids of their own)",
                    campaign.name, campaign.id
                ));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(ScenarioError(problems)) }
    }

    /// Gives every campaign without an id the one its name stands for.
    pub fn with_ids(mut self) -> Self {
        for campaign in self.campaigns.iter_mut().filter(|campaign| campaign.id.is_empty()) {
            campaign.id = id_of_name(&campaign.name);
        }
        self
    }
}

/// A UUID that looks random (version 8, RFC 9562) and depends on the name alone.
fn id_of_name(name: &str) -> String {
    let digest = Sha256::digest(format!("campaign {name}").as_bytes());
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = 0x80 | bytes[6] & 0x0f;
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    Uuid::from_bytes(bytes).to_string()
}

impl CampaignScenario {
    fn find_problems(&self, problems: &mut Vec<String>) {
        let mut check = |allowed: bool, field: &str, value: &dyn std::fmt::Debug, rule: &str| {
            if !allowed {
                problems.push(format!("campaign {:?}: {field} = {value:?}, allowed is {rule}", self.name));
            }
        };
        check(!self.name.is_empty() && self.name.len() <= 200, "name", &self.name, "1 to 200 bytes of text");
        check(Uuid::try_parse(&self.id).is_ok(), "id", &self.id, "a UUID");
        check(self.agents <= MAX_AGENTS, "agents", &self.agents, "0 to 10000");
        let limits_ordered = self.min_dial_rate <= self.max_dial_rate;
        check(
            (0.0..=MAX_DIAL_RATE).contains(&self.max_dial_rate),
            "max_dial_rate",
            &self.max_dial_rate,
            "0 to 100",
        );
        check(
            self.min_dial_rate >= 0.0 && limits_ordered,
            "min_dial_rate",
            &self.min_dial_rate,
            "0 to max_dial_rate",
        );
        let within = (self.min_dial_rate..=self.max_dial_rate).contains(&self.dial_rate);
        check(within, "dial_rate", &self.dial_rate, "min_dial_rate to max_dial_rate");
        check(
            (1..=100_000).contains(&self.answer_rate_attempts),
            "answer_rate_attempts",
            &self.answer_rate_attempts,
            "1 to 100000",
        );
        check(
            (1.0..=86_400.0).contains(&self.talk_seconds),
            "talk_seconds",
            &self.talk_seconds,
            "1 to 86400",
        );
        check((0.0..=10.0).contains(&self.talk_variation), "talk_variation", &self.talk_variation, "0 to 10");
        for (field, value) in [
            ("wrap_up_seconds", self.wrap_up_seconds),
            ("break_every_seconds", self.break_every_seconds),
            ("break_seconds", self.break_seconds),
        ] {
            check((0.0..=604_800.0).contains(&value), field, &value, "0 to 604800");
        }
        check(
            (1..=604_800).contains(&self.shift_seconds),
            "shift_seconds",
            &self.shift_seconds,
            "1 to 604800",
        );
        check(self.away_seconds <= 604_800, "away_seconds", &self.away_seconds, "0 to 604800");
        check(
            self.login_spread_seconds <= 604_800,
            "login_spread_seconds",
            &self.login_spread_seconds,
            "0 to 604800",
        );
        check(
            self.answering.possible(),
            "answering",
            &self.answering,
            "rates from 0 to 1 with min <= start <= max, steps from second 0 in order of time",
        );
    }
}

impl Answering {
    fn possible(&self) -> bool {
        let fraction = |rate: f64| (0.0..=1.0).contains(&rate);
        match self {
            Self::Constant { rate } => fraction(*rate),
            Self::Drifting { start, min, max, per_minute } => {
                [*start, *min, *max, *per_minute].into_iter().all(fraction) && (*min..=*max).contains(start)
            }
            Self::Steps { steps } => {
                steps.first().is_some_and(|first| first.0 == 0)
                    && steps.len() <= 10_000
                    && steps.iter().all(|step| fraction(step.1))
                    && steps.windows(2).all(|pair| pair[0].0 < pair[1].0)
            }
        }
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
