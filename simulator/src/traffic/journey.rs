//! One conversation from its beginning to its end, drawn in one go.

use std::sync::{Arc, OnceLock};

use uuid::Uuid;

use crate::chance::Chance;
use crate::dialer::SettledCall;
use crate::flows::Flow;
use crate::time::Timestamp;

/// Callers in a queue who hang up before an agent answers.
const QUEUE_ABANDON_RATE: f64 = 0.08;
/// Callers who reach an agent and talk: three more events than those who hang up.
const EVENTS_WITH_AGENT: f64 = 3.0;
/// Different agents a queue's or a campaign's calls go to.
const AGENTS: u64 = 40;
/// From the pick-up to the flow's beginning.
const GREETING_MS: u64 = 200;

/// What the platform has a topic for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum EventKind {
    CustomerStart,
    CustomerEnd,
    FlowStart,
    FlowEnd,
    FlowOutcome,
    AcdStart,
    AcdEnd,
    UserStart,
    UserEnd,
    Acw,
    Outbound,
}

impl EventKind {
    /// As the topic ends.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CustomerStart => "customer.start",
            Self::CustomerEnd => "customer.end",
            Self::FlowStart => "flow.start",
            Self::FlowEnd => "flow.end",
            Self::FlowOutcome => "flow.outcome",
            Self::AcdStart => "acd.start",
            Self::AcdEnd => "acd.end",
            Self::UserStart => "user.start",
            Self::UserEnd => "user.end",
            Self::Acw => "acw",
            Self::Outbound => "outbound",
        }
    }
}

/// The way through a flow.
#[derive(Clone, Debug)]
pub(crate) struct FlowVisit {
    pub flow_id: Arc<str>,
    pub version: Arc<str>,
    pub exit_reason: &'static str,
    pub has_outcome: bool,
    /// Time in the flow, simulated.
    pub ms: u64,
}

impl FlowVisit {
    pub(crate) fn failed(&self) -> bool {
        matches!(self.exit_reason, "FLOW_ERROR_DISCONNECT" | "FLOW_ERROR_EXIT")
    }

    /// What a `flow.outcome` says.
    pub(crate) fn outcome_value(&self) -> &'static str {
        match self.exit_reason {
            _ if self.failed() => "FAILURE",
            "DISCONNECT" => "UNKNOWN",
            _ => "SUCCESS",
        }
    }
}

/// What stays the same over a conversation's events.
#[derive(Debug)]
pub(crate) struct Journey {
    pub conversation_id: Uuid,
    pub participant_id: Uuid,
    pub session_id: Uuid,
    /// The customer's number.
    pub ani: String,
    pub flow: Option<FlowVisit>,
    pub queue_id: Option<Arc<str>>,
    pub campaign_id: Option<Arc<str>>,
    /// The agent who took it.
    pub user_id: Option<Uuid>,
    /// Simulated milliseconds.
    pub talk_ms: u64,
    pub wrap_up_ms: u64,
    /// On the machine's clock, once it has begun.
    pub started_at: OnceLock<Timestamp>,
}

impl Journey {
    pub(crate) fn is_outbound(&self) -> bool {
        self.campaign_id.is_some()
    }

    /// How the wait in the queue ended.
    pub(crate) fn acd_outcome(&self) -> &'static str {
        if self.user_id.is_some() { "ANSWERED" } else { "ABANDON" }
    }
}

/// One event of a journey, in simulated milliseconds since the world began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub at_ms: u64,
    pub event_id: Uuid,
    pub kind: EventKind,
}

/// Steps in order of time.
struct Course<'a> {
    at_ms: u64,
    steps: Vec<Step>,
    chance: &'a mut Chance,
}

impl<'a> Course<'a> {
    fn new(at_ms: u64, chance: &'a mut Chance) -> Self {
        Self { at_ms, steps: Vec::with_capacity(10), chance }
    }

    fn happens(&mut self, kind: EventKind) {
        let event_id = self.chance.uuid();
        self.steps.push(Step { at_ms: self.at_ms, event_id, kind });
    }

    /// Lets time pass, an exponential one, and tells how long it took.
    fn wait(&mut self, mean_seconds: f64) -> u64 {
        let ms = (self.chance.exponential(mean_seconds.max(0.001)) * 1_000.0).min(86_400_000.0) as u64;
        self.at_ms += ms;
        ms
    }
}

