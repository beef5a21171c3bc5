//! One canary from its order to its end: minutes of both flows are brought together, and what
//! becomes of it is said once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::canary::{Canary, Plan, Verdict};
use crate::model::Timestamp;
use crate::model::chain::{Chain, Limit};
use crate::model::decision::Action;
use crate::model::delivery::{
    Arm, CanaryOrder, CanaryRequest, CanaryState, Counts, DeliveryInputs, DeliveryParameters, Missing,
    Ordered, SettledShare,
};

/// Minutes that the control is seen alone before the first step.
pub(super) const BASELINE_MINUTES: u32 = 5;
/// Minutes of which one flow is known and the other awaited, at most.
const AWAITED: usize = 180;
/// Why nothing is learned.
const NO_MINUTES: &str = "no_minutes";
pub(super) const NOT_IN_FORCE: &str = "share_not_in_force";
pub(super) const CAME_TOO_LATE: &str = "share_came_too_late";

/// What is decided, and from what.
#[derive(Debug)]
pub(super) struct Finding {
    pub action: Action,
    pub reason: &'static str,
    pub inputs: DeliveryInputs,
    pub parameters: DeliveryParameters,
}

/// What holds a canary from outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around<'a> {
    /// Maintenance windows that touch the minute or are open now: it is no evidence.
    pub windows: &'a [String],
    /// Pauses: nothing is advanced.
    pub pauses: &'a [String],
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    canary_id: String,
    control_id: String,
    candidate_id: String,
    pub(super) plan: Plan,
    pub(super) state: CanaryState,
    /// The control alone, before the first step.
    pub(super) baseline: Counts,
    pub(super) baseline_minutes: u32,
    pub(super) canary: Canary,
    pub(super) share: f64,
    /// From when on the step's share is known to be in force; absent until it is. Minutes from before
    /// are none of the step.
    in_force_since: Option<Timestamp>,
    /// When the step was decided.
    step_since: Timestamp,
    /// The first flow told of a minute waits for the other.
    awaited: BTreeMap<Timestamp, (Arm, Counts)>,
    /// Minutes that were judged, as far back as minutes are taken.
    judged: BTreeSet<Timestamp>,
    /// The reason of the last hold, while it lasts.
    said: Option<String>,
    /// When a minute was last judged.
    pub(super) heard: Timestamp,
}

impl Run {
    pub(super) fn new(order: &CanaryOrder, at: Timestamp) -> Self {
        let plan = Plan { steps: order.steps.clone(), hold_minutes: order.hold_minutes, ..Plan::default() };
        Self {
            canary_id: order.canary_id.clone(),
            control_id: order.control_id.clone(),
            candidate_id: order.candidate_id.clone(),
            plan,
            state: CanaryState::Planned,
            baseline: Counts::default(),
            baseline_minutes: 0,
            canary: Canary::new(0, Counts::default()),
            share: 0.0,
            in_force_since: None,
            step_since: at,
            awaited: BTreeMap::new(),
            judged: BTreeSet::new(),
            said: None,
            heard: at,
        }
    }

    pub(super) fn is(&self, canary_id: &str) -> bool {
        self.canary_id == canary_id
    }

    pub(super) fn flows(&self) -> [&str; 2] {
        [&self.control_id, &self.candidate_id]
    }

