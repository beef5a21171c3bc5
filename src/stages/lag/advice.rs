//! What would help a group.

use super::rules::Thresholds;
use crate::model::decision::Action;
use crate::model::lag::{AdvisedOn, LagStatus};

/// What would help, and how many consumers would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Advice {
    pub action: Action,
    pub replicas: Option<u32>,
}

/// What the advice goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measured {
    /// The worst source's.
    pub status: LagStatus,
    /// How long the status has been as it is.
    pub calm_ms: u64,
    /// Of the brokers where they were asked, as what follows.
    pub members: Option<u32>,
    pub drain_per_second: Option<f64>,
    pub catch_up_seconds: Option<f64>,
    pub on: AdvisedOn,
}

impl Thresholds {
    pub(super) fn advice(&self, measured: &Measured) -> Advice {
        let Measured { status, on, .. } = *measured;
        // Analytics do not tell how many consumers there are.
        let Some(members) = measured.members else {
            return Advice { action: without_members(status), replicas: None };
        };
        let as_they_are = if members > 0 { members } else { on.members_before.max(1) };
        let most = on.parts.max(1);
        let (action, replicas) = match status {
            _ if on.may_mend_itself => (Action::Hold, as_they_are),
            // More consumers would read nothing that is lost, and wait in the same line; those
            // that are there read what they are told to.
            LagStatus::DataLoss
            | LagStatus::BeyondEnd
            | LagStatus::Abandoned
            | LagStatus::Rewind
            | LagStatus::MissingGroup => (Action::Investigate, as_they_are),
            LagStatus::Stopped | LagStatus::Stalled => (Action::Restart, as_they_are),
            LagStatus::Error | LagStatus::Warning => self.for_a_slow_group(measured, as_they_are, most),
            LagStatus::Unknown | LagStatus::Uncommitted => (Action::Hold, as_they_are),
            // Fewer only after it has been well for as long as the history reaches.
            LagStatus::Ok => match on.needed {
                Some(needed) if measured.calm_ms >= self.history_ms => {
                    (Action::Hold, needed.min(as_they_are))
                }
                _ => (Action::Hold, as_they_are),
            },
        };
        Advice { action, replicas: Some(replicas) }
    }

    fn for_a_slow_group(&self, measured: &Measured, members: u32, most: u32) -> (Action, u32) {
        // Nothing moves: that is soon STALLED or STOPPED, where more consumers do not help.
        if measured.drain_per_second.is_none_or(|drain| drain <= 0.0) {
            return (Action::Hold, members);
        }
        let soon =
            measured.catch_up_seconds.is_some_and(|seconds| seconds * 1_000.0 <= self.catch_up_ms as f64);
        if soon {
            return (Action::Hold, members);
        }
        if members >= most {
            return (Action::Investigate, members);
        }
        (Action::ScaleOut, measured.on.needed.unwrap_or(0).clamp(members + 1, most))
    }
}

fn without_members(status: LagStatus) -> Action {
    match status {
        LagStatus::Stopped | LagStatus::Stalled => Action::Restart,
        LagStatus::DataLoss
        | LagStatus::BeyondEnd
        | LagStatus::Abandoned
        | LagStatus::Rewind
        | LagStatus::Error
        | LagStatus::Warning
        | LagStatus::MissingGroup => Action::Investigate,
        LagStatus::Unknown | LagStatus::Uncommitted | LagStatus::Ok => Action::Hold,
    }
}
