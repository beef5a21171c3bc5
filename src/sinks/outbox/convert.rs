//! From a row of the outbox to a record. What no topic takes becomes a dead letter:
//! those behind it must not wait for ever.

use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::OutboundRecord;
use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::postgres::outbox::Waiting;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::runtime::refused;
use crate::topics::{self, Topic, Values, headers};

use super::ROLE;

/// A dead letter from here names its place in the outbox: this as partition, the
/// row's id as offset.
const NO_PARTITION: i32 = -1;

/// The record as it is published.
pub(super) fn record(message: Waiting, kafka: &KafkaSettings, at: Timestamp) -> OutboundRecord {
    let Some(topic) = topics::ALL.iter().copied().find(|topic| topic.name == message.topic) else {
        let reason = Reason::Rejected(format!("no topic is called {:?}", message.topic));
        return dead_letter(message, &reason, kafka, at);
    };
    let mut headers = message.headers.clone();
    if message.described {
        describe(topic, &mut headers);
    }
    let record = OutboundRecord { topic, key: message.key.clone(), value: message.value.clone(), headers };
    match record.size() > topic.max_message_bytes {
        false => record,
        true => {
            let reason = Reason::TooLarge { bytes: record.size(), limit: topic.max_message_bytes };
            dead_letter(message, &reason, kafka, at)
        }
    }
}

/// Adds the topic's own headers where they are missing.
fn describe(topic: &'static Topic, headers: &mut Vec<(String, Vec<u8>)>) {
    if !matches!(topic.values, Values::Json(_)) {
        return;
    }
    for (name, value) in
        [(headers::CONTENT_TYPE, headers::CONTENT_TYPE_JSON), (headers::SCHEMA, topic.schema_id())]
    {
        if headers.iter().all(|(other, _)| other != name) {
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
        }
    }
}

fn dead_letter(message: Waiting, reason: &Reason, kafka: &KafkaSettings, at: Timestamp) -> OutboundRecord {
    let errors = errors(&message.topic, message.id, reason, kafka, at);
    // Of whatever topic: it gets that of dead letters.
    let Waiting { key, value, headers, .. } = message;
    refused::dead_letter(OutboundRecord { topic: &topics::DEAD_LETTERS, key, value, headers }, &errors)
}

/// What a dead letter says of the row it was.
fn errors(topic: &str, id: i64, reason: &Reason, kafka: &KafkaSettings, at: Timestamp) -> ErrorHeaders {
    let topic = format!("{}{topic}", kafka.topic_prefix);
    let position = Position { topic: &topic, partition: NO_PARTITION, offset: id };
    ErrorHeaders::new(ROLE.name, reason, position, at)
}

/// What is published in the place of a record that the brokers refuse; nothing where that was
/// the last that could be said of it.
pub(super) fn instead_of(
    record: OutboundRecord,
    id: i64,
    why: &str,
    kafka: &KafkaSettings,
    at: Timestamp,
) -> Option<OutboundRecord> {
    let errors = errors(record.topic.name, id, &Reason::RefusedByBroker(why.to_owned()), kafka, at);
    refused::instead_of(record, &errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kafka() -> KafkaSettings {
        KafkaSettings {
            brokers: String::new(),
            topic_prefix: "p.".to_owned(),
            instance: "one".to_owned(),
            properties: std::collections::BTreeMap::new(),
        }
    }

    fn waiting(topic: &str, value: &[u8], described: bool) -> Waiting {
        Waiting {
            id: 7,
            topic: topic.to_owned(),
            key: Some(b"k".to_vec()),
            value: Some(value.to_vec()),
            headers: vec![("content-type".to_owned(), b"text/x".to_vec())],
            described,
        }
    }

    fn names(record: &OutboundRecord) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        record.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect()
    }

    #[test]
    fn headers_of_the_topic_are_added_where_missing_and_asked_for() {
        let at = Timestamp::from_millis(0);
        let described = record(waiting("trunkline.outcomes.v1", b"{}", true), &kafka(), at);
        assert_eq!(
            names(&described),
            [("content-type", "text/x"), ("trunkline-schema", "trunkline.outcomes.v1")]
        );
        let as_it_came = record(waiting("trunkline.outcomes.v1", b"{}", false), &kafka(), at);
        assert_eq!(names(&as_it_came), [("content-type", "text/x")]);
        assert_eq!(*as_it_came.topic, topics::OUTCOMES);
    }

    #[test]
    fn what_no_topic_takes_becomes_a_dead_letter_with_its_place() {
        let at = Timestamp::from_millis(0);
        let unknown = record(waiting("no.such.topic", b"v", true), &kafka(), at);
        assert_eq!(*unknown.topic, topics::DEAD_LETTERS);
        let headers = names(&unknown);
        assert!(headers.contains(&("trunkline-error-topic", "p.no.such.topic")), "{headers:?}");
        assert!(headers.contains(&("trunkline-error-partition", "-1")), "{headers:?}");
        assert!(headers.contains(&("trunkline-error-offset", "7")), "{headers:?}");
        let large = vec![b'x'; 300 * 1_024];
        let large = record(waiting("trunkline.outcomes.v1", &large, true), &kafka(), at);
        let reason = names(&large).iter().find(|(name, _)| *name == "trunkline-error-reason").unwrap().1;
        assert!(reason.starts_with("too_large: "), "{reason}");

        let mut largest = waiting("no.such.topic", &vec![0; 16 * 1_024 * 1_024 - 1], true);
        largest.headers.push(("h".to_owned(), vec![0; 200 * 1_024]));
        let largest = record(largest, &kafka(), at);
        assert_eq!(largest.headers.len(), 6, "its own headers go");
    }
}
