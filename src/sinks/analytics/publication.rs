//! What leaves for the topics, and how a conversation stands in its row.

use std::borrow::Cow;

use serde_json::Value;

use super::ROLE;
use super::summary::Summary;
use super::work::{ATTEMPTS, Enriched, Work};
use crate::model::Timestamp;
use crate::model::conversation::ConversationEvent;
use crate::model::decision::Position;
use crate::model::enriched::EnrichedConversation;
use crate::postgres::enrichment::{Change, Row};
use crate::postgres::outbox::Message;
use crate::runtime::dead_letter::{ErrorHeaders, PER_RECORD, Reason};
use crate::topics::{self, Topic, headers};

/// Room for what is added to a value when it is published: headers, framing.
const ADDED: usize = PER_RECORD + 1_024;

/// The row as work.
///
/// # Errors
/// When a newer version has written it in a way this one cannot read.
pub(super) fn work_of(row: &Row) -> Result<Work, serde_json::Error> {
    let summary: Summary = serde_json::from_value(row.summary.clone())?;
    let enriched = row.enriched.map(|(at, up_to)| Enriched { at, up_to });
    Ok(Work { summary, state: row.state, attempts: row.attempts, rounds: row.rounds, enriched })
}

/// The work as a row is to have it.
pub(super) fn row_of(conversation_id: &str, position: (i32, i64), work: &Work) -> Row {
    Row {
        conversation_id: conversation_id.to_owned(),
        summary: serde_json::to_value(&work.summary).expect("a summary has text keys only"),
        first_event_at: work.summary.first_event_at,
        last_event_at: work.summary.last.at,
        position,
        state: work.state,
        attempts: work.attempts,
        rounds: work.rounds,
        enriched: work.enriched.map(|enriched| (enriched.at, enriched.up_to)),
    }
}

/// What is to be published of one conversation.
pub(super) struct Publication {
    topic: &'static Topic,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    /// Of a dead letter: as it would stand on the topic it came from, and the reason.
    headers: Vec<(String, Vec<u8>)>,
}

impl Publication {
    /// The enriched conversation; `None` while it has never been enriched. Details that are
    /// too large for the topic are left out.
    pub(super) fn conversation(conversation_id: &str, work: &Work, details: &Value) -> Option<Self> {
        let enriched = work.enriched?;
        let facts = work.summary.facts();
        let cow = |text: Option<&'_ str>| text.map(|text| Cow::Owned(text.to_owned()));
        let mut conversation = EnrichedConversation {
            conversation_id: conversation_id.into(),
            first_event_at: facts.first_event_at,
            last_event_at: facts.last_event_at,
            ended: facts.ended,
            media_type: cow(facts.media_type),
            direction: cow(facts.direction),
            queue_id: cow(facts.queue_id),
            campaign_id: cow(facts.campaign_id),
            flow_id: cow(facts.flow_id),
            flow_version: cow(facts.flow_version),
            outcome: facts.outcome,
            customer_joined_at: facts.customer_joined_at,
            queue_joined_at: facts.queue_joined_at,
            agent_joined_at: facts.agent_joined_at,
            enriched_at: enriched.at,
            enriched_up_to: enriched.up_to,
            details: Some(Cow::Borrowed(details)),
        };
        let json = |conversation: &EnrichedConversation<'_>| {
            serde_json::to_vec(conversation).expect("a conversation has text keys only")
        };
        let mut value = json(&conversation);
        let limit = topics::CONVERSATIONS.max_message_bytes - ADDED - conversation_id.len();
        if value.len() > limit {
            tracing::warn!(
                conversation_id,
                bytes = value.len(),
                limit,
                "details too large for the topic are left out there; audit.conversations has them"
            );
            conversation.details = None;
            value = json(&conversation);
        }
        Some(Self {
            topic: &topics::CONVERSATIONS,
            key: Some(conversation_id.as_bytes().to_vec()),
            value: Some(value),
            headers: Vec::new(),
        })
    }

    /// A conversation that the platform does not know, as an event of the topic it came
    /// from: sent there again it is asked about anew, and it counts in no flow's minutes.
    pub(super) fn not_available(row: &Row, work: &Work, events_topic: &str, at: Timestamp) -> Self {
        let event = ConversationEvent {
            event_id: work.summary.last.event_id.as_str().into(),
            event_type: work.summary.last_event_type.as_str().into(),
            occurred_at: work.summary.last.at,
            conversation_id: row.conversation_id.as_str().into(),
            flow_id: None,
            flow_version: None,
            queue_id: None,
            campaign_id: None,
            media_type: None,
            direction: None,
            outcome: None,
            detail: None,
        };
        let position = Position { topic: events_topic, partition: row.position.0, offset: row.position.1 };
        let reason = Reason::NotAvailable { answers: ATTEMPTS };
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let described = vec![
            header(headers::CONTENT_TYPE, headers::CONTENT_TYPE_JSON),
            header(headers::SCHEMA, topics::CONVERSATION_EVENTS.schema_id()),
        ];
        Self {
            topic: &topics::DEAD_LETTERS,
            key: Some(row.conversation_id.as_bytes().to_vec()),
            value: Some(serde_json::to_vec(&event).expect("an event has text keys only")),
            headers: with_reason(described, &reason, position, at),
        }
    }

    /// As the outbox takes it.
    pub(super) fn message(&self) -> Message<'_> {
        ROLE.assert_sends(self.topic);
        let message = Message {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            described: self.topic != &topics::DEAD_LETTERS,
            ..Message::new(self.topic.name, &[], &[])
        };
        self.headers.iter().fold(message, |message, (name, value)| message.with_header(name, value))
    }
}

