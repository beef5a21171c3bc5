//! The policies that are compared, behind one interface.

use serde::Serialize;

use super::program::Program;
use super::worlds::TOLD_HANDLE_SECONDS;
use crate::model::Timestamp;
use crate::model::dial_rate::Limits;
use crate::stages::dialing::judgement::{Answered, Around, judge};
use crate::stages::dialing::pacing::{Observation, Pacing, State};
use crate::stages::dialing::proportional::{Answer, Proportional};
use simulator::{CallCounts, CampaignScenario, Snapshot};

/// What a policy sees of a campaign at a poll: counts are those since the poll before.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Window {
    /// Another one for each simulated day.
    pub campaign_id: String,
    pub observed_at: Timestamp,
    pub seconds: u64,
    pub attempts: u64,
    pub answers: u64,
    pub abandoned: u64,
    pub agents_idle: u32,
    pub agents_busy: u32,
    /// As the platform reports it, 0–1.
    pub answer_rate: f64,
    pub dial_rate: f64,
    pub min_dial_rate: f64,
    pub max_dial_rate: f64,
    /// Mean handle time the policy is told, seconds.
    pub handle_seconds: f64,
}

/// Simulated days begin at 08:00 UTC.
const START_MS: i64 = 1_767_340_800_000;

impl Window {
    pub(super) fn between(
        before: CallCounts,
        seen: &Snapshot,
        scenario: &CampaignScenario,
        now: u64,
        seconds: u64,
    ) -> Self {
        Self {
            campaign_id: scenario.id.clone(),
            observed_at: Timestamp::from_millis(START_MS + now as i64 * 1_000),
            seconds,
            attempts: seen.calls.attempts - before.attempts,
            answers: seen.calls.answers - before.answers,
            abandoned: seen.calls.abandoned - before.abandoned,
            agents_idle: seen.agents.idle,
            agents_busy: seen.agents.talking + seen.agents.wrapping_up,
            answer_rate: seen.answer_rate,
            dial_rate: seen.dial_rate,
            min_dial_rate: scenario.min_dial_rate,
            max_dial_rate: scenario.max_dial_rate,
            handle_seconds: TOLD_HANDLE_SECONDS,
        }
    }

    fn limits(&self) -> Limits {
        Limits { min: self.min_dial_rate, max: self.max_dial_rate }
    }

    /// As the rule takes it in.
    pub(super) fn observation(&self) -> Observation {
        Observation {
            at: self.observed_at,
            attempts: self.attempts,
            answers: self.answers,
            abandoned: self.abandoned,
            agents_idle: self.agents_idle,
            agents_busy: self.agents_busy,
            answer_rate: self.answer_rate,
            dial_rate: self.dial_rate,
            limits: self.limits(),
        }
    }
}

/// A policy at work on one campaign at a time.
pub(super) trait Pacer {
    /// A new day begins; nothing of the one before counts.
    fn begin(&mut self, campaign_id: &str);

    /// The rate from now on, in lines per idle agent; `None` leaves it.
    ///
    /// # Errors
    /// Those of a policy that is a program.
    fn decide(&mut self, window: &Window) -> anyhow::Result<Option<f64>>;

    /// For rules inside the dialer, which see every second.
    fn each_second(&mut self, now: u64, seen: &Snapshot, scenario: &CampaignScenario) -> Option<f64> {
        let _ = (now, seen, scenario);
        None
    }
}

/// A policy by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// One line per idle agent: what a dialer gives that never predicts.
    Progressive,
    Proportional,
    Adaptive,
    Pacing,
    /// A program that reads windows and writes rates.
    Program(String),
}

impl Named {
    pub(super) fn name(&self) -> &str {
        match self {
            Named::Progressive => "progressive",
            Named::Proportional => "proportional",
            Named::Adaptive => "adaptive",
            Named::Pacing => "pacing",
            Named::Program(command) => command,
        }
    }

