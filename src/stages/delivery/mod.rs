//! Which of two flows takes a conversation while a new one is tried out: a canary by exact
//! share (`docs/delivery.md`).
//!
//! ```text
//! planned ─▶ step 1 ──advance──▶ step 2 ──▶ … ──▶ step at 100 % ──▶ done ──promote──▶ promoting
//!              │ ▲                                   │                │
//!              │ └─ hold: something is missing       │                │
//!              └────────────── abort ◀───────────────┴────────────────┘   the candidate's share is 0 at once
//! ```

pub mod again;
pub mod canary;
pub mod evidence;
mod run;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::decision::{Loop, Mode, Policy, Position, Saying, Under};
use crate::model::delivery::{CanaryFact, CanaryMinute, CanaryRequest, Counts, Ordered, SettledShare};
use crate::model::settings::MaintenanceWindow;
use crate::pipeline::{Declaration, Outputs, Record, Stage, Step, Waking};
use crate::role::Role;
use crate::topics::{self, DeliveryDecision};

use canary::Plan;
use run::{Around, Finding, Run};

pub static DECLARATION: Declaration = Declaration {
    name: "delivery",
    description: "decides what share a flow that is tried out is to have, and whether it is taken away",
    input: &topics::CANARY_FACTS,
    outputs: &[&topics::DELIVERY_DECISIONS],
    changelog: &topics::DELIVERY_CHANGELOG,
    state_version: 1,
    lateness: Duration::from_secs(3_600),
};

/// Beside the minutes it looks up what holds it.
pub static ROLE: Role = Role { reads: &[&topics::CANARY_FACTS, &topics::SETTINGS], ..DECLARATION.role() };

/// Raised whenever the rule can answer differently on the same inputs.
const VERSION: u32 = 1;
/// Minutes without a word of both flows until that is said.
const SILENT_MINUTES: u32 = 10;
/// A partition without facts is waited for this long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A share that could not be given for so long is not given any more.
const EXPIRES_AFTER: Duration = Duration::from_secs(86_400);

/// What the stage looks up beside its records. What it used is recorded in the decision.
pub trait Lookup: Send + Sync + 'static {
    /// Every maintenance window with its scope.
    fn windows(&self) -> Vec<(String, MaintenanceWindow)>;

    /// Scopes of the pauses that stop this loop.
    fn pauses(&self) -> Vec<String>;

    /// Greatest revision among the settings that were read.
    fn settings_revision(&self) -> u64;
}

/// See [`DECLARATION`].
pub struct Delivery {
    mode: Mode,
    /// Length of a minute of event time.
    minute: Duration,
    policy: Policy<'static>,
    lookup: Arc<dyn Lookup>,
}

impl Delivery {
    pub fn new(mode: Mode, minute: Duration, lookup: Arc<dyn Lookup>) -> Self {
        Self { mode, minute, policy: named(&Plan::default()), lookup }
    }

    /// Scopes of the windows that are open for one of both flows now, or were during the minute.
    fn windows(&self, run: &Run, minute: Timestamp, at: Timestamp) -> Vec<String> {
        let open = |window: &MaintenanceWindow| {
            run.flows().into_iter().any(|flow| window.is_about(flow))
                && (window.covers(at) || window.overlaps(minute, self.minute))
        };
        let windows = self.lookup.windows().into_iter();
        windows.filter(|(_, window)| open(window)).map(|(scope, _)| scope).collect()
    }

    fn decide(&self, occasion: Occasion<'_>, sequence: &mut u64, finding: Finding, outputs: &mut Outputs) {
        *sequence += 1;
        let under = Under {
            key: occasion.key,
            sequence: *sequence,
            mode: self.mode,
            at: occasion.at,
            settings_revision: self.lookup.settings_revision(),
            causes: occasion.causes,
        };
        let decision = decision(under, occasion.event_time, finding, self.policy.by_reference());
        outputs.send(&topics::DELIVERY_DECISIONS, occasion.key, &decision);
    }

    fn ordered(
        &self,
        occasion: Occasion<'_>,
        state: &mut State,
        ordered: &Ordered,
        outputs: &mut Outputs,
    ) -> Step {
        if ordered.order.request == CanaryRequest::Start {
            if ordered.revision <= state.started {
                return Step::NoOp("ordered_before");
            }
            state.started = ordered.revision;
            state.run = Some(Run::new(&ordered.order, occasion.at));
            return Step::Applied;
        }
        let run = state.run.as_mut().filter(|run| run.is(&ordered.order.canary_id));
        match run.and_then(|run| run.hear(ordered)) {
            Some(finding) => {
                self.decide(occasion, &mut state.sequence, finding, outputs);
                Step::Applied
            }
            None => Step::NoOp("nothing_to_order"),
        }
    }