/// Somebody enters a flow.
pub(super) fn through_flow(
    flow: &Flow,
    conversation_id: Uuid,
    at_ms: u64,
    chance: &mut Chance,
) -> (Journey, Vec<Step>) {
    let (habits, version) = (&flow.habits, flow.active());
    let mut journey = new_journey(conversation_id, chance);
    let failed = chance.happens(version.error_rate);
    let hung_up = !failed && chance.happens(habits.abandon_rate);
    let handed_over = !failed && !hung_up && flow.queue_id.is_some() && chance.happens(habits.transfer_rate);
    let exit_reason = match (failed, hung_up, handed_over) {
        (true, ..) if chance.happens(0.5) => "FLOW_ERROR_EXIT",
        (true, ..) => "FLOW_ERROR_DISCONNECT",
        (_, true, _) => "DISCONNECT",
        (.., true) => "TRANSFER",
        _ => "FLOW_DISCONNECT",
    };
    let has_outcome = chance.happens(habits.outcome_share);

    let mut course = Course::new(at_ms, chance);
    course.happens(EventKind::CustomerStart);
    course.at_ms += GREETING_MS;
    course.happens(EventKind::FlowStart);
    let ms = course.wait(habits.flow_seconds);
    let (flow_id, version) = (flow.id.clone(), version.id.clone());
    journey.flow = Some(FlowVisit { flow_id, version, exit_reason, has_outcome, ms });
    if has_outcome {
        course.happens(EventKind::FlowOutcome);
    }
    course.happens(EventKind::FlowEnd);
    if handed_over {
        journey.queue_id = flow.queue_id.clone();
        course.happens(EventKind::AcdStart);
        course.wait(habits.wait_seconds);
        course.happens(EventKind::AcdEnd);
        if !course.chance.happens(QUEUE_ABANDON_RATE) {
            let queue_id = flow.queue_id.as_deref().unwrap_or_default();
            journey.user_id = Some(agent_of(queue_id, course.chance));
            course.happens(EventKind::UserStart);
            journey.talk_ms = course.wait(habits.talk_seconds);
            course.happens(EventKind::UserEnd);
        }
    }
    course.happens(EventKind::CustomerEnd);
    if journey.user_id.is_some() {
        journey.wrap_up_ms = course.wait(habits.wrap_up_seconds);
        course.happens(EventKind::Acw);
    }
    (journey, course.steps)
}

/// How many steps [`through_flow`] makes on average.
pub(super) fn expected_events(flow: &Flow) -> f64 {
    let habits = &flow.habits;
    let transfer_rate = if flow.queue_id.is_some() { habits.transfer_rate } else { 0.0 };
    let handed_over = (1.0 - flow.active().error_rate) * (1.0 - habits.abandon_rate) * transfer_rate;
    4.0 + habits.outcome_share + handed_over * (2.0 + (1.0 - QUEUE_ABANDON_RATE) * EVENTS_WITH_AGENT)
}

/// Somebody answers a campaign's call within the second that begins at `begin_ms`.
pub(super) fn of_campaign(
    campaign_id: &str,
    call: SettledCall,
    begin_ms: u64,
    chance: &mut Chance,
) -> (Journey, Vec<Step>) {
    let conversation_id = chance.uuid();
    let mut journey = new_journey(conversation_id, chance);
    journey.campaign_id = Some(campaign_id.into());
    let mut course = Course::new(begin_ms + course_offset_ms(chance), chance);
    course.happens(EventKind::CustomerStart);
    course.happens(EventKind::Outbound);
    match call {
        SettledCall::Delivered { talk_seconds } => {
            journey.user_id = Some(agent_of(campaign_id, course.chance));
            journey.talk_ms = talk_seconds * 1_000;
            course.happens(EventKind::UserStart);
            course.at_ms += journey.talk_ms;
            course.happens(EventKind::UserEnd);
        }
        SettledCall::Abandoned => course.at_ms += GREETING_MS,
    }
    course.happens(EventKind::CustomerEnd);
    (journey, course.steps)
}

fn course_offset_ms(chance: &mut Chance) -> u64 {
    chance.between(0, 999)
}

fn new_journey(conversation_id: Uuid, chance: &mut Chance) -> Journey {
    Journey {
        conversation_id,
        participant_id: chance.uuid(),
        session_id: chance.uuid(),
        ani: format!("tel:+1317555{:04}", chance.between(0, 9_999)),
        flow: None,
        queue_id: None,
        campaign_id: None,
        user_id: None,
        talk_ms: 0,
        wrap_up_ms: 0,
        started_at: OnceLock::new(),
    }
}

/// One of the agents who take calls there: the same few every time.
fn agent_of(place: &str, chance: &mut Chance) -> Uuid {
    let mut bytes = *Uuid::try_parse(place).unwrap_or_default().as_bytes();
    bytes[15] ^= chance.between(1, AGENTS) as u8;
    Uuid::from_bytes(bytes)
}
