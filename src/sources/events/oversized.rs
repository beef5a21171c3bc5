//! Bodies that are too large: what is kept of them.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::ROLE;
use super::record_batch::{NO_PARTITION, ORIGIN};
use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::topics::headers;

/// Dead letters per second for bodies that are too large: a sender who does nothing else
/// fills no disk.
pub(super) const PER_SECOND: u32 = 10;

/// Longest of a request's own headers that is kept, in bytes.
const MAX_HEADER: usize = 200;

/// The headers of a dead letter without a value: the body was not read to its end, so that
/// nobody could send it again from here. Its sender is told, and still has it.
pub(super) fn letter_headers(
    request: &HeaderMap,
    read: &[u8],
    limit: usize,
    received_at: Timestamp,
) -> Vec<(&'static str, String)> {
    let text = |name| request.get(name).and_then(|value| value.to_str().ok());
    let announced = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    // Of a compressed body it says less.
    let announced = announced.filter(|bytes: &usize| *bytes > read.len());
    let bytes = announced.unwrap_or(read.len() + 1);
    let position = Position { topic: ORIGIN, partition: NO_PARTITION, offset: 0 };
    let errors = ErrorHeaders::new(ROLE.name, &Reason::TooLarge { bytes, limit }, position, received_at);
    let mut kept = vec![
        (headers::BODY_READ_BYTES, read.len().to_string()),
        (headers::BODY_READ_SHA256, Sha256::digest(read).iter().map(|byte| format!("{byte:02x}")).collect()),
    ];
    if let Some(agent) = text(header::USER_AGENT) {
        kept.push(("user-agent", agent[..agent.floor_char_boundary(MAX_HEADER)].to_owned()));
    }
    kept.extend(errors.iter().map(|(name, value)| (name, value.to_owned())));
    kept
}
