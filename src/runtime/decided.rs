//! Decisions as those who carry them out meet them: from a record to a decision, and to
//! its outcome or to the dead letters.

use serde::Deserialize;
use uuid::Uuid;

use super::dead_letter::{ErrorHeaders, Reason};
use crate::kafka::subscription::{InboundRecord, OutboundRecord};
use crate::model::Timestamp;
use crate::model::decision::{Decision, Position};
use crate::model::outcome::Outcome;
use crate::topics::{OUTCOMES, Topic, headers};

/// A decision as it was read.
pub type Read<'a, I, P> = Decision<'a, I, P, Vec<String>>;

/// Longest key of a decision, in bytes: it is repeated in paths, records and log lines.
const KEY_LIMIT: usize = 512;

/// Reads a decision.
///
/// # Errors
/// Why it cannot be used, for the dead letter.
pub fn read<'r, I, P>(record: &'r InboundRecord) -> Result<Read<'r, I, P>, Reason>
where
    I: Deserialize<'r>,
    P: Deserialize<'r>,
{
    let value = record.value.as_deref().ok_or(Reason::Tombstone)?;
    if value.first() == Some(&0) {
        return Err(Reason::SchemaRegistryFraming);
    }
    let decision: Read<'r, I, P> =
        serde_json::from_slice(value).map_err(|error| Reason::BadJson(error.to_string()))?;
    let key = record.key.as_deref().ok_or(Reason::KeyMissing)?;
    if key != decision.key.as_bytes() {
        return Err(Reason::KeyMismatch);
    }
    if key.is_empty() || key.len() > KEY_LIMIT {
        let size = key.len();
        return Err(Reason::Rejected(format!("a key of {size} bytes; 1 to {KEY_LIMIT} are possible")));
    }
    // Postgres keeps no U+0000 in texts: it would refuse the outcome for ever.
    if decision.key.contains('\0') || decision.reason.contains('\0') {
        return Err(Reason::NulCharacter);
    }
    Ok(decision)
}

/// What a record becomes in the end.
#[derive(Clone, Debug)]
pub enum Ending {
    Outcome(Box<Outcome>),
    DeadLetter { reason: Reason, at: Timestamp },
}

/// What `role` publishes for a record; its own key goes with it, and its trace, which has gone on
/// to `traceparent` where there is one. `topic` is the full name of the record's topic, and its id
/// where that is known.
pub fn outbound(
    role: &str,
    record: &InboundRecord,
    (topic_name, topic_id): (&str, Option<Uuid>),
    traceparent: Option<String>,
    ending: &Ending,
) -> OutboundRecord {
    match ending {
        Ending::Outcome(outcome) => {
            let mut sent = vec![
                (headers::CONTENT_TYPE.to_owned(), headers::CONTENT_TYPE_JSON.as_bytes().to_vec()),
                (headers::SCHEMA.to_owned(), OUTCOMES.schema_id().as_bytes().to_vec()),
            ];
            let came = || record.header(headers::TRACEPARENT).map(<[u8]>::to_vec);
            let trace = traceparent.map(String::into_bytes).or_else(came);
            sent.extend(trace.map(|trace| (headers::TRACEPARENT.to_owned(), trace)));
            OutboundRecord {
                topic: &OUTCOMES,
                key: Some(outcome.key.clone().into_bytes()),
                value: Some(serde_json::to_vec(outcome).expect("own values are JSON")),
                headers: sent,
            }
        }
        Ending::DeadLetter { reason, at } => {
            let position = Position { topic: topic_name, partition: record.partition, offset: record.offset };
            let mut sent = record.headers.clone();
            let errors = ErrorHeaders::new(role, reason, position, *at).with_topic_id(topic_id);
            for (name, value) in errors.iter() {
                sent.push((name.to_owned(), value.as_bytes().to_vec()));
            }
            OutboundRecord {
                topic: reason.topic(),
                key: record.key.clone(),
                value: record.value.clone(),
                headers: sent,
            }
        }
    }
}

/// The same record on another topic of ours.
pub fn on_topic(mut record: OutboundRecord, topic: &'static Topic) -> OutboundRecord {
    record.topic = topic;
    let schema = record.headers.iter_mut().find(|(name, _)| name == headers::SCHEMA);
    if let Some((_, schema)) = schema {
        *schema = topic.schema_id().as_bytes().to_vec();
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::campaign::{CampaignWindow, DialParameters};
    use crate::topics::{DEAD_LETTERS, DIAL_DECISIONS};

    fn record(key: Option<&str>, value: Option<&[u8]>) -> InboundRecord {
        InboundRecord {
            topic: &DIAL_DECISIONS,
            partition: 2,
            offset: 40,
            timestamp_ms: None,
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: vec![("traceparent".to_owned(), b"00-1-2-01".to_vec())],
        }
    }

    #[test]
    fn what_is_no_decision_is_set_aside_byte_for_byte() {
        let deep = "[".repeat(200);
        for (value, code) in [
            (None, "tombstone"),
            (Some(&b"\x00\x00\x00\x00\x07{}"[..]), "schema_registry_framing"),
            (Some(b"{\"decisionId\":"), "bad_json"),
            (Some(b"{}"), "bad_json"),
            (Some(b"\xff\xfe"), "bad_json"),
            (Some(deep.as_bytes()), "bad_json"),
        ] {
            let poison = record(Some("c"), value);
            let reason = read::<CampaignWindow<'_>, DialParameters>(&poison).unwrap_err();
            assert_eq!(reason.code(), code);
            let ending = Ending::DeadLetter { reason, at: Timestamp::from_millis(0) };
            let topic_id = Uuid::from_u128(0x7);
            let sent = outbound("actuator", &poison, ("p-decisions", Some(topic_id)), None, &ending);
            assert_eq!((sent.topic, &sent.value, &sent.key), (&DEAD_LETTERS, &poison.value, &poison.key));
            assert_eq!(sent.headers[0], poison.headers[0]);
            let header = |name: &str| {
                let (_, value) = sent.headers.iter().find(|(header, _)| header == name).unwrap();
                String::from_utf8(value.clone()).unwrap()
            };
            assert!(header(headers::ERROR_REASON).starts_with(code));
            assert_eq!(header(headers::ERROR_TOPIC), "p-decisions");
            assert_eq!(header(headers::ERROR_TOPIC_ID), topic_id.to_string());
            assert_eq!((&*header(headers::ERROR_PARTITION), &*header(headers::ERROR_OFFSET)), ("2", "40"));
        }
    }
}
