//! From evidence to an answer (`docs/rollback.md`). What is asked with is recorded in the
//! decision, so that it can be asked again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::decision::Action;
use crate::model::rollback::RollbackInputs;

/// Raised whenever the same inputs can give another answer.
pub const VERSION: u32 = 1;

/// The reason that says nothing about the version before.
pub const BREACHES_IN_A_ROW: &str = "breaches_in_a_row";

/// Which evidence is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Buckets in a row over the threshold: the rule the project was asked for. Where the
    /// version before was as bad it takes back most healthy publishes within an hour.
    Consecutive,
    /// Besides, the version must be worse than the one before it.
    Attributed,
}

impl Policy {
    pub fn name(self) -> &'static str {
        match self {
            Policy::Consecutive => "consecutive",
            Policy::Attributed => "attributed",
        }
    }
}

/// What `attributed` does where the version before has too few interactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutBaseline {
    Consecutive,
    Alert,
}

/// The rule with its parameters. Minutes are of the length `minute` says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    pub policy: Policy,
    pub without_baseline: WithoutBaseline,
    /// Errors per interaction that must be exceeded, 0–1, default 0.05.
    pub threshold: f64,
    /// Buckets in a row over it, default 3.
    pub breaches: u32,
    /// At or below this rate a bucket counts towards re-arming, 0–1, default 0.04.
    pub rearm_rate: f64,
    /// Such buckets in a row, default 3.
    pub rearm_buckets: u32,
    /// Interactions that close a bucket at the next edge, default 20.
    pub bucket_interactions: u64,
    /// Minutes after which a bucket that has not closed is given up, default 15.
    pub bucket_minutes: u32,
    /// Minutes after a publish during which it may be taken back, default 60.
    pub armed_minutes: u32,
    /// Minutes after a rollback without another of the same flow, default 15.
    pub cooldown_minutes: u32,
    /// Minutes after a rollback until its effect is looked at, default 10.
    pub verify_minutes: u32,
    /// Interactions the version before must have had, default 200.
    pub baseline_interactions: u64,
    /// Limit of the statistic against the baseline, default 6 000: a false alarm within
    /// 60 minutes has a probability of at most 1 %.
    pub worse_limit: f64,
    /// Limit of the statistic for severe errors at low traffic, default 10 000.
    pub severe_limit: f64,
    /// Minutes and errors that one needs at least, default 3 and 5.
    pub severe_minutes: u32,
    pub severe_errors: u64,
    /// Length of a minute: 60 s, less for a simulator run fast.
    pub minute: Duration,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            policy: Policy::Attributed,
            without_baseline: WithoutBaseline::Consecutive,
            threshold: 0.05,
            breaches: 3,
            rearm_rate: 0.04,
            rearm_buckets: 3,
            bucket_interactions: 20,
            bucket_minutes: 15,
            armed_minutes: 60,
            cooldown_minutes: 15,
            verify_minutes: 10,
            baseline_interactions: 200,
            worse_limit: 6_000.0,
            severe_limit: 10_000.0,
            severe_minutes: 3,
            severe_errors: 5,
            minute: Duration::from_secs(60),
        }
    }
}

/// What the rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub action: Action,
    pub reason: &'static str,
}

/// Whether more than this rate of `total` are errors: in millionths, because a rate such
/// as 0.05 has no exact binary form and 5 of 100 is no breach.
pub fn exceeds(errors: u64, total: u64, rate: f64) -> bool {
    const MILLION: u128 = 1_000_000;
    u128::from(errors) * MILLION > u128::from(total) * (rate * MILLION as f64).round() as u128
}

impl Rule {
    /// So many minutes.
    pub fn minutes(&self, count: u32) -> Duration {
        self.minute.saturating_mul(count)
    }

    /// The answer to this evidence.
    pub fn judge(&self, evidence: &RollbackInputs) -> Answer {
        let hold = |reason| Answer { action: Action::Hold, reason };
        if evidence.unmeasured {
            return hold("inconclusive");
        }
        let closed = evidence.minute.plus(Duration::from_millis(evidence.minute_ms));
        let Some((action, reason)) = self.breach(evidence) else {
            return hold(match evidence {
                inputs if !inputs.maintenance.is_empty() => "maintenance_window",
                inputs if inputs.fired => "awaiting_recovery",
                inputs if inputs.inconclusive => "inconclusive",
                inputs if inputs.breaches >= self.breaches => "over_threshold_as_before",
                inputs if inputs.breaches > 0 => "over_threshold",
                _ => "within_threshold",
            });
        };
        if !evidence.maintenance.is_empty() {
            return hold("suppressed_by_maintenance_window");
        }
        if evidence.fired {
            return hold("already_decided");
        }
        if self.policy == Policy::Attributed && closed > evidence.armed_until {
            return Answer { action: Action::Alert, reason: "not_armed" };
        }
        if action == Action::Rollback && evidence.cooldown_until.is_some_and(|until| closed < until) {
            return hold("cooldown");
        }
        Answer { action, reason }
    }

    /// What would be done and why, were nothing in the way. `None`: nothing is to be done.
    fn breach(&self, evidence: &RollbackInputs) -> Option<(Action, &'static str)> {
        let statistics = &evidence.statistics;
        let in_a_row = evidence.breaches >= self.breaches;
        let by_count = in_a_row.then_some((Action::Rollback, BREACHES_IN_A_ROW));
        if self.policy == Policy::Consecutive {
            return by_count;
        }
        if evidence.baseline.is_none() {
            return match self.without_baseline {
                WithoutBaseline::Consecutive => by_count,
                WithoutBaseline::Alert => in_a_row.then_some((Action::Alert, "no_baseline")),
            };
        }
        if in_a_row && statistics.worse_than_before >= self.worse_limit {
            return Some((Action::Rollback, "worse_than_before"));
        }
        let severe = statistics.severe >= self.severe_limit
            && statistics.minutes >= self.severe_minutes
            && statistics.errors >= self.severe_errors;
        severe.then_some((Action::Rollback, "severe"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_percent_is_no_breach_of_five_percent_at_any_size() {
        for total in (20..200_000).step_by(20) {
            assert!(!exceeds(total / 20, total, 0.05), "{total}");
            assert!(exceeds(total / 20 + 1, total, 0.05), "{total}");
        }
        assert!(!exceeds(0, 0, 0.05));
    }
}
