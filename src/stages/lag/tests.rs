//! Each rule on a group that is watched poll by poll, as the brokers would show it.

use super::*;
use crate::model::decision::Position;
use crate::model::lag::{EventLag, Head, LagSample, Observation, PartitionLag};

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

/// One partition of topic `t`: committed, log start, log end, offset and time of the head.
type Seen = (Option<i64>, i64, i64, Option<(i64, i64)>);

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

    /// What has waited for `age_ms`.
    fn head(&self, offset: i64, age_ms: i64) -> Option<(i64, i64)> {
        Some((offset, self.now() - age_ms))
    }

    fn sample(&mut self, source: LagSource, of: u32, observation: Observation) -> Step {
        let sample = LagSample {
            consumer_group: "g".into(),
            source,
            observed_at: Timestamp::from_millis(self.now()),
            poll_samples: of,
            observation,
        };
        let mut outputs = Outputs::default();
        let position = Position { topic: "t", partition: 0, offset: self.poll };
        let record = Record { at: sample.observed_at, key: "g", value: "", position };
        let step = self.lag.step(&record, &mut self.state, sample, &mut outputs);
        for output in outputs.iter() {
            if *output.topic == topics::LAG_STATUS {
                self.evaluations.push(serde_json::from_slice(output.value).unwrap());
            } else {
                self.decisions.push(serde_json::from_slice(output.value).unwrap());
            }
        }
        self.state = serde_json::from_slice(&serde_json::to_vec(&self.state).unwrap()).unwrap();
        step
    }

    /// One poll of several partitions.
    fn partitions(&mut self, members: u32, seen: &[Seen]) -> &LagEvaluation {
        self.poll += 1;
        for (partition, (committed, log_start, log_end, head)) in (0..).zip(seen) {
            let head = head.map(|(offset, at)| Head { offset, written_at: Timestamp::from_millis(at) });
            let observation = Observation::Partition(PartitionLag {
                topic: "t".into(),
                partition,
                committed: *committed,
                log_start: *log_start,
                log_end: *log_end,
                head,
                members,
            });
            self.sample(LagSource::Broker, seen.len() as u32, observation);
        }
        self.evaluations.last().expect("a complete poll is evaluated")
    }

    /// One poll of one partition, in which `age_ms` have passed since the head was written.
    fn one(&mut self, members: u32, committed: i64, log_end: i64, age_ms: Option<i64>) -> &LagEvaluation {
        self.poll += 1;
        let head = age_ms.and_then(|age_ms| self.head(committed, age_ms));
        self.poll -= 1;
        self.partitions(members, &[(Some(committed), 0, log_end, head)])
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

#[test]
fn rule_1_retention_passed_is_data_loss_and_asks_for_a_person() {
    let mut group = Watched::new();
    let head = Some((50, group.now()));
    let evaluation = group.partitions(2, &[(Some(40), 50, 60, head)]);
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::DataLoss, vec!["retention_passed"]));
    assert_eq!(evaluation.recommended_action, Action::Investigate);
    assert_eq!(group.calls(), ["investigate"]);
    assert_eq!(group.one(2, 60, 60, None).status, LagStatus::Ok, "once it reads on");
}

#[test]
fn rule_1_markers_that_retention_removes_are_no_loss() {
    let mut group = Watched::new();
    // 40 is the marker of a transaction: nothing to read before the end.
    assert_eq!(group.one(1, 40, 41, None).status, LagStatus::Ok);
    assert_eq!(group.partitions(1, &[(Some(40), 41, 41, None)]).status, LagStatus::Ok);
    // More than that was there, and nobody knows what.
    assert_eq!(group.partitions(1, &[(Some(40), 44, 44, None)]).status, LagStatus::DataLoss);
}

#[test]
fn rule_2_nobody_there_for_two_polls_is_stopped() {
    let mut group = Watched::new();
    group.one(1, 10, 10, None);
    assert_eq!(group.one(0, 10, 12, Some(4_000)).status, LagStatus::Ok, "a restart");
    let evaluation = group.one(0, 10, 14, Some(14_000));
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Stopped, vec!["no_member"]));
    assert_eq!(evaluation.replicas, Some(1), "as many as there were");
    assert_eq!(group.calls(), ["restart"]);
}

#[test]
fn rule_2_a_consumer_without_membership_that_commits_is_not_stopped() {
    let mut group = Watched::new();
    for poll in 0..60 {
        let status = group.one(0, 10 + poll, 15 + poll, Some(2_000)).status;
        assert_eq!(status, LagStatus::Ok, "poll {poll}");
    }
}

