//! Calls of one partition that are not forgotten yet, and what was counted in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::calls::{Call, Fate, Heard};
use crate::model::Timestamp;
use crate::model::call_counts::CallCounts;
use crate::pipeline::versioned::{read, read_key, written};
use crate::pipeline::{Change, PartitionState, UnreadableState};

/// Calls and campaigns known at once in one partition.
const MOST_CALLS: usize = 200_000;
const MOST_CAMPAIGNS: usize = 10_000;
/// A call's events are known for so long after its last one; older ones are not taken in.
const REMEMBERED: Duration = Duration::from_secs(600);
const MINUTE: Duration = Duration::from_secs(60);
/// A campaign without a call for so long begins anew.
const CAMPAIGN_REMEMBERED: Duration = Duration::from_secs(7 * 86_400);

/// See the module.
#[derive(Default)]
pub struct State {
    calls: HashMap<Box<str>, Call>,
    counted: BTreeMap<Box<str>, Counted>,
    /// What is too old to be taken in, by whole minutes.
    too_old_before: Option<Timestamp>,
    /// Calls by when they are to be judged or forgotten.
    due: BTreeSet<(Timestamp, Box<str>)>,
    /// What is not on the changelog yet as it is here, or is no more.
    changed: BTreeSet<Key>,
    /// Campaigns with sums that were not told.
    untold: BTreeSet<Box<str>>,
    told_at: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counted {
    #[serde(flatten)]
    counts: CallCounts,
    last_at: Timestamp,
}

/// One key of the changelog, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    Call(Box<str>),
    Campaign(Box<str>),
    TooOldBefore,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Changed,
    Unchanged,
    NoCampaign,
    TooOld,
    TooMany,
}

fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis() - at.as_millis().rem_euclid(MINUTE.as_millis() as i64))
}

/// When there is something to do about a call.
fn next(call: &Call, settle: Duration) -> Timestamp {
    call.due(settle).unwrap_or_else(|| call.last_at.plus(REMEMBERED + MINUTE))
}

impl State {
    /// What a clock ahead has called too old is taken in again.
    pub(super) fn heal(&mut self, latest: Timestamp) {
        if self.too_old_before.is_some_and(|before| before > latest) {
            self.too_old_before = Some(minute_of(latest.minus(REMEMBERED)));
            self.changed.insert(Key::TooOldBefore);
        }
    }

    pub(super) fn hear(&mut self, conversation_id: &str, heard: Heard<'_>, settle: Duration) -> Taken {
        if self.too_old_before.is_some_and(|before| heard.at < before) {
            return Taken::TooOld;
        }
        if let Some(call) = self.calls.get_mut(conversation_id) {
            let before = next(call, settle);
            if !call.hear(&heard) {
                return Taken::Unchanged;
            }
            self.due.remove(&(before, conversation_id.into()));
        } else if !heard.is_outbound {
            return Taken::NoCampaign;
        } else if self.calls.len() >= MOST_CALLS {
            return Taken::TooMany;
        } else {
            self.calls.insert(conversation_id.into(), Call::new(&heard));
        }
        self.due.insert((next(&self.calls[conversation_id], settle), conversation_id.into()));
        self.changed.insert(Key::Call(conversation_id.into()));
        Taken::Changed
    }

    /// Counts the calls whose fate is known at `time`, and forgets those that are long over.
    pub(super) fn judge(&mut self, time: Timestamp, settle: Duration) {
        while let Some((due, _)) = self.due.first()
            && *due <= time
        {
            let (_, conversation_id) = self.due.pop_first().expect("there is a first");
            let Some(call) = self.calls.get_mut(&conversation_id) else { continue };
            let due = next(call, settle);
            if due > time {
                self.due.insert((due, conversation_id));
                continue;
            }
            if call.due(settle).is_some() {
                call.is_counted = true;
                let (fate, last_at) = (call.fate(), call.last_at);
                let campaign_id = call.campaign_id.clone().expect("it is due because it has one");
                self.due.insert((next(call, settle), conversation_id.clone()));
                self.count(campaign_id, fate, last_at);
            } else {
                self.calls.remove(&conversation_id);
            }
            self.changed.insert(Key::Call(conversation_id));
        }
        let before = minute_of(time.minus(REMEMBERED));
        if self.too_old_before.is_none_or(|known| known < before) {
            self.too_old_before = Some(before);
            self.changed.insert(Key::TooOldBefore);
            self.forget_campaigns(time.minus(CAMPAIGN_REMEMBERED));
        }
    }

