//! Campaign windows → dial decisions.

pub mod again;
pub mod evidence;
pub mod judgement;
mod last_known;
mod lookup;
pub mod pacing;
pub mod proportional;
pub mod rules;

use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, DialAnswer, OWN_RATES, ShadowAnswer};
use crate::model::decision::{Action, Decision, DecisionId, Loop, Mode, Policy};
use crate::model::dial_rate::Limits;
use crate::model::settings::DialPolicy;
use crate::pipeline::json::Verbatim;
use crate::pipeline::{Declaration, Outputs, Record, Stage, Step, Waking, latest_possible};
use crate::role::Role;
use crate::topics;

use judgement::{Answered, Around, Judgement, Lacking, judge};
pub use lookup::{InForce, Lookup, in_force};

use last_known::LastKnown;
use rules::Rules;

pub static DECLARATION: Declaration = Declaration {
    name: "dialing",
    description: "decides the dial rate of each campaign",
    input: &topics::CAMPAIGN_WINDOWS,
    outputs: &[&topics::DIAL_DECISIONS],
    changelog: &topics::DIALING_CHANGELOG,
    state_version: 3,
    lateness: Duration::from_secs(300),
};

/// Beside the windows it looks up what is set and which groups on the statistics' way are behind.
pub static ROLE: Role = Role {
    reads: &[&topics::CAMPAIGN_WINDOWS, &topics::SETTINGS, &topics::LAG_STATUS],
    ..DECLARATION.role()
};

/// Ticks after which a decision must not be applied any more, and statistics
/// are too old to dial up on (`docs/dial.md`).
const TICKS_OF_LIFE: u32 = 2;
/// Ticks without a window after which that is said.
const TICKS_TO_SILENCE: u32 = 2;

/// Windows in a row without counts after which they are not to be expected.
const WINDOWS_WITHOUT_COUNTS: u8 = 2;

/// See [`DECLARATION`].
pub struct Dialing {
    mode: Mode,
    rules: Rules,
    /// Names of the configuration's rule and its shadow.
    names: (Policy<'static>, Option<Policy<'static>>),
    tick: Duration,
    life: Duration,
    lookup: Arc<dyn Lookup>,
}

impl Dialing {
    /// `tick` is the time between two observations of a campaign.
    pub fn new(mode: Mode, tick: Duration, rules: Rules, lookup: Arc<dyn Lookup>) -> Self {
        let names = (rules.named(rules.policy, tick), rules.shadow.map(|shadow| rules.named(shadow, tick)));
        Self { mode, rules, names, tick, life: tick.saturating_mul(TICKS_OF_LIFE), lookup }
    }

    /// The rules for a campaign now, and how they are named.
    fn in_force(&self, campaign_id: &str) -> (u64, Rules, Policy<'_>, Option<Policy<'_>>) {
        let set = self.lookup.settings(campaign_id);
        let rules = self.rules.with(&set.settings);
        if rules == self.rules {
            let (live, shadow) = &self.names;
            return (set.revision, rules, live.by_reference(), shadow.as_ref().map(Policy::by_reference));
        }
        let named = |policy| rules.named(policy, self.tick);
        (set.revision, rules, named(rules.policy), rules.shadow.map(named))
    }

    fn send(
        &self,
        state: &mut State,
        taken: Taken<'_, impl Serialize, impl Serialize>,
        outputs: &mut Outputs,
    ) {
        let Taken { window, around, .. } = taken;
        let (revision, rules, policy, shadow) = self.in_force(taken.key);
        if let (true, Some(news)) = (rules.have_pacing() || state.pacing.is_some(), taken.news) {
            rules.pacing.take_in(state.pacing.get_or_insert_default(), news);
        }
        let occasion = Occasion { window, seen: taken.news, around, without_counts: state.without_counts };
        let judged = occasion.judge(rules.policy, &rules, state.pacing.as_deref());
        let beside = rules.shadow.map(|policy| occasion.judge(policy, &rules, state.pacing.as_deref()));
        let was_stale = std::mem::replace(&mut state.is_stale, judged.reason == evidence::STALE);
        let reason = match judged.reason {
            evidence::STALE if was_stale => evidence::STILL_STALE,
            reason => reason,
        };
        let dial_rate = judged.chain.value();
        let action = if dial_rate == window.dial_rate { Action::Hold } else { Action::SetDialRate };
        let mut own_rates = state.own.clone();
        own_rates.retain(|rate| *rate != window.dial_rate);
        state.decided(dial_rate);
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
                parameters: DialAnswer {
                    previous_dial_rate: window.dial_rate,
                    dial_rate,
                    chain: Some(judged.chain),
                    holds: taken.holds,
                    own_rates,
                    shadow: beside.zip(shadow).map(|(judged, policy)| shadow_answer(judged, &policy)),
                    memory: taken.memory,
                },
                inputs: taken.inputs,
                policy,
                settings_revision: revision,
                cause_ids: taken.cause_ids,
                expires_at: taken.expires_at,
            },
        );
    }

    /// What speaks against a higher rate beside the rule.
    fn around(&self, state: &State, window: &CampaignWindow<'_>, at: Timestamp) -> (Around, Vec<String>) {
        let is_late = at > window.observed_at.plus(self.life);
        let other_writer = state.is_foreign(self.mode, window.dial_rate);
        let attempts_used_up = self.lookup.attempts_used_up(&window.campaign_id);
        let lagging = self.lookup.lagging(at);
        let is_lagging = !lagging.is_empty();
        let holds = [
            (is_late, judgement::STATISTICS_LATE),
            (other_writer, judgement::OTHER_WRITER),
            (attempts_used_up, judgement::ATTEMPTS_USED_UP),
        ];
        let holds = holds.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name.to_owned());
        let lagging = lagging.into_iter().map(|group| format!("{}:{group}", judgement::LAG_ERROR));
        (
            Around { evidence: None, is_late, is_lagging, other_writer, attempts_used_up },
            holds.chain(lagging).collect(),
        )
    }
}