/// The group commits once in `cadence` polls and is killed right after a commit; its
/// session ends 45 s later.
#[test]
fn rule_2_stopped_is_found_within_80_seconds_at_any_commit_cadence() {
    for cadence in [1, 6, 60] {
        let mut group = Watched::new();
        let (mut committed, mut end) = (0, 0);
        for poll in 0..120 {
            end += 10;
            if poll % cadence == 0 {
                committed = end;
            }
            // One record a second: the oldest that is not committed.
            let age = (end > committed).then(|| (end - committed) * 1_000);
            group.one(1, committed, end, age);
        }
        // In the middle between two commits, when it dies.
        let died = group.poll;
        let found = (1..=8).find(|after| {
            end += 10;
            let members = u32::from(after * POLL_MS < 45_000);
            let age = Some((end - committed) * 1_000);
            group.one(members, committed, end, age).status == LagStatus::Stopped
        });
        assert!(found.is_some_and(|polls| polls * POLL_MS <= 80_000), "cadence {cadence}, died at {died}");
    }
}

#[test]
fn a_day_of_one_message_in_ten_minutes_is_ok_all_day() {
    let mut group = Watched::new();
    let mut committed = 0;
    for poll in 0..8_640i64 {
        // Written 1 s before the poll, read and committed before the next.
        let arrived = poll % 60 == 59;
        let age = arrived.then_some(1_000);
        let end = committed + i64::from(arrived);
        assert_eq!(group.one(1, committed, end, age).status, LagStatus::Ok, "poll {poll}");
        committed = end;
    }
    assert_eq!(group.decisions.len(), 1, "the first status and nothing else");
}

#[test]
fn rule_3_there_and_not_moving_is_stalled_and_never_asks_for_more() {
    let mut group = Watched::new();
    group.one(3, 10, 10, None);
    for poll in 1..=7 {
        group.one(3, 10, 10 + poll * 5, Some(poll * POLL_MS));
    }
    let evaluation = group.last();
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Stalled, vec!["no_progress"]));
    assert_eq!(evaluation.recommended_action, Action::Restart);
    assert_eq!(evaluation.replicas, Some(3), "no more than there are");
    assert_eq!(group.calls(), ["restart"], "and ERROR on the way did not ask for consumers");
}

#[test]
fn rule_4_an_offset_that_went_back_is_a_rewind_until_it_has_recovered() {
    let mut group = Watched::new();
    group.one(1, 100, 100, None);
    let evaluation = group.one(1, 20, 100, Some(1_000));
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Rewind, vec!["offset_went_back"]));
    assert_eq!(group.one(1, 60, 110, Some(1_000)).status, LagStatus::Rewind);
    assert_eq!(group.one(1, 100, 110, Some(1_000)).status, LagStatus::Ok);
    assert_eq!(group.calls(), ["investigate"]);
}

#[test]
fn rule_4_a_rewind_is_forgotten_with_the_history() {
    let mut group = Watched::new();
    group.one(1, 100, 100, None);
    for poll in 0..62 {
        group.one(1, poll, 100, Some(1_000));
    }
    assert_eq!(group.statuses(), [LagStatus::Ok, LagStatus::Rewind, LagStatus::Ok]);
}

#[test]
fn rules_5_and_6_need_two_polls() {
    let mut group = Watched::new();
    for (committed, age, expected) in [
        (1, 16_000, LagStatus::Ok),
        (2, 14_000, LagStatus::Ok),
        (3, 16_000, LagStatus::Ok),
        (4, 16_000, LagStatus::Warning),
        (5, 31_000, LagStatus::Warning),
        (6, 30_000, LagStatus::Warning),
        (7, 30_001, LagStatus::Warning),
        (8, 30_001, LagStatus::Error),
        (9, 15_000, LagStatus::Ok),
    ] {
        assert_eq!(group.one(1, committed, 1_000, Some(age)).status, expected, "age {age}");
    }
}

#[test]
fn rule_7_a_rise_over_minutes_warns_before_the_age_does() {
    let mut group = Watched::new();
    let mut warned_at = None;
    for poll in 0..30 {
        let jitter = [0, 1_500, -1_200, 700, -400][poll as usize % 5];
        let evaluation = group.one(1, poll, 1_000, Some((400 * poll + 1_000 + jitter).max(1)));
        if evaluation.status == LagStatus::Warning {
            assert_eq!(rules(evaluation), ["age_rising"]);
            warned_at.get_or_insert(evaluation.age_seconds);
        }
    }
    assert!(warned_at.is_some_and(|age| age < 15.0), "{warned_at:?}");
    assert!(group.calls().is_empty(), "a warning calls nobody");
}

