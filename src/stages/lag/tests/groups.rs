//! What a group comes to as a whole: numbers, help, episodes, both sources.

use super::*;

#[test]
fn a_group_is_as_its_worst_partition_and_a_poll_is_judged_when_it_is_whole() {
    let mut group = Watched::new();
    let fine = Seen::all_read(5);
    let lost = Seen { log_start: 3, head: Some((3, 10)), ..Seen::behind(1, 5, 10) };
    group.partitions(1, &[fine, lost, fine]);
    let evaluation = group.partitions(1, &[fine, lost, fine]);
    assert_eq!((evaluation.status, evaluation.parts), (LagStatus::DataLoss, 3));
    assert_eq!(evaluation.reasons[0].example.as_deref(), Some("t/1"));
    assert_eq!(group.evaluations.len(), 2, "once per poll");

    // Half a poll, and then a newer one.
    group.poll += 1;
    let half = Observation::Partition(PartitionLag {
        topic: "t".into(),
        topic_id: None,
        partition: 0,
        committed: Some(5),
        log_start: 0,
        log_end: 5,
        high_watermark: None,
        head: None,
        records: None,
        members: 1,
        assigned: Some(Assigned::Here),
        committed_sum: None,
    });
    group.sample(LagSource::Broker, 3, half.clone());
    assert_eq!(group.evaluations.len(), 2);
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
        group.one(1, Seen::all_read(10));
    }
    let evaluation = group.one(1, Seen::behind(10, 50_010, 3_000));
    assert_eq!((evaluation.status, evaluation.age_seconds), (LagStatus::Ok, 3.0));
    let numbers = [evaluation.arrival_per_second, evaluation.drain_per_second, evaluation.catch_up_seconds];
    assert!(numbers.iter().flatten().all(|number| number.is_finite()), "{numbers:?}");
    assert_eq!(group.one(1, Seen::all_read(50_010)).catch_up_seconds, Some(0.0));
}

/// 300 000 records come within seconds after an idle hour, and are worked off in a minute.
#[test]
fn how_long_a_burst_will_take_is_known_after_three_polls() {
    for burst_ms in [0, 4_000, 9_000] {
        let mut group = Watched::new();
        for _ in 0..360 {
            group.one(2, Seen::all_read(10));
        }
        // 5 000 a second from the first record on, seen from `burst_ms` after it.
        for poll in 0..6 {
            let passed = burst_ms + poll * POLL_MS;
            let left = 60_000 - passed;
            if left <= 0 {
                break;
            }
            let seen = Seen::behind(10 + 5 * passed, 300_010, passed.max(1));
            let estimate = group.one(2, seen).catch_up_seconds;
            if poll >= 2 {
                let (estimate, left) = (estimate.expect("an estimate"), left as f64 / 1_000.0);
                assert!((estimate - left).abs() <= 0.2 * left, "{estimate} for {left}, {burst_ms}");
            }
        }
    }
}

/// 100 records/s arrive in six partitions, two consumers manage 40 each.
#[test]
fn a_group_that_is_too_slow_is_told_how_many_consumers_it_needs() {
    let mut group = Watched::new();
    let (mut committed, mut end) = (0, 0);
    for _ in 0..30 {
        committed += 800;
        end += 1_000;
        let share = |total: i64| total / 6;
        let seen = Seen::behind(share(committed), share(end), (end - committed) * 10);
        group.partitions(2, &[seen; 6]);
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

/// What two members manage is what they managed since there was enough to do.
#[test]
fn idleness_before_does_not_make_members_slow() {
    let mut group = Watched::new();
    for _ in 0..60 {
        group.partitions(2, &[Seen::all_read(0); 4]);
    }
    for poll in 1..=4 {
        // 100 a second arrive in four partitions; 80 are worked off.
        let seen = Seen::behind(poll * 200, poll * 250, poll * 2_000);
        group.partitions(2, &[seen; 4]);
    }
    // (64 in the last minute + 200 / 300) / 40, and not by the 53 a second over the idle time
    assert_eq!(group.state.polled[&LagSource::Broker].summary.as_ref().unwrap().needed, Some(2));
}

#[test]
fn more_consumers_than_partitions_are_never_asked_for() {
    let mut group = Watched::new();
    for poll in 1..=10 {
        group.one(1, Seen::behind(poll * 10, poll * 1_000, poll * 9_000));
    }
    assert_eq!(group.last().status, LagStatus::Error);
    assert_eq!(group.calls(), ["investigate"], "the only partition has its consumer");
}

#[test]
fn one_call_per_episode_and_none_within_the_cooldown() {
    let mut group = Watched::new();
    let lost = |group: &mut Watched| {
        let seen = Seen { committed: Some(1), log_start: 3, log_end: 3, ..Seen::default() };
        group.one(1, seen).status
    };
    for _ in 0..3 {
        lost(&mut group);
    }
    assert_eq!(group.calls().len(), 1, "one in an episode");
    group.one(1, Seen::all_read(3));
    lost(&mut group);
    lost(&mut group);
    assert_eq!(group.calls().len(), 1, "a new episode, and the cooldown holds it");
    let held = group.decisions.last().unwrap();
    assert_eq!(held["reason"], "cooldown");
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
    let evaluation = group.one(2, Seen::all_read(5));
    assert_eq!((evaluation.status, evaluation.lag), (LagStatus::Error, Some(0)), "the platform's view");
    assert_eq!((evaluation.members, evaluation.parts), (Some(2), 3));
    for _ in 0..24 {
        group.one(2, Seen::all_read(5));
    }
    assert_eq!(group.last().status, LagStatus::Ok, "four minutes later it is forgotten");
}

#[test]
fn partitions_that_are_gone_are_forgotten_and_counts_of_nothing_refused() {
    let mut group = Watched::new();
    let fine = Seen::all_read(5);
    group.partitions(1, &[fine; 50]);
    let wide = serde_json::to_vec(&group.state).unwrap().len();
    group.partitions(1, &[fine; 2]);
    assert!(serde_json::to_vec(&group.state).unwrap().len() < wide / 4);
    assert!(matches!(group.sample(LagSource::Broker, 0, Observation::Missing {}), Step::Rejected(_)));
}

/// As the version before wrote it: its history is of another shape, its decisions count on.
#[test]
fn state_of_the_version_before_is_read_and_its_sequence_goes_on() {
    let text = r#"{"sequence":7,"sources":{"broker":{"summary":{"observed_at":"2026-01-02T03:04:05.678Z",
        "reasons":[],"status":"OK","worst":null,"lag":0,"age_ms":0,"parts":1,"members":1,"members_before":1,
        "arrival_per_second":null,"drain_per_second":null,"catch_up_seconds":null,"needed":null,
        "exceeded":false},"parts":{"t":{"0":{"t":"2026-01-02T03:04:05.678Z","c":5,"e":5,"n":[0,1,2],
        "a":[[1767323045678,5]]}}},"rates":{"polls":[[1767323045678,0,0]]},"members_before":1}},
        "status":["OK","2026-01-02T03:04:05.678Z"],"episode":{"called":false}}"#;
    let mut group = Watched::new();
    group.state = serde_json::from_str(text).unwrap();
    for _ in 0..2 {
        group.one(1, Seen { log_start: 50, head: Some((50, 0)), ..Seen::behind(40, 60, 0) });
    }
    assert_eq!(group.decisions[0]["sequence"], 8);
    assert_eq!(group.decisions[0]["inputs"]["previousStatus"], "OK");
}

