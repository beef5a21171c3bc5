//! Flow minutes → rollback decisions, and whether a rollback helped.

pub mod again;
pub mod attribution;
pub mod guard;
pub mod history;
pub mod rule;
#[cfg(test)]
mod tests;
mod timeline;
pub mod verification;
pub mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::decision::{Action, Loop, Mode, Policy, Position, Saying, Under};
use crate::model::flow::{FlowMinute, FlowVersions, MinuteSource};
use crate::model::outcome::{Outcome, OutcomeStatus};
use crate::model::rollback::RollbackParameters;
use crate::model::settings::MaintenanceWindow;
use crate::pipeline::{Declaration, Outputs, Record, Silence, Stage, Step, Waking, latest_possible};
use crate::role::Role;
use crate::topics::{self, RollbackDecision};

use guard::{Guard, Judgement, Observation, Surroundings};
use rule::Rule;
use verification::{Finding, Pending};

pub static DECLARATION: Declaration = Declaration {
    name: "rollback",
    description: "decides whether a flow's version is to be taken back, and whether that helped",
    input: &topics::FLOW_MINUTES,
    outputs: &[&topics::ROLLBACK_DECISIONS, &topics::OUTCOMES],
    changelog: &topics::ROLLBACK_CHANGELOG,
    state_version: 1,
    // A minute that is late for its flow is told by the flow's own state.
    lateness: Duration::from_secs(3_600),
};

/// Beside the minutes it looks up what is in force, what holds, and which rollbacks were refused.
pub static ROLE: Role = Role {
    reads: &[&topics::FLOW_MINUTES, &topics::FLOW_VERSIONS, &topics::SETTINGS, &topics::ROLLBACK_REFUSALS],
    ..DECLARATION.role()
};

/// A partition without minutes is waited for this long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Longest flow id and version, in bytes.
const NAME_LIMIT: usize = 512;

/// What the stage looks up beside its records. What it used is recorded in the decision.
pub trait Lookup: Send + Sync + 'static {
    /// The publish timeline of a flow, where it is known.
    fn versions(&self, flow_id: &str) -> Option<Arc<FlowVersions<'static>>>;

    /// Every maintenance window with its scope.
    fn windows(&self) -> Vec<(String, MaintenanceWindow)>;

    /// The newest decision about a flow that was refused or came too late, and how.
    fn refusal(&self, flow_id: &str) -> Option<Arc<Outcome>>;

    /// Greatest revision among the settings that were read.
    fn settings_revision(&self) -> u64;
}

/// Where each flow's minutes come from: one source at a time.
#[derive(Clone, Debug)]
pub struct Sources {
    /// Unless a flow is named in `polled`.
    pub usual: MinuteSource,
    pub polled: BTreeSet<String>,
}

impl Sources {
    fn of(&self, flow_id: &str) -> MinuteSource {
        if self.polled.contains(flow_id) { MinuteSource::Polled } else { self.usual }
    }
}

/// See [`DECLARATION`].
pub struct Rollback {
    mode: Mode,
    rule: Rule,
    policy: Policy<'static>,
    sources: Sources,
    lookup: Arc<dyn Lookup>,
}

impl Rollback {
    pub fn new(mode: Mode, rule: Rule, sources: Sources, lookup: Arc<dyn Lookup>) -> Self {
        Self { mode, rule, policy: named(&rule), sources, lookup }
    }

    /// Scopes of the windows that are open for the flow now, or were during the minute.
    fn maintenance(&self, minute: &FlowMinute<'_>, at: Timestamp) -> Vec<String> {
        let open = |window: &MaintenanceWindow| {
            window.is_about(&minute.flow_id)
                && (window.covers(at) || window.overlaps(minute.minute, self.rule.minute))
        };
        let windows = self.lookup.windows().into_iter();
        windows.filter(|(_, window)| open(window)).map(|(scope, _)| scope).collect()
    }

