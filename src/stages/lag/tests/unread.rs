//! Rules about partitions that nobody reads, or that stand still.

use super::*;

#[test]
fn rule_3_a_partition_that_no_member_is_assigned_while_they_read_others_is_abandoned() {
    let mut group = Watched::new();
    let mut poll_of = |poll: i64| {
        let read = Seen::behind(poll * 100, poll * 100 + 5, 500);
        let left = Seen::behind(10, 500, 3_600_000).assigned(Some(Assigned::Elsewhere));
        let evaluation = group.partitions(3, &[read, left]);
        (evaluation.status, evaluation.recommended_action, evaluation.replicas)
    };
    assert_eq!(poll_of(1).0, LagStatus::Ok, "partitions change hands");
    for poll in 2..=6 {
        assert_eq!(poll_of(poll), (LagStatus::Abandoned, Action::Hold, Some(3)), "poll {poll}");
    }
    // Neither more readers nor new ones would read it.
    assert_eq!(poll_of(7), (LagStatus::Abandoned, Action::Investigate, Some(3)));
    assert_eq!(rules(group.last()), ["assigned_to_nobody"]);
    assert_eq!(group.calls(), ["investigate"]);
}

#[test]
fn rule_3_a_partition_left_behind_without_anything_to_read_is_fine() {
    let mut group = Watched::new();
    for _ in 0..20 {
        let left = Seen::all_read(10).assigned(Some(Assigned::Elsewhere));
        assert_eq!(group.one(2, left).status, LagStatus::Ok);
    }
}

#[test]
fn rules_3_and_4_nobody_is_abandoned_or_stopped_while_members_are_assigned_anew() {
    let mut group = Watched::new();
    group.steady(2, 500);
    let stuck = |age_ms| Seen::behind(1_009_500, 1_010_000, age_ms);
    for poll in 1..=3 {
        let evaluation = group.one(2, stuck(500 + poll * POLL_MS).assigned(None));
        assert!(evaluation.status >= LagStatus::Error, "poll {poll}: {evaluation:?}");
    }
    assert!(group.calls().is_empty());
}

#[test]
fn rule_4_nobody_there_for_two_polls_is_stopped() {
    let mut group = Watched::new();
    group.one(1, Seen::all_read(10));
    assert_eq!(group.one(0, Seen::behind(10, 12, 4_000)).status, LagStatus::Ok, "a restart");
    let evaluation = group.one(0, Seen::behind(10, 14, 14_000));
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Stopped, vec!["no_member"]));
    assert_eq!(evaluation.replicas, Some(1), "as many as there were");
    assert_eq!(group.calls(), ["restart"]);
}

/// Members that hold nothing, as after a change of subscription, are no readers.
#[test]
fn rule_4_members_without_any_partition_do_not_read() {
    let mut group = Watched::new();
    group.one(1, Seen::all_read(10));
    for poll in 1..=2 {
        group.one(1, Seen::behind(10, 12, poll * POLL_MS).assigned(Some(Assigned::Nowhere)));
    }
    assert_eq!((group.last().status, rules(group.last())), (LagStatus::Stopped, vec!["no_member"]));
}

/// The group commits once in `cadence` polls and is killed right after a commit; its
/// session ends 45 s later.
#[test]
fn rule_4_stopped_is_found_within_80_seconds_at_any_commit_cadence() {
    for cadence in [1, 6, 60] {
        let mut group = Watched::new();
        let (mut committed, mut end) = (0, 0);
        for poll in 0..120 {
            end += 10;
            if poll % cadence == 0 {
                committed = end;
            }
            // One record a second: the oldest that is not committed.
            group.one(1, seen(committed, end));
        }
        // In the middle between two commits, when it dies.
        let died = group.poll;
        let found = (1..=8).find(|after| {
            end += 10;
            let members = u32::from(after * POLL_MS < 45_000);
            group.one(members, seen(committed, end)).status == LagStatus::Stopped
        });
        assert!(found.is_some_and(|polls| polls * POLL_MS <= 80_000), "cadence {cadence}, died at {died}");
    }
}

/// One record a second.
fn seen(committed: i64, end: i64) -> Seen {
    if end > committed {
        Seen::behind(committed, end, (end - committed) * 1_000)
    } else {
        Seen::all_read(end)
    }
}

/// Without members it is known by its commits alone: it may pause three times as long as
/// it usually does, a minute at least.
#[test]
fn rule_5_without_members_a_pause_that_is_unusual_is_stopped() {
    for (cadence, polls) in [(1, 8), (2, 8), (6, 20), (60, 182)] {
        let mut group = Watched::new();
        let (mut committed, mut end) = (0, 0);
        for poll in 0..=cadence * 10 {
            end += 10;
            if poll % cadence == 0 {
                committed = end;
            }
            group.one(0, seen(committed, end));
        }
        // It dies right after its last commit.
        let found = (1..=600).find(|_| {
            end += 10;
            group.one(0, seen(committed, end)).status == LagStatus::Stopped
        });
        assert_eq!(rules(group.last()), ["no_commit"], "cadence {cadence}");
        assert!(found.is_some_and(|found| found <= polls), "cadence {cadence}: {found:?}");
        assert_eq!(group.last().recommended_action, Action::Restart);
    }
}

