//! Minutes of flows → minutes of canaries: both flows of one under the same key.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::delivery::{Arm, CanaryFact, CanaryMinute};
use crate::model::flow::{FlowMinute, MinuteSource};
use crate::pipeline::{Declaration, Outputs, Record, Stage, Step};
use crate::role::Role;
use crate::topics;

pub static DECLARATION: Declaration = Declaration {
    name: "canary-minutes",
    description: "brings complete minutes of both flows of a canary together",
    input: &topics::FLOW_MINUTES,
    outputs: &[&topics::CANARY_FACTS],
    changelog: &topics::CANARY_MINUTES_CHANGELOG,
    state_version: 1,
    lateness: Duration::from_secs(3_600),
};

/// Beside the minutes it looks up which flows are part of a canary.
pub static ROLE: Role = Role { reads: &[&topics::FLOW_MINUTES, &topics::SETTINGS], ..DECLARATION.role() };

/// A canary that a flow has part in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub configuration_id: String,
    pub canary_id: String,
    pub arm: Arm,
}

/// What the stage looks up beside its records.
pub trait Lookup: Send + Sync + 'static {
    /// The canaries under way that the flow has part in.
    fn parts(&self, flow_id: &str) -> Vec<Part>;
}

/// See [`DECLARATION`].
pub struct CanaryMinutes {
    /// Where minutes come from, unless a flow is named in `polled`.
    usual: MinuteSource,
    polled: BTreeSet<String>,
    lookup: Arc<dyn Lookup>,
}

impl CanaryMinutes {
    pub fn new(usual: MinuteSource, polled: BTreeSet<String>, lookup: Arc<dyn Lookup>) -> Self {
        Self { usual, polled, lookup }
    }

    fn source_of(&self, flow_id: &str) -> MinuteSource {
        if self.polled.contains(flow_id) { MinuteSource::Polled } else { self.usual }
    }
}

/// Nothing is kept per flow.
#[derive(Default, Serialize, Deserialize)]
pub struct Nothing;

impl Stage for CanaryMinutes {
    type Input<'a> = FlowMinute<'a>;
    type State = Nothing;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i FlowMinute<'_>) -> &'i str {
        &input.flow_id
    }

    fn event_time(input: &FlowMinute<'_>) -> Timestamp {
        input.minute
    }

    fn step(
        &self,
        record: &Record<'_>,
        _: &mut Nothing,
        minute: FlowMinute<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        if minute.errors > minute.total {
            return Step::Rejected(format!("{} errors of {} interactions", minute.errors, minute.total));
        }
        if !minute.complete {
            return Step::NoOp("minute_not_complete");
        }
        if minute.source != self.source_of(record.key) {
            return Step::NoOp("other_source");
        }
        let parts = self.lookup.parts(record.key);
        if parts.is_empty() {
            return Step::NoOp("no_canary");
        }
        for Part { configuration_id, canary_id, arm } in &parts {
            let minute = CanaryMinute {
                configuration_id: configuration_id.into(),
                canary_id: canary_id.into(),
                arm: *arm,
                minute: minute.minute,
                total: minute.total,
                errors: minute.errors,
            };
            outputs.send(&topics::CANARY_FACTS, configuration_id, &CanaryFact::Minute(minute));
        }
        Step::Applied
    }
}