#[test]
fn rule_8_without_a_commit_it_is_uncommitted_and_an_empty_partition_is_fine() {
    let mut group = Watched::new();
    assert_eq!(group.partitions(1, &[(None, 0, 5, None)]).status, LagStatus::Uncommitted);
    assert_eq!(group.partitions(1, &[(None, 5, 5, None)]).status, LagStatus::Ok);
    group.poll += 1;
    group.sample(LagSource::Broker, 1, Observation::Idle { members: 2 });
    assert_eq!(group.last().status, LagStatus::Uncommitted);
    assert!(group.calls().is_empty());
}

#[test]
fn rules_9_and_10_are_two_thresholds_with_two_verdicts() {
    for (latency_ms, expected) in [
        (500.0, vec![]),
        (500.1, vec!["latency_exceeded"]),
        (30_000.0, vec!["latency_exceeded"]),
        (30_000.1, vec!["lag_exceeded", "latency_exceeded"]),
    ] {
        let mut group = Watched::new();
        group.event("customer.end", 1, latency_ms);
        let evaluation = group.last();
        assert_eq!(rules(evaluation), expected, "{latency_ms}");
        let exceeded = evaluation.audit_action == AuditAction::LagThresholdExceeded;
        assert_eq!(exceeded, !expected.is_empty(), "{latency_ms}");
        assert_eq!(evaluation.arrival_per_second, Some(0.5), "events over the true interval");
        assert_eq!(evaluation.age_seconds, (latency_ms / 1_000.0 * 1_000.0_f64).round() / 1_000.0);
    }
}

#[test]
fn rule_11_a_required_group_that_is_not_there_is_missing() {
    let mut group = Watched::new();
    group.sample(LagSource::Broker, 1, Observation::Missing {});
    assert_eq!(group.last().status, LagStatus::MissingGroup);
    assert_eq!(group.calls(), ["investigate"]);
}

#[test]
fn rule_12_a_poll_that_failed_is_unknown_calls_nobody_and_ends_no_episode() {
    let mut group = Watched::new();
    let failed = || Observation::Failed { reason: "no broker answers".into() };
    group.sample(LagSource::Broker, 1, failed());
    assert_eq!((group.last().status, group.calls().len()), (LagStatus::Unknown, 0));
    group.one(1, 10, 10, None);
    for poll in 1..=7 {
        group.one(1, 10, 20, Some(poll * POLL_MS));
    }
    assert_eq!(group.calls(), ["restart"]);
    group.poll += 1;
    group.sample(LagSource::Broker, 1, failed());
    assert_eq!(group.last().status, LagStatus::Unknown);
    assert_eq!(group.one(1, 10, 20, Some(90_000)).status, LagStatus::Stalled);
    assert_eq!(group.calls(), ["restart"], "the same episode");
}

#[test]
fn a_group_is_as_its_worst_partition_and_a_poll_is_judged_when_it_is_whole() {
    let mut group = Watched::new();
    group.poll += 1;
    let fine = (Some(5), 0, 5, None);
    let lost = (Some(1), 3, 5, group.head(3, 10));
    group.poll -= 1;
    let evaluation = group.partitions(1, &[fine, lost, fine]);
    assert_eq!((evaluation.status, evaluation.parts), (LagStatus::DataLoss, 3));
    assert_eq!(evaluation.reasons[0].example.as_deref(), Some("t/1"));
    assert_eq!(group.evaluations.len(), 1, "once per poll");

    // Half a poll, and then a newer one.
    group.poll += 1;
    let half = Observation::Partition(PartitionLag {
        topic: "t".into(),
        partition: 0,
        committed: Some(5),
        log_start: 0,
        log_end: 5,
        head: None,
        members: 1,
    });
    group.sample(LagSource::Broker, 3, half.clone());
    assert_eq!(group.evaluations.len(), 1);
    group.poll += 1;
    group.sample(LagSource::Broker, 2, half.clone());
    assert_eq!(group.last().status, LagStatus::Unknown);
    assert_eq!(rules(group.last()), ["poll_incomplete"]);
    // What is told twice or too late changes nothing.
    group.poll -= 1;
    assert_eq!(group.sample(LagSource::Broker, 3, half), Step::NoOp("poll_is_over"));
}

