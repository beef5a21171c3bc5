//! The time of day. Read only where the outside is met; stages are given theirs.

use std::time::SystemTime;

use crate::model::Timestamp;

/// Now by the machine's clock; the Unix epoch where that stands before it.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}