fn with_reason(
    mut headers: Vec<(String, Vec<u8>)>,
    reason: &Reason,
    position: Position<'_>,
    at: Timestamp,
) -> Vec<(String, Vec<u8>)> {
    let errors = ErrorHeaders::new(ROLE.name, reason, position, at);
    headers.extend(errors.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
    headers
}

/// A row to be written, without new details.
pub(super) fn change<'a>(row: Row, ask_in: Option<std::time::Duration>) -> Change<'a> {
    Change { row, ask_in, details: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::summary::tests::event;
    use super::super::work::{Answer, Waits};
    use super::*;

    const WAITS: Waits = Waits {
        quiet: std::time::Duration::from_secs(60),
        settle: std::time::Duration::ZERO,
        patience: std::time::Duration::from_secs(7_200),
    };

    fn enriched() -> Work {
        let (mut work, _) = Work::begin(&event(7, 20, "customer.end"), &WAITS);
        let at = Timestamp::from_millis(90);
        work.answered(0, Timestamp::from_millis(20), Answer::Found { at }, &WAITS).unwrap();
        work
    }

    #[test]
    fn a_conversation_joins_what_events_and_analytics_say() {
        let details = json!({"conversationId": "c", "metrics": []});
        let publication = Publication::conversation("c", &enriched(), &details).unwrap();
        let message = publication.message();
        assert_eq!((message.topic, message.key), (topics::CONVERSATIONS.name, Some(&b"c"[..])));
        let value: Value = serde_json::from_slice(message.value.unwrap()).unwrap();
        assert_eq!((&value["flowId"], &value["queueId"]), (&json!("flow-7"), &json!("queue-7")));
        assert_eq!(value["details"], details);
        let (begun, _) = Work::begin(&event(7, 20, "customer.end"), &WAITS);
        assert!(Publication::conversation("c", &begun, &details).is_none());
    }

    #[test]
    fn details_too_large_for_the_topic_are_left_out() {
        let details = json!({ "text": "x".repeat(topics::CONVERSATIONS.max_message_bytes) });
        let publication = Publication::conversation("c", &enriched(), &details).unwrap();
        let value: Value = serde_json::from_slice(publication.message().value.unwrap()).unwrap();
        assert_eq!((value.get("details"), &value["ended"]), (None, &json!(true)));
    }

    #[test]
    fn what_was_given_up_is_an_event_again_with_its_reason_in_headers() {
        let (work, _) = Work::begin(&event(7, 1_767_323_045_678, "customer.end"), &WAITS);
        let row = row_of("c", (3, 17), &work);
        let letter = Publication::not_available(&row, &work, "p.events", Timestamp::from_millis(5));
        let message = letter.message();
        assert_eq!(message.topic, topics::DEAD_LETTERS.name);
        let event: ConversationEvent<'_> = serde_json::from_slice(message.value.unwrap()).unwrap();
        assert_eq!((&*event.event_id, &*event.event_type), ("event-7", "customer.end"));
        event.validate().unwrap();
        assert_eq!((event.outcome, event.flow_id), (None, None), "not counted a second time");
        let headers: Vec<(&str, &str)> = message
            .headers
            .iter()
            .map(|(name, value)| (&**name, std::str::from_utf8(value).unwrap()))
            .collect();
        assert!(headers.contains(&("trunkline-error-offset", "17")), "{headers:?}");
        let reason = headers.iter().find(|(name, _)| *name == "trunkline-error-reason").unwrap().1;
        assert!(reason.starts_with("not_available: "), "{reason}");
    }

    #[test]
    fn a_row_is_the_work_it_was_made_of() {
        let work = enriched();
        assert_eq!(work_of(&row_of("c", (0, 0), &work)).unwrap(), work);
    }
}
