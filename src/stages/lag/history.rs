//! What is kept per partition, and the evidence that a new sample makes with it.

use serde::{Deserialize, Serialize};

use super::rules::Thresholds;
use super::trend::trend;
use crate::model::Timestamp;
use crate::model::lag::{LagEvidence, Observation, PartitionLag, Trend};

/// Ages kept for the trend at most, whatever the interval.
const MOST_AGES: usize = 64;

/// One partition between two polls. Fields are short, and left out where they say
/// nothing: a group may have ten thousand of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Time of the newest sample.
    #[serde(rename = "t")]
    seen_at: Timestamp,
    /// Committed offset.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    committed: Option<i64>,
    /// End of the log.
    #[serde(rename = "e")]
    end: i64,
    /// When it was first seen behind at this offset, in ms.
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    still_since: Option<i64>,
    /// Before this offset there was nothing left to read.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    clear_to: Option<i64>,
    /// Offset before it went down, and when it did.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    rewound: Option<(i64, i64)>,
    /// Polls in a row: deserted, above ERROR, above WARNING.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    polls: (u32, u32, u32),
    /// Time of the poll and age, in ms, oldest first, from the first age that is not 0.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    ages: Vec<(u64, u64)>,
}

fn is_zero(polls: &(u32, u32, u32)) -> bool {
    *polls == (0, 0, 0)
}

/// What moved since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Offsets the group got on.
    pub drained: u64,
    /// Offsets the log grew.
    pub arrived: u64,
}

impl Part {
    /// Takes a newer sample in.
    pub fn take(
        &mut self,
        at: Timestamp,
        seen: &PartitionLag,
        thresholds: &Thresholds,
    ) -> (LagEvidence, Moved) {
        let now = at.as_millis();
        let before = self.committed;
        let known = self.seen_at != Timestamp::default();
        let stood = before.is_some() && before == seen.committed;
        let moved = Moved {
            drained: match (before, seen.committed) {
                (Some(before), Some(after)) => grown(before, after),
                _ => 0,
            },
            arrived: if known { grown(self.end, seen.log_end) } else { 0 },
        };
        self.note_rewind(now, before, seen, thresholds);
        let lost = self.lost(stood, seen);
        self.clear_to = match seen.head {
            None => Some(seen.log_end.max(seen.log_start)),
            Some(_) => self.clear_to.filter(|_| stood),
        };
        self.still_since = seen.head.map(|_| self.still_since.filter(|_| stood).unwrap_or(now));
        let age_ms = seen.head.map_or(0, |head| clamped(at.millis_since(head.written_at)));
        let count = |on: bool, before: u32| if on { before.saturating_add(1) } else { 0 };
        self.polls = (
            count(seen.head.is_some() && seen.members == 0 && (stood || before.is_none()), self.polls.0),
            count(age_ms > thresholds.error_age_ms, self.polls.1),
            count(age_ms > thresholds.warning_age_ms, self.polls.2),
        );
        self.note_age(clamped(now), age_ms, thresholds);
        self.seen_at = at;
        self.committed = seen.committed;
        self.end = seen.log_end;
        let evidence = LagEvidence {
            lag: seen.head.map_or(0, |head| grown(head.offset, seen.log_end)),
            age_ms,
            lost,
            still_ms: self.still_since.map_or(0, |since| clamped(now - since)),
            deserted_polls: self.polls.0,
            error_polls: self.polls.1,
            warning_polls: self.polls.2,
            trend: self.rise(age_ms, thresholds),
            rewound_from: self.rewound.map(|(from, _)| from),
            observation: Observation::Partition(seen.clone()),
        };
        (evidence, moved)
    }

    /// Time of the newest sample.
    pub fn seen_at(&self) -> Timestamp {
        self.seen_at
    }

    fn note_rewind(&mut self, now: i64, before: Option<i64>, seen: &PartitionLag, thresholds: &Thresholds) {
        let Some(after) = seen.committed else {
            self.rewound = None;
            return;
        };
        if let Some(before) = before.filter(|before| after < *before) {
            let from = self.rewound.map_or(before, |(from, _)| from.max(before));
            self.rewound = Some((from, now));
        }
        self.rewound =
            self.rewound.filter(|(from, when)| after < *from && clamped(now - when) <= thresholds.history_ms);
    }

    /// Records between what was read and what is still there. What was known to be
    /// without data, such as markers of transactions, is no loss.
    fn lost(&self, stood: bool, seen: &PartitionLag) -> u64 {
        let Some(committed) = seen.committed else { return 0 };
        let read = self.clear_to.filter(|_| stood).map_or(committed, |clear| clear.max(committed));
        grown(read, seen.log_start)
    }

    fn note_age(&mut self, now: u64, age_ms: u64, thresholds: &Thresholds) {
        self.ages.retain(|(at, _)| at + thresholds.trend_window_ms >= now);
        self.ages.push((now, age_ms));
        let quiet = self.ages.iter().take_while(|(_, age)| *age == 0).count();
        let excess = self.ages.len().saturating_sub(MOST_AGES);
        self.ages.drain(..quiet.max(excess));
    }

    fn rise(&self, age_ms: u64, thresholds: &Thresholds) -> Option<Trend> {
        let span = self.ages.last()?.0 - self.ages.first()?.0;
        let worth_it = age_ms > thresholds.trend_age_ms && span >= thresholds.trend_window_ms / 2;
        worth_it.then(|| trend(&self.ages)).flatten()
    }
}

fn grown(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

fn clamped(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or(0)
}
