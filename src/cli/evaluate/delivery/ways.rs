//! The ways that are compared, each minute by minute.

use super::Case;
use crate::cli::evaluate::draws::Draws;
use crate::cli::evaluate::minutes::{MINUTE, is_taken_back};
use crate::model::Timestamp;
use crate::stages::delivery::canary::{Canary, Plan, Verdict};
use crate::stages::delivery::evidence::Counts;
use crate::stages::rollback::guard::Guard;
use crate::stages::rollback::rule::{Rule, exceeds};

/// Minutes that a delivery is watched for, and that the control has run alone before.
pub(super) const MINUTES: u32 = 480;
/// When the simulated day begins: 00:00 UTC.
const START_MS: i64 = 1_767_312_000_000;

/// How a flow is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By canary, with an e-process.
    Evidence,
    /// By canary, aborted by three minutes in a row over 5 %; every step lasts its time.
    Threshold,
    /// To everybody at once, with the rollback loop behind it.
    Publish,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Aborted,
    Delivered,
    /// Not within [`MINUTES`].
    Undecided,
}

/// One delivery.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub ended: Ended,
    /// After so many minutes; until everybody had it where it was delivered.
    pub minutes: u32,
    /// Errors of the candidate above the control's rate until then.
    pub extra_errors: f64,
}

/// The minutes of both flows.
struct Traffic {
    draws: Draws,
    case: Case,
    /// Parts of an interaction that the candidate is owed: shares are exact.
    owed: f64,
    extra_errors: f64,
}

impl Traffic {
    fn new(case: Case, seed: u64, run: u32) -> Self {
        Self { draws: Draws::of_run(seed, run), case, owed: 0.0, extra_errors: 0.0 }
    }

    /// The control alone, from before.
    fn before(&mut self) -> Vec<Counts> {
        (0..MINUTES).map(|_| self.minute(0.0).0).collect()
    }

    /// A minute in which the candidate has this share: the control's counts, and the candidate's.
    fn minute(&mut self, share: f64) -> (Counts, Counts) {
        let total = self.draws.poisson(self.case.interactions_per_minute);
        self.owed += share * total as f64;
        let of_candidate = (self.owed.floor() as u64).min(total);
        self.owed -= of_candidate as f64;
        let control = self.counts(total - of_candidate, self.case.control_rate);
        let candidate = self.counts(of_candidate, self.case.candidate_rate);
        self.extra_errors += candidate.errors as f64 - self.case.control_rate * candidate.total as f64;
        (control, candidate)
    }

    fn counts(&mut self, total: u64, rate: f64) -> Counts {
        Counts { total, errors: self.draws.binomial(total, rate) }
    }

    fn ended(&self, ended: Ended, minutes: u32) -> Run {
        Run { ended, minutes, extra_errors: self.extra_errors }
    }
}

impl Way {
    pub const ALL: [Way; 3] = [Way::Evidence, Way::Threshold, Way::Publish];

    pub fn name(self) -> &'static str {
        match self {
            Way::Evidence => "canary",
            Way::Threshold => "canary with a fixed threshold",
            Way::Publish => "publish and roll back",
        }
    }

    /// One delivery; every way has draws of its own from the same beginning.
    pub fn play(self, case: Case, seed: u64, run: u32) -> Run {
        let mut traffic = Traffic::new(case, seed, run);
        match self {
            Way::Evidence => by_evidence(&mut traffic),
            Way::Threshold => by_threshold(&mut traffic),
            Way::Publish => at_once(&mut traffic),
        }
    }
}

fn by_evidence(traffic: &mut Traffic) -> Run {
    let plan = Plan::default();
    let mut past = Counts::default();
    traffic.before().into_iter().for_each(|minute| past.add(minute));
    let mut canary = Canary::new(plan.first(past.total as f64 / f64::from(MINUTES)), past);
    let mut everybody_after = None;
    for minute in 1..=MINUTES {
        let (control, candidate) = traffic.minute(plan.steps[canary.step]);
        match canary.observe(&plan, control, candidate) {
            Verdict::Abort => return traffic.ended(Ended::Aborted, minute),
            Verdict::Done => break,
            Verdict::Advance(step) if step + 1 == plan.steps.len() => everybody_after = Some(minute),
            Verdict::Advance(_) | Verdict::Hold(_) => {}
        }
    }
    match everybody_after {
        Some(minute) => traffic.ended(Ended::Delivered, minute),
        None => traffic.ended(Ended::Undecided, MINUTES),
    }
}

fn by_threshold(traffic: &mut Traffic) -> Run {
    let plan = Plan::default();
    let rule = Rule::default();
    let (mut over, mut everybody_after) = (0, None);
    for minute in 1..=MINUTES {
        let step = (((minute - 1) / plan.hold_minutes) as usize).min(plan.steps.len() - 1);
        let is_alone = step + 1 == plan.steps.len();
        if is_alone {
            everybody_after.get_or_insert(minute - 1);
        }
        let (_, candidate) = traffic.minute(plan.steps[step]);
        over = if exceeds(candidate.errors, candidate.total, rule.threshold) { over + 1 } else { 0 };
        if over == rule.breaches {
            return traffic.ended(Ended::Aborted, minute);
        }
        if everybody_after.is_some_and(|since| minute >= since + plan.hold_minutes) {
            break;
        }
    }
    traffic.ended(Ended::Delivered, everybody_after.unwrap_or(MINUTES))
}

fn at_once(traffic: &mut Traffic) -> Run {
    let rule = Rule::default();
    let mut guard = Guard::default();
    let mut see = |version: &'static str, minute: u32, counts: Counts| {
        let begins = Timestamp::from_millis(START_MS).plus(MINUTE * minute);
        is_taken_back(&mut guard, &rule, version, begins, (counts.total, counts.errors))
    };
    for (minute, counts) in (0..).zip(traffic.before()) {
        see("1", minute, counts);
    }
    for minute in 1..=rule.armed_minutes {
        let (_, candidate) = traffic.minute(1.0);
        if see("2", MINUTES + minute - 1, candidate) {
            return traffic.ended(Ended::Aborted, minute);
        }
    }
    traffic.ended(Ended::Delivered, 0)
}
