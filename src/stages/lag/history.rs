//! What is kept per partition, and the evidence that a new sample makes with it.

use serde::{Deserialize, Serialize};

use super::ends::Ends;
use super::rhythm::Pace;
use super::rules::{self, Thresholds};
use super::trend::trend;
use crate::model::Timestamp;
use crate::model::lag::{Assigned, LagEvidence, Observation, PartitionLag, Trend};

/// Ages kept for the trend at most, whatever the interval.
const MOST_AGES: usize = 64;

/// One partition between two polls. Fields are short, and left out where they say
/// nothing: a group may have ten thousand of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Time of the newest sample.
    #[serde(rename = "t")]
    seen_at: Timestamp,
    /// Committed offset.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    committed: Option<i64>,
    /// Start of the log.
    #[serde(rename = "s")]
    start: i64,
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
    /// When a transaction was first seen to be open that holds records from the end on.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    open_since: Option<i64>,
    /// A member was assigned it, and nobody has committed without being one since.
    #[serde(rename = "m", default, skip_serializing_if = "std::ops::Not::not")]
    read_by_member: bool,
    /// No member was assigned it.
    #[serde(rename = "u", default, skip_serializing_if = "std::ops::Not::not")]
    unassigned: bool,
    #[serde(rename = "n", default, skip_serializing_if = "Polls::are_none")]
    polls: Polls,
    #[serde(rename = "x", default, skip_serializing_if = "Ends::is_empty")]
    ends: Ends,
    /// Time before the newest poll and age, in ms, oldest first, from the first age on that
    /// is not 0.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    ages: Vec<(u64, u64)>,
}

/// Polls in a row in which something was so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Polls {
    #[serde(rename = "l")]
    lost: u32,
    #[serde(rename = "b")]
    beyond: u32,
    #[serde(rename = "d")]
    deserted: u32,
    #[serde(rename = "e")]
    error: u32,
    #[serde(rename = "w")]
    warning: u32,
}

impl Polls {
    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What moved since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Offsets the group got on.
    pub drained: u64,
    /// Offsets the log grew.
    pub arrived: u64,
}

impl Part {
    /// The log is another one under the same name: nothing of what was known is true of it,
    /// but that it holds nothing older.
    pub(super) fn restart(&mut self, at: Timestamp) {
        if self.is_known() {
            let ago = clamped(at.millis_since(self.seen_at));
            *self = Self { seen_at: at, ends: Ends::of_another_log(ago), ..Self::default() };
        }
    }

    /// Takes a newer sample in. `pace` is how the group commits where it has no members.
    pub(super) fn take(
        &mut self,
        at: Timestamp,
        seen: &PartitionLag,
        pace: Pace,
        thresholds: &Thresholds,
    ) -> (LagEvidence, Moved) {
        if seen.log_end < self.end {
            self.restart(at);
        }
        let now = at.as_millis();
        let passed = if self.is_known() { clamped(at.millis_since(self.seen_at)) } else { 0 };
        let before = self.committed;
        let stood = before.is_some() && before == seen.committed;
        let moved = Moved {
            drained: match (before, seen.committed) {
                (Some(before), Some(after)) => grown(before, after),
                _ => 0,
            },
            arrived: if self.is_known() { grown(self.end.max(seen.log_start), seen.log_end) } else { 0 },
        };
        self.note_rewind(now, before, seen, thresholds);
        self.note_reader(seen, stood);
        let lost = self.lost(stood, seen);
        self.count_edges(before, lost, seen);
        self.clear_to = match seen.head {
            None if lost == 0 => Some(seen.log_end.max(seen.log_start)),
            _ => self.clear_to.filter(|_| stood),
        };
        self.still_since = seen.head.map(|_| self.still_since.filter(|_| stood).unwrap_or(now));
        self.note_transaction(now, seen);
        self.ends.add(passed, seen.log_end);
        let claimed = |written_at| clamped(at.millis_since(written_at));
        let age_ms = seen.head.map_or(0, |head| self.ends.bounded(head.offset, claimed(head.written_at)));
        self.ends.forget_before(seen.committed.unwrap_or(i64::MAX));
        // Waiting for the next commit, as records of this group do, is not being late.
        let usual_wait_ms = if seen.members == 0 { pace.usual_wait_ms } else { 0 };
        let late_ms = age_ms.saturating_sub(usual_wait_ms);
        let polls = &mut self.polls;
        let here = self.unassigned && seen.head.is_some() && (stood || before.is_none());
        polls.deserted = count(here, polls.deserted);
        polls.error = count(late_ms > thresholds.error_age_ms, polls.error);
        polls.warning = count(late_ms > thresholds.warning_age_ms, polls.warning);
        self.note_age(passed, late_ms, thresholds);
        self.seen_at = at;
        self.committed = seen.committed;
        (self.start, self.end) = (seen.log_start, seen.log_end);
        let evidence = LagEvidence {
            lag: seen.head.map_or(0, |head| seen.records.unwrap_or(grown(head.offset, seen.log_end))),
            age_ms,
            lost,
            lost_polls: self.polls.lost,
            beyond_polls: self.polls.beyond,
            still_ms: self.still_since.map_or(0, |since| clamped(now - since)),
            deserted_polls: self.polls.deserted,
            read_by_member: self.read_by_member,
            silent_polls: pace.silent_polls,
            silence_ms: pace.silence_ms,
            usual_wait_ms,
            error_polls: self.polls.error,
            warning_polls: self.polls.warning,
            trend: self.rise(late_ms, thresholds),
            rewound_from: self.rewound.map(|(from, _)| from),
            rewound_ms: self.rewound.map_or(0, |(_, when)| clamped(now - when)),
            open_transaction_ms: self.open_since.map(|since| clamped(now - since)).filter(|ms| *ms > 0),
            observation: Observation::Partition(seen.clone()),
        };
        (evidence, moved)
    }

