//! One campaign of a scenario.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use super::{Checker, MAX_AGENTS, MAX_DIAL_RATE};

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
    /// From when to when every second agent is away, a call begun being finished first.
    pub half_away: Option<(u64, u64)>,
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
            half_away: None,
        }
    }
}

impl CampaignScenario {
    pub(super) fn find_problems(&self, problems: &mut Vec<String>) {
        let mut checker = Checker { kind: "campaign", name: &self.name, problems };
        checker.check_name_and_id(&self.id);
        let mut check = |allowed: bool, field: &str, value: &dyn Debug, rule: &str| {
            checker.check(allowed, field, value, rule);
        };
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
            self.half_away.is_none_or(|(from, to)| from < to && to <= 604_800),
            "half_away",
            &self.half_away,
            "[from, to] in seconds, from before to, at most 604800",
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
