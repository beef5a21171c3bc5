//! What a task keeps of a partition, and of records that it sets aside.

use super::dead_letter::Reason;
use super::watermark::Watermark;
use crate::model::Timestamp;

/// What a record is set aside for.
#[derive(Clone)]
pub(super) struct Condemned {
    pub reason: Reason,
    /// Without key, value and headers of its own: with them it is refused as well.
    pub bare: bool,
}

pub(super) struct Held<T> {
    pub state: T,
    /// The latest event time met. Lateness is judged by this alone: what comes after an outage
    /// elsewhere is not late because time went by.
    pub watermark: Watermark,
    /// What the clock said while the partition was silent.
    pub silent_until: Watermark,
    /// The partition is silent, and was read to its end.
    pub by_clock: bool,
    /// The clock when the partition was taken.
    pub taken_at: Timestamp,
    /// The watermark it was taken with.
    pub taken_with: Watermark,
    /// Offset after the last record processed.
    pub next_offset: i64,
    /// Whether this batch has records or changes of the partition.
    pub touched: bool,
    /// The clock when it was read last, or taken.
    pub read_at: Timestamp,
}

impl<T> Held<T> {
    pub(super) fn time(&self) -> Watermark {
        self.watermark.max(self.silent_until)
    }

    /// Answers how many times were ahead of the clock.
    pub(super) fn heal(&mut self, at: Timestamp) -> u64 {
        let healed = [&mut self.watermark, &mut self.silent_until].map(|time| time.heal(at).is_some());
        healed.into_iter().map(u64::from).sum()
    }
}
