//! One poll of one group by one source: gathered sample by sample, then summed up.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{Moved, Part};
use super::replicas::Rates;
use super::rhythm::Rhythm;
use super::rules::{self, NOT_HEARD, POLL_INCOMPLETE, Thresholds, Verdict};
use crate::model::Timestamp;
use crate::model::lag::{GroupType, LagEvidence, LagReason, LagSample, LagStatus, Observation, PartitionLag};

/// What is kept of one group by one source.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Polled {
    /// The poll under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<Gathered>,
    /// The newest poll that was summed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    topics: BTreeMap<String, Topic>,
    rates: Rates,
    rhythm: Rhythm,
    /// Members when there last were any.
    #[serde(default)]
    members_before: u32,
}

/// The partitions of a topic, as long as it is the same topic.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Topic {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parts: BTreeMap<i32, Part>,
}

impl Topic {
    /// A topic that was deleted and made again is another log under the same name.
    fn meet(&mut self, at: Timestamp, id: Option<&str>) {
        let Some(id) = id else { return };
        match self.id.as_deref() {
            Some(known) if known == id => return,
            Some(_) => self.parts.values_mut().for_each(|part| part.restart(at)),
            None => {}
        }
        self.id = Some(id.to_owned());
    }
}

/// A poll whose samples are coming in.
#[derive(Debug, Serialize, Deserialize)]
struct Gathered {
    observed_at: Timestamp,
    expected: u32,
    received: u32,
    summary: Summary,
    moved: (u64, u64),
}

/// A poll in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub observed_at: Timestamp,
    pub group_type: Option<GroupType>,
    /// Worst first, one per rule.
    pub reasons: Vec<Reason>,
    pub status: LagStatus,
    /// All that has this status may mend itself yet.
    pub may_mend_itself: bool,
    /// What the worst part was judged by.
    pub worst: Option<LagEvidence>,
    pub lag: Option<u64>,
    pub age_ms: u64,
    pub open_transaction_ms: Option<u64>,
    pub parts: u32,
    pub members: Option<u32>,
    /// Members when there last were any.
    pub members_before: u32,
    pub arrival_per_second: Option<f64>,
    pub drain_per_second: Option<f64>,
    pub catch_up_seconds: Option<f64>,
    /// Consumers that would do, not bounded by the partitions.
    pub needed: Option<u32>,
    /// A threshold of the seed's was exceeded.
    pub exceeded: bool,
}

/// A rule that answered, and how bad its example is beside others it answered for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reason {
    pub told: LagReason,
    weight: (u64, u64),
}

/// What became of a sample.
pub(super) enum Taken {
    /// The poll is complete, or the one before was summed up since a newer one began.
    SummedUp,
    Gathered,
    /// It belongs to a poll that is over.
    Old,
}

