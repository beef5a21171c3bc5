//! Did the rollback help? Looked at some minutes after another version is in force.

use serde::{Deserialize, Serialize};

use super::rule::{Rule, exceeds};
use crate::model::Timestamp;
use crate::model::decision::DecisionId;
use crate::model::outcome::OutcomeStatus;

/// A rollback whose effect is not known yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pending {
    pub decision_id: DecisionId,
    pub sequence: u64,
    bad_version: String,
    decided_at: Timestamp,
    /// Since when another version is in force.
    switched_at: Option<Timestamp>,
    total: u64,
    errors: u64,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    pub status: OutcomeStatus,
    pub reason: String,
}

impl Pending {
    pub fn new(decision_id: DecisionId, sequence: u64, bad_version: String, decided_at: Timestamp) -> Self {
        Self { decision_id, sequence, bad_version, decided_at, switched_at: None, total: 0, errors: 0 }
    }

    pub fn bad_version(&self) -> &str {
        &self.bad_version
    }

    /// A decision of a clock that was ahead is taken for one of now.
    pub fn forget_after(&mut self, latest: Timestamp) {
        self.decided_at = self.decided_at.min(latest);
    }

    /// After another minute, which ended at `until`, with the version that is in force
    /// since then. `counts` are of a minute of that version.
    pub fn observe(&mut self, in_force: (&str, Timestamp), until: Timestamp, counts: Option<(u64, u64)>) {
        let (version, since) = in_force;
        if version == self.bad_version || until <= self.decided_at {
            return;
        }
        self.switched_at.get_or_insert(since);
        if let Some((total, errors)) = counts {
            self.total = self.total.saturating_add(total);
            self.errors = self.errors.saturating_add(errors);
        }
    }

    /// What was found, once it is time.
    pub fn finding(&self, rule: &Rule, until: Timestamp) -> Option<Finding> {
        (until >= self.switched_at?.plus(rule.minutes(rule.verify_minutes))).then(|| self.judge(rule))
    }

    /// What can be said now.
    pub fn judge(&self, rule: &Rule) -> Finding {
        let (total, errors) = (self.total, self.errors);
        let (status, code) = if total == 0 {
            (OutcomeStatus::NotRecovered, "no_interactions")
        } else if exceeds(errors, total, rule.threshold) {
            (OutcomeStatus::NotRecovered, "still_over_threshold")
        } else {
            (OutcomeStatus::Recovered, "within_threshold")
        };
        let reason = format!("{code}: {errors} errors of {total} interactions since the version was changed");
        Finding { status, reason }
    }

    /// Whether the version never changed: there is nothing to verify.
    pub fn is_void(&self, rule: &Rule, until: Timestamp) -> bool {
        let longest = rule.minutes(rule.cooldown_minutes + rule.verify_minutes);
        self.switched_at.is_none() && until >= self.decided_at.plus(longest)
    }
}
