//! Takes recorded decisions about one consumer group again: the rules on the evidence that was
//! recorded, decision after decision, so that it is known when help was asked for before.

use super::advice::Measured;
use super::episode::Episode;
use super::rules::{self, Thresholds};
use super::{decision, named};
use crate::model::decision::{Action, Under};
use crate::model::lag::{AdvisedOn, LagEvidence, LagInputs, LagReason};
use crate::topics::LagDecision;

/// One group, decision after decision in the order of their sequence.
#[derive(Debug, Default)]
pub struct Again {
    /// After the decision before, and its sequence.
    before: Option<(u64, Episode)>,
}

impl Again {
    /// The decision as these rules take it. `taken_under` are the rules that took it: where they are
    /// others, status and advice are found anew from the worst part's evidence, counts of polls being
    /// taken as if the poll before had been like this one.
    ///
    /// `None` where neither this decision nor the one before it tells when help was asked for.
    pub fn take<'d>(
        &mut self,
        recorded: &'d LagDecision<'_, Vec<String>>,
        taken_under: &Thresholds,
        thresholds: &Thresholds,
    ) -> Option<LagDecision<'d, Vec<String>>> {
        let mut inputs = recorded.inputs.clone();
        let same = taken_under == thresholds;
        let mut episode = match self.before.take() {
            Some((sequence, episode)) if sequence + 1 == recorded.sequence => episode,
            _ => first(recorded)?,
        };
        judge(&mut inputs, taken_under, thresholds);
        let said = episode.say(&inputs.evaluation, thresholds);
        (inputs.episode_since, inputs.called_at) = (episode.since, episode.called_at);
        let after = if same {
            // A clock that was put right in between is told by the record alone.
            Episode::after(recorded.inputs.episode_since, recorded.inputs.called_at)
        } else {
            episode
        };
        self.before = Some((recorded.sequence, after));
        Some(decision(Under::of(recorded), inputs, said, thresholds, named(thresholds)))
    }
}

/// The episode before a decision whose predecessor is not known, from what it says of itself.
fn first(recorded: &LagDecision<'_, Vec<String>>) -> Option<Episode> {
    let LagInputs { episode_since, called_at, .. } = recorded.inputs;
    if recorded.sequence == 1 {
        return Some(Episode::default());
    }
    // Help was asked for just now: when it was before is not told.
    if recorded.action != Action::Hold {
        return None;
    }
    Some(Episode::after(episode_since, called_at))
}

/// Status, reasons and advice by these rules.
fn judge(inputs: &mut LagInputs, taken_under: &Thresholds, thresholds: &Thresholds) {
    let evaluation = &mut inputs.evaluation;
    // What was not heard of, or only in part, is so whatever the rules.
    let is_unheard = evaluation
        .reasons
        .iter()
        .any(|reason| [rules::NOT_HEARD.rule, rules::POLL_INCOMPLETE.rule].contains(&reason.rule.as_str()));
    let worst = adapted(&inputs.worst, taken_under, thresholds);
    let verdicts = thresholds.judge(&worst);
    let verdict = verdicts.iter().min_by_key(|verdict| rules::rank(verdict.rule)).unwrap_or(&rules::OK);
    if !is_unheard && verdict.status != evaluation.status {
        evaluation.status = verdict.status;
        evaluation.since = evaluation.observed_at;
        evaluation.reasons.retain(|reason| rules::rank(&reason.rule) > rules::rank(verdict.rule));
        if *verdict != rules::OK {
            let told =
                LagReason { status: verdict.status, rule: verdict.rule.into(), count: 1, example: None };
            evaluation.reasons.insert(0, told);
        }
        if let Some(on) = &mut inputs.advised_on {
            on.may_mend_itself = thresholds.may_mend_itself(verdict, &worst);
        }
    }
    if let Some(on) = inputs.advised_on {
        advise(inputs, on, thresholds);
    }
    inputs.worst = worst;
}

fn advise(inputs: &mut LagInputs, on: AdvisedOn, thresholds: &Thresholds) {
    let evaluation = &mut inputs.evaluation;
    let advice = thresholds.advice(&Measured {
        status: evaluation.status,
        calm_ms: evaluation.observed_at.millis_since(evaluation.since).unsigned_abs(),
        members: evaluation.members,
        drain_per_second: evaluation.drain_per_second,
        catch_up_seconds: evaluation.catch_up_seconds,
        on,
    });
    (evaluation.recommended_action, evaluation.replicas) = (advice.action, advice.replicas);
}

/// The evidence with the counts of polls that hang on thresholds which have changed.
fn adapted(worst: &LagEvidence, taken_under: &Thresholds, thresholds: &Thresholds) -> LagEvidence {
    let mut adapted = worst.clone();
    let polls = |limit: u64| {
        let is_over = worst.age_ms > limit.saturating_add(worst.usual_wait_ms);
        if is_over { thresholds.polls } else { 0 }
    };
    if taken_under.error_age_ms != thresholds.error_age_ms {
        adapted.error_polls = polls(thresholds.error_age_ms);
    }
    if taken_under.warning_age_ms != thresholds.warning_age_ms {
        adapted.warning_polls = polls(thresholds.warning_age_ms);
    }
    adapted
}
