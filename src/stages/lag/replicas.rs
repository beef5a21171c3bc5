//! How fast a group is, when it will have caught up, and how many consumers it needs.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::rules::Thresholds;
use crate::model::Timestamp;

/// Rates are those of so much of the newest history.
const RATE_WINDOW_MS: i64 = 60_000;
/// Polls kept at most, whatever the interval.
const MOST_POLLS: usize = 128;
/// Share of their capacity that consumers are to be used to, where nothing is behind.
const UTILISATION: f64 = 0.8;

/// What a group has worked off and been given, poll by poll.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Rates {
    /// Time in ms, offsets worked off and arrived since the first poll.
    polls: VecDeque<(i64, u64, u64)>,
    /// The poll from which on members had enough to do, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    busy_since: Option<i64>,
    /// Records per second that one member managed while there was enough to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capacity: Option<f64>,
}

/// Records per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub arrival: f64,
    pub drain: f64,
}

impl Rates {
    /// Adds a poll. `busy_members` is given where the members had enough to do all along.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        drained: u64,
        arrived: u64,
        busy_members: Option<u32>,
        thresholds: &Thresholds,
    ) {
        let now = at.as_millis();
        let (before, drained_before, arrived_before) = self.polls.back().copied().unwrap_or((now, 0, 0));
        self.polls.push_back((now, drained_before + drained, arrived_before + arrived));
        let oldest = now - i64::try_from(thresholds.history_ms).unwrap_or(i64::MAX);
        while self.polls.len() > MOST_POLLS || self.polls.front().is_some_and(|(at, ..)| *at < oldest) {
            self.polls.pop_front();
        }
        let busy_members = busy_members.filter(|members| *members > 0);
        self.busy_since = busy_members.map(|_| self.busy_since.unwrap_or(before));
        // Idle time before says nothing of what they can do.
        if let (Some(members), Some(since)) = (busy_members, self.busy_since)
            && let Some(rate) = self.rate_since(since)
            && rate.drain > 0.0
        {
            self.capacity = Some(rate.drain / f64::from(members));
        }
    }

    /// Over the last minute, or since the poll before where that is longer ago.
    /// `None` before the second poll.
    pub(super) fn rate(&self) -> Option<Rate> {
        self.rate_since(i64::MIN)
    }

    fn rate_since(&self, since: i64) -> Option<Rate> {
        let (now, drained, arrived) = *self.polls.back()?;
        let (at, drained_then, arrived_then) = self.recent(now).take_while(|(at, ..)| *at >= since).last()?;
        let seconds = (now - at) as f64 / 1_000.0;
        (seconds > 0.0).then(|| Rate {
            arrival: (arrived - arrived_then) as f64 / seconds,
            drain: (drained - drained_then) as f64 / seconds,
        })
    }

    /// Polls before the newest of the last minute, or the one before where that is longer
    /// ago; newest first.
    fn recent(&self, now: i64) -> impl Iterator<Item = (i64, u64, u64)> {
        let earlier = self.polls.iter().rev().skip(1).copied();
        earlier
            .enumerate()
            .take_while(move |(age, (at, ..))| *age == 0 || now - at <= RATE_WINDOW_MS)
            .map(|(_, poll)| poll)
    }

    /// `lag / (drain − arrival)`, as they have been since the backlog of the last minute was
    /// greatest: a burst that is over arrives no more. `None` where the group does not catch
    /// up.
    pub(super) fn catch_up_seconds(&self, lag: u64) -> Option<f64> {
        if lag == 0 {
            return Some(0.0);
        }
        let (now, drained, arrived) = *self.polls.back()?;
        let backlog = |drained: u64, arrived: u64| i128::from(arrived) - i128::from(drained);
        let newest_first = self.recent(now).map(|(at, drained, arrived)| (backlog(drained, arrived), at));
        // Of equals the last, which is the earliest.
        let (most, at) = newest_first.max_by_key(|(backlog, _)| *backlog)?;
        let worked_off = most - backlog(drained, arrived);
        (worked_off > 0).then(|| lag as f64 * (now - at) as f64 / 1_000.0 / worked_off as f64)
    }

    /// Consumers that keep up with what arrives and work `lag` off in the time wanted.
    /// `None` while nobody's speed is known. May be more than there are partitions.
    pub(super) fn needed(&self, lag: u64, thresholds: &Thresholds) -> Option<u32> {
        let (rate, capacity) = (self.rate()?, self.capacity?);
        let wanted = match lag {
            0 => rate.arrival / (capacity * UTILISATION),
            _ => (rate.arrival + lag as f64 * 1_000.0 / thresholds.catch_up_ms as f64) / capacity,
        };
        // Float to integer saturates; wanted is finite, as capacity is above 0.
        Some((wanted.ceil() as u32).max(1))
    }
}
