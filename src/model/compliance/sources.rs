//! What figures are made of: dispositions of calls, and the platform's own counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Call, Disposition, MessageHeard, Rules, Window};

/// Calls of one window, counted by what they count as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    pub passed_to_agent: u64,
    pub abandoned: u64,
    pub machines: u64,
    pub not_answered: u64,
    /// Calls that are told to have reached the queue, and those of them the platform's own
    /// figure counts as abandoned.
    pub reached_queue: u64,
    pub abandoned_in_queue: u64,
    /// Of the abandoned ones.
    pub message_in_time: u64,
    pub message_late: u64,
    pub silence: u64,
    pub message_not_told: u64,
}

impl Tally {
    /// Counts the calls of a window by their facts, each once however often it is there: of several
    /// revisions of one the last counts, by the rules it was recorded under.
    pub fn of<'c>(revisions: impl IntoIterator<Item = (u32, Rules, &'c Call)>, window: &Window) -> Self {
        let mut last: BTreeMap<&str, (u32, Rules, &Call)> = BTreeMap::new();
        for (revision, rules, call) in revisions {
            let known = last.entry(&call.conversation_id).or_insert((revision, rules, call));
            if revision > known.0 {
                *known = (revision, rules, call);
            }
        }
        let mut tally = Self::default();
        for (_, rules, call) in last.into_values().filter(|(.., call)| window.contains(call.counted_at())) {
            let disposition = call.disposition(rules);
            let heard = (disposition == Disposition::Abandoned).then(|| call.heard(rules));
            tally.add(1, disposition, heard, call.abandoned_in_queue());
        }
        tally
    }

    /// Counts `calls` of one kind.
    pub fn add(
        &mut self,
        calls: u64,
        disposition: Disposition,
        heard: Option<MessageHeard>,
        in_queue: Option<bool>,
    ) {
        *match disposition {
            Disposition::PassedToAgent => &mut self.passed_to_agent,
            Disposition::Abandoned => &mut self.abandoned,
            Disposition::Machine => &mut self.machines,
            Disposition::NotAnswered => &mut self.not_answered,
        } += calls;
        if let Some(heard) = heard.filter(|_| disposition == Disposition::Abandoned) {
            *match heard {
                MessageHeard::InTime => &mut self.message_in_time,
                MessageHeard::Late => &mut self.message_late,
                MessageHeard::Silence => &mut self.silence,
                MessageHeard::NotTold => &mut self.message_not_told,
            } += calls;
        }
        if let Some(abandoned) = in_queue {
            self.reached_queue += calls;
            self.abandoned_in_queue += if abandoned { calls } else { 0 };
        }
    }

    /// Calls answered by a person.
    pub fn answered(&self) -> u64 {
        self.passed_to_agent + self.abandoned
    }

    pub fn calls(&self) -> u64 {
        self.answered() + self.machines + self.not_answered
    }
}

/// What the platform counted in a window, as the dial loop read it; `None` where it does not
/// count that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    pub attempts: Option<u64>,
    pub answers: Option<u64>,
    pub abandoned: Option<u64>,
}

impl Counters {
    pub fn counted_anything(&self) -> bool {
        [self.attempts, self.answers, self.abandoned].into_iter().flatten().any(|count| count > 0)
    }
}
