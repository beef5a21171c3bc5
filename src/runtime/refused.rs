//! Records that the brokers refuse for what they are, on their way to the dead letters.

use super::dead_letter::ErrorHeaders;
use crate::kafka::subscription::OutboundRecord;
use crate::topics::{self, DEAD_LETTERS, headers};

/// The dead letter of a record, byte for byte where it fits, with `errors` in the place of
/// those it may have from before.
pub(crate) fn dead_letter(of: OutboundRecord, errors: &ErrorHeaders) -> OutboundRecord {
    let errors: Vec<_> =
        errors.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
    let mut headers = of.headers;
    headers.retain(|(name, _)| !name.starts_with(headers::ERROR_PREFIX));
    headers.extend(errors.iter().cloned());
    let mut letter = OutboundRecord { topic: &DEAD_LETTERS, headers, ..of };
    if letter.size() > DEAD_LETTERS.max_message_bytes {
        // Key and value usually fit; what their own headers added does not.
        letter.headers = errors;
    }
    if letter.size() > DEAD_LETTERS.max_message_bytes { bare(letter) } else { letter }
}

/// What there is to send instead of a record that was refused: its dead letter; of a dead
/// letter place and reason alone; of those nothing.
pub(crate) fn instead_of(refused: OutboundRecord, errors: &ErrorHeaders) -> Option<OutboundRecord> {
    if *refused.topic != topics::DEAD_LETTERS {
        return Some(dead_letter(refused, errors));
    }
    let has_contents = refused.key.is_some()
        || refused.value.is_some()
        || refused.headers.iter().any(|(name, _)| !name.starts_with(headers::ERROR_PREFIX));
    has_contents.then(|| bare(refused))
}

fn bare(letter: OutboundRecord) -> OutboundRecord {
    let mut headers = letter.headers;
    headers.retain(|(name, _)| name.starts_with(headers::ERROR_PREFIX));
    OutboundRecord { topic: letter.topic, key: None, value: None, headers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::model::decision::Position;
    use crate::runtime::dead_letter::Reason;
    use crate::topics::OUTCOMES;

    fn errors(reason: &str) -> ErrorHeaders {
        let position = Position { topic: "t", partition: 1, offset: 7 };
        ErrorHeaders::new(
            "r",
            &Reason::RefusedByBroker(reason.to_owned()),
            position,
            Timestamp::from_millis(0),
        )
    }

    fn header<'r>(record: &'r OutboundRecord, name: &str) -> Option<&'r str> {
        let (_, value) = record.headers.iter().find(|(known, _)| known == name)?;
        Some(std::str::from_utf8(value).unwrap())
    }

    #[test]
    fn a_refused_record_becomes_a_dead_letter_then_one_without_contents_then_nothing() {
        let record = OutboundRecord {
            topic: &OUTCOMES,
            key: Some(b"k".to_vec()),
            value: Some(b"v".to_vec()),
            headers: vec![
                ("theirs".to_owned(), b"x".to_vec()),
                (headers::ERROR_REASON.to_owned(), b"old".to_vec()),
            ],
        };
        let letter = instead_of(record.clone(), &errors("first")).unwrap();
        assert_eq!((letter.topic, &letter.key, &letter.value), (&DEAD_LETTERS, &record.key, &record.value));
        assert_eq!(header(&letter, "theirs"), Some("x"));
        assert_eq!(header(&letter, headers::ERROR_REASON), Some("refused_by_broker: first"));
        let place = instead_of(letter, &errors("second")).unwrap();
        assert_eq!((&place.key, &place.value, header(&place, "theirs")), (&None, &None, None));
        assert_eq!(
            header(&place, headers::ERROR_REASON),
            Some("refused_by_broker: first"),
            "the first cause"
        );
        assert_eq!(header(&place, headers::ERROR_OFFSET), Some("7"));
        assert!(instead_of(place, &errors("third")).is_none());
    }

    #[test]
    fn what_does_not_fit_leaves_its_headers_behind_first() {
        let limit = DEAD_LETTERS.max_message_bytes;
        let large = |value: usize, other: usize| OutboundRecord {
            topic: &OUTCOMES,
            key: None,
            value: Some(vec![b'x'; value]),
            headers: vec![("theirs".to_owned(), vec![b'x'; other])],
        };
        let letter = dead_letter(large(limit / 2, limit / 2), &errors("e"));
        assert_eq!((letter.value.map(|value| value.len()), letter.headers.len()), (Some(limit / 2), 6));
        assert_eq!(dead_letter(large(limit, 0), &errors("e")).value, None);
    }
}
