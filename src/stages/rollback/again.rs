//! Takes recorded decisions about one flow again: the rule on the evidence that was recorded.

use super::guard::Judgement;
use super::rule::{Rule, exceeds};
use super::{decision, named, watch};
use crate::model::Timestamp;
use crate::model::decision::{Action, Under};
use crate::model::rollback::{Bucket, RollbackInputs};
use crate::topics::RollbackDecision;

/// One flow, decision after decision in the order of their sequence.
#[derive(Debug, Default)]
pub struct Again {
    /// What was answered here, where that is not what was recorded: the version that was acted on,
    /// and until when the flow is locked.
    fired: Option<String>,
    cooldown_until: Option<Timestamp>,
}

impl Again {
    /// The decision as the rule that took it takes it now.
    pub fn take<'d>(
        &self,
        recorded: &'d RollbackDecision<'_, Vec<String>>,
        rule: &Rule,
    ) -> RollbackDecision<'d, Vec<String>> {
        answer(recorded, recorded.inputs.clone(), rule)
    }

    /// The same under another rule than `taken_under`. Evidence that depends on the rule's numbers is
    /// brought in line as far as the record holds what it is made of: streaks from the buckets, the
    /// armed time from its length. Statistics stay as they were counted.
    pub fn take_under<'d>(
        &mut self,
        recorded: &'d RollbackDecision<'_, Vec<String>>,
        taken_under: &Rule,
        rule: &Rule,
    ) -> RollbackDecision<'d, Vec<String>> {
        let mut inputs = recorded.inputs.clone();
        inputs.breaches = breaches(&inputs, taken_under, rule);
        if inputs.armed_until > inputs.in_force_since {
            let armed = rule.minutes(rule.armed_minutes);
            let published = inputs.armed_until.minus(taken_under.minutes(taken_under.armed_minutes));
            inputs.armed_until = published.plus(armed);
        }
        self.remember(&mut inputs, taken_under, rule);
        let decision = answer(recorded, inputs, rule);
        if decision.action != Action::Hold {
            self.fired = Some(decision.inputs.flow_version.clone());
        }
        if decision.action == Action::Rollback {
            let closed = decision.inputs.minute.plus(rule.minute);
            self.cooldown_until = Some(closed.plus(rule.minutes(rule.cooldown_minutes)));
        }
        decision
    }

    /// What would have been done before stands in for what was.
    fn remember(&mut self, inputs: &mut RollbackInputs, taken_under: &Rule, rule: &Rule) {
        if taken_under == rule {
            return;
        }
        // The rate came down: what has fired may fire again.
        let is_rearmed = inputs.breaches == 0;
        inputs.fired = !is_rearmed && self.fired.as_ref() == Some(&inputs.flow_version);
        if !inputs.fired {
            self.fired = None;
        }
        inputs.cooldown_until = self.cooldown_until;
    }
}

/// Buckets in a row over the rule's threshold, by those that were recorded.
fn breaches(inputs: &RollbackInputs, taken_under: &Rule, rule: &Rule) -> u32 {
    if rule.threshold == taken_under.threshold {
        return inputs.breaches;
    }
    let is_breach = |bucket: &&Bucket| exceeds(bucket.errors, bucket.total, rule.threshold);
    let streak = inputs.buckets.iter().rev().take_while(is_breach).count();
    let counted = u32::try_from(streak).unwrap_or(u32::MAX);
    // Of a long streak the newest buckets alone are recorded.
    if streak == inputs.buckets.len() { counted.max(inputs.breaches) } else { counted }
}

fn answer<'d>(
    recorded: &'d RollbackDecision<'_, Vec<String>>,
    inputs: RollbackInputs,
    rule: &Rule,
) -> RollbackDecision<'d, Vec<String>> {
    let answer = rule.judge(&inputs);
    // Without a closed bucket it is the open one's, which is not recorded.
    let error_rate = match inputs.buckets.as_slice() {
        [] => recorded.parameters.error_rate,
        buckets => watch::error_rate(buckets),
    };
    // They come from what is known of older versions and are recorded where they are asked for.
    let candidates = match answer.action {
        Action::Rollback => recorded.parameters.candidates.clone(),
        _ => Vec::new(),
    };
    let judged = Judgement { answer, inputs, error_rate, candidates };
    decision(Under::of(recorded), judged, rule, named(rule))
}
