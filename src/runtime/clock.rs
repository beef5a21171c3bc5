//! The time of day. Read only where the outside is met; stages are given theirs.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;

/// Now by the machine's clock; the Unix epoch where that stands before it.
pub fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}