    /// # Errors
    /// When a program cannot be started.
    pub(super) fn start(&self) -> anyhow::Result<Box<dyn Pacer>> {
        Ok(match self {
            Named::Progressive => Box::new(Fixed),
            Named::Proportional => Box::new(SeedRule::default()),
            Named::Adaptive => Box::new(Adaptive::default()),
            Named::Pacing => Box::new(Live::default()),
            Named::Program(command) => Box::new(Program::start(command)?),
        })
    }
}

impl std::str::FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = [Named::Progressive, Named::Proportional, Named::Adaptive, Named::Pacing];
        known.into_iter().find(|policy| policy.name() == text).ok_or_else(|| {
            format!("no policy {text:?}; there are progressive, proportional, adaptive and pacing")
        })
    }
}

struct Fixed;

impl Pacer for Fixed {
    fn begin(&mut self, _: &str) {}

    fn decide(&mut self, _: &Window) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }
}

#[derive(Default)]
struct SeedRule {
    rates: Vec<f64>,
}

impl Pacer for SeedRule {
    fn begin(&mut self, _: &str) {
        self.rates.clear();
    }

    fn decide(&mut self, window: &Window) -> anyhow::Result<Option<f64>> {
        if self.rates.len() == 10 {
            self.rates.remove(0);
        }
        self.rates.push(window.answer_rate);
        let mean = self.rates.iter().sum::<f64>() / self.rates.len() as f64;
        match Proportional::default().decide(mean, window.dial_rate, window.limits()) {
            Answer::Set { dial_rate, .. } => Ok(Some(dial_rate)),
            Answer::Hold { .. } => Ok(None),
        }
    }
}

/// The rule that `trunkline run` decides by.
#[derive(Default)]
pub(super) struct Live {
    pacing: Pacing,
    state: State,
}

impl Live {
    /// With these numbers; the handle time is what it is told.
    pub(super) fn with(pacing: Pacing) -> Self {
        Self { pacing, state: State::default() }
    }
}

impl Pacer for Live {
    fn begin(&mut self, _: &str) {
        self.state = State::default();
    }

    fn decide(&mut self, window: &Window) -> anyhow::Result<Option<f64>> {
        let rule = Pacing { handle_seconds: window.handle_seconds, ..self.pacing };
        let seen = window.observation();
        rule.take_in(&mut self.state, &seen);
        let answered = Answered::by_pacing(&rule, &self.state, &seen);
        Ok(Some(judge(answered, seen.dial_rate, seen.limits, Around::default()).chain.value()))
    }
}

/// For comparison only: a level that is moved every 15 s by the agents that are ready less the
/// calls that wait, and halved while the day's share of abandoned calls is over its limit.
#[derive(Default)]
struct Adaptive {
    level: f64,
    limit_asked: bool,
}

const ADAPTIVE_SECONDS: u64 = 15;
const ADAPTIVE_CALLS: u64 = 50;
const ADAPTIVE_LIMIT: f64 = 0.03;

impl Pacer for Adaptive {
    fn begin(&mut self, _: &str) {
        *self = Self { level: 1.0, limit_asked: false };
    }

    fn decide(&mut self, _: &Window) -> anyhow::Result<Option<f64>> {
        Ok(None)
    }

    fn each_second(&mut self, now: u64, seen: &Snapshot, scenario: &CampaignScenario) -> Option<f64> {
        if !now.is_multiple_of(ADAPTIVE_SECONDS) {
            return None;
        }
        let agents = f64::from((seen.agents.idle + seen.agents.talking).max(1));
        self.level *= 1.0 + (f64::from(seen.agents.idle) - seen.waiting as f64) / agents;
        self.limit_asked |= seen.calls.answers > ADAPTIVE_CALLS;
        if self.limit_asked && seen.calls.abandoned as f64 > ADAPTIVE_LIMIT * seen.calls.answers as f64 {
            self.level *= 0.5;
        }
        self.level = self.level.clamp(scenario.min_dial_rate, scenario.max_dial_rate);
        Some(self.level)
    }
}
