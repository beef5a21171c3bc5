//! One canary: at which step it is, and what a minute of both flows makes of it
//! (`docs/delivery.md`). Minutes come in, verdicts go out: no clock, no topic.

use serde::{Deserialize, Serialize};

use super::evidence::{Counts, Evidence};
pub use crate::model::delivery::Missing;

/// Shares of the candidate, one after the other, 0–1.
pub const STEPS: [f64; 5] = [0.01, 0.05, 0.20, 0.50, 1.0];

/// The rule with its parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Shares of the candidate, rising, the last one 1.
    pub steps: Vec<f64>,
    /// Minutes that a step lasts at least, default 15.
    pub hold_minutes: u32,
    /// Interactions that the candidate needs at a step at least, default 60.
    pub interactions: u64,
    /// Interactions a minute that the candidate is to have at the first step, default 1.
    pub first_interactions: f64,
    /// The e-value that ends a canary, default 100: a candidate that is no worse is aborted
    /// with a probability of at most 1 %.
    pub abort_at: f64,
    /// What the candidate's rate may at most be above the control's: this much, default .02,
    /// or this part of the control's rate, default ½, whichever is more.
    pub margin: f64,
    pub margin_share: f64,
    /// z of the one-sided bound on it, default 1.645 (95 %).
    pub z: f64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            steps: STEPS.to_vec(),
            hold_minutes: 15,
            interactions: 60,
            first_interactions: 1.0,
            abort_at: 100.0,
            margin: 0.02,
            margin_share: 0.5,
            z: 1.645,
        }
    }
}

impl Plan {
    /// The step to begin with where the dispatcher has so many interactions a minute: the first
    /// that gives the candidate enough to be judged by, else the last with a control beside it.
    pub fn first(&self, interactions_per_minute: f64) -> usize {
        let enough = |share: &f64| share * interactions_per_minute >= self.first_interactions;
        let last = self.steps.len().saturating_sub(2);
        self.steps.iter().position(enough).unwrap_or(last).min(last)
    }

    /// The verdict on a step.
    pub(super) fn judge(&self, seen: &Seen) -> Verdict {
        let is_alone = seen.step + 1 >= self.steps.len();
        if seen.evidence >= self.abort_at {
            return Verdict::Abort;
        }
        match self.missing(seen, is_alone) {
            Some(missing) => Verdict::Hold(missing),
            None if is_alone => Verdict::Done,
            None => Verdict::Advance(seen.step + 1),
        }
    }

    fn missing(&self, seen: &Seen, is_alone: bool) -> Option<Missing> {
        if seen.minutes < self.hold_minutes {
            return Some(Missing::Minutes(self.hold_minutes - seen.minutes));
        }
        if seen.candidate.total < self.interactions {
            return Some(Missing::Interactions(self.interactions - seen.candidate.total));
        }
        let control = if is_alone { seen.past } else { seen.control };
        let spread = (control.variance() + seen.candidate.variance()).sqrt();
        let excess = seen.candidate.rate() - control.rate() + self.z * spread;
        let allowed = self.margin.max(self.margin_share * control.rate());
        (excess > allowed).then_some(Missing::Certainty { excess, allowed })
    }
}

/// What was seen at a step so far.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub step: usize,
    /// Minutes at this step that were evidence.
    pub minutes: u32,
    /// The control so far, before and beside the candidate.
    pub past: Counts,
    /// Both flows at this step.
    pub control: Counts,
    pub candidate: Counts,
    /// The e-value.
    pub evidence: f64,
}

/// What a minute led to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Hold(Missing),
    /// To this step.
    Advance(usize),
    /// The candidate is worse: its share is 0 from now on.
    Abort,
    /// It has proven itself with everything.
    Done,
}

impl Verdict {
    pub(super) fn goes_on(self) -> bool {
        matches!(self, Verdict::Advance(_) | Verdict::Done)
    }
}

/// Where a canary stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Canary {
    pub step: usize,
    /// Minutes at this step that were evidence.
    minutes: u32,
    /// The control before this minute, and both flows at this step.
    past: Counts,
    control: Counts,
    candidate: Counts,
    evidence: Evidence,
}

impl Canary {
    /// At `step`; `past` is what is known of the control from before.
    pub fn new(step: usize, past: Counts) -> Self {
        Self {
            step,
            minutes: 0,
            past,
            control: Counts::default(),
            candidate: Counts::default(),
            evidence: Evidence::default(),
        }
    }

    /// The e-value so far: what speaks against the candidate.
    pub fn evidence(&self) -> f64 {
        self.evidence.value()
    }