#[test]
fn rule_5_who_was_silent_from_the_first_poll_on_is_found_within_80_seconds() {
    let mut group = Watched::new();
    let found = (1..=8).find(|poll| {
        group.one(0, Seen::behind(60, 100 + poll, 3_600_000 + poll * POLL_MS)).status == LagStatus::Stopped
    });
    assert_eq!(found, Some(8), "70 s after the first poll");
}

/// A job that reads to the end and commits every minute, or a little later: that is its rhythm.
#[test]
fn rule_5_a_job_without_members_that_commits_every_minute_is_ok_all_the_time() {
    for (first, every, jitter) in [(0, 60, 0), (3, 60, 1), (7, 61, 0), (9, 58, 7), (5, 60, 9)] {
        let mut group = Watched::new();
        let commits: Vec<i64> = (0..60).map(|run| first + run * every + run * 7 % (jitter + 1)).collect();
        for poll in 1..=300 {
            // One record a second, written when the second begins.
            let now = poll * 10;
            let committed =
                commits.iter().rev().find(|commit| **commit <= now).map_or(-every + first, |commit| *commit);
            let status = group.one(0, seen(committed, now)).status;
            assert_eq!(
                status,
                LagStatus::Ok,
                "every {every}±{jitter}, at {now} s: {:?}",
                group.last().reasons
            );
        }
        assert!(group.calls().is_empty());
    }
}

/// It commits, and falls behind by more than its pauses explain.
#[test]
fn rule_5_a_job_that_is_later_than_its_rhythm_is_late() {
    let mut group = Watched::new();
    let mut committed = 0;
    for poll in 1..=90 {
        let now = poll * 10;
        if poll % 6 == 0 {
            // 40 records in a minute that brings 60.
            committed += 40;
        }
        group.one(0, seen(committed, now));
    }
    assert_eq!((group.last().status, rules(group.last())), (LagStatus::Error, vec!["age_over_error"]));
}

#[test]
fn rule_5_a_consumer_without_membership_that_commits_is_not_stopped() {
    let mut group = Watched::new();
    for poll in 0..60 {
        assert_eq!(group.steady(0, 2_000).status, LagStatus::Ok, "poll {poll}");
    }
}

/// A reader that gave up its membership and goes on by itself is not judged by that.
#[test]
fn rule_4_a_reader_that_goes_on_without_membership_is_judged_by_its_commits() {
    let mut group = Watched::new();
    group.steady(1, 2_000);
    group.steady(0, 2_000);
    group.steady(0, 2_000);
    let at = |poll: i64| Seen::behind(1_028_000, 1_030_000 + poll, 2_000 + poll * POLL_MS);
    for poll in 1..=4 {
        let status = group.one(0, at(poll)).status;
        assert_ne!(status, LagStatus::Stopped, "poll {poll}: no minute has passed");
    }
}

/// One record every ten minutes, read at once: by a member, or by somebody who is none.
#[test]
fn a_day_of_one_message_in_ten_minutes_is_ok_all_day() {
    for members in [1, 0] {
        let mut group = Watched::new();
        let mut committed = 0;
        for poll in 0..8_640i64 {
            // Written 1 s before the poll, read and committed before the next.
            let arrived = poll % 60 == 59;
            let seen = match arrived {
                true => Seen::behind(committed, committed + 1, 1_000),
                false => Seen::all_read(committed),
            };
            assert_eq!(group.one(members, seen).status, LagStatus::Ok, "poll {poll}, {members} members");
            committed += i64::from(arrived);
        }
        assert_eq!(group.decisions.len(), 1, "the first status and nothing else");
    }
}

#[test]
fn rule_6_there_and_not_moving_is_stalled_and_never_asks_for_more() {
    let mut group = Watched::new();
    group.one(3, Seen::all_read(10));
    for poll in 1..=7 {
        group.one(3, Seen::behind(10, 10 + poll * 5, poll * POLL_MS));
    }
    let evaluation = group.last();
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Stalled, vec!["no_progress"]));
    assert_eq!(evaluation.recommended_action, Action::Restart);
    assert_eq!(evaluation.replicas, Some(3), "no more than there are");
    assert_eq!(group.calls(), ["restart"], "and ERROR on the way did not ask for consumers");
}

#[test]
fn rule_6_without_members_a_partition_that_stands_while_others_are_committed_is_stalled() {
    let mut group = Watched::new();
    for poll in 1..=20 {
        let moving = Seen::behind(poll * 10, poll * 10 + 1, 100);
        group.partitions(0, &[moving, Seen::behind(7, 50, poll * POLL_MS)]);
    }
    let evaluation = group.last();
    assert_eq!((evaluation.status, rules(evaluation)), (LagStatus::Stalled, vec!["no_progress"]));
    assert_eq!(evaluation.reasons[0].example.as_deref(), Some("t/1"));
}
