//! What each partition of events has counted → minutes of flows.
//!
//! A minute is told at once, with greater numbers while it lasts, and is complete when
//! every partition of events has passed it. Versions that had interactions within the
//! last hour get complete minutes without any: silence is not the same as no news.

mod state;

use std::borrow::Cow;
use std::time::Duration;

use crate::model::Timestamp;
use crate::model::flow::{FlowMinute, FlowTally, MinuteSource};
use crate::pipeline::{Declaration, Moment, Outputs, PartitionStage, Record, Step, latest_possible};
use crate::role::Role;
use crate::topics;

use state::{FlowVersion, MOST_SUMS, State, Summed};

pub static DECLARATION: Declaration = Declaration {
    name: "flow-summing",
    description: "sums the counts of all partitions; a minute is complete when each has passed it",
    input: &topics::FLOW_COUNTS,
    outputs: &[&topics::FLOW_MINUTES],
    changelog: &topics::FLOW_SUMMING_CHANGELOG,
    state_version: 1,
    // Which facts are late was judged where they were counted.
    lateness: Duration::MAX,
};

pub static ROLE: Role = DECLARATION.role();

/// Minutes closed in one batch. The rest waits for the next: a transaction has its limits.
const MINUTES_AT_ONCE: usize = 10;
/// For so many minutes without interactions a version goes on having minutes.
const REMEMBERED_MINUTES: u32 = 60;

/// See [`DECLARATION`].
pub struct FlowSumming {
    minute: Duration,
}

impl FlowSumming {
    /// `minute` is the length of a minute, the same as where they are counted.
    pub fn new(minute: Duration) -> Self {
        Self { minute: minute.max(Duration::from_secs(1)) }
    }

    /// The beginning of the minute that `at` lies in.
    fn minute_of(&self, at: Timestamp) -> Timestamp {
        let minute_ms = i64::try_from(self.minute.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(at.as_millis() - at.as_millis().rem_euclid(minute_ms))
    }

    /// Opens minutes again that a clock ahead of this one had closed.
    fn heal(&self, state: &mut State, at: Timestamp) {
        if state.closed_before().is_some_and(|closed| closed > latest_possible(at)) {
            state.reopen(self.minute_of(at).plus(self.minute));
        }
    }
}

fn tell(outputs: &mut Outputs, of: &FlowVersion, minute: Timestamp, sum: (u64, u64), complete: bool) {
    let (total, errors) = sum;
    let error_rate = if total == 0 { 0.0 } else { errors as f64 / total as f64 };
    let told = FlowMinute {
        flow_id: Cow::Borrowed(&of.flow_id),
        flow_version: Cow::Borrowed(&of.version),
        minute,
        total,
        errors,
        error_rate,
        complete,
        source: MinuteSource::Events,
    };
    outputs.send(&topics::FLOW_MINUTES, &of.flow_id, &told);
}

impl PartitionStage for FlowSumming {
    type Input<'a> = FlowTally<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i FlowTally<'_>) -> &'i str {
        input.key()
    }

    fn event_time(input: &FlowTally<'_>) -> Timestamp {
        match input {
            FlowTally::Counted(count) => count.minute,
            // However far a partition says it is: it is held to the clock where that is used.
            FlowTally::Closed(_) => Timestamp::MIN,
        }
    }

    fn step(&self, record: &Record<'_>, state: &mut State, input: FlowTally<'_>, _: &mut Outputs) -> Step {
        self.heal(state, record.at);
        let count = match input {
            FlowTally::Closed(closed) => {
                return match state.pass(closed) {
                    true => Step::Applied,
                    false => Step::NoOp("nothing_new"),
                };
            }
            FlowTally::Counted(count) => count,
        };
        if count.errors > count.total {
            return Step::Rejected(format!("{} errors of {} interactions", count.errors, count.total));
        }
        match state.sum(&count) {
            Summed::Changed => Step::Applied,
            Summed::Unchanged => Step::NoOp("nothing_new"),
            Summed::Complete => Step::NoOp("minute_complete"),
            Summed::TooMany => Step::Rejected(format!(
                "too_many_flows: the open minutes of the partition hold {MOST_SUMS} flow versions already"
            )),
        }
    }

    fn advance(&self, moment: &Moment, state: &mut State, outputs: &mut Outputs) {
        self.heal(state, moment.at);
        let possible = self.minute_of(latest_possible(moment.at));
        if let Some(until) = state.passed_by_all().map(|passed| passed.min(possible)) {
            for _ in 0..MINUTES_AT_ONCE {
                let Some(minute) = state.next_to_close(until) else {
                    state.close_before(until);
                    break;
                };
                let next = minute.plus(self.minute).min(until);
                let oldest = minute.minus(self.minute * REMEMBERED_MINUTES);
                state.close(minute, next, oldest, |of, minute, sum| tell(outputs, of, minute, sum, true));
            }
        }
        state.tell_open(|of, minute, sum| tell(outputs, of, minute, sum, false));
    }
}
