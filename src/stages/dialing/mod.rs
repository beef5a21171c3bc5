//! Campaign windows → dial decisions.

pub mod limits;
pub mod pacing;
pub mod proportional;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::flow::{Declaration, Outputs, Record, Stage, Step};
use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, DialParameters};
use crate::model::decision::{Action, Decision, DecisionId, Loop, Mode, Policy};
use crate::topics;

use limits::Limits;
use proportional::{Answer, Proportional};

pub static DECLARATION: Declaration = Declaration {
    name: "dialing",
    description: "decides the dial rate of each campaign",
    input: &topics::CAMPAIGN_WINDOWS,
    outputs: &[&topics::DIAL_DECISIONS],
    changelog: &topics::DIALING_CHANGELOG,
    state_version: 1,
    lateness: Duration::from_secs(300),
};

/// Ticks after which a decision must not be applied any more, and statistics
/// are too old to dial up on (`docs/dial.md`).
const TICKS_OF_LIFE: u32 = 2;

/// See [`DECLARATION`].
pub struct Dialing {
    mode: Mode,
    rule: Proportional,
    policy: Policy<'static>,
    life: Duration,
}

impl Dialing {
    /// `tick` is the time between two observations of a campaign.
    pub fn new(mode: Mode, tick: Duration, rule: Proportional) -> Self {
        let policy = Policy::new(proportional::NAME, proportional::VERSION, &rule);
        Self { mode, rule, policy, life: tick.saturating_mul(TICKS_OF_LIFE) }
    }

    fn decide(&self, window: &CampaignWindow<'_>, at: Timestamp) -> Answer {
        let limits = Limits { min: window.min_dial_rate, max: window.max_dial_rate };
        let answer = self.rule.decide(window.mean_answer_rate, window.dial_rate, limits);
        let late = at > window.observed_at.plus(self.life);
        match answer {
            Answer::Set { dial_rate, .. } if late && dial_rate > window.dial_rate => {
                Answer::Hold { reason: "statistics_late" }
            }
            answer => answer,
        }
    }
}

/// What is kept per campaign.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// Sequence of the last decision.
    sequence: u64,
    /// Newest window decided on.
    #[serde(default)]
    observed_at: Option<Timestamp>,
}

impl Stage for Dialing {
    type Input<'a> = CampaignWindow<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i CampaignWindow<'_>) -> &'i str {
        &input.campaign_id
    }

    fn event_time(input: &CampaignWindow<'_>) -> Timestamp {
        input.observed_at
    }

    fn step(
        &self,
        record: &Record<'_>,
        state: &mut State,
        window: CampaignWindow<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        if state.observed_at.is_some_and(|newest| window.observed_at <= newest) {
            return Step::NoOp("window_not_newer");
        }
        state.sequence += 1;
        state.observed_at = Some(window.observed_at);
        let (action, reason, dial_rate) = match self.decide(&window, record.at) {
            Answer::Set { dial_rate, reason } => (Action::SetDialRate, reason, dial_rate),
            Answer::Hold { reason } => (Action::Hold, reason, window.dial_rate),
        };
        let observed_at = window.observed_at;
        // The window goes in as it was read: cheaper than writing it again, and to the letter.
        let inputs: &RawValue = serde_json::from_str(record.value).expect("the window was read from it");
        outputs.send(
            &topics::DIAL_DECISIONS,
            record.key,
            &Decision {
                decision_id: DecisionId::derive(Loop::Dial, record.key, state.sequence, observed_at),
                sequence: state.sequence,
                r#loop: Loop::Dial,
                key: record.key.into(),
                mode: self.mode,
                decided_at: record.at,
                event_time: observed_at,
                action,
                reason: reason.into(),
                parameters: DialParameters { previous_dial_rate: window.dial_rate, dial_rate },
                inputs,
                policy: self.policy.by_reference(),
                settings_revision: 0,
                cause_ids: [record.position],
                expires_at: observed_at.plus(self.life),
            },
        );
        Step::Applied
    }
}
