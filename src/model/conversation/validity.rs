//! What an event must be, whichever way it came: over HTTP or written to the topic.

use super::ConversationEvent;
use crate::model::Timestamp;
use crate::model::json::{self, Flaw, MAX_DEPTH};

/// Why an event is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEvent {
    #[error("empty: {field} must not be empty")]
    Empty { field: &'static str },
    #[error("too_long: {field} has {bytes} bytes, the limit is {limit}")]
    TooLong { field: &'static str, bytes: usize, limit: usize },
    #[error("control_character: {field} holds one")]
    ControlCharacter { field: &'static str },
    #[error(
        "time_out_of_range: occurredAt is {at}; must be from {OLDEST} on and before {NEWEST}; were seconds taken for milliseconds?"
    )]
    TimeOutOfRange { at: Timestamp },
    #[error("{0} (in detail)")]
    Detail(#[from] Flaw),
}

/// Longest texts, in bytes.
const MAX_EVENT_ID: usize = 256;
const MAX_ID: usize = 128;
const MAX_EVENT_TYPE: usize = 128;
const MAX_WORD: usize = 64;
/// 2000-01-01 and 2100-01-01: milliseconds taken for seconds, or the other way round, fall outside.
const OLDEST: Timestamp = Timestamp::from_seconds(946_684_800);
const NEWEST: Timestamp = Timestamp::from_seconds(4_102_444_800);

impl ConversationEvent<'_> {
    /// Everything that must hold.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn validate(&self) -> Result<(), InvalidEvent> {
        self.validate_fields()?;
        match self.detail {
            // It stands one level deep in the event.
            Some(detail) => Ok(json::check(detail.get(), MAX_DEPTH - 1)?),
            None => Ok(()),
        }
    }

    /// Everything but `detail`, for those who have looked through the JSON already.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn validate_fields(&self) -> Result<(), InvalidEvent> {
        required("eventId", &self.event_id, MAX_EVENT_ID)?;
        required("eventType", &self.event_type, MAX_EVENT_TYPE)?;
        required("conversationId", &self.conversation_id, MAX_ID)?;
        for (field, text, limit) in [
            ("flowId", &self.flow_id, MAX_ID),
            ("flowVersion", &self.flow_version, MAX_WORD),
            ("queueId", &self.queue_id, MAX_ID),
            ("campaignId", &self.campaign_id, MAX_ID),
            ("mediaType", &self.media_type, MAX_WORD),
            ("direction", &self.direction, MAX_WORD),
        ] {
            if let Some(text) = text {
                required(field, text, limit)?;
            }
        }
        if self.occurred_at < OLDEST || self.occurred_at >= NEWEST {
            return Err(InvalidEvent::TimeOutOfRange { at: self.occurred_at });
        }
        Ok(())
    }
}

fn required(field: &'static str, text: &str, limit: usize) -> Result<(), InvalidEvent> {
    if text.is_empty() {
        return Err(InvalidEvent::Empty { field });
    }
    if text.len() > limit {
        return Err(InvalidEvent::TooLong { field, bytes: text.len(), limit });
    }
    // Looks at all of it: that is done many bytes at a time.
    if text.bytes().fold(false, |found, byte| found | byte.is_ascii_control()) {
        return Err(InvalidEvent::ControlCharacter { field });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(changed: &str, to: serde_json::Value) -> String {
        let mut event = serde_json::json!({
            "eventId": "e", "eventType": "flow.end", "occurredAt": "2026-01-02T03:04:05.678Z",
            "conversationId": "c", "flowId": "f", "flowVersion": "12.0", "outcome": "error", "detail": {"a": 1},
        });
        event[changed] = to;
        event.to_string()
    }

    fn validate(text: &str) -> Result<(), InvalidEvent> {
        serde_json::from_str::<ConversationEvent<'_>>(text).expect("an event").validate()
    }

    #[test]
    fn fields_have_lengths_and_times_a_range() {
        assert_eq!(validate(&event("eventId", "e".into())), Ok(()));
        for field in ["eventId", "eventType", "conversationId", "flowId", "flowVersion"] {
            assert_eq!(validate(&event(field, "".into())), Err(InvalidEvent::Empty { field }));
            let long = validate(&event(field, "x".repeat(257).into()));
            assert!(matches!(long, Err(InvalidEvent::TooLong { bytes: 257, .. })), "{long:?}");
            assert_eq!(validate(&event(field, "a\nb".into())), Err(InvalidEvent::ControlCharacter { field }));
        }
        for at in ["1970-01-21T10:55:23.045Z", "9999-01-01T00:00:00.000Z"] {
            let refused = validate(&event("occurredAt", at.into()));
            assert!(matches!(refused, Err(InvalidEvent::TimeOutOfRange { .. })), "{refused:?}");
        }
    }

    #[test]
    fn the_detail_is_looked_through() {
        let text = event("detail", 0.into()).replace("\"detail\":0", "\"detail\":{\"a\":1,\"a\":2}");
        assert_eq!(validate(&text), Err(InvalidEvent::Detail(Flaw::DuplicateKey("a".into()))));
    }
}
