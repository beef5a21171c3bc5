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
    /// What was answered here, where that is not what was recorded: what was acted on, and until when
    /// the flow is locked.
    fired: Option<Fired>,
    cooldown_until: Option<Timestamp>,
}

/// Something was done about a version.
#[derive(Debug)]
struct Fired {
    flow_version: String,
    /// The last minute it was decided on.
    minute: Timestamp,
    /// The same was done then.
    as_recorded: bool,
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
            self.fired = Some(Fired {
                flow_version: decision.inputs.flow_version.clone(),
                minute: decision.inputs.minute,
                as_recorded: decision.action == recorded.action,
            });
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
        let rearms_alike =
            (taken_under.rearm_rate, taken_under.rearm_buckets) == (rule.rearm_rate, rule.rearm_buckets);
        inputs.fired = self.fired.as_ref().is_some_and(|fired| {
            let still = if fired.as_recorded && rearms_alike {
                inputs.fired
            } else {
                !has_stayed_low(&inputs.buckets, fired.minute, rule)
            };
            still && fired.flow_version == inputs.flow_version
        });
        if !inputs.fired {
            self.fired = None;
        }
        inputs.cooldown_until = self.cooldown_until;
    }
}

/// Whether the rate came down after `since` for as long as it takes to act again, by the buckets
/// that were recorded.
fn has_stayed_low(buckets: &[Bucket], since: Timestamp, rule: &Rule) -> bool {
    let mut in_a_row = 0;
    buckets.iter().filter(|bucket| bucket.from > since).any(|bucket| {
        in_a_row = if exceeds(bucket.errors, bucket.total, rule.rearm_rate) { 0 } else { in_a_row + 1 };
        in_a_row >= rule.rearm_buckets
    })
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