impl Polled {
    /// Takes a sample in. A newer poll ends the one under way, complete or not.
    pub(super) fn take(&mut self, sample: &LagSample, thresholds: &Thresholds) -> Taken {
        let at = sample.observed_at;
        if self.summary.as_ref().is_some_and(|summary| at <= summary.observed_at)
            || self.open.as_ref().is_some_and(|open| at < open.observed_at)
        {
            return Taken::Old;
        }
        let superseded = self.open.as_ref().is_some_and(|open| at > open.observed_at);
        if superseded {
            self.sum_up(thresholds);
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                self.begin(at, &sample.observation, thresholds);
                Gathered::new(at, sample)
            }
        };
        let evidence = match &sample.observation {
            Observation::Partition(seen) => {
                let (evidence, Moved { drained, arrived }) = self.take_partition(at, seen, thresholds);
                open.moved = (open.moved.0 + drained, open.moved.1 + arrived);
                evidence
            }
            other => bare(other.clone()),
        };
        open.add(&evidence, &thresholds.judge(&evidence), thresholds);
        let complete = open.received >= open.expected;
        self.open = Some(open);
        if complete {
            self.sum_up(thresholds);
        }
        if complete || superseded { Taken::SummedUp } else { Taken::Gathered }
    }

    /// When the newest poll was that anything came of.
    pub(super) fn heard_at(&self) -> Option<Timestamp> {
        let summed_up = self.summary.as_ref().map(|summary| summary.observed_at);
        self.open.as_ref().map(|open| open.observed_at).max(summed_up)
    }

    fn begin(&mut self, at: Timestamp, first: &Observation, thresholds: &Thresholds) {
        if let Observation::Partition(PartitionLag { committed_sum: Some(sum), .. }) = first {
            self.rhythm.note(at.as_millis(), *sum, thresholds);
        }
    }

    fn take_partition(
        &mut self,
        at: Timestamp,
        seen: &PartitionLag,
        thresholds: &Thresholds,
    ) -> (LagEvidence, Moved) {
        let topic = self.topics.entry(seen.topic.clone()).or_default();
        topic.meet(at, seen.topic_id.as_deref());
        let part = topic.parts.entry(seen.partition).or_default();
        part.take(at, seen, self.rhythm.pace(thresholds), thresholds)
    }

    fn sum_up(&mut self, thresholds: &Thresholds) {
        let Some(Gathered { observed_at, expected, received, mut summary, moved }) = self.open.take() else {
            return;
        };
        if received < expected {
            summary.note(&POLL_INCOMPLETE, None, (0, 0));
        }
        let known = summary.reasons.iter().all(|reason| reason.told.status != LagStatus::Unknown);
        if known {
            self.forget_others_than_of(&summary);
        }
        if let Some(members) = summary.members {
            let behind_before = self.summary.as_ref().is_some_and(|before| before.lag.unwrap_or(0) > 0);
            let busy = behind_before && summary.age_ms > thresholds.trend_age_ms;
            self.rates.add(observed_at, moved.0, moved.1, busy.then_some(members), thresholds);
            if members > 0 {
                self.members_before = members;
            }
            let lag = summary.lag.unwrap_or(0);
            self.rhythm.end_poll(observed_at.as_millis(), lag > 0);
            let rate = self.rates.rate();
            summary.arrival_per_second = rate.map(|rate| rate.arrival);
            summary.drain_per_second = rate.map(|rate| rate.drain);
            summary.catch_up_seconds = self.rates.catch_up_seconds(lag);
            summary.needed = self.rates.needed(lag, thresholds);
        }
        summary.members_before = self.members_before;
        self.summary = Some(summary);
    }

    /// Partitions that were not in a poll are no longer the group's: their time of the
    /// newest sample is older.
    fn forget_others_than_of(&mut self, summary: &Summary) {
        for topic in self.topics.values_mut() {
            topic.parts.retain(|_, part| part.seen_at() == summary.observed_at);
        }
        self.topics.retain(|_, topic| !topic.parts.is_empty());
    }
}

impl Gathered {
    fn new(observed_at: Timestamp, first: &LagSample) -> Self {
        let summary = Summary { group_type: first.group_type, ..Summary::new(observed_at) };
        Self { observed_at, expected: first.poll_samples, received: 0, moved: (0, 0), summary }
    }

    fn add(&mut self, evidence: &LagEvidence, verdicts: &[Verdict], thresholds: &Thresholds) {
        self.received += 1;
        let summary = &mut self.summary;
        let place = place(&evidence.observation);
        let worst = verdicts.iter().min_by_key(|verdict| rules::rank(verdict.rule)).unwrap_or(&rules::OK);
        if summary.is_topped_by(worst.status, evidence, place.as_deref()) {
            summary.worst = Some(evidence.clone());
        }
        let may_mend_itself = thresholds.may_mend_itself(worst, evidence);
        match worst.status.cmp(&summary.status) {
            Ordering::Less => summary.may_mend_itself = may_mend_itself,
            Ordering::Equal => summary.may_mend_itself &= may_mend_itself,
            Ordering::Greater => {}
        }
        for verdict in verdicts.iter().filter(|verdict| **verdict != rules::OK) {
            summary.note(verdict, place.as_deref(), (evidence.lost, evidence.age_ms));
        }
        summary.age_ms = summary.age_ms.max(evidence.age_ms);
        summary.open_transaction_ms = summary.open_transaction_ms.max(evidence.open_transaction_ms);
        match &evidence.observation {
            Observation::Partition(seen) => {
                summary.parts += 1;
                summary.members = Some(seen.members);
                *summary.lag.get_or_insert(0) += evidence.lag;
                summary.exceeded |= evidence.age_ms > thresholds.error_age_ms;
            }
            Observation::EventType(seen) => {
                summary.parts += 1;
                if seen.interval_seconds > 0.0 {
                    *summary.arrival_per_second.get_or_insert(0.0) +=
                        seen.event_count as f64 / seen.interval_seconds;
                }
                summary.exceeded |= verdicts.iter().any(|verdict| *verdict != rules::OK);
            }
            Observation::Idle { members } => summary.members = Some(*members),
            Observation::Missing {} | Observation::Failed { .. } | Observation::NotJudged { .. } => {}
        }
    }
}