/// What a policy is asked about.
struct Occasion<'w> {
    window: &'w CampaignWindow<'w>,
    /// What the window counts, where it says anything new.
    seen: Option<&'w pacing::Observation>,
    around: Around,
    without_counts: u8,
}

impl Occasion<'_> {
    fn judge(&self, policy: DialPolicy, rules: &Rules, memory: Option<&pacing::State>) -> Judgement {
        let window = self.window;
        let limits = Limits { min: window.min_dial_rate, max: window.max_dial_rate };
        let without = |lacking, reason| (Answered::none(window.dial_rate, reason), Some(lacking));
        let (answered, evidence) = match (self.around.evidence, policy) {
            (Some(Lacking::AnyNews), _) => without(Lacking::AnyNews, evidence::STALE),
            (Some(lacking), _) => without(lacking, evidence::NO_DATA),
            (None, DialPolicy::Proportional) if evidence::has_no_sample(window) => {
                without(Lacking::News, evidence::NO_DATA)
            }
            (None, DialPolicy::Proportional) => {
                let (rule, mean) = (&rules.proportional, window.mean_answer_rate);
                (Answered::by_proportional(rule, mean, window.dial_rate, limits), None)
            }
            (None, DialPolicy::Pacing) => match (self.seen, memory) {
                (Some(seen), Some(memory)) => (Answered::by_pacing(&rules.pacing, memory, seen), None),
                _ if self.without_counts >= WINDOWS_WITHOUT_COUNTS => {
                    without(Lacking::Counts, evidence::COUNTS_UNKNOWN)
                }
                _ => without(Lacking::News, evidence::NO_DATA),
            },
        };
        judge(answered, window.dial_rate, limits, Around { evidence, ..self.around })
    }
}

fn shadow_answer(judged: Judgement, policy: &Policy<'_>) -> ShadowAnswer {
    ShadowAnswer {
        policy: policy.name.clone().into_owned(),
        policy_version: policy.version,
        policy_hash: policy.hash.clone().into_owned(),
        dial_rate: judged.chain.value(),
        reason: judged.reason.to_owned(),
        chain: judged.chain,
    }
}

/// A decision about to be taken.
struct Taken<'a, I, C> {
    key: &'a str,
    window: &'a CampaignWindow<'a>,
    news: Option<&'a pacing::Observation>,
    around: Around,
    holds: Vec<String>,
    memory: Option<serde_json::Value>,
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
    /// What `pacing` goes by, where it decides or has decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pacing: Option<Box<pacing::State>>,
    /// Rates decided last, oldest first.
    #[serde(default)]
    own: ArrayVec<f64, OWN_RATES>,
    /// Windows in a row that said something new and counted nothing, up to as many as matter.
    #[serde(default)]
    without_counts: u8,
}

impl State {
    fn decided(&mut self, dial_rate: f64) {
        if self.own.is_full() {
            self.own.remove(0);
        }
        self.own.push(dial_rate);
    }

    /// Whether the campaign has a rate that it neither had before nor got from here.
    fn is_foreign(&self, mode: Mode, dial_rate: f64) -> bool {
        let is_same = |known: f64| (known - dial_rate).abs() < 0.005;
        let ours = mode == Mode::Live && self.own.iter().any(|own| is_same(*own));
        !ours && self.last.as_ref().is_some_and(|last| !is_same(last.dial_rate()))
    }
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
        let memory = state.told();
        let (around, holds) = self.around(state, &window, record.at);
        let lacking = evidence::lacking(&window, self.tick, observed_at);
        let seen = evidence::observation(&window);
        if lacking.is_none() {
            let without = state.without_counts.saturating_add(1).min(WINDOWS_WITHOUT_COUNTS);
            state.without_counts = if seen.is_some() { 0 } else { without };
        }
        state.observed_at = Some(observed_at);
        state.last.get_or_insert_default().know(&window);
        state.due = Some(observed_at.plus(self.tick.saturating_mul(TICKS_TO_SILENCE)));
        let taken = Taken {
            key: record.key,
            window: &window,
            news: seen.as_ref().filter(|_| lacking.is_none()),
            around: Around { evidence: lacking, ..around },
            holds,
            memory,
            event_time: observed_at,
            at: record.at,
            expires_at: observed_at.plus(self.life),
            // As it was read: cheaper than writing it again, and to the letter.
            inputs: Verbatim::new(record.value),
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
        let lacking = evidence::lacking(&window, self.tick, waking.time);
        let lacking = if stale <= waking.time { lacking } else { Some(Lacking::News) };
        state.due = Some(if stale <= waking.time { waking.time.plus(patience) } else { stale });
        let (around, holds) = self.around(state, &window, waking.at);
        let taken = Taken {
            key: waking.key,
            window: &window,
            news: None,
            around: Around { evidence: lacking, ..around },
            holds,
            memory: None,
            event_time: waking.time,
            at: waking.at,
            // Where more is on its way, that says what is to be done.
            expires_at: if waking.by_clock { waking.at } else { waking.time }.plus(self.life),
            inputs: &window,
            cause_ids: [(); 0],
        };
        self.send(state, taken, outputs);
        true
    }
}
