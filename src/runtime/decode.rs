//! Checks a record and decodes its value: what a stage is never given.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::dead_letter::{AheadOf, MAX_DEPTH, Reason};
use super::watermark::is_from_the_future;
use super::writer::Incoming;
use crate::model::Timestamp;
use crate::pipeline::PartitionStage;
use crate::topics::Topic;

/// The input, the key, and the JSON that the input was read from.
pub(super) type Met<'r, S> = (<S as PartitionStage>::Input<'r>, &'r str, &'r str);

/// Checks a record and decodes its value.
pub(super) fn read<'r, S: PartitionStage>(
    record: &Incoming<'r>,
    topic: &Topic,
    at: Timestamp,
) -> Result<Met<'r, S>, Reason> {
    let value = record.value.ok_or(Reason::Tombstone)?;
    let bytes = record.key.map_or(0, <[u8]>::len) + value.len();
    if bytes > topic.max_message_bytes {
        return Err(Reason::TooLarge { bytes, limit: topic.max_message_bytes });
    }
    if value.first() == Some(&0) {
        return Err(Reason::SchemaRegistryFraming);
    }
    let text = std::str::from_utf8(value).map_err(|error| Reason::InvalidUtf8 { at: error.valid_up_to() })?;
    if has_escaped_nul(value) {
        return Err(Reason::NulCharacter);
    }
    if is_too_deep(value) {
        return Err(Reason::TooDeep);
    }
    let input: S::Input<'r> = serde_json::from_str(text).map_err(|error| match memchr::memchr(0, value) {
        Some(_) => Reason::NulCharacter,
        None => Reason::BadJson(error.to_string()),
    })?;
    let key = record.key.ok_or(Reason::KeyMissing)?;
    if key != S::key(&input).as_bytes() {
        return Err(Reason::KeyMismatch);
    }
    let key = std::str::from_utf8(key).map_err(|_| Reason::KeyMismatch)?;
    // Its own record's clock tells where records are read long after they were written; whoever
    // wrote both may be wrong about both.
    let event_time = S::event_time(&input);
    for (clock, ahead_of) in [(record.written_at, AheadOf::Record), (Some(at), AheadOf::Reader)] {
        if let Some(clock) = clock.filter(|clock| is_from_the_future(event_time, *clock)) {
            return Err(Reason::FromTheFuture { by_ms: event_time.millis_since(clock), ahead_of });
        }
    }
    Ok((input, key, text))
}

/// Whether a text of the JSON holds U+0000 as an escape. An escaped backslash
/// followed by `u0000` is no such thing.
fn has_escaped_nul(json: &[u8]) -> bool {
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(br"\u0000"));
    ESCAPE.find_iter(json).any(|start| {
        let backslashes = json[..start].iter().rev().take_while(|byte| **byte == b'\\').count();
        backslashes % 2 == 0
    })
}

/// Whether objects and lists are nested deeper than [`MAX_DEPTH`]. Looks closely
/// only where there are that many opening brackets at all.
fn is_too_deep(json: &[u8]) -> bool {
    if memchr::memchr2_iter(b'{', b'[', json).nth(MAX_DEPTH).is_none() {
        return false;
    }
    let (mut depth, mut in_text, mut escaped) = (0usize, false, false);
    for byte in json {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_nul_is_found_and_an_escaped_backslash_is_not_one() {
        assert!(has_escaped_nul(br#"{"a":"\u0000"}"#));
        assert!(has_escaped_nul(br#"{"a":"\\\u0000"}"#));
        assert!(!has_escaped_nul(br#"{"a":"\\u0000"}"#));
        assert!(has_escaped_nul(br#"{"a":"\\u0000 \u0000"}"#));
        assert!(!has_escaped_nul(br#"{"a":"\u0001"}"#));
    }

    #[test]
    fn depth_is_counted_outside_texts() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels)).into_bytes();
        assert!(!is_too_deep(&nested(MAX_DEPTH)));
        assert!(is_too_deep(&nested(MAX_DEPTH + 1)));
        let wide = format!("[{}0]", "[],".repeat(1_000));
        assert!(!is_too_deep(wide.as_bytes()), "wide is not deep");
        let quoted = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(1_000));
        assert!(!is_too_deep(quoted.as_bytes()), "brackets in a text do not count");
    }
}
