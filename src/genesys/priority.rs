//! Who goes first when the budget is short.

use std::cmp::Ordering;

/// Who goes first when the budget is short. Later ones go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    Read,
    /// A read that comes again and again, and how many hundredths times as far apart as
    /// configured. Of the rank of any other read.
    Poll {
        stretch_hundredths: u32,
    },
    /// One that answers for many: no more than as many others go before it.
    SharedRead {
        /// As many calls as it would be if nobody slowed polls, in hundredths.
        polls_wanted_hundredths: u32,
    },
    /// A change of a dial rate, by its size in hundredths of a line per agent: bigger ones first.
    DialChange {
        size_hundredths: u32,
    },
    /// A read whose turn it is though changes of dial rates wait, which have it all else where they
    /// want more than there is.
    ReadInTurn {
        /// As many calls as a poll would be if nobody slowed it, in hundredths.
        polls_wanted_hundredths: u32,
    },
    Rollback,
}

impl Priority {
    fn rank(self) -> (u8, u32) {
        match self {
            Priority::Read | Priority::Poll { .. } | Priority::SharedRead { .. } => (0, 0),
            Priority::DialChange { size_hundredths } => (1, size_hundredths),
            Priority::ReadInTurn { .. } => (1, u32::MAX),
            Priority::Rollback => (2, 0),
        }
    }

    /// Of a read: before changes.
    pub(super) fn in_turn(self) -> Self {
        match self.hundredths() {
            Some(polls_wanted_hundredths) => Priority::ReadInTurn { polls_wanted_hundredths },
            None => self,
        }
    }

    /// Of a read: asked for many at once.
    pub(super) fn shared(self) -> Self {
        match self.hundredths() {
            Some(polls_wanted_hundredths) => Priority::SharedRead { polls_wanted_hundredths },
            None => self,
        }
    }

    /// Of a read: how many polls it is, in hundredths.
    fn hundredths(self) -> Option<u32> {
        match self {
            Priority::Read => Some(0),
            Priority::Poll { stretch_hundredths: hundredths }
            | Priority::SharedRead { polls_wanted_hundredths: hundredths }
            | Priority::ReadInTurn { polls_wanted_hundredths: hundredths } => Some(hundredths),
            Priority::DialChange { .. } | Priority::Rollback => None,
        }
    }

    pub(super) fn is_read(self) -> bool {
        self.hundredths().is_some()
    }

    /// As many calls as this poll would be if nobody slowed it; 0 for what is no poll.
    pub fn polls_wanted(self) -> f64 {
        f64::from(self.hundredths().unwrap_or(0)) / 100.0
    }

    /// For metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Priority::DialChange { .. } => "dial_change",
            Priority::Rollback => "rollback",
            Priority::Read
            | Priority::Poll { .. }
            | Priority::SharedRead { .. }
            | Priority::ReadInTurn { .. } => "read",
        }
    }
}

/// By rank; those of one rank go in the order they come.
impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_rollbacks_then_dial_changes_by_size_then_reads() {
        let poll = Priority::Poll { stretch_hundredths: 300 };
        assert_eq!((poll.cmp(&Priority::Read), poll.polls_wanted()), (Ordering::Equal, 3.0));
        assert_eq!(Priority::Rollback.polls_wanted(), 0.0);
        let mut order = [
            Priority::DialChange { size_hundredths: 5 },
            Priority::Rollback,
            Priority::Read,
            Priority::DialChange { size_hundredths: 250 },
        ];
        order.sort_by(|a, b| b.cmp(a));
        assert_eq!(
            order,
            [
                Priority::Rollback,
                Priority::DialChange { size_hundredths: 250 },
                Priority::DialChange { size_hundredths: 5 },
                Priority::Read,
            ]
        );
    }
}
