//! Simulated minutes of a flow, as the rollback's guard sees them.

use std::time::Duration;

use crate::model::Timestamp;
use crate::model::decision::Action;
use crate::model::flow::{FlowMinute, MinuteSource};
use crate::stages::rollback::guard::{Guard, Observation, Surroundings};
use crate::stages::rollback::rule::Rule;

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Whether the guard takes the version back after its next minute, which had so many
/// interactions and errors.
pub(super) fn is_taken_back(
    guard: &mut Guard,
    rule: &Rule,
    version: &'static str,
    minute: Timestamp,
    (total, errors): (u64, u64),
) -> bool {
    let read = FlowMinute {
        flow_id: "simulated".into(),
        flow_version: version.into(),
        minute,
        total,
        errors,
        error_rate: if total == 0 { 0.0 } else { errors as f64 / total as f64 },
        complete: true,
        source: MinuteSource::Events,
    };
    match guard.observe(rule, &read, Surroundings::default()) {
        Observation::Changed(judgement) => judgement.answer.action == Action::Rollback,
        _ => false,
    }
}