    fn is_known(&self) -> bool {
        self.seen_at != Timestamp::default()
    }

    /// Time of the newest sample.
    pub(super) fn seen_at(&self) -> Timestamp {
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

    /// Who reads it. A commit that moves where nobody was assigned the partition, before and
    /// after, is of somebody who is no member.
    fn note_reader(&mut self, seen: &PartitionLag, stood: bool) {
        match rules::assigned(seen) {
            Some(Assigned::Here) => (self.unassigned, self.read_by_member) = (false, true),
            Some(Assigned::Elsewhere | Assigned::Nowhere) => {
                let by_others = self.unassigned && self.committed.is_some() && !stood;
                self.read_by_member &= !by_others;
                self.unassigned = true;
            }
            None => self.unassigned = false,
        }
    }

    /// Commit and log are not asked for at one moment: what is believed holds with what
    /// either was a poll ago, too.
    fn count_edges(&mut self, before: Option<i64>, lost: u64, seen: &PartitionLag) {
        let known = self.is_known();
        let polls = &mut self.polls;
        let still_lost = polls.lost > 0 && seen.committed.is_some_and(|committed| committed < self.start);
        polls.lost = match lost {
            0 => 0,
            _ => count(still_lost, polls.lost).max(1),
        };
        // Readers that do not wait for transactions to end may be beyond the stable end.
        let end = seen.high_watermark.unwrap_or(seen.log_end).max(seen.log_end);
        let beyond = seen.committed.is_some_and(|committed| committed > end);
        let still_beyond = known && before.is_some_and(|before| before > end);
        polls.beyond = match beyond {
            false => 0,
            true => count(still_beyond, polls.beyond).max(1),
        };
    }

    /// The stable end stands where the oldest open transaction began; only since when it has
    /// stood there is known, and only a second poll tells that from a record that came
    /// between the two questions.
    fn note_transaction(&mut self, now: i64, seen: &PartitionLag) {
        let open = seen.high_watermark.is_some_and(|high| high > seen.log_end);
        let same = self.end == seen.log_end;
        self.open_since = open.then(|| self.open_since.filter(|_| same).unwrap_or(now));
    }

    /// Records between what was read and what is still there. What was known to be
    /// without data, such as markers of transactions, is no loss.
    fn lost(&self, stood: bool, seen: &PartitionLag) -> u64 {
        let Some(committed) = seen.committed else { return 0 };
        let read = self.clear_to.filter(|_| stood).map_or(committed, |clear| clear.max(committed));
        grown(read, seen.log_start)
    }

    fn note_age(&mut self, passed: u64, age_ms: u64, thresholds: &Thresholds) {
        self.ages.iter_mut().for_each(|(ago, _)| *ago = ago.saturating_add(passed));
        self.ages.retain(|(ago, _)| *ago <= thresholds.trend_window_ms);
        self.ages.push((0, age_ms));
        let quiet = self.ages.iter().take_while(|(_, age)| *age == 0).count();
        let excess = self.ages.len().saturating_sub(MOST_AGES);
        self.ages.drain(..quiet.max(excess));
    }

    fn rise(&self, age_ms: u64, thresholds: &Thresholds) -> Option<Trend> {
        let span = self.ages.first()?.0;
        let worth_it = age_ms > thresholds.trend_age_ms && span >= thresholds.trend_window_ms / 2;
        let points = || self.ages.iter().map(|(ago, age)| (span - ago, *age)).collect::<Vec<_>>();
        worth_it.then(|| trend(&points())).flatten()
    }
}

fn count(on: bool, before: u32) -> u32 {
    if on { before.saturating_add(1) } else { 0 }
}

fn grown(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

fn clamped(millis: i64) -> u64 {
    u64::try_from(millis).unwrap_or(0)
}
