//! Conversation events → calls of campaigns, as far as one partition of events knows them.
//!
//! For campaigns whose statistics do not count answers and abandoned calls. A conversation's
//! events are all in one partition, a campaign's conversations are not: each partition tells its
//! own sums, and whoever needs a campaign's adds them up. They are cumulative, so that telling
//! one twice changes nothing.

mod calls;
mod state;

use std::time::Duration;

use crate::model::Timestamp;
use crate::model::call_counts::PartitionCounts;
use crate::model::conversation::ConversationEvent;
use crate::pipeline::{Declaration, Moment, Outputs, PartitionStage, Record, Step, latest_possible};
use crate::role::Role;
use crate::topics;

use calls::Heard;
use state::{State, Taken};

pub static DECLARATION: Declaration = Declaration {
    name: "campaign-counting",
    description: "counts answered and abandoned calls of campaigns in each partition of events, each call once",
    input: &topics::CONVERSATION_EVENTS,
    outputs: &[&topics::CAMPAIGN_COUNTS],
    changelog: &topics::CAMPAIGN_COUNTING_CHANGELOG,
    state_version: 1,
    // Which calls are too old is judged by minutes, here.
    lateness: Duration::MAX,
};

/// What cannot be used is set aside by `flow-counting`, which reads the same events.
pub static ROLE: Role = Role { sets_aside: &[], ..DECLARATION.role() };

/// Sums are told at most this often.
const LONGEST_TELLING_PAUSE: Duration = Duration::from_secs(1);

/// See [`DECLARATION`].
pub struct CampaignCounting {
    settle: Duration,
}

impl CampaignCounting {
    /// A call is judged so long after its fate should be known: events come in any order.
    pub fn new(settle: Duration) -> Self {
        Self { settle }
    }
}

impl PartitionStage for CampaignCounting {
    type Input<'a> = ConversationEvent<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(self.settle)
    }

    fn sets_aside(&self) -> bool {
        false
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
        state.heal(latest_possible(record.at));
        let Some(heard) = Heard::of(&event) else { return Step::NoOp("says_nothing_of_a_call") };
        if event.validate_fields().is_err() {
            return Step::NoOp("invalid");
        }
        match state.hear(&event.conversation_id, heard, self.settle) {
            Taken::Changed => Step::Applied,
            Taken::Unchanged => Step::NoOp("nothing_new"),
            Taken::NoCampaign => Step::NoOp("no_call_of_a_campaign"),
            Taken::TooOld => Step::NoOp("too_old"),
            Taken::TooMany => Step::NoOp("too_many_calls"),
        }
    }

    fn advance(&self, moment: &Moment, state: &mut State, outputs: &mut Outputs) {
        state.heal(latest_possible(moment.at));
        if let Some(watermark) = moment.watermark {
            state.judge(watermark, self.settle);
        }
        let since = moment.at.minus(self.settle.min(LONGEST_TELLING_PAUSE));
        state.tell(since, moment.at, |campaign_id, counts| {
            let told = PartitionCounts { partitions: moment.partitions, counts };
            outputs.send(
                &topics::CAMPAIGN_COUNTS,
                &PartitionCounts::key(campaign_id, moment.partition),
                &told,
            );
        });
    }
}
