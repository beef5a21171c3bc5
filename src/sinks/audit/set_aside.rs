//! Reads a dead letter: what its headers say about it, and what it was before.

use crate::kafka::subscription::InboundRecord;
use crate::model::Timestamp;
use crate::postgres::dead_letters::LoggedDeadLetter;
use crate::topics::headers;

/// Never fails: a dead letter is kept whatever it looks like.
pub(super) fn letter(record: &InboundRecord) -> LoggedDeadLetter<'_> {
    // What the record brought itself may look like ours; ours were added last.
    let ours: Vec<usize> = [
        headers::ERROR_STAGE,
        headers::ERROR_REASON,
        headers::ERROR_TOPIC,
        headers::ERROR_PARTITION,
        headers::ERROR_OFFSET,
        headers::ERROR_TIME,
        headers::ERROR_TOPIC_ID,
    ]
    .iter()
    .map(|name| record.headers.iter().rposition(|(other, _)| other == name).unwrap_or(usize::MAX))
    .collect();
    let text = |nth: usize| {
        let (_, value) = record.headers.get(ours[nth])?;
        // Postgres cannot hold U+0000.
        Some(String::from_utf8_lossy(value).replace('\0', "\u{fffd}"))
    };
    let source = || Some((text(2)?, text(3)?.parse().ok()?, text(4)?.parse().ok()?));
    let written_at = Timestamp::from_millis(record.timestamp_ms.unwrap_or_default());
    LoggedDeadLetter {
        stage: text(0).unwrap_or_else(|| "unknown".to_owned()),
        reason: text(1).unwrap_or_else(|| "not told".to_owned()),
        source: source(),
        source_topic_id: text(6).and_then(|id| id.parse().ok()),
        set_aside_at: text(5).and_then(|time| time.parse().ok()).unwrap_or(written_at),
        key: record.key.as_deref(),
        value: record.value.as_deref(),
        headers: record
            .headers
            .iter()
            .enumerate()
            .filter(|(at, _)| !ours.contains(at))
            .map(|(_, (name, value))| (name.as_str(), value.as_slice()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics;

    fn record(headers: &[(&str, &[u8])]) -> InboundRecord {
        InboundRecord {
            topic: &topics::DEAD_LETTERS,
            partition: 0,
            offset: 0,
            timestamp_ms: Some(5_000),
            key: None,
            value: Some(vec![0xff]),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
        }
    }

    #[test]
    fn the_last_of_our_headers_count_and_the_others_stay() {
        let record = record(&[
            ("trunkline-error-stage", b"planted"),
            ("a", b"\0"),
            ("trunkline-error-stage", b"windowing"),
            ("trunkline-error-reason", b"bad_json: \0 at 1"),
            ("trunkline-error-topic", b"p.facts"),
            ("trunkline-error-partition", b"2"),
            ("trunkline-error-offset", b"41"),
            ("trunkline-error-time", b"2026-01-02T03:04:05.678Z"),
        ]);
        let letter = letter(&record);
        assert_eq!((letter.stage.as_str(), letter.reason.as_str()), ("windowing", "bad_json: \u{fffd} at 1"));
        assert_eq!(letter.source, Some(("p.facts".to_owned(), 2, 41)));
        assert_eq!(letter.set_aside_at.to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(letter.headers, [("trunkline-error-stage", &b"planted"[..]), ("a", b"\0")]);
    }

    #[test]
    fn one_without_headers_is_kept_as_well() {
        let record = record(&[("trunkline-error-topic", b"t"), ("trunkline-error-offset", b"many")]);
        let letter = letter(&record);
        assert_eq!((letter.stage.as_str(), letter.reason.as_str()), ("unknown", "not told"));
        assert_eq!((letter.source, letter.set_aside_at), (None, Timestamp::from_millis(5_000)));
        assert_eq!((letter.value, letter.headers.len()), (Some(&[0xff][..]), 0));
    }
}