    /// One complete minute of both flows. One that is not complete is no evidence: it is not to
    /// be told.
    pub fn observe(&mut self, plan: &Plan, control: Counts, candidate: Counts) -> Verdict {
        let is_alone = self.step + 1 >= plan.steps.len();
        if is_alone {
            self.evidence.feed_alone(self.past, candidate);
        } else {
            self.evidence.feed(self.past, control, candidate);
            self.past.add(control);
        }
        self.minutes = self.minutes.saturating_add(1);
        self.control.add(control);
        self.candidate.add(candidate);
        let verdict = plan.judge(&self.seen());
        if let Verdict::Advance(_) = verdict {
            self.advance();
        }
        verdict
    }

    fn seen(&self) -> Seen {
        Seen {
            step: self.step,
            minutes: self.minutes,
            past: self.past,
            control: self.control,
            candidate: self.candidate,
            evidence: self.evidence(),
        }
    }

    /// A minute that says nothing about this step, such as one that began before it: it is evidence
    /// against the candidate, and nothing more. Answers whether that is enough to abort.
    pub fn weigh(&mut self, plan: &Plan, control: Counts, candidate: Counts) -> bool {
        self.evidence.feed(self.past, control, candidate);
        self.past.add(control);
        self.evidence() >= plan.abort_at
    }

    /// Minutes and both flows at this step so far.
    pub fn at_step(&self) -> (u32, Counts, Counts) {
        (self.minutes, self.control, self.candidate)
    }

    /// The control so far, before and beside the candidate.
    pub fn past(&self) -> Counts {
        self.past
    }

    /// The evidence goes on over all steps.
    fn advance(&mut self) {
        self.step += 1;
        self.minutes = 0;
        (self.control, self.candidate) = (Counts::default(), Counts::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: u64, errors: u64) -> Counts {
        Counts { total, errors }
    }

    #[test]
    fn it_begins_where_the_candidate_gets_enough() {
        let plan = Plan::default();
        let shares = [10.0, 30.0, 100.0, 300.0, 1.0, 0.0].map(|traffic| plan.steps[plan.first(traffic)]);
        assert_eq!(shares, [0.20, 0.05, 0.01, 0.01, 0.50, 0.50]);
    }

    #[test]
    fn a_good_candidate_passes_every_step_and_a_step_says_what_it_lacks() {
        let plan = Plan::default();
        let mut canary = Canary::new(2, counts(1_000, 10));
        let mut verdicts = Vec::new();
        while verdicts.last() != Some(&Verdict::Done) {
            let share = plan.steps[canary.step];
            let candidate = counts((share * 100.0) as u64, u64::from(verdicts.len() % 2 == 0));
            let control = counts(100 - candidate.total, 1);
            verdicts.push(canary.observe(&plan, control, candidate));
            assert!(verdicts.len() < 500, "{canary:?}");
        }
        let advanced: Vec<_> =
            verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Advance(_))).collect();
        assert_eq!(advanced, [&Verdict::Advance(3), &Verdict::Advance(4)]);
        assert_eq!(verdicts[0], Verdict::Hold(Missing::Minutes(14)));
        assert!(verdicts.iter().any(|verdict| matches!(verdict, Verdict::Hold(Missing::Certainty { .. }))));
    }

    #[test]
    fn interactions_are_asked_for_before_certainty() {
        let plan = Plan::default();
        let mut canary = Canary::new(0, counts(1_000, 10));
        let verdicts: Vec<_> = (0..15).map(|_| canary.observe(&plan, counts(99, 1), counts(1, 0))).collect();
        assert_eq!(verdicts[14], Verdict::Hold(Missing::Interactions(45)));
    }

    #[test]
    fn a_bad_candidate_is_aborted_at_any_step() {
        let plan = Plan::default();
        for step in 0..plan.steps.len() {
            let mut canary = Canary::new(step, counts(5_000, 50));
            let control = if step + 1 == plan.steps.len() { counts(0, 0) } else { counts(90, 1) };
            let verdicts = (0..20).map(|_| canary.observe(&plan, control, counts(10, 5)));
            assert!(verdicts.into_iter().any(|verdict| verdict == Verdict::Abort), "{step}");
        }
    }

    #[test]
    fn where_it_stands_survives_being_written_down() {
        let plan = Plan::default();
        let (mut one, mut other) = (Canary::new(1, counts(100, 2)), Canary::new(1, counts(100, 2)));
        for minute in 0..40 {
            let candidate = counts(10, minute % 3);
            let expected = one.observe(&plan, counts(90, 1), candidate);
            other = serde_json::from_str(&serde_json::to_string(&other).unwrap()).unwrap();
            assert_eq!(other.observe(&plan, counts(90, 1), candidate), expected);
        }
        assert_eq!(one, other);
    }
}
