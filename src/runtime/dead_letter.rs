//! Why a record is set aside, and what its copy says about it.

use std::fmt;

use uuid::Uuid;

use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::topics::{self, Topic, headers};

/// Why a record was not applied. As text: a code a program can branch on, then
/// details after a colon where there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No value: the topics hold facts, nothing can be deleted from them.
    Tombstone,
    /// A leading zero byte: Confluent's Schema Registry framing, not plain JSON.
    SchemaRegistryFraming,
    /// Key and value are larger than the topic's records may be, in bytes.
    TooLarge {
        bytes: usize,
        limit: usize,
    },
    InvalidUtf8 {
        at: usize,
    },
    /// U+0000 in a text, plain or escaped: Postgres can store neither.
    NulCharacter,
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    BadJson(String),
    KeyMissing,
    /// The record's key is not the one its value names.
    KeyMismatch,
    /// The fact claims to be later than a clock, by milliseconds.
    FromTheFuture {
        by_ms: i64,
        ahead_of: AheadOf,
    },
    /// The stage refused it.
    Rejected(String),
    /// An output of the stage is larger than its topic's records may be, in bytes.
    OutputTooLarge {
        topic: &'static str,
        bytes: usize,
        limit: usize,
    },
    /// The key's state would no longer fit its changelog, in bytes.
    StateTooLarge {
        bytes: usize,
        limit: usize,
    },
    /// The brokers refuse it, or what comes of it, whoever sends it; in their words.
    RefusedByBroker(String),
    /// Behind the watermark by more than the stage's lateness.
    Late,
    /// So many answers of the platform did not hold the conversation.
    NotAvailable {
        answers: u32,
    },
}

/// Which clock a fact is ahead of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AheadOf {
    /// That of whoever wrote its record.
    Record,
    /// That of the instance which met it.
    Reader,
}

pub use crate::model::json::MAX_DEPTH;

impl Reason {
    /// Where records set aside for this reason go.
    pub fn topic(&self) -> &'static Topic {
        match self {
            Reason::Late => &topics::LATE_EVENTS,
            _ => &topics::DEAD_LETTERS,
        }
    }

    pub fn code(&self) -> &'static str {
        match self {
            Reason::Tombstone => "tombstone",
            Reason::SchemaRegistryFraming => "schema_registry_framing",
            Reason::TooLarge { .. } => "too_large",
            Reason::InvalidUtf8 { .. } => "invalid_utf8",
            Reason::NulCharacter => "nul_character",
            Reason::TooDeep => "too_deep",
            Reason::BadJson(_) => "bad_json",
            Reason::KeyMissing => "key_missing",
            Reason::KeyMismatch => "key_mismatch",
            Reason::FromTheFuture { .. } => "from_the_future",
            Reason::Rejected(_) => "rejected",
            Reason::OutputTooLarge { .. } => "output_too_large",
            Reason::StateTooLarge { .. } => "state_too_large",
            Reason::RefusedByBroker(_) => "refused_by_broker",
            Reason::Late => "late",
            Reason::NotAvailable { .. } => "not_available",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())?;
        match self {
            Reason::TooLarge { bytes, limit } | Reason::StateTooLarge { bytes, limit } => {
                write!(f, ": {bytes} bytes, the limit is {limit}")
            }
            Reason::InvalidUtf8 { at } => write!(f, ": at byte {at}"),
            Reason::BadJson(detail) | Reason::Rejected(detail) | Reason::RefusedByBroker(detail) => {
                write!(f, ": {detail}")
            }
            Reason::FromTheFuture { by_ms, ahead_of: AheadOf::Record } => {
                write!(f, ": {by_ms} ms after its record was written")
            }
            Reason::FromTheFuture { by_ms, ahead_of: AheadOf::Reader } => {
                write!(f, ": {by_ms} ms ahead of the clock of the instance that met it")
            }
            Reason::OutputTooLarge { topic, bytes, limit } => {
                write!(f, ": {bytes} bytes for {topic}, the limit is {limit}")
            }
            Reason::NotAvailable { answers } => {
                write!(f, ": {answers} answers of the platform's analytics did not hold it")
            }
            _ => Ok(()),
        }
    }
}

/// The headers a record set aside gets beside its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorHeaders(Vec<(&'static str, String)>);

/// Longest reason written into a header, in bytes: details may quote the record.
const MAX_REASON: usize = 500;

impl ErrorHeaders {
    pub fn new(stage: &str, reason: &Reason, position: Position<'_>, at: Timestamp) -> Self {
        let mut reason = reason.to_string();
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        Self(vec![
            (headers::ERROR_STAGE, stage.to_owned()),
            (headers::ERROR_REASON, reason),
            (headers::ERROR_TOPIC, position.topic.to_owned()),
            (headers::ERROR_PARTITION, position.partition.to_string()),
            (headers::ERROR_OFFSET, position.offset.to_string()),
            (headers::ERROR_TIME, at.to_string()),
        ])
    }

    /// Says which topic of that name it was, where that is known.
    #[must_use]
    pub fn with_topic_id(mut self, topic_id: Option<Uuid>) -> Self {
        self.0.extend(topic_id.map(|id| (headers::ERROR_TOPIC_ID, id.to_string())));
        self
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Bytes they add to a record.
    pub fn byte_len(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len() + PER_HEADER).sum()
    }
}

/// Bytes a header takes beside its name and value, at most (two lengths).
pub const PER_HEADER: usize = 10;
/// Bytes a record takes beside key, value and headers, at most, with its batch's own.
pub const PER_RECORD: usize = 128;

/// The most that our own headers and the record's frame add to key and value, in bytes.
pub fn overhead(topic: &Topic) -> usize {
    const TRACEPARENT_LEN: usize = 55;
    headers::CONTENT_TYPE.len()
        + headers::CONTENT_TYPE_JSON.len()
        + headers::SCHEMA.len()
        + topic.schema_id().len()
        + headers::TRACEPARENT.len()
        + TRACEPARENT_LEN
        + 3 * PER_HEADER
        + PER_RECORD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_the_place_and_cut_long_reasons_between_characters() {
        let reason = Reason::Rejected("ü".repeat(400));
        let position = Position { topic: "facts", partition: 3, offset: 12 };
        let headers = ErrorHeaders::new("windowing", &reason, position, Timestamp::from_millis(0));
        let all: Vec<_> = headers.iter().collect();
        assert_eq!(all[0], ("trunkline-error-stage", "windowing"));
        assert!(all[1].1.starts_with("rejected: ü") && all[1].1.len() <= MAX_REASON, "{}", all[1].1);
        assert_eq!(all[2..5].iter().map(|header| header.1).collect::<Vec<_>>(), ["facts", "3", "12"]);
        assert_eq!(all[5], ("trunkline-error-time", "1970-01-01T00:00:00.000Z"));
    }
}
