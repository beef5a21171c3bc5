//! How the state stands on the changelog: binary, because every event counted adds to it.
//!
//! | key | value |
//! |---|---|
//! | `c`, minute, flow, U+001F, version | version of this form, total, errors |
//! | `e`, minute, number | version of this form, 16 bytes for each event counted |
//! | `m` | version of this form, the beginning of the earliest open minute |
//!
//! Times are milliseconds since the Unix epoch; all numbers are big-endian.

use super::flow_version::FlowVersionRef;
use super::identity::{IDENTITY_BYTES, Identity};
use crate::model::Timestamp;
use crate::pipeline::UnreadableState;

/// Events in one record: 64 KiB.
pub(super) const EVENTS_PER_RECORD: usize = 4_096;
/// Between flow and version: no valid event holds a control character there.
const SEPARATOR: u8 = 0x1f;

const COUNT: u8 = b'c';
const EVENTS: u8 = b'e';
pub(super) const CLOSED_KEY: &[u8] = b"m";

/// One record as it was read.
pub(super) enum Record<'r> {
    ClosedBefore(Timestamp),
    /// Total and errors; `None` is a tombstone.
    Count {
        minute: Timestamp,
        flow_id: &'r str,
        version: &'r str,
        count: Option<(u64, u64)>,
    },
    Events {
        minute: Timestamp,
        number: u32,
        events: Option<Events<'r>>,
    },
}

/// The events of one record.
pub(super) struct Events<'r>(std::slice::ChunksExact<'r, u8>);

impl Iterator for Events<'_> {
    type Item = Identity;

    fn next(&mut self) -> Option<Identity> {
        let bytes = self.0.next()?;
        Some(Identity::from_bytes(bytes.try_into().expect("chunks of this size")))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

pub(super) fn count_key(key: &mut Vec<u8>, minute: Timestamp, of: FlowVersionRef<'_>) {
    key.clear();
    key.push(COUNT);
    key.extend(minute.as_millis().to_be_bytes());
    key.extend(of.flow_id.as_bytes());
    key.push(SEPARATOR);
    key.extend(of.version.as_bytes());
}

pub(super) fn count_value(value: &mut Vec<u8>, version: u32, total: u64, errors: u64) {
    begin(value, version);
    value.extend(total.to_be_bytes());
    value.extend(errors.to_be_bytes());
}

pub(super) fn events_key(key: &mut Vec<u8>, minute: Timestamp, number: u32) {
    key.clear();
    key.push(EVENTS);
    key.extend(minute.as_millis().to_be_bytes());
    key.extend(number.to_be_bytes());
}

pub(super) fn events_value(value: &mut Vec<u8>, version: u32, events: &[Identity]) {
    begin(value, version);
    events.iter().for_each(|event| value.extend(event.to_bytes()));
}

pub(super) fn closed_value(value: &mut Vec<u8>, version: u32, before: Timestamp) {
    begin(value, version);
    value.extend(before.as_millis().to_be_bytes());
}

fn begin(value: &mut Vec<u8>, version: u32) {
    value.clear();
    value.push(u8::try_from(version).expect("versions are few"));
}

/// Reads a record, of this version or an older one.
///
/// # Errors
/// When it is of a newer version or makes no sense.
pub(super) fn read<'r>(
    known: u32,
    key: &'r [u8],
    value: Option<&'r [u8]>,
) -> Result<Record<'r>, UnreadableState> {
    let malformed = |cause: &str| UnreadableState::Malformed {
        key: String::from_utf8_lossy(key).into_owned(),
        cause: cause.to_owned(),
    };
    let value = match value.map(|value| value.split_first()) {
        None => None,
        Some(Some((version, rest))) if u32::from(*version) <= known => Some(rest),
        Some(Some((version, _))) => {
            return Err(UnreadableState::Newer { found: u32::from(*version), known });
        }
        Some(None) => return Err(malformed("it is empty")),
    };
    match key.split_first() {
        Some((&COUNT, rest)) => {
            let (minute, of) = time(rest).ok_or_else(|| malformed("its key is short"))?;
            let of = std::str::from_utf8(of).map_err(|_| malformed("its key is no text"))?;
            let (flow_id, version) =
                of.split_once(char::from(SEPARATOR)).ok_or_else(|| malformed("its key lacks the version"))?;
            let count = match value {
                None => None,
                Some(value) => {
                    let both = number(value).and_then(|(total, rest)| Some((total, number(rest)?.0)));
                    Some(both.ok_or_else(|| malformed("it is short"))?)
                }
            };
            Ok(Record::Count { minute, flow_id, version, count })
        }
        Some((&EVENTS, rest)) => {
            let (minute, number) = time(rest).ok_or_else(|| malformed("its key is short"))?;
            let number = number.try_into().map_err(|_| malformed("its key is of another length"))?;
            if value.is_some_and(|value| value.len() % IDENTITY_BYTES != 0) {
                return Err(malformed("it ends in the middle of an event"));
            }
            let events = value.map(|value| Events(value.chunks_exact(IDENTITY_BYTES)));
            Ok(Record::Events { minute, number: u32::from_be_bytes(number), events })
        }
        _ if key == CLOSED_KEY => {
            let before = value.and_then(time).ok_or_else(|| malformed("it holds no time"))?;
            Ok(Record::ClosedBefore(before.0))
        }
        _ => Err(malformed("nothing is kept under such a key")),
    }
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*first), rest))
}

fn time(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((Timestamp::from_millis(i64::from_be_bytes(*first)), rest))
}