    /// Whether minutes still mean something to it.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, CanaryState::Planned | CanaryState::Running)
    }

    /// What people have ordered about it, after its start.
    pub(super) fn hear(&mut self, ordered: &Ordered) -> Option<Finding> {
        let (action, reason, state, share) = match (ordered.order.request, self.state) {
            (CanaryRequest::Abort, CanaryState::Planned | CanaryState::Running | CanaryState::Done) => {
                (Action::Abort, "ordered", CanaryState::Aborted, 0.0)
            }
            // It is ordered again only where it was not published.
            (CanaryRequest::Promote, CanaryState::Done | CanaryState::Promoting) => {
                (Action::Promote, "ordered", CanaryState::Promoting, self.share)
            }
            _ => return None,
        };
        let mut inputs = self.inputs(None);
        inputs.ordered_by = Some(ordered.who.clone());
        inputs.order_reason.clone_from(&ordered.order.reason);
        let mut parameters = self.parameters(Chain::new(share));
        parameters.version.clone_from(&ordered.order.version);
        (self.state, self.share) = (state, share);
        (parameters.state, parameters.share) = (state, share);
        Some(Finding { action, reason, inputs, parameters })
    }

    /// The counters of routing have the step's share since `at`, or will not have it: then it is
    /// decided again. `None` where nothing is to be said.
    pub(super) fn settle(&mut self, settled: &SettledShare, at: Timestamp) -> Option<Finding> {
        if !self.awaits_share() || settled.share != self.share {
            return None;
        }
        if settled.is_in_force {
            (self.in_force_since, self.heard, self.said) = (Some(at), at, None);
            return None;
        }
        Some(self.go_on(CAME_TOO_LATE, self.inputs(None), at))
    }

    /// One complete minute of one flow; `at` is now. `None` where nothing new is to be said.
    ///
    /// # Errors
    /// Why the minute says nothing.
    pub(super) fn take(
        &mut self,
        arm: Arm,
        minute: Timestamp,
        counts: Counts,
        at: Timestamp,
        around: Around<'_>,
    ) -> Result<Option<Finding>, &'static str> {
        if self.judged.contains(&minute)
            || self.judged.len() >= AWAITED && self.judged.first() > Some(&minute)
        {
            return Err("minute_judged_before");
        }
        if !around.windows.is_empty() {
            self.awaited.remove(&minute);
            // It is no evidence, and no silence either.
            self.heard = at;
            return Ok(self.say(
                "maintenance_window",
                Limit::Hold,
                around.windows,
                self.inputs(Some(minute)),
            ));
        }
        if self.state == CanaryState::Planned {
            return match arm {
                Arm::Control => Ok(self.take_baseline(minute, counts, at, around)),
                Arm::Candidate => Err("candidate_before_its_time"),
            };
        }
        let alone = self.is_alone() && self.is_of_step(minute);
        let (control, candidate) = match (arm, self.awaited.get(&minute)) {
            (Arm::Candidate, _) if alone => (Counts::default(), counts),
            (Arm::Control, _) if alone => return Err("control_beside_everything"),
            (Arm::Control, Some((Arm::Candidate, candidate))) => (counts, *candidate),
            (Arm::Candidate, Some((Arm::Control, control))) => (*control, counts),
            (_, Some(_)) => return Err("minute_judged_before"),
            (_, None) => {
                self.awaited.insert(minute, (arm, counts));
                if self.awaited.len() > AWAITED {
                    self.awaited.pop_first();
                }
                return Ok(None);
            }
        };
        self.note(minute, at);
        Ok(self.judge(minute, control, candidate, at, around))
    }

    /// No minute of both flows has come for so long that it is to be said, once.
    pub(super) fn miss(&mut self) -> Option<Finding> {
        let reason = if self.awaits_share() { NOT_IN_FORCE } else { NO_MINUTES };
        self.say(reason, Limit::Evidence, &[], self.inputs(None))
    }

    fn awaits_share(&self) -> bool {
        self.state == CanaryState::Running && self.in_force_since.is_none()
    }

    /// Whether the step's share was in force all through the minute.
    fn is_of_step(&self, minute: Timestamp) -> bool {
        self.in_force_since.is_some_and(|since| minute >= since)
    }

    fn note(&mut self, minute: Timestamp, at: Timestamp) {
        self.awaited.remove(&minute);
        self.judged.insert(minute);
        if self.judged.len() > AWAITED {
            self.judged.pop_first();
        }
        self.heard = at;
    }

    fn is_alone(&self) -> bool {
        self.canary.step + 1 >= self.plan.steps.len()
    }

    fn take_baseline(
        &mut self,
        minute: Timestamp,
        counts: Counts,
        at: Timestamp,
        around: Around<'_>,
    ) -> Option<Finding> {
        self.note(minute, at);
        let mut inputs = self.inputs(Some(minute));
        inputs.control = counts;
        self.baseline.add(counts);
        self.baseline_minutes += 1;
        inputs.control_before = self.baseline;
        self.conclude_baseline(inputs, at, around)
    }

    /// What the control alone leads to; `inputs` hold it up to now.
    pub(super) fn conclude_baseline(
        &mut self,
        mut inputs: DeliveryInputs,
        at: Timestamp,
        around: Around<'_>,
    ) -> Option<Finding> {
        if self.baseline_minutes < BASELINE_MINUTES {
            inputs.missing = Some(Missing::Minutes(BASELINE_MINUTES - self.baseline_minutes));
            return self.say("baseline_missing", Limit::Evidence, &[], inputs);
        }
        if !around.pauses.is_empty() {
            return self.say("paused", Limit::Hold, around.pauses, inputs);
        }
        let per_minute = self.baseline.total as f64 / f64::from(self.baseline_minutes);
        self.canary = Canary::new(self.plan.first(per_minute), self.baseline);
        self.state = CanaryState::Running;
        Some(self.go_on("baseline_known", inputs, at))
    }

    fn judge(
        &mut self,
        minute: Timestamp,
        control: Counts,
        candidate: Counts,
        at: Timestamp,
        around: Around<'_>,
    ) -> Option<Finding> {
        let before = self.canary.clone();
        let mut inputs = self.inputs(Some(minute));
        (inputs.control, inputs.candidate) = (control, candidate);
        if !self.is_of_step(minute) {
            let is_worse = self.canary.weigh(&self.plan, control, candidate);
            inputs.evidence = self.canary.evidence();
            return match is_worse {
                true => Some(self.abort(inputs)),
                // A whole minute since the step was decided: somebody should look why.
                false if self.awaits_share() && minute >= self.step_since => {
                    self.say(NOT_IN_FORCE, Limit::Evidence, &[], inputs)
                }
                false => None,
            };
        }
        inputs.step_control.add(control);
        inputs.step_candidate.add(candidate);
        inputs.step_minutes += 1;
        let verdict = self.canary.observe(&self.plan, control, candidate);
        inputs.evidence = self.canary.evidence();
        if verdict.goes_on() && !around.pauses.is_empty() {
            self.canary = before;
            self.canary.weigh(&self.plan, control, candidate);
        }
        self.conclude(verdict, inputs, at, around)
    }

    /// What a verdict leads to.
    pub(super) fn conclude(
        &mut self,
        verdict: Verdict,
        mut inputs: DeliveryInputs,
        at: Timestamp,
        around: Around<'_>,
    ) -> Option<Finding> {
        if verdict.goes_on() && !around.pauses.is_empty() {
            return self.say("paused", Limit::Hold, around.pauses, inputs);
        }
        match verdict {
            Verdict::Abort => Some(self.abort(inputs)),
            Verdict::Advance(_) => Some(self.go_on("step_proven", inputs, at)),
            Verdict::Done => {
                let mut parameters = self.parameters(Chain::new(self.share));
                self.state = CanaryState::Done;
                parameters.state = self.state;
                Some(Finding { action: Action::Hold, reason: "proven", inputs, parameters })
            }
            Verdict::Hold(missing) => {
                inputs.missing = Some(missing);
                let reason = match missing {
                    Missing::Minutes(_) => "minutes_missing",
                    Missing::Interactions(_) => "interactions_missing",
                    Missing::Certainty { .. } => "certainty_missing",
                };
                self.say(reason, Limit::Evidence, &[], inputs)
            }
        }
    }

    fn abort(&mut self, inputs: DeliveryInputs) -> Finding {
        let mut parameters = self.parameters(Chain::new(0.0));
        (self.state, self.share) = (CanaryState::Aborted, 0.0);
        (parameters.state, parameters.share) = (self.state, self.share);
        self.awaited.clear();
        Finding { action: Action::Abort, reason: "candidate_worse", inputs, parameters }
    }

    /// To the share of the step that the canary is at.
    pub(super) fn go_on(&mut self, reason: &'static str, inputs: DeliveryInputs, at: Timestamp) -> Finding {
        let share = self.plan.steps.get(self.canary.step).copied().unwrap_or(1.0);
        let mut parameters = self.parameters(Chain::new(share));
        (self.share, self.step_since, self.said) = (share, at, None);
        self.in_force_since = None;
        (parameters.state, parameters.share) = (self.state, share);
        Finding { action: Action::SetShare, reason, inputs, parameters }
    }

    /// It stays as it is. Said again only for another reason.
    pub(super) fn say(
        &mut self,
        reason: &'static str,
        limit: Limit,
        held_by: &[String],
        mut inputs: DeliveryInputs,
    ) -> Option<Finding> {
        if self.said.as_deref() == Some(reason) {
            return None;
        }
        self.said = Some(reason.to_owned());
        inputs.held_by = held_by.to_vec();
        let next = if self.state == CanaryState::Planned { self.canary.step } else { self.canary.step + 1 };
        let mut chain = Chain::new(self.plan.steps.get(next).copied().unwrap_or(1.0));
        chain.ask(limit, self.share);
        Some(Finding { action: Action::Hold, reason, inputs, parameters: self.parameters(chain) })
    }

    /// As it stands before what is decided.
    fn inputs(&self, minute: Option<Timestamp>) -> DeliveryInputs {
        let (step_minutes, step_control, step_candidate) = self.canary.at_step();
        DeliveryInputs {
            minute,
            control: Counts::default(),
            candidate: Counts::default(),
            step_control,
            step_candidate,
            step_minutes,
            control_before: self.canary.past(),
            evidence: self.canary.evidence(),
            abort_at: self.plan.abort_at,
            hold_minutes: Some(self.plan.hold_minutes),
            missing: None,
            held_by: Vec::new(),
            ordered_by: None,
            order_reason: None,
        }
    }

    fn parameters(&self, chain: Chain) -> DeliveryParameters {
        let step = if self.state == CanaryState::Planned { 0 } else { self.canary.step as u32 + 1 };
        DeliveryParameters {
            canary_id: self.canary_id.clone(),
            control_id: self.control_id.clone(),
            candidate_id: self.candidate_id.clone(),
            state: self.state,
            step,
            steps: self.plan.steps.clone(),
            previous_share: self.share,
            share: self.share,
            chain,
            version: None,
        }
    }

    /// When it is to be said that no minutes come.
    pub(super) fn silent_from(&self, patience: Duration) -> Option<Timestamp> {
        let told = matches!(self.said.as_deref(), Some(NO_MINUTES | NOT_IN_FORCE));
        (self.is_under_way() && !told).then(|| self.heard.plus(patience))
    }
}
