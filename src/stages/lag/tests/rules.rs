//! Rules about what is behind or beyond, and by how long.

use super::*;

#[test]
fn rule_1_retention_passed_in_two_polls_is_data_loss_and_asks_for_a_person() {
    let mut group = Watched::new();
    let lost = Seen { log_start: 50, head: Some((50, 0)), ..Seen::behind(40, 60, 0) };
    assert_eq!(group.one(2, lost).status, LagStatus::Ok, "one moment proves nothing");
    let evaluation = group.one(2, lost);
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::DataLoss, vec!["retention_passed"]));
    assert_eq!(evaluation.recommended_action, Action::Investigate);
    assert_eq!(group.calls(), ["investigate"]);
    assert_eq!(group.one(2, Seen::all_read(60)).status, LagStatus::Ok, "once it reads on");
}

#[test]
fn rule_1_markers_that_retention_removes_are_no_loss() {
    let mut group = Watched::new();
    let empty = |start| Seen { committed: Some(40), log_start: start, log_end: start, ..Seen::default() };
    // 40 is the marker of a transaction: nothing to read before the end.
    assert_eq!(group.one(1, Seen { log_start: 0, ..empty(41) }).status, LagStatus::Ok);
    assert_eq!(group.one(1, empty(41)).status, LagStatus::Ok);
    assert_eq!(group.one(1, empty(41)).status, LagStatus::Ok);
    // More than that was there, and nobody knows what.
    group.one(1, empty(44));
    for poll in 0..3 {
        assert_eq!(group.one(1, empty(44)).status, LagStatus::DataLoss, "poll {poll}");
    }
}

/// The start of the log that a poll sees may be younger than the commit it sees.
#[test]
fn rule_1_a_reader_that_purges_what_it_has_read_loses_nothing() {
    let mut group = Watched::new();
    for poll in 1..=60 {
        let (read, purged) = (poll * 1_000, poll * 1_000 + 200);
        let seen = Seen { log_start: purged, ..Seen::behind(read, purged + 50, 100) };
        let status = group.one(1, Seen { head: Some((purged, 100)), ..seen }).status;
        assert_eq!(status, LagStatus::Ok, "poll {poll}");
    }
    // One that moves and yet stays behind what was gone a poll ago has lost it.
    for poll in 61..=62 {
        let start = poll * 1_000;
        group.one(
            1,
            Seen { log_start: start, head: Some((start, 0)), ..Seen::behind(start - 2_000, start + 50, 0) },
        );
    }
    assert_eq!(group.last().status, LagStatus::DataLoss);
}

#[test]
fn rule_2_a_commit_beyond_the_end_in_two_polls_is_said_and_a_person_called() {
    let mut group = Watched::new();
    let beyond = Seen { committed: Some(1_000_000), log_end: 10, ..Seen::default() };
    assert_eq!(group.one(0, beyond).status, LagStatus::Ok, "one moment proves nothing");
    let evaluation = group.one(0, beyond);
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::BeyondEnd, vec!["committed_beyond_end"]));
    assert_eq!(group.calls(), ["investigate"]);
    // Within an open transaction, where only readers that do not wait for its end can be.
    let mut group = Watched::new();
    for _ in 0..3 {
        let ahead = Seen { committed: Some(15), log_end: 10, high_watermark: Some(20), ..Seen::default() };
        assert_eq!(group.one(1, ahead).status, LagStatus::Ok);
    }
}

#[test]
fn rule_7_an_offset_that_went_back_is_a_rewind_until_it_has_recovered() {
    let mut group = Watched::new();
    group.one(1, Seen::all_read(100));
    let evaluation = group.one(1, Seen::behind(20, 100, 11_000));
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Rewind, vec!["offset_went_back"]));
    assert_eq!(group.one(1, Seen::behind(60, 110, 20_000)).status, LagStatus::Rewind);
    assert_eq!(group.one(1, Seen::behind(100, 110, 1_000)).status, LagStatus::Ok);
    assert!(group.calls().is_empty(), "it has mended itself");
}

#[test]
fn rule_7_who_has_not_recovered_after_a_minute_is_looked_at() {
    let mut group = Watched::new();
    group.one(1, Seen::all_read(1_000));
    for poll in 0..9 {
        group.one(1, Seen::behind(20 + poll, 1_000, 11_000));
        assert_eq!(group.calls().len(), usize::from(poll >= 6), "poll {poll}");
    }
    assert_eq!(group.calls(), ["investigate"]);
}

