//! One poll of one group by one source: gathered sample by sample, then summed up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::{Moved, Part};
use super::replicas::Rates;
use super::rules::{self, POLL_INCOMPLETE, Thresholds, Verdict};
use crate::model::Timestamp;
use crate::model::lag::{LagEvidence, LagReason, LagSample, LagStatus, Observation};

/// What is kept of one group by one source.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Polled {
    /// The poll under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    open: Option<Gathered>,
    /// The newest poll that was summed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    parts: BTreeMap<String, BTreeMap<i32, Part>>,
    rates: Rates,
    /// Members when there last were any.
    #[serde(default)]
    members_before: u32,
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
pub struct Summary {
    pub observed_at: Timestamp,
    /// Worst first, one per rule.
    pub reasons: Vec<LagReason>,
    pub status: LagStatus,
    /// What the worst part was judged by.
    pub worst: Option<LagEvidence>,
    pub lag: Option<u64>,
    pub age_ms: u64,
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

/// What became of a sample.
pub enum Taken {
    /// The poll is complete, or the one before was summed up since a newer one began.
    SummedUp,
    Gathered,
    /// It belongs to a poll that is over.
    Old,
}

impl Polled {
    /// Takes a sample in. A newer poll ends the one under way, complete or not.
    pub fn take(&mut self, sample: &LagSample, thresholds: &Thresholds) -> Taken {
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
        let mut open = self.open.take().unwrap_or_else(|| Gathered::new(at, sample.poll_samples));
        let evidence = match &sample.observation {
            Observation::Partition(seen) => {
                let part = self.parts.entry(seen.topic.clone()).or_default().entry(seen.partition);
                let (evidence, Moved { drained, arrived }) = part.or_default().take(at, seen, thresholds);
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

    fn sum_up(&mut self, thresholds: &Thresholds) {
        let Some(Gathered { observed_at, expected, received, mut summary, moved }) = self.open.take() else {
            return;
        };
        if received < expected {
            summary.note(&POLL_INCOMPLETE, None);
        }
        let known = summary.reasons.iter().all(|reason| reason.status != LagStatus::Unknown);
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
        for parts in self.parts.values_mut() {
            parts.retain(|_, part| part.seen_at() == summary.observed_at);
        }
        self.parts.retain(|_, parts| !parts.is_empty());
    }
}

impl Gathered {
    fn new(observed_at: Timestamp, expected: u32) -> Self {
        Self { observed_at, expected, received: 0, moved: (0, 0), summary: Summary::new(observed_at) }
    }

    fn add(&mut self, evidence: &LagEvidence, verdicts: &[Verdict], thresholds: &Thresholds) {
        self.received += 1;
        let summary = &mut self.summary;
        let worst = verdicts.iter().map(|verdict| verdict.status).min().unwrap_or(LagStatus::Ok);
        let standing = summary.worst.as_ref().map(|held| (summary.status, std::cmp::Reverse(held.age_ms)));
        if standing.is_none_or(|standing| (worst, std::cmp::Reverse(evidence.age_ms)) < standing) {
            summary.worst = Some(evidence.clone());
        }
        for verdict in verdicts.iter().filter(|verdict| **verdict != rules::OK) {
            summary.note(verdict, place(&evidence.observation).as_deref());
        }
        summary.age_ms = summary.age_ms.max(evidence.age_ms);
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
            Observation::Missing {} | Observation::Failed { .. } => {}
        }
    }
}

impl Summary {
    fn new(observed_at: Timestamp) -> Self {
        Self {
            observed_at,
            reasons: Vec::new(),
            status: LagStatus::Ok,
            worst: None,
            lag: None,
            age_ms: 0,
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

    fn note(&mut self, verdict: &Verdict, place: Option<&str>) {
        self.status = self.status.min(verdict.status);
        if let Some(known) = self.reasons.iter_mut().find(|reason| reason.rule == verdict.rule) {
            known.count += 1;
            return;
        }
        self.reasons.push(LagReason {
            status: verdict.status,
            rule: verdict.rule.into(),
            count: 1,
            example: place.map(str::to_owned),
        });
        self.reasons.sort_by_key(|reason| reason.status);
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
        still_ms: 0,
        deserted_polls: 0,
        error_polls: 0,
        warning_polls: 0,
        trend: None,
        rewound_from: None,
    }
}

fn place(observation: &Observation) -> Option<String> {
    match observation {
        Observation::Partition(seen) => Some(format!("{}/{}", seen.topic, seen.partition)),
        Observation::EventType(seen) => Some(seen.event_type.clone()),
        Observation::Failed { reason } => Some(reason.clone()),
        Observation::Idle { .. } | Observation::Missing {} => None,
    }
}
