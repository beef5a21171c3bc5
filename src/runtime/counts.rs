//! What a batch was, in numbers.

/// How many records of a batch ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    pub applied: u64,
    pub no_op: u64,
    pub rejected: u64,
    pub dead_letter: u64,
    pub late: u64,
}

impl RecordCounts {
    pub fn add(&mut self, other: RecordCounts) {
        self.applied += other.applied;
        self.no_op += other.no_op;
        self.rejected += other.rejected;
        self.dead_letter += other.dead_letter;
        self.late += other.late;
    }

    /// With the names the metric uses.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("applied", self.applied),
            ("no_op", self.no_op),
            ("rejected", self.rejected),
            ("dead_letter", self.dead_letter),
            ("late", self.late),
        ]
        .into_iter()
    }
}

/// What contradicted the clock in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contradictions {
    /// Records set aside because they are ahead of their own record or of this clock.
    pub from_the_future: u64,
    /// The furthest of those that are ahead of this clock, in milliseconds.
    pub furthest_ms: Option<i64>,
    /// Watermarks that were ahead of this clock and were taken back to it.
    pub healed: u64,
}