    fn decide(&self, occasion: Occasion<'_>, state: &mut State, judgement: Judgement, outputs: &mut Outputs) {
        state.sequence += 1;
        let under = Under {
            key: occasion.key,
            sequence: state.sequence,
            mode: self.mode,
            at: occasion.at,
            settings_revision: self.lookup.settings_revision(),
            causes: occasion.causes,
        };
        let decision = decision(under, judgement, &self.rule, self.policy.by_reference());
        if decision.action == Action::Rollback && self.mode == Mode::Live {
            let version = decision.inputs.flow_version.clone();
            let pending = Pending::new(decision.decision_id, state.sequence, version, decision.event_time);
            if let Some(before) = state.pending.replace(pending) {
                let finding = before.judge(&self.rule);
                self.conclude(occasion, &before, finding, outputs);
            }
        }
        outputs.send(&topics::ROLLBACK_DECISIONS, occasion.key, &decision);
    }

    fn conclude(&self, occasion: Occasion<'_>, pending: &Pending, finding: Finding, outputs: &mut Outputs) {
        outputs.send(
            &topics::OUTCOMES,
            occasion.key,
            &Outcome {
                decision_id: pending.decision_id,
                r#loop: Loop::Rollback,
                key: occasion.key.to_owned(),
                sequence: pending.sequence,
                status: finding.status,
                reason: finding.reason,
                attempts: 0,
                request: None,
                response: None,
                requested_at: None,
                finished_at: occasion.at,
                effect: None,
                not_before: None,
                waited: None,
            },
        );
    }

    /// A rollback that was refused is no longer decided, and will not be verified.
    fn hear(&self, flow_id: &str, state: &mut State) {
        let Some(pending) = &state.pending else { return };
        let refusal = self.lookup.refusal(flow_id);
        if let Some(refusal) = refusal.filter(|refusal| refusal.decision_id == pending.decision_id) {
            // What came too late was locked out for as long as it could be carried out.
            let locked = refusal.status == OutcomeStatus::Expired;
            state.guard.refused(pending.bad_version(), refusal.not_before, locked);
            state.pending = None;
        }
    }

    /// Whether a rollback decided before has helped.
    fn verify(
        &self,
        occasion: Occasion<'_>,
        state: &mut State,
        minute: &FlowMinute<'_>,
        in_force: bool,
        outputs: &mut Outputs,
    ) {
        let (Some(pending), Some(version)) = (&mut state.pending, state.guard.in_force()) else { return };
        let until = minute.minute.plus(self.rule.minute);
        pending.observe(version, until, in_force.then_some((minute.total, minute.errors)));
        let finding = pending.finding(&self.rule, until);
        if finding.is_none() && !pending.is_void(&self.rule, until) {
            return;
        }
        if let (Some(pending), Some(finding)) = (state.pending.take(), finding) {
            self.conclude(occasion, &pending, finding, outputs);
        }
    }
}

/// A rule as decisions name it.
pub fn named(rule: &Rule) -> Policy<'static> {
    Policy::new(rule.policy.name(), rule::VERSION, rule)
}

/// What was judged of a flow.
fn decision<'a, C>(
    under: Under<'a, C>,
    judged: Judgement,
    rule: &Rule,
    policy: Policy<'a>,
) -> RollbackDecision<'a, C> {
    let Judgement { answer, inputs, error_rate, candidates } = judged;
    let saying = Saying {
        event_time: inputs.minute.plus(rule.minute),
        action: answer.action,
        reason: answer.reason.into(),
        parameters: RollbackParameters {
            flow_version: inputs.flow_version.clone(),
            error_rate,
            threshold: rule.threshold,
            candidates,
        },
        inputs,
        policy,
        // Within the cooldown nothing newer can be decided.
        expires_at: under.at.plus(rule.minutes(rule.cooldown_minutes)),
    };
    under.says(Loop::Rollback, saying)
}

/// When and about which flow something is said, and by which records.
#[derive(Clone, Copy)]
struct Occasion<'a> {
    key: &'a str,
    /// The runtime's clock.
    at: Timestamp,
    causes: &'a [Position<'a>],
}

/// What is kept per flow.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// Sequence of the last decision.
    sequence: u64,
    guard: Guard,
    #[serde(default)]
    pending: Option<Pending>,
    #[serde(default)]
    silence: Silence,
}

