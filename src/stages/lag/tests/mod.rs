//! Each rule on a group that is watched poll by poll, as the brokers would show it.

mod groups;
mod rules;
mod unread;

use super::*;
use crate::model::decision::Position;
use crate::model::lag::{Assigned, EventLag, Head, LagSample, Observation, PartitionLag};

const POLL_MS: i64 = 10_000;

/// A group under watch: its state is written and read back after every poll.
struct Watched {
    lag: Lag,
    state: State,
    /// Poll number.
    poll: i64,
    evaluations: Vec<LagEvaluation>,
    decisions: Vec<serde_json::Value>,
}

/// What a poll sees of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    topic_id: Option<&'static str>,
    committed: Option<i64>,
    log_start: i64,
    log_end: i64,
    high_watermark: Option<i64>,
    /// Offset, and how long ago it was written by its own time, in ms.
    head: Option<(i64, i64)>,
    records: Option<u64>,
    /// `None`: as the number of members lets one expect.
    assigned: Option<Option<Assigned>>,
}

impl Seen {
    /// Read up to the end.
    fn all_read(end: i64) -> Self {
        Self { committed: Some(end), log_end: end, ..Self::default() }
    }

    /// Behind since a record that was written `age_ms` ago.
    fn behind(committed: i64, log_end: i64, age_ms: i64) -> Self {
        Self { committed: Some(committed), log_end, head: Some((committed, age_ms)), ..Self::default() }
    }

    fn assigned(self, assigned: Option<Assigned>) -> Self {
        Self { assigned: Some(assigned), ..self }
    }
}

impl Watched {
    fn new() -> Self {
        let intervals = Intervals { broker: Duration::from_secs(10), analytics: Duration::from_secs(60) };
        Self {
            lag: Lag::new(Mode::Live, Thresholds::default(), intervals),
            state: State::default(),
            poll: 0,
            evaluations: Vec::new(),
            decisions: Vec::new(),
        }
    }

    fn now(&self) -> i64 {
        1_767_323_045_678 + self.poll * POLL_MS
    }

    fn sample(&mut self, source: LagSource, of: u32, observation: Observation) -> Step {
        let sample = LagSample {
            consumer_group: "g".into(),
            source,
            group_type: None,
            observed_at: Timestamp::from_millis(self.now()),
            poll_samples: of,
            observation,
        };
        let mut outputs = Outputs::default();
        let position = Position { topic: "t", partition: 0, offset: self.poll };
        let record = Record { at: sample.observed_at, key: "g", value: "", position };
        let step = self.lag.step(&record, &mut self.state, sample, &mut outputs);
        self.take(&outputs);
        step
    }

    fn take(&mut self, outputs: &Outputs) {
        for output in outputs.iter() {
            if *output.topic == topics::LAG_STATUS {
                self.evaluations.push(serde_json::from_slice(output.value).unwrap());
            } else {
                self.decisions.push(serde_json::from_slice(output.value).unwrap());
            }
        }
    }

    /// One poll of several partitions of topic `t`.
    fn partitions(&mut self, members: u32, seen: &[Seen]) -> &LagEvaluation {
        self.poll += 1;
        let of = seen.len() as u32;
        let sum = seen.iter().filter_map(|seen| seen.committed).sum();
        for (partition, seen) in (0..).zip(seen) {
            let expected = if members > 0 { Assigned::Here } else { Assigned::Nowhere };
            let written_at = |age_ms| Timestamp::from_millis(self.now() - age_ms);
            let observation = Observation::Partition(PartitionLag {
                topic: "t".into(),
                topic_id: seen.topic_id.map(str::to_owned),
                partition,
                committed: seen.committed,
                log_start: seen.log_start,
                log_end: seen.log_end,
                high_watermark: seen.high_watermark,
                head: seen.head.map(|(offset, age_ms)| Head { offset, written_at: written_at(age_ms) }),
                records: seen.records,
                members,
                assigned: seen.assigned.unwrap_or(Some(expected)),
                committed_sum: Some(sum),
            });
            self.sample(LagSource::Broker, of, observation);
        }
        self.state = serde_json::from_slice(&serde_json::to_vec(&self.state).unwrap()).unwrap();
        self.evaluations.last().expect("a complete poll is evaluated")
    }

    fn one(&mut self, members: u32, seen: Seen) -> &LagEvaluation {
        self.partitions(members, &[seen])
    }

    /// One poll of a partition in which a record is written every millisecond, of a group
    /// that is `age_ms` behind.
    fn steady(&mut self, members: u32, age_ms: i64) -> &LagEvaluation {
        let end = 1_000_000 + (self.poll + 1) * POLL_MS;
        self.one(members, Seen::behind(end - age_ms, end, age_ms))
    }

    fn event(&mut self, event_type: &str, of: u32, latency_ms: f64) -> Step {
        let observation = Observation::EventType(EventLag {
            event_type: event_type.into(),
            event_count: 1_800,
            processing_latency_ms: latency_ms,
            interval_seconds: 3_600.0,
        });
        self.sample(LagSource::Analytics, of, observation)
    }

    /// Time goes by without a poll; the partition has been held for `held_ms` of it.
    fn silence(&mut self, for_ms: i64, held_ms: i64) -> bool {
        self.silence_at(for_ms, held_ms, for_ms)
    }

    /// The same where the stage's own clock has come only so far.
    fn silence_at(&mut self, for_ms: i64, held_ms: i64, clock_ms: i64) -> bool {
        let time = Timestamp::from_millis(self.now() + for_ms);
        let at = Timestamp::from_millis(self.now() + clock_ms);
        if self.lag.due(&self.state).is_none_or(|due| due > time) {
            return false;
        }
        let held_since = Timestamp::from_millis(at.as_millis() - held_ms);
        let waking = Waking { key: "g", time, at, by_clock: true, held_since };
        let mut outputs = Outputs::default();
        let woken = self.lag.wake(&waking, &mut self.state, &mut outputs);
        self.take(&outputs);
        self.state = serde_json::from_slice(&serde_json::to_vec(&self.state).unwrap()).unwrap();
        woken
    }

    fn last(&self) -> &LagEvaluation {
        self.evaluations.last().expect("an evaluation")
    }

    fn statuses(&self) -> Vec<LagStatus> {
        let mut statuses: Vec<_> = self.evaluations.iter().map(|evaluation| evaluation.status).collect();
        statuses.dedup();
        statuses
    }

    /// What was asked for, in order.
    fn calls(&self) -> Vec<&str> {
        let actions = self.decisions.iter().map(|decision| decision["action"].as_str().unwrap());
        actions.filter(|action| *action != "hold").collect()
    }
}

fn rules(evaluation: &LagEvaluation) -> Vec<&str> {
    evaluation.reasons.iter().map(|reason| reason.rule.as_str()).collect()
}