#[test]
fn rule_7_a_rewind_is_forgotten_with_the_history_and_the_age_is_not() {
    let mut group = Watched::new();
    group.one(1, Seen::all_read(100));
    for poll in 0..62 {
        group.one(1, Seen::behind(poll, 100, 1_000));
    }
    assert_eq!(group.statuses(), [LagStatus::Ok, LagStatus::Rewind, LagStatus::Error]);
}

#[test]
fn a_topic_made_anew_is_another_log_and_no_rewind() {
    for (first, second) in [(Some("a"), Some("b")), (None, None)] {
        let mut group = Watched::new();
        group.one(1, Seen { topic_id: first, ..Seen::all_read(100) });
        for end in [20, 20, 40] {
            let seen = Seen { topic_id: second, ..Seen::all_read(end) };
            assert_eq!(group.one(1, seen).status, LagStatus::Ok, "{first:?}, up to {end}");
        }
    }
    // Longer than the one before, so that nothing but its identity tells.
    let mut group = Watched::new();
    group.one(1, Seen { topic_id: Some("a"), ..Seen::all_read(100) });
    let seen = Seen { topic_id: Some("b"), ..Seen::behind(20, 500, 400 * 86_400_000) };
    let evaluation = group.one(1, seen);
    assert_eq!((evaluation.status, evaluation.age_seconds), (LagStatus::Ok, 10.0), "no older than it is");
    let evaluation = group.one(1, Seen { topic_id: Some("b"), ..Seen::behind(10, 500, 0) });
    assert_eq!(evaluation.status, LagStatus::Rewind, "within one log it is one");
}

#[test]
fn rules_8_and_9_need_two_polls() {
    let mut group = Watched::new();
    for (age, expected) in [
        (14_000, LagStatus::Ok),
        (16_000, LagStatus::Ok),
        (15_000, LagStatus::Ok),
        (16_000, LagStatus::Ok),
        (16_000, LagStatus::Warning),
        (25_000, LagStatus::Warning),
        (31_000, LagStatus::Warning),
        (30_000, LagStatus::Warning),
        (30_001, LagStatus::Warning),
        (30_001, LagStatus::Error),
        (15_000, LagStatus::Ok),
    ] {
        assert_eq!(group.steady(1, age).status, expected, "age {age}");
    }
}

#[test]
fn records_that_are_old_when_they_arrive_have_not_waited() {
    let mut group = Watched::new();
    let year = 400 * 86_400_000;
    for poll in 1..=30 {
        // A backfill, read as it comes.
        let evaluation = group.one(1, Seen::behind(poll * 500, poll * 500 + 100, year));
        if poll > 1 {
            assert_eq!((evaluation.status, evaluation.age_seconds), (LagStatus::Ok, 10.0), "poll {poll}");
        }
    }
    assert!(group.calls().is_empty());
}

#[test]
fn records_from_the_future_wait_like_any_other() {
    let mut group = Watched::new();
    group.one(1, Seen::all_read(100));
    for poll in 1..=5 {
        let evaluation = group.one(1, Seen::behind(100 + poll, 200, -86_400_000));
        assert_eq!(evaluation.age_seconds, (poll - 1) as f64 * 10.0, "since the first poll that saw it");
    }
    assert_eq!(group.one(1, Seen::behind(110, 200, -86_400_000)).status, LagStatus::Error);
}

#[test]
fn rule_10_a_rise_over_minutes_warns_before_the_age_does() {
    let mut group = Watched::new();
    let mut warned_at = None;
    for poll in 0..30 {
        let jitter = [0, 1_500, -1_200, 700, -400][poll as usize % 5];
        let evaluation = group.steady(1, (400 * poll + 1_000 + jitter).max(1));
        if evaluation.status == LagStatus::Warning {
            assert_eq!(rules(evaluation), ["age_rising"]);
            warned_at.get_or_insert(evaluation.age_seconds);
        }
    }
    assert!(warned_at.is_some_and(|age| age < 15.0), "{warned_at:?}");
    assert!(group.calls().is_empty(), "a warning calls nobody");
}

#[test]
fn rule_11_without_a_commit_it_is_uncommitted_and_an_empty_partition_is_fine() {
    let mut group = Watched::new();
    let never = |start| Seen { log_start: start, log_end: 5, ..Seen::default() };
    assert_eq!(group.one(1, never(0)).status, LagStatus::Uncommitted);
    assert_eq!(group.one(1, never(5)).status, LagStatus::Ok);
    group.poll += 1;
    group.sample(LagSource::Broker, 1, Observation::Idle { members: 2 });
    assert_eq!(group.last().status, LagStatus::Uncommitted);
    assert!(group.calls().is_empty());
}