impl Summary {
    fn new(observed_at: Timestamp) -> Self {
        Self {
            observed_at,
            group_type: None,
            reasons: Vec::new(),
            status: LagStatus::Ok,
            may_mend_itself: false,
            worst: None,
            lag: None,
            age_ms: 0,
            open_transaction_ms: None,
            parts: 0,
            members: None,
            members_before: 0,
            arrival_per_second: None,
            drain_per_second: None,
            catch_up_seconds: None,
            needed: None,
            exceeded: false,
        }
    }

    /// What is known at `time` where nothing came since this poll.
    pub(super) fn silent_at(&self, time: Timestamp) -> Self {
        let mut silent = Self {
            group_type: self.group_type,
            worst: self.worst.clone(),
            members_before: self.members_before,
            ..Self::new(time)
        };
        silent.note(&NOT_HEARD, None, (0, 0));
        silent
    }

    /// Whether this is worse than the worst so far, in whatever order they come.
    fn is_topped_by(&self, status: LagStatus, evidence: &LagEvidence, at: Option<&str>) -> bool {
        let Some(held) = &self.worst else { return true };
        let held_at = place(&held.observation);
        (status, Reverse(evidence.age_ms), at) < (self.status, Reverse(held.age_ms), held_at.as_deref())
    }

    fn note(&mut self, verdict: &Verdict, place: Option<&str>, weight: (u64, u64)) {
        self.status = self.status.min(verdict.status);
        if let Some(known) = self.reasons.iter_mut().find(|reason| reason.told.rule == verdict.rule) {
            known.told.count += 1;
            if (Reverse(weight), place) < (Reverse(known.weight), known.told.example.as_deref()) {
                known.told.example = place.map(str::to_owned);
                known.weight = weight;
            }
            return;
        }
        let told = LagReason {
            status: verdict.status,
            rule: verdict.rule.into(),
            count: 1,
            example: place.map(str::to_owned),
        };
        self.reasons.push(Reason { told, weight });
        self.reasons.sort_by_key(|reason| rules::rank(&reason.told.rule));
    }
}

/// What an observation without a history says.
fn bare(observation: Observation) -> LagEvidence {
    let age_ms = match &observation {
        // Never negative or NaN: the poller has checked. Saturates.
        Observation::EventType(seen) => seen.processing_latency_ms.round() as u64,
        _ => 0,
    };
    LagEvidence {
        observation,
        lag: 0,
        age_ms,
        lost: 0,
        lost_polls: 0,
        beyond_polls: 0,
        still_ms: 0,
        deserted_polls: 0,
        read_by_member: false,
        silent_polls: 0,
        silence_ms: 0,
        usual_wait_ms: 0,
        error_polls: 0,
        warning_polls: 0,
        trend: None,
        rewound_from: None,
        rewound_ms: 0,
        open_transaction_ms: None,
    }
}

fn place(observation: &Observation) -> Option<String> {
    match observation {
        Observation::Partition(seen) => Some(format!("{}/{}", seen.topic, seen.partition)),
        Observation::EventType(seen) => Some(seen.event_type.clone()),
        Observation::Failed { reason } | Observation::NotJudged { reason } => Some(reason.clone()),
        Observation::Idle { .. } | Observation::Missing {} => None,
    }
}
