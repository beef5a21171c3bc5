//! From a record to a decision, or to the dead letters.

use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::model::outcome::Outcome;
use crate::runtime::subscription::{InboundRecord, OutboundRecord};
use crate::topics::{DEAD_LETTERS, OUTCOMES, headers};

use super::ROLE;
use super::carry::Read;

/// Longest campaign id, in bytes: it is repeated in paths, records and log lines.
const KEY_LIMIT: usize = 512;

/// Reads a decision. The error is a short code and details, for the dead letter.
pub fn read(record: &InboundRecord) -> Result<Read<'_>, String> {
    let value = record.value.as_deref().ok_or("tombstone")?;
    let decision: Read<'_> = serde_json::from_slice(value).map_err(|error| format!("bad_json: {error}"))?;
    let key = record.key.as_deref().ok_or("key_missing")?;
    if key != decision.key.as_bytes() {
        return Err("key_mismatch".to_owned());
    }
    if key.is_empty() || key.len() > KEY_LIMIT {
        return Err(format!("rejected: a campaign id of {} bytes; 1 to {KEY_LIMIT} are possible", key.len()));
    }
    // Postgres keeps no U+0000 in texts: it would refuse the outcome for ever.
    if decision.key.contains('\0') || decision.reason.contains('\0') {
        return Err("nul_character".to_owned());
    }
    Ok(decision)
}

/// What a record becomes in the end.
#[derive(Clone, Debug)]
pub enum Ending {
    Outcome(Box<Outcome>),
    DeadLetter { reason: String, at: Timestamp },
}

/// What is published for a record; its own key, and who caused it, go with it.
pub fn outbound(record: &InboundRecord, topic_name: &str, ending: &Ending) -> OutboundRecord {
    match ending {
        Ending::Outcome(outcome) => {
            let mut sent = vec![
                (headers::CONTENT_TYPE.to_owned(), headers::CONTENT_TYPE_JSON.as_bytes().to_vec()),
                (headers::SCHEMA.to_owned(), OUTCOMES.schema_id().as_bytes().to_vec()),
            ];
            sent.extend(record.headers.iter().find(|(name, _)| name == headers::TRACEPARENT).cloned());
            OutboundRecord {
                topic: &OUTCOMES,
                key: Some(outcome.key.clone().into_bytes()),
                value: Some(serde_json::to_vec(outcome).expect("own values are JSON")),
                headers: sent,
            }
        }
        Ending::DeadLetter { reason, at } => {
            const REASON_LIMIT: usize = 500;
            let mut reason = reason.clone();
            reason.truncate(reason.floor_char_boundary(REASON_LIMIT));
            let position = Position { topic: topic_name, partition: record.partition, offset: record.offset };
            let mut sent = record.headers.clone();
            let mut say = |name: &str, value: String| sent.push((name.to_owned(), value.into_bytes()));
            say(headers::ERROR_STAGE, ROLE.to_owned());
            say(headers::ERROR_REASON, reason);
            say(headers::ERROR_TOPIC, position.topic.to_owned());
            say(headers::ERROR_PARTITION, position.partition.to_string());
            say(headers::ERROR_OFFSET, position.offset.to_string());
            say(headers::ERROR_TIME, at.to_string());
            OutboundRecord {
                topic: &DEAD_LETTERS,
                key: record.key.clone(),
                value: record.value.clone(),
                headers: sent,
            }
        }
    }
}