    fn settled(
        &self,
        occasion: Occasion<'_>,
        state: &mut State,
        settled: &SettledShare,
        outputs: &mut Outputs,
    ) -> Step {
        let Some(run) = state.run.as_mut().filter(|run| run.is(&settled.canary_id)) else {
            return Step::NoOp("another_canary");
        };
        if let Some(finding) = run.settle(settled, occasion.at) {
            self.decide(occasion, &mut state.sequence, finding, outputs);
        }
        Step::Applied
    }

    fn minute(
        &self,
        occasion: Occasion<'_>,
        state: &mut State,
        told: &CanaryMinute<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        let Some(run) = state.run.as_mut().filter(|run| run.is(&told.canary_id)) else {
            return Step::NoOp("another_canary");
        };
        if !run.is_under_way() {
            return Step::NoOp("canary_over");
        }
        let windows = self.windows(run, told.minute, occasion.at);
        let pauses = self.lookup.pauses();
        let around = Around { windows: &windows, pauses: &pauses };
        let counts = Counts { total: told.total, errors: told.errors };
        match run.take(told.arm, told.minute, counts, occasion.at, around) {
            Err(reason) => Step::NoOp(reason),
            Ok(None) => Step::Applied,
            Ok(Some(finding)) => {
                self.decide(occasion, &mut state.sequence, finding, outputs);
                Step::Applied
            }
        }
    }

    fn patience(&self) -> Duration {
        self.minute * SILENT_MINUTES
    }
}

/// The rule as decisions name it.
pub fn named(plan: &Plan) -> Policy<'static> {
    Policy::new("e-process", VERSION, plan)
}

/// What was found about a canary at this time.
fn decision<'a, C>(
    under: Under<'a, C>,
    event_time: Timestamp,
    finding: Finding,
    policy: Policy<'a>,
) -> DeliveryDecision<'a, C> {
    let Finding { action, reason, inputs, parameters } = finding;
    let expires_at = under.at.plus(EXPIRES_AFTER);
    let reason = reason.into();
    under.says(Loop::Delivery, Saying { event_time, action, reason, parameters, inputs, policy, expires_at })
}

/// When and about which configuration something is said, and by which records.
#[derive(Clone, Copy)]
struct Occasion<'a> {
    key: &'a str,
    event_time: Timestamp,
    /// The runtime's clock.
    at: Timestamp,
    causes: &'a [Position<'a>],
}

/// What is kept per routing configuration.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// Sequence of the last decision.
    sequence: u64,
    /// Revision of the order that began the newest canary.
    started: u64,
    run: Option<Run>,
}

impl Stage for Delivery {
    type Input<'a> = CanaryFact<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i CanaryFact<'_>) -> &'i str {
        input.configuration_id()
    }

    fn event_time(input: &CanaryFact<'_>) -> Timestamp {
        match input {
            CanaryFact::Minute(minute) => minute.minute,
            CanaryFact::Ordered(ordered) => ordered.when,
            CanaryFact::Share(settled) => settled.when,
        }
    }

    fn step(
        &self,
        record: &Record<'_>,
        state: &mut State,
        fact: CanaryFact<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        let causes = &[record.position];
        let occasion =
            Occasion { key: record.key, event_time: Self::event_time(&fact), at: record.at, causes };
        match fact {
            CanaryFact::Ordered(ordered) => self.ordered(occasion, state, &ordered, outputs),
            CanaryFact::Share(settled) => self.settled(occasion, state, &settled, outputs),
            CanaryFact::Minute(told) if told.errors > told.total => {
                Step::Rejected(format!("{} errors of {} interactions", told.errors, told.total))
            }
            CanaryFact::Minute(told) => self.minute(occasion, state, &told, outputs),
        }
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(LONGEST_WAIT.min(self.minute / 2))
    }

    fn due(&self, state: &State) -> Option<Timestamp> {
        state.run.as_ref()?.silent_from(self.patience())
    }

    /// No minute of both flows has come: missing minutes are no evidence, and that is said.
    fn wake(&self, waking: &Waking<'_>, state: &mut State, outputs: &mut Outputs) -> bool {
        let Some(run) = &mut state.run else { return false };
        let looked = waking.at.millis_since(waking.held_since).max(0).unsigned_abs();
        if Duration::from_millis(looked) < self.patience() {
            // Nobody looked for some of the time: what was missed then was not missed.
            run.heard = waking.time;
            return true;
        }
        let Some(finding) = run.miss() else { return false };
        let occasion = Occasion { key: waking.key, event_time: waking.time, at: waking.at, causes: &[] };
        self.decide(occasion, &mut state.sequence, finding, outputs);
        true
    }
}
