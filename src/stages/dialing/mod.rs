//! Campaign windows → dial decisions.

pub mod evidence;
mod last_known;
pub mod limits;
pub mod pacing;
pub mod proportional;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, DialParameters};
use crate::model::decision::{Action, Decision, DecisionId, Loop, Mode, Policy};
use crate::pipeline::{Declaration, Outputs, Record, Stage, Step, Waking, latest_possible};
use crate::role::Role;
use crate::topics;

use last_known::LastKnown;
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

pub static ROLE: Role = DECLARATION.role();

/// Ticks after which a decision must not be applied any more, and statistics
/// are too old to dial up on (`docs/dial.md`).
const TICKS_OF_LIFE: u32 = 2;
/// Ticks without a window after which that is said.
const TICKS_TO_SILENCE: u32 = 2;

/// See [`DECLARATION`].
pub struct Dialing {
    mode: Mode,
    rule: Proportional,
    policy: Policy<'static>,
    tick: Duration,
    life: Duration,
}

/// What a decision depends on beside its inputs.
#[derive(Serialize)]
struct Parameters {
    #[serde(flatten)]
    rule: Proportional,
    tick_ms: u64,
}

/// What decisions under this rule name, `tick` being the time between two observations.
pub fn policy(rule: Proportional, tick: Duration) -> Policy<'static> {
    let parameters = Parameters { rule, tick_ms: u64::try_from(tick.as_millis()).unwrap_or(u64::MAX) };
    Policy::new(proportional::NAME, proportional::VERSION, &parameters)
}

impl Dialing {
    /// `tick` is the time between two observations of a campaign.
    pub fn new(mode: Mode, tick: Duration, rule: Proportional) -> Self {
        Self { mode, rule, policy: policy(rule, tick), tick, life: tick.saturating_mul(TICKS_OF_LIFE) }
    }

    fn judge(&self, window: &CampaignWindow<'_>, time: Timestamp) -> Answer {
        let limits = Limits { min: window.min_dial_rate, max: window.max_dial_rate };
        evidence::judge(&self.rule, self.tick, window, time, window.dial_rate, limits)
    }

    fn decide(&self, window: &CampaignWindow<'_>, at: Timestamp) -> Answer {
        let answer = self.judge(window, window.observed_at);
        let late = at > window.observed_at.plus(self.life);
        match answer {
            Answer::Set { dial_rate, .. } if late && dial_rate > window.dial_rate => {
                Answer::Hold { reason: "statistics_late" }
            }
            answer => answer,
        }
    }

    fn send(
        &self,
        state: &mut State,
        taken: Taken<'_, impl Serialize, impl Serialize>,
        outputs: &mut Outputs,
    ) {
        let (action, reason, dial_rate) = match taken.answer {
            Answer::Set { dial_rate, reason } => (Action::SetDialRate, reason, dial_rate),
            Answer::Hold { reason } => (Action::Hold, reason, taken.dial_rate),
        };
        let was_stale = std::mem::replace(&mut state.is_stale, reason == evidence::STALE);
        let reason = if was_stale && state.is_stale { evidence::STILL_STALE } else { reason };
        state.sequence += 1;
        outputs.send(
            &topics::DIAL_DECISIONS,
            taken.key,
            &Decision {
                decision_id: DecisionId::derive(Loop::Dial, taken.key, state.sequence, taken.event_time),
                sequence: state.sequence,
                r#loop: Loop::Dial,
                key: taken.key.into(),
                mode: self.mode,
                decided_at: taken.at,
                event_time: taken.event_time,
                action,
                reason: reason.into(),
                parameters: DialParameters { previous_dial_rate: taken.dial_rate, dial_rate },
                inputs: taken.inputs,
                policy: self.policy.by_reference(),
                settings_revision: 0,
                cause_ids: taken.cause_ids,
                expires_at: taken.expires_at,
            },
        );
    }
}

/// A decision as it was taken.
struct Taken<'a, I, C> {
    key: &'a str,
    answer: Answer,
    dial_rate: f64,
    event_time: Timestamp,
    at: Timestamp,
    expires_at: Timestamp,
    inputs: I,
    cause_ids: C,
}

/// What is kept per campaign.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// Sequence of the last decision.
    sequence: u64,
    /// Newest window decided on.
    #[serde(default)]
    observed_at: Option<Timestamp>,
    /// The campaign as it was then, for when nothing more is heard of it.
    #[serde(default)]
    last: Option<LastKnown>,
    /// The last decision said that the statistics are stale.
    #[serde(default)]
    is_stale: bool,
    /// When something is to be said though no window comes.
    #[serde(default)]
    due: Option<Timestamp>,
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
        // One that a clock ahead has put there must not stand against those of its time.
        let newest = state.observed_at.filter(|newest| *newest <= latest_possible(record.at));
        if newest.is_some_and(|newest| window.observed_at <= newest) {
            return Step::NoOp("window_not_newer");
        }
        let observed_at = window.observed_at;
        state.observed_at = Some(observed_at);
        state.last.get_or_insert_default().know(&window);
        state.due = Some(observed_at.plus(self.tick.saturating_mul(TICKS_TO_SILENCE)));
        // The window goes in as it was read: cheaper than writing it again, and to the letter.
        let inputs: &RawValue = serde_json::from_str(record.value).expect("the window was read from it");
        let taken = Taken {
            key: record.key,
            answer: self.decide(&window, record.at),
            dial_rate: window.dial_rate,
            event_time: observed_at,
            at: record.at,
            expires_at: observed_at.plus(self.life),
            inputs,
            cause_ids: [record.position],
        };
        self.send(state, taken, outputs);
        Step::Applied
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(self.tick / 2)
    }

    fn due(&self, state: &State) -> Option<Timestamp> {
        state.due
    }

    /// No window has come.
    fn wake(&self, waking: &Waking<'_>, state: &mut State, outputs: &mut Outputs) -> bool {
        state.due = None;
        let (Some(last), Some(observed_at)) = (state.last.take(), state.observed_at) else {
            return false;
        };
        let is_changed = self.miss(waking, state, last.window(waking.key, observed_at), outputs);
        state.last = Some(last);
        is_changed
    }
}

impl Dialing {
    /// What is said where another window should have come; answers whether there is anything.
    fn miss(
        &self,
        waking: &Waking<'_>,
        state: &mut State,
        window: CampaignWindow<'_>,
        outputs: &mut Outputs,
    ) -> bool {
        let held = Duration::from_millis(waking.at.millis_since(waking.held_since).max(0).unsigned_abs());
        // While nobody looked, nothing was missed.
        let after = |ticks: Duration| waking.time.plus(ticks.saturating_sub(held));
        let silent = after(self.tick.saturating_mul(TICKS_TO_SILENCE));
        if silent > waking.time {
            state.due = Some(silent);
            return false;
        }
        let patience = evidence::patience(&window, self.tick);
        let stale = after(patience).max(evidence::changed_at(&window).plus(patience));
        let answer = match stale <= waking.time {
            true => self.judge(&window, waking.time),
            false => Answer::Hold { reason: evidence::NO_DATA },
        };
        state.due = Some(if stale <= waking.time { waking.time.plus(patience) } else { stale });
        let taken = Taken {
            key: waking.key,
            answer,
            dial_rate: window.dial_rate,
            event_time: waking.time,
            at: waking.at,
            // Where more is on its way, that says what is to be done.
            expires_at: if waking.by_clock { waking.at } else { waking.time }.plus(self.life),
            inputs: window,
            cause_ids: [(); 0],
        };
        self.send(state, taken, outputs);
        true
    }
}
