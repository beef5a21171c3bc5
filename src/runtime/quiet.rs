//! Partitions in which nothing has come for a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// After this long no records can be on their way any more.
const MARKERS_ONLY: Duration = Duration::from_secs(10);

/// What is known of partitions without records.
#[derive(Default)]
pub(super) struct Quiet {
    pub looked_at: Option<Instant>,
    /// Where each partition ended at the last look, and since when.
    ends: HashMap<i32, (i64, Instant)>,
    /// The last poll found nothing waiting.
    pub drained: bool,
}

impl Quiet {
    /// Whether everything before `end` has been read. What lies between the next offset and
    /// an end that has not moved for long, with nothing waiting to be read, are markers of
    /// transactions: records would have come.
    pub(super) fn is_at_end(&mut self, partition: i32, next_offset: i64, end: i64) -> bool {
        let now = Instant::now();
        let known = self.ends.entry(partition).or_insert((end, now));
        if known.0 != end {
            *known = (end, now);
        }
        next_offset >= end || (self.drained && now.duration_since(known.1) >= MARKERS_ONLY)
    }
}
