//! Polled measures of flows → minutes of flows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::flow::{FlowHealth, FlowMinute, MinuteSource};
use crate::pipeline::{Declaration, Outputs, Record, Stage, Step, latest_possible};
use crate::role::Role;
use crate::topics;

pub static DECLARATION: Declaration = Declaration {
    name: "flow-measuring",
    description: "makes polled measures into minutes of flows, each change once",
    input: &topics::FLOW_HEALTH,
    outputs: &[&topics::FLOW_MINUTES],
    changelog: &topics::FLOW_MEASURING_CHANGELOG,
    state_version: 1,
    lateness: Duration::from_secs(300),
};

pub static ROLE: Role = DECLARATION.role();

/// Minutes remembered for each flow, its versions together.
const MINUTES: usize = 256;
/// Longest text of a version, in bytes.
const LONGEST_VERSION: usize = 64;

/// See [`DECLARATION`].
pub struct FlowMeasuring;

/// What is kept per flow: the last word on its newest minutes and versions.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct State(Vec<Told>);

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Told {
    minute: Timestamp,
    version: String,
    observed_at: Timestamp,
    total: u64,
    errors: u64,
    complete: bool,
}

impl Stage for FlowMeasuring {
    type Input<'a> = FlowHealth<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i FlowHealth<'_>) -> &'i str {
        &input.flow_id
    }

    fn event_time(input: &FlowHealth<'_>) -> Timestamp {
        input.observed_at
    }

    fn step(
        &self,
        record: &Record<'_>,
        state: &mut State,
        health: FlowHealth<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        if let Some(contradiction) = contradiction(&health) {
            return Step::Rejected(contradiction);
        }
        let told = Told {
            minute: health.minute,
            version: health.flow_version.as_ref().to_owned(),
            observed_at: health.observed_at,
            total: health.total,
            errors: health.errors,
            complete: health.complete,
        };
        state.forget_after(latest_possible(record.at));
        if let Err(not_held) = state.hold(told) {
            return not_held;
        }
        outputs.send(
            &topics::FLOW_MINUTES,
            record.key,
            &FlowMinute {
                flow_id: record.key.into(),
                flow_version: health.flow_version,
                minute: health.minute,
                total: health.total,
                errors: health.errors,
                error_rate: if health.total == 0 { 0.0 } else { health.errors as f64 / health.total as f64 },
                complete: health.complete,
                source: MinuteSource::Polled,
            },
        );
        Step::Applied
    }
}

impl State {
    /// What a clock that was ahead has measured must not stand against what is measured in its
    /// time.
    fn forget_after(&mut self, latest: Timestamp) {
        self.0.retain(|told| told.minute <= latest);
        let ahead = self.0.iter_mut().filter(|told| told.observed_at > latest);
        ahead.for_each(|told| told.observed_at = told.minute);
    }

    /// Takes a measure in if it says anything new.
    fn hold(&mut self, told: Told) -> Result<(), Step> {
        let key = |told: &Told| (told.minute, told.version.clone());
        match self.0.binary_search_by_key(&key(&told), key) {
            Ok(place) => {
                let known = &mut self.0[place];
                if known.complete {
                    return Err(Step::NoOp("minute_complete"));
                }
                if told.observed_at <= known.observed_at {
                    return Err(Step::NoOp("observation_not_newer"));
                }
                if (told.total, told.errors, told.complete) == (known.total, known.errors, known.complete) {
                    return Err(Step::NoOp("measure_unchanged"));
                }
                *known = told;
            }
            Err(0) if self.0.len() >= MINUTES => return Err(Step::Late),
            Err(place) => {
                self.0.insert(place, told);
                if self.0.len() > MINUTES {
                    self.0.remove(0);
                }
            }
        }
        Ok(())
    }
}

/// Why this measure cannot be true, if it cannot.
fn contradiction(health: &FlowHealth<'_>) -> Option<String> {
    if health.errors > health.total {
        return Some(format!("errors {} are more than total {}", health.errors, health.total));
    }
    if health.minute > health.observed_at {
        return Some(format!("minute {} begins after it was observed", health.minute));
    }
    if health.flow_version.len() > LONGEST_VERSION {
        return Some(format!(
            "flowVersion has {} bytes, the limit is {LONGEST_VERSION}",
            health.flow_version.len()
        ));
    }
    None
}