impl Stage for Rollback {
    type Input<'a> = FlowMinute<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i FlowMinute<'_>) -> &'i str {
        &input.flow_id
    }

    fn event_time(input: &FlowMinute<'_>) -> Timestamp {
        input.minute
    }

    fn step(
        &self,
        record: &Record<'_>,
        state: &mut State,
        minute: FlowMinute<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        if let Some(reason) = contradiction(&minute) {
            return Step::Rejected(reason);
        }
        if minute.source != self.sources.of(&minute.flow_id) {
            return Step::NoOp("other_source");
        }
        if !minute.complete && !state.guard.misses(&self.rule, &minute) {
            return Step::NoOp("minute_not_complete");
        }
        self.hear(&minute.flow_id, state);
        state.forget_after(&self.rule, latest_possible(record.at), minute.minute.minus(self.rule.minute));
        let occasion = Occasion { key: record.key, at: record.at, causes: &[record.position] };
        let versions = self.lookup.versions(&minute.flow_id);
        let maintenance = self.maintenance(&minute, record.at);
        let around = Surroundings { versions: versions.as_deref(), maintenance: &maintenance };
        if !minute.complete {
            if let Observation::Changed(judgement) = state.guard.miss(&self.rule, &minute, around) {
                self.decide(occasion, state, *judgement, outputs);
                return Step::Applied;
            }
            return Step::NoOp("minute_not_complete");
        }
        let observation = state.guard.observe(&self.rule, &minute, around);
        if let Observation::Ignored(reason) = observation {
            return Step::NoOp(reason);
        }
        state.silence = Silence::default();
        self.verify(occasion, state, &minute, observation != Observation::Aside, outputs);
        if let Observation::Changed(judgement) = observation {
            self.decide(occasion, state, *judgement, outputs);
        }
        Step::Applied
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(LONGEST_WAIT.min(self.rule.minute / 2))
    }

    fn due(&self, state: &State) -> Option<Timestamp> {
        state.silence.due(state.guard.silent_from(&self.rule)?)
    }

    /// No minute of the flow has come, complete or not.
    fn wake(&self, waking: &Waking<'_>, state: &mut State, outputs: &mut Outputs) -> bool {
        if !state.silence.is_to_be_told(waking, self.rule.minutes(self.rule.bucket_minutes)) {
            return false;
        }
        let Some(missed) = state.guard.missed(&self.rule, waking.time) else { return true };
        let (version, _) = state.guard.in_force().unwrap_or_default();
        let minute = FlowMinute {
            flow_id: waking.key.into(),
            flow_version: version.to_owned().into(),
            minute: missed,
            total: 0,
            errors: 0,
            error_rate: 0.0,
            complete: false,
            source: self.sources.of(waking.key),
        };
        let versions = self.lookup.versions(waking.key);
        let maintenance = self.maintenance(&minute, waking.at);
        let around = Surroundings { versions: versions.as_deref(), maintenance: &maintenance };
        if let Observation::Changed(judgement) = state.guard.miss(&self.rule, &minute, around) {
            let occasion = Occasion { key: waking.key, at: waking.at, causes: &[] };
            self.decide(occasion, state, *judgement, outputs);
        }
        true
    }
}

impl State {
    /// What a clock that was ahead has told must not stand against what is told in its time:
    /// from `anew` on it is heard again.
    fn forget_after(&mut self, rule: &Rule, latest: Timestamp, anew: Timestamp) {
        self.guard.forget_after(rule, latest, anew);
        if let Some(pending) = &mut self.pending {
            pending.forget_after(latest);
        }
    }
}

/// Why this minute cannot be true, if it cannot.
fn contradiction(minute: &FlowMinute<'_>) -> Option<String> {
    if minute.errors > minute.total {
        return Some(format!("{} errors of {} interactions", minute.errors, minute.total));
    }
    for (name, text) in [("flowId", &minute.flow_id), ("flowVersion", &minute.flow_version)] {
        if text.len() > NAME_LIMIT {
            return Some(format!("{name} has {} bytes; {NAME_LIMIT} are possible", text.len()));
        }
    }
    None
}
