//! How often a group without members commits. Nobody sees such a group but by its
//! commits, so only a pause that is unusual for it means anything.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::rules::Thresholds;

/// Commits whose intervals are remembered.
const MOST: usize = 8;

/// What is known of a group's commits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rhythm {
    /// Sum of all committed offsets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sum: Option<i64>,
    /// The poll that saw the last commit, or the first poll, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
    /// `since` is a commit.
    #[serde(default)]
    committed: bool,
    /// The first poll after the last commit that saw something to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting_since: Option<i64>,
    /// Between commits, and from there being something to read to its commit, in ms.
    #[serde(default)]
    pauses: VecDeque<(u64, u64)>,
    /// Polls in a row in which the group was silent.
    #[serde(default)]
    silent_polls: u32,
}

/// What that says at a poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    /// After so long without a commit the group is silent.
    pub silence_ms: u64,
    /// Polls in a row in which it was.
    pub silent_polls: u32,
    /// How long records usually wait for the next commit. Before that is known as long as
    /// the shortest silence.
    pub usual_wait_ms: u64,
}

impl Rhythm {
    /// A poll begins; `sum` is that of all offsets the group has committed.
    pub(super) fn note(&mut self, now: i64, sum: i64, thresholds: &Thresholds) {
        let since = *self.since.get_or_insert(now);
        let moved = self.sum.replace(sum).is_some_and(|before| before != sum);
        let passed = |from: i64| u64::try_from(now - from).unwrap_or(0);
        if moved {
            if self.committed {
                self.pauses.push_back((passed(since), self.waiting_since.map_or(0, passed)));
                if self.pauses.len() > MOST {
                    self.pauses.pop_front();
                }
            }
            *self = Self { since: Some(now), committed: true, waiting_since: None, ..std::mem::take(self) };
        }
        let silent = passed(self.since.unwrap_or(now)) >= self.silence_ms(thresholds);
        self.silent_polls = if silent { self.silent_polls.saturating_add(1) } else { 0 };
    }

    /// The poll is over: whether anything was there to read.
    pub(super) fn end_poll(&mut self, at: i64, behind: bool) {
        self.waiting_since = behind.then(|| self.waiting_since.unwrap_or(at));
    }

    pub(super) fn pace(&self, thresholds: &Thresholds) -> Pace {
        let wait = usual(self.pauses.iter().map(|(_, wait)| *wait));
        Pace {
            silence_ms: self.silence_ms(thresholds),
            silent_polls: self.silent_polls,
            usual_wait_ms: wait.unwrap_or(thresholds.still_ms),
        }
    }

    fn silence_ms(&self, thresholds: &Thresholds) -> u64 {
        let interval = usual(self.pauses.iter().map(|(interval, _)| *interval)).unwrap_or(0);
        interval.saturating_mul(thresholds.silent_intervals).max(thresholds.still_ms)
    }
}

/// The middle one; of two the longer.
fn usual(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