    fn count(&mut self, campaign_id: Box<str>, fate: Fate, at: Timestamp) {
        if self.counted.len() >= MOST_CAMPAIGNS && !self.counted.contains_key(&campaign_id) {
            return;
        }
        let counted = self.counted.entry(campaign_id.clone()).or_default();
        counted.counts = counted.counts.and(CallCounts {
            attempts: 1,
            answers: u64::from(fate != Fate::NotAnswered),
            abandoned: u64::from(fate == Fate::Abandoned),
        });
        counted.last_at = counted.last_at.max(at);
        self.changed.insert(Key::Campaign(campaign_id.clone()));
        self.untold.insert(campaign_id);
    }

    fn forget_campaigns(&mut self, before: Timestamp) {
        let changed = &mut self.changed;
        self.counted.retain(|campaign_id, counted| {
            let is_remembered = counted.last_at >= before;
            if !is_remembered {
                changed.insert(Key::Campaign(campaign_id.clone()));
            }
            is_remembered
        });
    }

    /// Hands sums that have changed to `tell`, unless some were told after `since`.
    pub(super) fn tell(&mut self, since: Timestamp, at: Timestamp, mut tell: impl FnMut(&str, CallCounts)) {
        let is_soon = self.told_at.is_some_and(|told_at| told_at > since && told_at <= at);
        if self.untold.is_empty() || is_soon {
            return;
        }
        self.told_at = Some(at);
        for campaign_id in std::mem::take(&mut self.untold) {
            if let Some(counted) = self.counted.get(&campaign_id) {
                tell(&campaign_id, counted.counts);
            }
        }
    }
}

impl PartitionState for State {
    fn restore(&mut self, known: u32, key: &[u8], value: Option<&[u8]>) -> Result<(), UnreadableState> {
        match (read_key(key)?, value) {
            (Key::Call(conversation_id), Some(value)) => {
                let call: Call = read(known, key, value)?;
                // When it is to be judged is found at its next look.
                self.due.insert((Timestamp::MIN, conversation_id.clone()));
                self.calls.insert(conversation_id, call);
            }
            (Key::Call(conversation_id), None) => drop(self.calls.remove(&conversation_id)),
            (Key::Campaign(campaign_id), Some(value)) => {
                // Whether it was told is not known; twice does no harm.
                self.untold.insert(campaign_id.clone());
                self.counted.insert(campaign_id, read(known, key, value)?);
            }
            (Key::Campaign(campaign_id), None) => drop(self.counted.remove(&campaign_id)),
            (Key::TooOldBefore, Some(value)) => self.too_old_before = Some(read(known, key, value)?),
            (Key::TooOldBefore, None) => self.too_old_before = None,
        }
        Ok(())
    }

    fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn changes<E>(&self, version: u32, mut write: impl FnMut(Change<'_>) -> Result<(), E>) -> Result<(), E> {
        self.changed.iter().try_for_each(|of| {
            let key = serde_json::to_vec(of).expect("own keys are JSON");
            let value = match of {
                Key::Call(conversation_id) => {
                    self.calls.get(conversation_id).map(|call| written(version, call))
                }
                Key::Campaign(campaign_id) => {
                    self.counted.get(campaign_id).map(|counted| written(version, counted))
                }
                Key::TooOldBefore => self.too_old_before.map(|before| written(version, &before)),
            };
            // Records are small by themselves: no event is to blame for one.
            write(Change { key: &key, value: value.as_deref(), by_offset: -1 })
        })
    }

    fn committed(&mut self) {
        self.changed.clear();
    }

    fn keys(&self) -> usize {
        self.calls.len() + self.counted.len()
    }
}
