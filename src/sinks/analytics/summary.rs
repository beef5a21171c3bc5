//! What the events of one conversation say together. Pure: events in any order, any
//! number of times, give the same summary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::conversation::{ConversationEvent, InteractionOutcome};

/// Each fact is kept as the last event by event time has it, with that event's stamp:
/// an older event that comes later cannot take it back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub first_event_at: Timestamp,
    /// The latest event.
    pub last: Stamp,
    pub last_event_type: String,
    /// Some event said that the customer is gone.
    pub ended: bool,
    /// An agent took part.
    answered: bool,
    /// The agent's work after the call is done.
    wrapped_up: bool,
    /// The parts it went through, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    parts: BTreeMap<String, Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<Told<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direction: Option<Told<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue_id: Option<Told<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    campaign_id: Option<Told<String>>,
    /// Id and version belong together: both come from the same event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flow: Option<Told<Flow>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<Told<InteractionOutcome>>,
}

/// Which event: later ones are greater; the id decides within one millisecond.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stamp {
    pub at: Timestamp,
    pub event_id: String,
}

/// When a part last began and last ended, and when it first began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    /// Rows written by versions that did not keep it have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_began: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
}

impl Part {
    /// One that begins and ends within a millisecond has ended.
    fn is_open(self) -> bool {
        self.began > self.ended
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Told<T> {
    value: T,
    by: Stamp,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Flow {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

/// The facts without the stamps: what others get to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Facts<'s> {
    pub first_event_at: Timestamp,
    pub last_event_at: Timestamp,
    pub ended: bool,
    pub media_type: Option<&'s str>,
    pub direction: Option<&'s str>,
    pub queue_id: Option<&'s str>,
    pub campaign_id: Option<&'s str>,
    pub flow_id: Option<&'s str>,
    pub flow_version: Option<&'s str>,
    pub outcome: Option<InteractionOutcome>,
    /// When these parts were first in it.
    pub customer_joined_at: Option<Timestamp>,
    pub queue_joined_at: Option<Timestamp>,
    pub agent_joined_at: Option<Timestamp>,
}

/// The customer is gone; what follows is an agent's work after the call.
const CUSTOMER_END: &str = "customer.end";
/// Nothing follows: what the seed's consumers were promised.
const CONVERSATION_END: &str = "ConversationEnded";
/// Of a part whose end is told as well, and that end.
const BEGINNING: &str = ".start";
const ENDING: &str = ".end";
/// The part around all others.
const CUSTOMER: &str = "customer";
const QUEUE: &str = "acd";
const AGENT: &str = "user";
/// Parts whose beginning and end the platform tells.
const PARTS: &[&str] = &[CUSTOMER, "flow", QUEUE, AGENT, "voicemail"];
/// Of an agent's part in the conversation.
const AGENT_PREFIX: &str = "user.";
const WRAPPED_UP: &[&str] = &["acw", "wrapup"];

/// How far a conversation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Between two parts: the next one may begin at once, or somebody's events are lost.
    GoesOn,
    /// In a flow, in a queue or with an agent: its end is told.
    Inside,
    /// The customer is gone, the agent is still busy with it.
    WrappingUp,
    Over,
}

impl Summary {
    pub(super) fn of(event: &ConversationEvent<'_>) -> Self {
        let mut summary = Self {
            first_event_at: event.occurred_at,
            last: stamp(event),
            last_event_type: event.event_type.clone().into_owned(),
            ended: false,
            answered: false,
            wrapped_up: false,
            parts: BTreeMap::new(),
            media_type: None,
            direction: None,
            queue_id: None,
            campaign_id: None,
            flow: None,
            outcome: None,
        };
        summary.add(event);
        summary
    }

    pub(super) fn add(&mut self, event: &ConversationEvent<'_>) {
        let by = stamp(event);
        self.first_event_at = self.first_event_at.min(event.occurred_at);
        let kind = &*event.event_type;
        self.ended |= kind == CUSTOMER_END || kind == CONVERSATION_END;
        self.answered |= kind.starts_with(AGENT_PREFIX);
        self.wrapped_up |= kind == CONVERSATION_END || WRAPPED_UP.contains(&kind);
        self.add_part(kind, event.occurred_at);
        let text = |text: &Option<std::borrow::Cow<'_, str>>| text.as_deref().map(str::to_owned);
        tell(&mut self.media_type, text(&event.media_type), &by);
        tell(&mut self.direction, text(&event.direction), &by);
        tell(&mut self.queue_id, text(&event.queue_id), &by);
        tell(&mut self.campaign_id, text(&event.campaign_id), &by);
        let flow = text(&event.flow_id).map(|id| Flow { id, version: text(&event.flow_version) });
        tell(&mut self.flow, flow, &by);
        tell(&mut self.outcome, event.outcome, &by);
        if by > self.last {
            self.last = by;
            self.last_event_type = event.event_type.clone().into_owned();
        }
    }

    fn add_part(&mut self, kind: &str, at: Timestamp) {
        let (name, begins) = match (kind.strip_suffix(BEGINNING), kind.strip_suffix(ENDING)) {
            (Some(name), _) => (name, true),
            (_, Some(name)) => (name, false),
            _ => return,
        };
        if !PARTS.contains(&name) {
            return;
        }
        let part = self.parts.entry(name.to_owned()).or_default();
        if begins {
            part.first_began = [part.first_began, Some(at)].into_iter().flatten().min();
        }
        let told = if begins { &mut part.began } else { &mut part.ended };
        *told = (*told).max(Some(at));
    }

    /// In a part whose end is still to be told. One often ends in the same millisecond as
    /// the next begins, so that the last event alone does not say.
    fn is_inside(&self) -> bool {
        let mut within = self.parts.iter().filter(|(name, _)| *name != CUSTOMER).peekable();
        if within.peek().is_none() {
            // Rows written by versions that kept no parts have the last event's name alone.
            return self.last_event_type.ends_with(BEGINNING)
                || self.parts.get(CUSTOMER).is_some_and(|customer| customer.is_open());
        }
        within.any(|(_, part)| part.is_open())
    }

    pub(super) fn phase(&self) -> Phase {
        match (self.ended, self.answered && !self.wrapped_up) {
            (false, _) if self.is_inside() => Phase::Inside,
            (false, _) => Phase::GoesOn,
            (true, true) => Phase::WrappingUp,
            (true, false) => Phase::Over,
        }
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        let flow = self.flow.as_ref().map(|told| &told.value);
        let joined_at = |name: &str| self.parts.get(name).and_then(|part| part.first_began);
        Facts {
            first_event_at: self.first_event_at,
            last_event_at: self.last.at,
            ended: self.ended,
            media_type: text(&self.media_type),
            direction: text(&self.direction),
            queue_id: text(&self.queue_id),
            campaign_id: text(&self.campaign_id),
            flow_id: flow.map(|flow| flow.id.as_str()),
            flow_version: flow.and_then(|flow| flow.version.as_deref()),
            outcome: self.outcome.as_ref().map(|told| told.value),
            customer_joined_at: joined_at(CUSTOMER),
            queue_joined_at: joined_at(QUEUE),
            agent_joined_at: joined_at(AGENT),
        }
    }
}

fn stamp(event: &ConversationEvent<'_>) -> Stamp {
    Stamp { at: event.occurred_at, event_id: event.event_id.clone().into_owned() }
}

fn tell<T>(register: &mut Option<Told<T>>, value: Option<T>, by: &Stamp) {
    let Some(value) = value else { return };
    if register.as_ref().is_none_or(|told| *by > told.by) {
        *register = Some(Told { value, by: by.clone() });
    }
}

fn text(register: &Option<Told<String>>) -> Option<&str> {
    register.as_ref().map(|told| told.value.as_str())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event `number` of a conversation; different numbers tell different things.
    pub(crate) fn event(number: u32, at_ms: i64, event_type: &'static str) -> ConversationEvent<'static> {
        let word = |name: &str| Some(format!("{name}-{number}").into());
        let tells = |bit: u32| number & bit != 0;
        ConversationEvent {
            event_id: format!("event-{number}").into(),
            event_type: event_type.into(),
            occurred_at: Timestamp::from_millis(at_ms),
            conversation_id: "c".into(),
            flow_id: word("flow").filter(|_| tells(1)),
            flow_version: word("version").filter(|_| tells(2)),
            queue_id: word("queue").filter(|_| tells(4)),
            campaign_id: None,
            media_type: word("media").filter(|_| tells(8)),
            direction: None,
            outcome: tells(1).then_some(InteractionOutcome::Success),
            detail: None,
        }
    }

    fn summed(events: &[ConversationEvent<'_>]) -> Summary {
        let mut summary = Summary::of(&events[0]);
        events.iter().for_each(|event| summary.add(event));
        summary
    }

    proptest! {
        #[test]
        fn any_order_and_any_repetition_give_the_same_summary(
            given in prop::collection::vec((0u32..16, 0i64..6, 0usize..3), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            // One event is the same each time it is told.
            let mut events: Vec<ConversationEvent<'static>> = Vec::new();
            for (number, at_ms, ends) in given {
                if events.iter().all(|event| event.event_id != format!("event-{number}")) {
                    events.push(event(number, at_ms, ["customer.end", "user.start", "acw"][ends]));
                }
            }
            let mut shuffled: Vec<_> = order.iter().map(|index| index.get(&events).clone()).collect();
            shuffled.extend(events.iter().rev().cloned());
            prop_assert_eq!(summed(&events), summed(&shuffled));
        }

        #[test]
        fn a_summary_survives_its_storage(number in 0u32..16, at_ms in 0i64..9_999_999_999) {
            let summary = Summary::of(&event(number, at_ms, "flow.end"));
            let stored = serde_json::to_string(&summary).unwrap();
            prop_assert_eq!(serde_json::from_str::<Summary>(&stored).unwrap(), summary);
        }
    }

    #[test]
    fn the_last_event_by_event_time_wins_fact_by_fact() {
        let events = [event(3, 30, "flow.end"), event(5, 20, "acd.end"), event(0, 40, "customer.end")];
        let summary = summed(&events);
        let facts = summary.facts();
        assert_eq!((facts.flow_id, facts.flow_version), (Some("flow-3"), Some("version-3")));
        assert_eq!(facts.queue_id, Some("queue-5"), "told by an older event alone");
        assert_eq!((facts.first_event_at.as_millis(), facts.last_event_at.as_millis()), (20, 40));
        assert!(facts.ended);
        assert_eq!(summary.last_event_type, "customer.end");
    }

    #[test]
    fn the_first_agent_is_told_whoever_comes_later() {
        let events = [
            event(0, 30, "user.start"),
            event(1, 20, "user.start"),
            event(2, 25, "user.end"),
            event(3, 5, "customer.start"),
        ];
        let summary = summed(&events);
        let facts = summary.facts();
        let ms = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
        assert_eq!((ms(facts.customer_joined_at), ms(facts.agent_joined_at)), (Some(5), Some(20)));
        assert_eq!(facts.queue_joined_at, None);
    }

    #[test]
    fn a_conversation_is_over_when_its_agent_is_done_with_it() {
        let phase = |kinds: &[&'static str]| {
            let events = (10u32..).zip(kinds).map(|(at, kind)| event(at, i64::from(at), kind));
            summed(&events.collect::<Vec<_>>()).phase()
        };
        assert_eq!(phase(&["customer.start", "flow.end"]), Phase::GoesOn);
        assert_eq!(phase(&["customer.start", "flow.start"]), Phase::Inside);
        assert_eq!(phase(&["acd.end", "user.start"]), Phase::Inside);
        assert_eq!(phase(&["customer.end", "flow.end"]), Phase::Over);
        assert_eq!(phase(&["user.start", "customer.end"]), Phase::WrappingUp);
        assert_eq!(phase(&["acw", "user.start"]), Phase::Inside);
        assert_eq!(phase(&["acw", "user.start", "customer.end"]), Phase::Over);
        assert_eq!(phase(&["user.end", "ConversationEnded"]), Phase::Over);
    }

    /// Which of two events in one millisecond is the later one only their ids decide.
    #[test]
    fn a_part_that_begins_as_another_ends_is_not_over() {
        let phase = |given: &[(u32, i64, &'static str)]| {
            let events: Vec<_> = given.iter().map(|(number, at, kind)| event(*number, *at, kind)).collect();
            let forwards = summed(&events).phase();
            let backwards: Vec<_> = events.into_iter().rev().collect();
            assert_eq!(summed(&backwards).phase(), forwards, "{given:?}");
            forwards
        };
        for (ends, begins) in [(1, 2), (2, 1)] {
            assert_eq!(
                phase(&[(0, 5, "flow.start"), (ends, 10, "flow.end"), (begins, 10, "acd.start")]),
                Phase::Inside
            );
            assert_eq!(
                phase(&[(0, 5, "acd.start"), (ends, 10, "acd.end"), (begins, 10, "user.start")]),
                Phase::Inside
            );
            assert_eq!(
                phase(&[(begins, 10, "flow.start"), (ends, 10, "flow.end")]),
                Phase::GoesOn,
                "it took no time"
            );
        }
        assert_eq!(
            phase(&[(0, 5, "customer.start"), (1, 5, "flow.start"), (2, 9, "flow.end")]),
            Phase::GoesOn
        );
        assert_eq!(phase(&[(0, 5, "customer.start"), (1, 6, "outbound")]), Phase::Inside);
        // What is told in between is neither a beginning nor an end.
        let snapshot = "v2.conversations.{id}";
        assert_eq!(phase(&[(0, 5, "user.start"), (1, 9, snapshot)]), Phase::Inside);
        assert_eq!(phase(&[(0, 5, "flow.start"), (1, 9, "flow.end"), (2, 12, snapshot)]), Phase::GoesOn);
    }

    #[test]
    fn a_flow_without_a_version_does_not_get_another_flows() {
        let facts = [event(2, 10, "flow.start"), event(3, 20, "flow.end"), event(1, 30, "flow.start")];
        let summary = summed(&facts);
        assert_eq!((summary.facts().flow_id, summary.facts().flow_version), (Some("flow-1"), None));
    }
}
