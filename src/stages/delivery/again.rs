//! Takes recorded decisions about canaries again: the rule on the evidence that was recorded.

use super::canary::{Canary, Plan, Seen, Verdict};
use super::run::{Around, BASELINE_MINUTES, CAME_TOO_LATE, Finding, NOT_IN_FORCE, Run};
use super::{decision, named};
use crate::model::chain::Limit;
use crate::model::decision::{Action, Under};
use crate::model::delivery::{CanaryOrder, CanaryRequest, CanaryState, DeliveryInputs, Missing, Ordered};
use crate::model::pause::PAUSE;
use crate::topics::DeliveryDecision;

/// The decision as this plan takes it. Steps are the canary's own, and so is how long one lasts
/// unless `plan` has another time for it than the one it was `taken_under`.
///
/// `None` where the record does not have what it takes, as in decisions of older programs.
pub fn take<'d>(
    recorded: &'d DeliveryDecision<'_, Vec<String>>,
    taken_under: &Plan,
    plan: &Plan,
) -> Option<DeliveryDecision<'d, Vec<String>>> {
    let own_hold = recorded.inputs.hold_minutes?;
    let hold_minutes =
        if plan.hold_minutes == taken_under.hold_minutes { own_hold } else { plan.hold_minutes };
    let own = Plan { steps: recorded.parameters.steps.clone(), hold_minutes, ..plan.clone() };
    let finding = found(recorded, own)?;
    Some(decision(Under::of(recorded), recorded.event_time, finding, named(plan)))
}

/// The canary as it stood before, asked with what was seen.
fn found(recorded: &DeliveryDecision<'_, Vec<String>>, plan: Plan) -> Option<Finding> {
    let (at, inputs) = (recorded.decided_at, &recorded.inputs);
    let seen = DeliveryInputs {
        abort_at: plan.abort_at,
        hold_minutes: Some(plan.hold_minutes),
        missing: None,
        held_by: Vec::new(),
        ..inputs.clone()
    };
    let mut run = before(recorded, plan);
    if let Some(who) = &inputs.ordered_by {
        let found = run.hear(&ordered(recorded, who))?;
        return Some(Finding { inputs: inputs.clone(), ..found });
    }
    let (pauses, windows): (Vec<String>, Vec<String>) =
        inputs.held_by.iter().cloned().partition(|scope| scope.starts_with(PAUSE));
    // Whether the share is in force is told by the counters, and recorded as a reason alone.
    if recorded.reason == CAME_TOO_LATE {
        return Some(run.go_on(CAME_TOO_LATE, seen, at));
    }
    if recorded.reason == NOT_IN_FORCE && inputs.evidence < run.plan.abort_at {
        return run.say(NOT_IN_FORCE, Limit::Evidence, &[], seen);
    }
    if inputs.minute.is_none() {
        return Some(Finding { inputs: seen, ..run.miss()? });
    }
    if !windows.is_empty() {
        return run.say("maintenance_window", Limit::Hold, &windows, seen);
    }
    let around = Around { windows: &windows, pauses: &pauses };
    if run.state == CanaryState::Planned {
        return run.conclude_baseline(seen, at, around);
    }
    let verdict = run.plan.judge(&Seen {
        step: run.canary.step,
        minutes: inputs.step_minutes,
        past: inputs.control_before,
        control: inputs.step_control,
        candidate: inputs.step_candidate,
        evidence: inputs.evidence,
    });
    if let (Verdict::Advance(step), true) = (verdict, pauses.is_empty()) {
        run.canary.step = step;
    }
    run.conclude(verdict, seen, at, around)
}

/// The canary before the decision, from what that says of it.
fn before(recorded: &DeliveryDecision<'_, Vec<String>>, plan: Plan) -> Run {
    let (inputs, parameters) = (&recorded.inputs, &recorded.parameters);
    let mut run = Run::new(&ordered(recorded, "").order, recorded.decided_at);
    // While it is under way the candidate has a share.
    run.state = match recorded.action {
        Action::Promote => CanaryState::Done,
        _ if parameters.previous_share == 0.0 => CanaryState::Planned,
        _ => CanaryState::Running,
    };
    let has_advanced = recorded.action == Action::SetShare && recorded.reason != CAME_TOO_LATE;
    let step = parameters.step.saturating_sub(if has_advanced { 2 } else { 1 });
    let step = if run.state == CanaryState::Planned { 0 } else { step as usize };
    run.canary = Canary::new(step, inputs.control_before);
    (run.plan, run.share) = (plan, parameters.previous_share);
    run.baseline = inputs.control_before;
    run.baseline_minutes = match inputs.missing {
        Some(Missing::Minutes(left)) => BASELINE_MINUTES.saturating_sub(left),
        _ => BASELINE_MINUTES,
    };
    run
}

/// What people asked for, as far as the decision tells.
fn ordered(recorded: &DeliveryDecision<'_, Vec<String>>, who: &str) -> Ordered {
    let parameters = &recorded.parameters;
    let order = CanaryOrder {
        canary_id: parameters.canary_id.clone(),
        request: match recorded.action {
            Action::Promote => CanaryRequest::Promote,
            _ => CanaryRequest::Abort,
        },
        control_id: parameters.control_id.clone(),
        candidate_id: parameters.candidate_id.clone(),
        steps: parameters.steps.clone(),
        hold_minutes: 0,
        reason: recorded.inputs.order_reason.clone(),
        version: parameters.version.clone(),
    };
    Ordered {
        configuration_id: recorded.key.to_string(),
        order,
        revision: recorded.settings_revision,
        who: who.to_owned(),
        when: recorded.event_time,
    }
}
