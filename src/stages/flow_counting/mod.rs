//! Conversation events → interactions per flow, version and minute, as far as one
//! partition of events knows them.
//!
//! Counting before the shuffle keeps the events where they are: what goes on to the
//! partitions of flows are a few counts a second. They are cumulative, so that telling one
//! twice changes nothing.

mod changelog;
mod flow_version;
mod identity;
mod state;

use std::borrow::Cow;
use std::time::Duration;

use crate::model::Timestamp;
use crate::model::conversation::{ConversationEvent, InteractionOutcome};
use crate::model::flow::{FlowClosed, FlowCount, FlowTally};
use crate::pipeline::{Declaration, Moment, Outputs, PartitionStage, Record, Step, latest_possible};
use crate::role::Role;
use crate::topics;

use flow_version::FlowVersionRef;
use identity::Identity;
use state::{Counted, MOST_COUNTS, MOST_EVENTS, State};

pub static DECLARATION: Declaration = Declaration {
    name: "flow-counting",
    description: "counts interactions per flow and minute in each partition of events, each event once",
    input: &topics::CONVERSATION_EVENTS,
    outputs: &[&topics::FLOW_COUNTS],
    changelog: &topics::FLOW_COUNTING_CHANGELOG,
    state_version: 1,
    lateness: Duration::from_secs(120),
};

pub static ROLE: Role = DECLARATION.role();

/// A partition without events is waited for this long at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Counts are told this often in a minute while it lasts.
const TELLINGS_PER_MINUTE: u32 = 60;

/// See [`DECLARATION`].
pub struct FlowCounting {
    minute: Duration,
    lateness: Duration,
}

impl FlowCounting {
    /// `minute` is the length of a minute, at least a second; `lateness` how long after
    /// its end, in event time, it stays open.
    pub fn new(minute: Duration, lateness: Duration) -> Self {
        Self { minute: minute.max(Duration::from_secs(1)), lateness }
    }

    /// The beginning of the minute that `at` lies in.
    fn minute_of(&self, at: Timestamp) -> Timestamp {
        let minute_ms = i64::try_from(self.minute.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(at.as_millis() - at.as_millis().rem_euclid(minute_ms))
    }

    /// Opens minutes again that a clock ahead of this one had closed. The present one stays
    /// closed: what was counted in it before is not known any more.
    fn heal(&self, state: &mut State, at: Timestamp) {
        if state.closed_before().is_some_and(|closed| closed > latest_possible(at)) {
            state.reopen(self.minute_of(at).plus(self.minute));
        }
    }
}

impl PartitionStage for FlowCounting {
    type Input<'a> = ConversationEvent<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn lateness(&self) -> Duration {
        self.lateness
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(LONGEST_WAIT.min(self.minute / 2))
    }

    fn key<'i>(input: &'i ConversationEvent<'_>) -> &'i str {
        &input.conversation_id
    }

    fn event_time(input: &ConversationEvent<'_>) -> Timestamp {
        input.occurred_at
    }

    fn step(
        &self,
        record: &Record<'_>,
        state: &mut State,
        event: ConversationEvent<'_>,
        _: &mut Outputs,
    ) -> Step {
        self.heal(state, record.at);
        if let Err(invalid) = event.validate() {
            return Step::Rejected(invalid.to_string());
        }
        let (Some(flow_id), Some(outcome)) = (&event.flow_id, event.outcome) else {
            return Step::NoOp("not_the_end_of_an_interaction_with_a_flow");
        };
        let of = FlowVersionRef { flow_id, version: event.flow_version.as_deref().unwrap_or_default() };
        let minute = self.minute_of(event.occurred_at);
        let is_error = outcome == InteractionOutcome::Error;
        match state.count(minute, Identity::of(&event.event_id), of, is_error) {
            Counted::Once => Step::Applied,
            Counted::Again => Step::NoOp("event_repeated"),
            Counted::TooLate => Step::Late,
            Counted::TooManyEvents => Step::Rejected(format!(
                "too_many_events: the open minutes of the partition hold {MOST_EVENTS} already"
            )),
            Counted::TooManyCounts => Step::Rejected(format!(
                "too_many_flows: the open minutes of the partition hold {MOST_COUNTS} flow versions already"
            )),
        }
    }

    fn advance(&self, moment: &Moment, state: &mut State, outputs: &mut Outputs) {
        self.heal(state, moment.at);
        let Some(watermark) = moment.watermark else { return };
        let before = self.minute_of(watermark.minus(self.lateness));
        let closes = state.closed_before().is_none_or(|closed| closed < before);
        if closes || state.is_to_be_told(moment.at.minus(self.minute / TELLINGS_PER_MINUTE), moment.at) {
            state.tell(moment.at, |minute, of, count| {
                let told = FlowTally::Counted(FlowCount {
                    flow_id: Cow::Borrowed(of.flow_id),
                    flow_version: Cow::Borrowed(of.version),
                    minute,
                    partition: moment.partition,
                    total: count.total,
                    errors: count.errors,
                });
                outputs.send(&topics::FLOW_COUNTS, of.flow_id, &told);
            });
        }
        if closes {
            state.close(before);
        }
        if let Some(before) = state.closed_before().filter(|_| state.take_reopened() || closes) {
            let (partition, partitions) = (moment.partition, moment.partitions);
            let closed = FlowTally::Closed(FlowClosed { partition, partitions, before });
            outputs.send_to_every_partition(&topics::FLOW_COUNTS, FlowTally::NO_FLOW, &closed);
        }
    }
}