#[test]
fn rules_12_and_13_are_two_thresholds_with_two_verdicts() {
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

/// What is told does not hang on the order in which it comes.
#[test]
fn the_worst_is_told_first_with_its_worst_example() {
    let types = [("small", 600.0), ("large", 45_000.0), ("fine", 10.0)];
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]] {
        let mut group = Watched::new();
        for index in order {
            let (name, latency_ms) = types[index];
            group.event(name, 3, latency_ms);
        }
        assert_eq!(rules(group.last()), ["lag_exceeded", "latency_exceeded"], "{order:?}");
        let examples: Vec<_> =
            group.last().reasons.iter().map(|reason| (reason.count, reason.example.as_deref())).collect();
        assert_eq!(examples, [(1, Some("large")), (2, Some("large"))], "{order:?}");
        let decision = &group.decisions[0];
        assert_eq!(decision["reason"], "lag_exceeded", "{order:?}");
        let worst = &decision["inputs"]["worst"]["observation"]["eventType"]["eventType"];
        assert_eq!(worst, "large", "{order:?}");
    }
}

#[test]
fn the_example_of_partitions_is_the_one_that_waits_longest() {
    let mut group = Watched::new();
    for _ in 0..2 {
        let seen = [(5, 40_000), (6, 90_000), (7, 50_000)].map(|(at, age)| Seen::behind(at, 100, age));
        group.partitions(1, &seen);
    }
    assert_eq!(rules(group.last()), ["age_over_error"]);
    assert_eq!(group.last().reasons[0].example.as_deref(), Some("t/1"));
}

#[test]
fn rule_14_a_required_group_that_is_not_there_is_missing() {
    let mut group = Watched::new();
    group.sample(LagSource::Broker, 1, Observation::Missing {});
    assert_eq!(group.last().status, LagStatus::MissingGroup);
    assert_eq!(group.calls(), ["investigate"]);
}

#[test]
fn rule_15_a_poll_that_failed_is_unknown_calls_nobody_and_ends_no_episode() {
    let mut group = Watched::new();
    let failed = || Observation::Failed { reason: "no broker answers".into() };
    group.sample(LagSource::Broker, 1, failed());
    assert_eq!((group.last().status, group.calls().len()), (LagStatus::Unknown, 0));
    group.one(1, Seen::all_read(10));
    for poll in 1..=7 {
        group.one(1, Seen::behind(10, 20, poll * POLL_MS));
    }
    assert_eq!(group.calls(), ["restart"]);
    group.poll += 1;
    group.sample(LagSource::Broker, 1, failed());
    assert_eq!(group.last().status, LagStatus::Unknown);
    assert_eq!(group.one(1, Seen::behind(10, 20, 90_000)).status, LagStatus::Stalled);
    assert_eq!(group.calls(), ["restart"], "the same episode");
}

#[test]
fn rule_15_a_kind_that_cannot_be_judged_is_said_and_calls_nobody() {
    let mut group = Watched::new();
    let share = || Observation::NotJudged { reason: "share".into() };
    group.sample(LagSource::Broker, 1, share());
    assert_eq!((group.last().status, rules(group.last())), (LagStatus::Unknown, vec!["kind_not_judged"]));
    assert_eq!(group.last().reasons[0].example.as_deref(), Some("share"));
    assert!(group.calls().is_empty());
}

#[test]
fn records_that_were_counted_are_the_lag_and_an_open_transaction_is_as_old_as_it_was_seen() {
    let mut group = Watched::new();
    let counted = Seen { records: Some(2), ..Seen::behind(10, 1_016, 1_000) };
    assert_eq!(group.one(1, counted).lag, Some(2));
    let open = |end, high| Seen { high_watermark: Some(high), ..Seen::all_read(end) };
    assert_eq!(
        group.one(1, open(1_016, 1_020)).open_transaction_seconds,
        None,
        "or a record between questions"
    );
    for poll in 1..=60 {
        let evaluation = group.one(1, open(1_016, 1_020 + poll));
        assert_eq!(evaluation.open_transaction_seconds, Some(poll as f64 * 10.0));
        assert_eq!(evaluation.status, LagStatus::Ok);
    }
    assert_eq!(group.one(1, open(1_020, 1_030)).open_transaction_seconds, None, "another one");
    assert_eq!(group.one(1, open(1_030, 1_030)).open_transaction_seconds, None, "none");
}
