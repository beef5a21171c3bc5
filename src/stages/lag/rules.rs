//! The rules, numbered, worst first (`docs/lag.md`): what a partition's, or an
//! event type's, evidence says.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::lag::{Assigned, LagEvidence, LagStatus, Observation, PartitionLag};

pub const NAME: &str = "lag-rules";
/// Raised whenever the same evidence can give another answer.
pub const VERSION: u32 = 2;

/// Where the rules draw their lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Thresholds {
    /// Rules 5 and 6: so long at one offset while behind, or without any commit. Also how
    /// long what may mend itself (3 and 7) is looked at before help is asked for. Default 60 s.
    pub still_ms: u64,
    /// Rule 5: a group without members is silent after so many of its usual intervals
    /// between commits. Default 3.
    pub silent_intervals: u64,
    /// Rule 8: age above which a partition is in ERROR. Default 30 s.
    pub error_age_ms: u64,
    /// Rule 9: age above which a partition is in WARNING. Default 15 s.
    pub warning_age_ms: u64,
    /// Rule 10: age above which a rise counts. Default 5 s.
    pub trend_age_ms: u64,
    /// Rule 10: span of the rise, half of it at least. Default 5 min.
    pub trend_window_ms: u64,
    /// Rules 1 to 5, 8 and 9: polls in a row that make it true. Default 2.
    pub polls: u32,
    /// Rule 12: lag by analytics that exceeds the limit. Default 30 s.
    pub analytics_lag_ms: f64,
    /// Rule 13: processing latency that exceeds the limit. Default 500 ms.
    pub analytics_latency_ms: f64,
    /// How long a rewind is remembered, and rates are kept. Default 10 min.
    pub history_ms: u64,
    /// Time between two calls for help for one group. Default 300 s.
    pub cooldown_ms: u64,
    /// Time a group that is behind should need to catch up. Default 5 min.
    pub catch_up_ms: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            still_ms: 60_000,
            silent_intervals: 3,
            error_age_ms: 30_000,
            warning_age_ms: 15_000,
            trend_age_ms: 5_000,
            trend_window_ms: 300_000,
            polls: 2,
            analytics_lag_ms: 30_000.0,
            analytics_latency_ms: 500.0,
            history_ms: 600_000,
            cooldown_ms: 300_000,
            catch_up_ms: 300_000,
        }
    }
}

/// Probability of a rise by chance below which rule 10 believes it.
const SIGNIFICANCE: f64 = 0.05;

/// A rule that answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub status: LagStatus,
    pub rule: &'static str,
}

const fn verdict(status: LagStatus, rule: &'static str) -> Verdict {
    Verdict { status, rule }
}

/// Both limits of analytics can be exceeded at once; else one rule answers.
pub type Verdicts = ArrayVec<Verdict, 2>;

pub const OK: Verdict = verdict(LagStatus::Ok, "ok");
const RETENTION_PASSED: Verdict = verdict(LagStatus::DataLoss, "retention_passed");
const BEYOND_END: Verdict = verdict(LagStatus::BeyondEnd, "committed_beyond_end");
const NOT_ASSIGNED: Verdict = verdict(LagStatus::Abandoned, "assigned_to_nobody");
const NO_MEMBER: Verdict = verdict(LagStatus::Stopped, "no_member");
const NO_COMMIT: Verdict = verdict(LagStatus::Stopped, "no_commit");
const NO_PROGRESS: Verdict = verdict(LagStatus::Stalled, "no_progress");
const WENT_BACK: Verdict = verdict(LagStatus::Rewind, "offset_went_back");
const ERROR_AGE: Verdict = verdict(LagStatus::Error, "age_over_error");
/// The seed's first threshold.
const LAG_EXCEEDED: Verdict = verdict(LagStatus::Error, "lag_exceeded");
/// The seed's second threshold.
const LATENCY_EXCEEDED: Verdict = verdict(LagStatus::Error, "latency_exceeded");
const WARNING_AGE: Verdict = verdict(LagStatus::Warning, "age_over_warning");
const AGE_RISING: Verdict = verdict(LagStatus::Warning, "age_rising");
const REQUIRED_MISSING: Verdict = verdict(LagStatus::MissingGroup, "required_group_missing");
const POLL_FAILED: Verdict = verdict(LagStatus::Unknown, "poll_failed");
/// Not a rule about evidence: fewer samples of a poll came than it said.
pub const POLL_INCOMPLETE: Verdict = verdict(LagStatus::Unknown, "poll_incomplete");
/// Nor this: nothing comes at all.
pub const NOT_HEARD: Verdict = verdict(LagStatus::Unknown, "not_heard");
const NOT_JUDGED: Verdict = verdict(LagStatus::Unknown, "kind_not_judged");
const NEVER_COMMITTED: Verdict = verdict(LagStatus::Uncommitted, "never_committed");