#[test]
fn a_burst_after_idleness_is_as_old_as_its_records() {
    let mut group = Watched::new();
    for _ in 0..360 {
        group.one(1, 10, 10, None);
    }
    let evaluation = group.one(1, 10, 50_010, Some(3_000));
    assert_eq!((evaluation.status, evaluation.age_seconds), (LagStatus::Ok, 3.0));
    let numbers = [evaluation.arrival_per_second, evaluation.drain_per_second, evaluation.catch_up_seconds];
    assert!(numbers.iter().flatten().all(|number| number.is_finite()), "{numbers:?}");
    assert_eq!(group.one(1, 50_010, 50_010, None).catch_up_seconds, Some(0.0));
}

/// 100 records/s arrive in six partitions, two consumers manage 40 each.
#[test]
fn a_group_that_is_too_slow_is_told_how_many_consumers_it_needs() {
    let mut group = Watched::new();
    let (mut committed, mut end) = (0, 0);
    for _ in 0..30 {
        committed += 800;
        end += 1_000;
        group.poll += 1;
        let age = (end - committed) * 10;
        let share = |total: i64| total / 6;
        let head = group.head(share(committed), age);
        group.poll -= 1;
        let seen = [(Some(share(committed)), 0, share(end), head); 6];
        group.partitions(2, &seen);
    }
    let evaluation = group.last();
    assert_eq!(evaluation.status, LagStatus::Error);
    assert!((evaluation.arrival_per_second.unwrap() - 100.0).abs() < 1.0, "{evaluation:?}");
    assert!((evaluation.drain_per_second.unwrap() - 80.0).abs() < 1.0, "{evaluation:?}");
    assert_eq!(evaluation.catch_up_seconds, None, "it never does");
    // (100 + 6 000 / 300) / 40
    assert_eq!((evaluation.recommended_action, evaluation.replicas), (Action::ScaleOut, Some(3)));
    assert_eq!(group.calls(), ["scale_out"]);
    let call = group.decisions.iter().find(|decision| decision["action"] == "scale_out").unwrap();
    assert!(call["parameters"]["replicas"].as_u64().is_some_and(|replicas| replicas >= 3), "{call}");
}

#[test]
fn more_consumers_than_partitions_are_never_asked_for() {
    let mut group = Watched::new();
    for poll in 1..=10 {
        group.one(1, poll * 10, poll * 1_000, Some(poll * 9_000));
    }
    assert_eq!(group.last().status, LagStatus::Error);
    assert_eq!(group.calls(), ["investigate"], "the only partition has its consumer");
}

#[test]
fn one_call_per_episode_and_none_within_the_cooldown() {
    let mut group = Watched::new();
    let lost = |group: &mut Watched| group.partitions(1, &[(Some(1), 3, 3, None)]).status;
    lost(&mut group);
    lost(&mut group);
    assert_eq!(group.calls().len(), 1, "one in an episode");
    group.one(1, 3, 3, None);
    lost(&mut group);
    assert_eq!(group.calls().len(), 1, "a new episode, and the cooldown holds it");
    let held = group.decisions.last().unwrap();
    assert_eq!(held["reason"], "cooldown");
    // The rewind in between is remembered; it is the same trouble still.
    for _ in 0..30 {
        lost(&mut group);
    }
    assert_eq!(group.calls().len(), 2, "after it, it is asked for, since it still is needed");
    let sequences: Vec<_> =
        group.decisions.iter().map(|decision| decision["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
}

#[test]
fn both_sources_count_while_both_are_fresh() {
    let mut group = Watched::new();
    group.event("a", 2, 10.0);
    group.event("b", 2, 700.0);
    assert_eq!(group.last().status, LagStatus::Error);
    let evaluation = group.one(2, 5, 5, None);
    assert_eq!((evaluation.status, evaluation.lag), (LagStatus::Error, Some(0)), "the platform's view");
    assert_eq!((evaluation.members, evaluation.parts), (Some(2), 3));
    for _ in 0..24 {
        group.one(2, 5, 5, None);
    }
    assert_eq!(group.last().status, LagStatus::Ok, "four minutes later it is forgotten");
}

#[test]
fn partitions_that_are_gone_are_forgotten_and_counts_of_nothing_refused() {
    let mut group = Watched::new();
    let fine = (Some(5), 0, 5, None);
    group.partitions(1, &[fine; 50]);
    let wide = serde_json::to_vec(&group.state).unwrap().len();
    group.partitions(1, &[fine; 2]);
    assert!(serde_json::to_vec(&group.state).unwrap().len() < wide / 4);
    assert!(matches!(group.sample(LagSource::Broker, 0, Observation::Missing {}), Step::Rejected(_)));
}