/// The changelog takes records of 8 MiB.
#[test]
fn ten_thousand_partitions_that_are_all_behind_fit_the_changelog() {
    let mut group = Watched::new();
    for poll in 1..=70 {
        // A hundredth of them tells enough.
        group.partitions(5, &[Seen::behind(1_000_000 + poll, 1_000_900 + poll * 900, poll * 9_900); 100]);
    }
    let bytes = serde_json::to_vec(&group.state).unwrap().len() * 100;
    assert!(bytes < 8 * 1_024 * 1_024, "{bytes}");
}

#[test]
fn a_group_of_which_nothing_is_heard_becomes_unknown_by_itself() {
    let mut group = Watched::new();
    for _ in 0..8 {
        group.steady(1, 40_000);
    }
    assert_eq!(group.last().status, LagStatus::Error);
    let (told, decided) = (group.evaluations.len(), group.decisions.len());
    assert!(!group.silence(40_000, 600_000), "four polls may be missed");
    assert!(!group.silence(60_000, 30_000), "nobody looked for four polls");
    assert!(!group.silence_at(60_000, 600_000, 5_000), "a poller's clock went ahead");
    assert_eq!(group.evaluations.len(), told);
    assert!(group.silence(80_000, 60_000));
    let unknown = group.last();
    assert_eq!((unknown.status, rules(unknown)), (LagStatus::Unknown, vec!["not_heard"]));
    assert_eq!((unknown.lag, unknown.valid_until), (None, unknown.observed_at), "nobody goes by it");
    assert_eq!(group.decisions.len(), decided + 1);
    assert_eq!(group.decisions[decided]["action"], "hold");
    assert!(!group.silence(900_000, 900_000), "once is enough");
    // Heard again, and silent again.
    group.poll += 20;
    for _ in 0..2 {
        group.steady(1, 40_000);
    }
    assert_ne!(group.last().status, LagStatus::Unknown);
    assert!(group.silence(50_000, 600_000));
    assert_eq!(group.last().status, LagStatus::Unknown);
}

#[test]
fn polls_of_a_clock_that_was_ahead_are_forgotten_once_it_is_right() {
    let mut group = Watched::new();
    group.poll = 360;
    for _ in 0..8 {
        group.steady(1, 40_000);
    }
    assert_eq!(group.last().status, LagStatus::Error);
    let since = group.last().since;
    // An hour back: the right time.
    group.poll = 0;
    let right = group.steady(1, 1_000).clone();
    assert_eq!((right.status, right.observed_at < since), (LagStatus::Ok, true), "taken at once");
    for _ in 0..8 {
        group.steady(1, 40_000);
    }
    assert_eq!(group.last().status, LagStatus::Error);
    assert!(group.last().since < since);
    let called_at = group.decisions.last().unwrap()["inputs"]["calledAt"].as_i64();
    assert!(called_at.is_none_or(|at| at <= group.now()), "{called_at:?}");
}