/// All that can be said, worst first.
const ORDER: [Verdict; 18] = [
    RETENTION_PASSED,
    BEYOND_END,
    NOT_ASSIGNED,
    NO_MEMBER,
    NO_COMMIT,
    NO_PROGRESS,
    WENT_BACK,
    ERROR_AGE,
    LAG_EXCEEDED,
    LATENCY_EXCEEDED,
    WARNING_AGE,
    AGE_RISING,
    REQUIRED_MISSING,
    POLL_FAILED,
    POLL_INCOMPLETE,
    NOT_HEARD,
    NOT_JUDGED,
    NEVER_COMMITTED,
];

/// Where a rule stands among all, worst first.
pub fn rank(rule: &str) -> usize {
    ORDER.iter().position(|verdict| verdict.rule == rule).unwrap_or(ORDER.len())
}

impl Thresholds {
    /// The worst that can be said, and of analytics everything that can.
    pub fn judge(&self, evidence: &LagEvidence) -> Verdicts {
        let mut verdicts = Verdicts::new();
        match &evidence.observation {
            Observation::Partition(seen) => verdicts.push(self.partition(seen, evidence)),
            Observation::EventType(seen) => {
                // 12. Lag in seconds is latency in milliseconds / 1000 (the seed's definition).
                if seen.processing_latency_ms > self.analytics_lag_ms {
                    verdicts.push(LAG_EXCEEDED);
                }
                // 13. A threshold of its own, with a verdict of its own.
                if seen.processing_latency_ms > self.analytics_latency_ms {
                    verdicts.push(LATENCY_EXCEEDED);
                }
                if verdicts.is_empty() {
                    verdicts.push(OK);
                }
            }
            // 14.
            Observation::Missing {} => verdicts.push(REQUIRED_MISSING),
            // 15.
            Observation::Failed { .. } => verdicts.push(POLL_FAILED),
            Observation::NotJudged { .. } => verdicts.push(NOT_JUDGED),
            // 11.
            Observation::Idle { .. } => verdicts.push(NEVER_COMMITTED),
        }
        verdicts
    }

    fn partition(&self, seen: &PartitionLag, evidence: &LagEvidence) -> Verdict {
        // 11. Without a commit there is nothing to be behind of.
        if seen.committed.is_none() {
            return if seen.log_end > seen.log_start { NEVER_COMMITTED } else { OK };
        }
        // 1. Retention passed the group by, and the next poll asked again.
        if evidence.lost_polls >= self.polls {
            return RETENTION_PASSED;
        }
        // 2. The same at the other end.
        if evidence.beyond_polls >= self.polls {
            return BEYOND_END;
        }
        if seen.head.is_some()
            && let Some(verdict) = self.unread(seen, evidence)
        {
            return verdict;
        }
        // 7.
        if evidence.rewound_from.is_some() {
            return WENT_BACK;
        }
        // 8.
        if evidence.error_polls >= self.polls {
            return ERROR_AGE;
        }
        // 9.
        if evidence.warning_polls >= self.polls {
            return WARNING_AGE;
        }
        // 10.
        let rises = evidence.trend.is_some_and(|trend| trend.slope > 0.0 && trend.p_value < SIGNIFICANCE);
        if rises && evidence.age_ms > self.trend_age_ms.saturating_add(evidence.usual_wait_ms) {
            return AGE_RISING;
        }
        OK
    }

    /// There is something to read: does anybody?
    fn unread(&self, seen: &PartitionLag, evidence: &LagEvidence) -> Option<Verdict> {
        let assigned = assigned(seen);
        let deserted = evidence.deserted_polls >= self.polls;
        // 3. Not by those who are there.
        if assigned == Some(Assigned::Elsewhere) && deserted {
            return Some(NOT_ASSIGNED);
        }
        // 4. Nobody is left.
        if assigned == Some(Assigned::Nowhere) && deserted && evidence.read_by_member {
            return Some(NO_MEMBER);
        }
        let alive = seen.members > 0;
        // 5. Nobody ever was, and nobody commits as usual.
        if !alive && evidence.silent_polls >= self.polls && evidence.age_ms >= self.still_ms {
            return Some(NO_COMMIT);
        }
        // 6. Somebody is there, or commits elsewhere, and nothing moves here.
        let still = if alive { self.still_ms } else { evidence.silence_ms.max(self.still_ms) };
        let somebody = alive || evidence.silent_polls == 0;
        (somebody && evidence.still_ms >= still).then_some(NO_PROGRESS)
    }

    /// Whether what a rule has found may still mend itself, so that nobody is called: a
    /// group is set back on purpose or by a lost commit, and partitions are without a
    /// reader while they change hands.
    pub fn may_mend_itself(&self, verdict: &Verdict, evidence: &LagEvidence) -> bool {
        match verdict.status {
            LagStatus::Rewind => evidence.rewound_ms < self.still_ms,
            LagStatus::Abandoned => evidence.still_ms < self.still_ms,
            _ => false,
        }
    }
}

/// Whom a partition is assigned to, where anybody can tell.
pub(super) fn assigned(seen: &PartitionLag) -> Option<Assigned> {
    if seen.members == 0 { Some(Assigned::Nowhere) } else { seen.assigned }
}
