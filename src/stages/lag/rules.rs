//! The rules, numbered, worst first (`docs/lag.md`): what a partition's, or an
//! event type's, evidence says.

use arrayvec::ArrayVec;
use serde::Serialize;

use crate::model::lag::{LagEvidence, LagStatus, Observation};

pub const NAME: &str = "lag-rules";
/// Raised whenever the same evidence can give another answer.
pub const VERSION: u32 = 1;

/// Where the rules draw their lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Thresholds {
    /// Rule 3 and the second half of rule 2: so long at one offset while behind. Default 60 s.
    pub still_ms: u64,
    /// Rule 5: age above which a partition is in ERROR. Default 30 s.
    pub error_age_ms: u64,
    /// Rule 6: age above which a partition is in WARNING. Default 15 s.
    pub warning_age_ms: u64,
    /// Rule 7: age above which a rise counts. Default 5 s.
    pub trend_age_ms: u64,
    /// Rule 7: span of the rise, half of it at least. Default 5 min.
    pub trend_window_ms: u64,
    /// Rules 2, 5 and 6: polls in a row that make it true. Default 2.
    pub polls: u32,
    /// Rule 9: lag by analytics that exceeds the limit. Default 30 s.
    pub analytics_lag_ms: f64,
    /// Rule 10: processing latency that exceeds the limit. Default 500 ms.
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

/// Probability of a rise by chance below which rule 7 believes it.
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
/// Not a rule about evidence: fewer samples of a poll came than it said.
pub const POLL_INCOMPLETE: Verdict = verdict(LagStatus::Unknown, "poll_incomplete");
/// The seed's first threshold.
pub const LAG_EXCEEDED: &str = "lag_exceeded";
/// The seed's second threshold.
pub const LATENCY_EXCEEDED: &str = "latency_exceeded";

impl Thresholds {
    /// The worst that can be said, and of analytics everything that can.
    pub fn judge(&self, evidence: &LagEvidence) -> Verdicts {
        let mut verdicts = Verdicts::new();
        match &evidence.observation {
            Observation::Partition(_) => verdicts.push(self.partition(evidence)),
            Observation::EventType(seen) => {
                // 9. Lag in seconds is latency in milliseconds / 1000 (the seed's definition).
                if seen.processing_latency_ms > self.analytics_lag_ms {
                    verdicts.push(verdict(LagStatus::Error, LAG_EXCEEDED));
                }
                // 10. A threshold of its own, with a verdict of its own.
                if seen.processing_latency_ms > self.analytics_latency_ms {
                    verdicts.push(verdict(LagStatus::Error, LATENCY_EXCEEDED));
                }
                if verdicts.is_empty() {
                    verdicts.push(OK);
                }
            }
            // 11.
            Observation::Missing {} => {
                verdicts.push(verdict(LagStatus::MissingGroup, "required_group_missing"));
            }
            // 12.
            Observation::Failed { .. } => verdicts.push(verdict(LagStatus::Unknown, "poll_failed")),
            // 8.
            Observation::Idle { .. } => {
                verdicts.push(verdict(LagStatus::Uncommitted, "never_committed"));
            }
        }
        verdicts
    }

    fn partition(&self, evidence: &LagEvidence) -> Verdict {
        let Observation::Partition(seen) = &evidence.observation else { return OK };
        // 8. Without a commit there is nothing to be behind of.
        if seen.committed.is_none() {
            return match seen.log_end > seen.log_start {
                true => verdict(LagStatus::Uncommitted, "never_committed"),
                false => OK,
            };
        }
        // 1. Retention passed the group by.
        if evidence.lost > 0 {
            return verdict(LagStatus::DataLoss, "retention_passed");
        }
        let behind = seen.head.is_some();
        // 2. Nobody there: no member, and no commit that moved.
        if behind && evidence.deserted_polls >= self.polls {
            return verdict(LagStatus::Stopped, "no_member");
        }
        if behind && evidence.still_ms >= self.still_ms {
            return match seen.members {
                // 2. The same, seen by time: no commit for as long.
                0 => verdict(LagStatus::Stopped, "no_commit"),
                // 3. Somebody is there and nothing moves.
                _ => verdict(LagStatus::Stalled, "no_progress"),
            };
        }
        // 4.
        if evidence.rewound_from.is_some() {
            return verdict(LagStatus::Rewind, "offset_went_back");
        }
        // 5.
        if evidence.error_polls >= self.polls {
            return verdict(LagStatus::Error, "age_over_error");
        }
        // 6.
        if evidence.warning_polls >= self.polls {
            return verdict(LagStatus::Warning, "age_over_warning");
        }
        // 7.
        let rises = evidence.trend.is_some_and(|trend| trend.slope > 0.0 && trend.p_value < SIGNIFICANCE);
        if rises && evidence.age_ms > self.trend_age_ms {
            return verdict(LagStatus::Warning, "age_rising");
        }
        OK
    }
}
