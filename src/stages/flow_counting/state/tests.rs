//! The state by itself, and what its changelog holds.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

const MINUTE_MS: i64 = 60_000;

fn minute(number: i64) -> Timestamp {
    Timestamp::from_millis(1_767_323_040_000 + number * MINUTE_MS)
}

fn flow(number: usize) -> String {
    format!("flow-{number}")
}

fn count(state: &mut State, at: i64, event: u64, flow_id: &str) -> Counted {
    let of = FlowVersionRef { flow_id, version: "1.0" };
    state.count(minute(at), Identity::of(&event.to_string()), of, event.is_multiple_of(3))
}

/// Commits: the changes go to the end of the log.
fn commit(state: &mut State, log: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    let written: Result<(), Infallible> = state.changes(1, |change| {
        log.push((change.key.to_vec(), change.value.map(<[u8]>::to_vec)));
        Ok(())
    });
    let Ok(()) = written;
    state.committed();
    assert!(!state.is_changed());
}

/// Only the newest record of each key, as compaction leaves it.
fn compacted(log: &[(Vec<u8>, Option<Vec<u8>>)]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let is_newest = |index: usize| log[index + 1..].iter().all(|(key, _)| *key != log[index].0);
    (0..log.len()).filter(|index| is_newest(*index)).map(|index| log[index].clone()).collect()
}

fn counts(state: &State) -> Vec<(Timestamp, String, u64, u64)> {
    let mut counts: Vec<_> = state
        .minutes
        .iter()
        .flat_map(|(minute, held)| {
            held.counts
                .iter()
                .map(|(of, count)| (*minute, of.borrow().flow_id.to_string(), count.total, count.errors))
        })
        .collect();
    counts.sort();
    counts
}

proptest! {
    /// Restored from the changelog, compacted or not, a state goes on like the one that wrote it.
    #[test]
    fn the_changelog_holds_all_of_the_state(
        steps in prop::collection::vec((0i64..6, 0u64..60, 0usize..3, 0u8..10), 1..200),
    ) {
        let (mut state, mut log) = (State::default(), Vec::new());
        for (at, event, of, then) in &steps {
            count(&mut state, *at, *event, &flow(*of));
            match then {
                0 => state.close(minute(*at).max(state.closed_before().unwrap_or(Timestamp::MIN))),
                9 => {
                    commit(&mut state, &mut log);
                    state.reopen(minute(*at));
                }
                1..4 => commit(&mut state, &mut log),
                _ => {}
            }
        }
        commit(&mut state, &mut log);
        let mut states = [log.clone(), compacted(&log)].map(|log| {
            let mut restored = State::default();
            for (key, value) in &log {
                restored.restore(1, key, value.as_deref()).unwrap();
            }
            restored
        });
        let records = |state: &State| -> Vec<_> {
            state.minutes.iter().map(|(minute, held)| (*minute, held.event_records)).collect()
        };
        for restored in &states {
            prop_assert!(!restored.is_changed());
            prop_assert_eq!(restored.closed_before(), state.closed_before());
            prop_assert_eq!(counts(restored), counts(&state));
            prop_assert_eq!(restored.keys(), state.keys());
            prop_assert_eq!(records(restored), records(&state));
        }
        for (event, at) in (0..60).flat_map(|event| (0..6).map(move |at| (event, at))) {
            let expected = count(&mut state, at, event, "probe");
            for restored in &mut states {
                prop_assert_eq!(count(restored, at, event, "probe"), expected, "event {} at {}", event, at);
            }
        }
    }
}

/// As the runtime writes after a step.
fn write_settled(state: &mut State, log: &mut Vec<(Vec<u8>, Option<Vec<u8>>)>) {
    let written: Result<(), Infallible> = state.settled(1, |change| {
        log.push((change.key.to_vec(), change.value.map(<[u8]>::to_vec)));
        Ok(())
    });
    let Ok(()) = written;
}

#[test]
fn events_that_fill_a_record_are_written_once_ahead_and_removed_with_their_minute() {
    let (mut state, mut log) = (State::default(), Vec::new());
    let events = 2 * changelog::EVENTS_PER_RECORD as u64 + 3;
    for event in 0..2 * events {
        count(&mut state, (event % 2).cast_signed(), event, "f");
        write_settled(&mut state, &mut log);
    }
    assert_eq!(log.len(), 4, "two minutes have filled two records each");
    state.close(minute(1));
    commit(&mut state, &mut log);
    let numbers = |of: i64, is_there: bool| -> Vec<u32> {
        let read = log.iter().map(|(key, value)| changelog::read(1, key, value.as_deref()).unwrap());
        read.filter_map(|record| match record {
            Record::Events { minute: at, number, events } => {
                (at == minute(of) && events.is_some() == is_there).then_some(number)
            }
            _ => None,
        })
        .collect()
    };
    assert_eq!([numbers(0, true), numbers(0, false)], [[0, 1], [0, 1]], "what was written is removed");
    assert_eq!((numbers(1, true), numbers(1, false)), (vec![0, 1, 2], vec![]));
    let mut restored = State::default();
    for (key, value) in &log {
        restored.restore(1, key, value.as_deref()).unwrap();
    }
    for event in 0..2 * events {
        let expected = if event % 2 == 1 { Counted::Again } else { Counted::TooLate };
        assert_eq!(count(&mut restored, (event % 2).cast_signed(), event, "f"), expected, "{event}");
    }
}

#[test]
fn an_event_counts_once_in_whatever_minute_and_again_after_its_minute_closed() {
    let mut state = State::default();
    assert_eq!(count(&mut state, 0, 1, "f"), Counted::Once);
    assert_eq!(count(&mut state, 0, 1, "f"), Counted::Again);
    assert_eq!(count(&mut state, 1, 1, "f"), Counted::Again);
    state.close(minute(1));
    assert_eq!(count(&mut state, 0, 2, "f"), Counted::TooLate);
    assert_eq!(count(&mut state, 1, 1, "f"), Counted::Once, "nothing is known of closed minutes");
}

#[test]
fn there_is_a_limit_to_flow_versions_and_closing_makes_room() {
    let mut state = State::default();
    for number in 0..MOST_COUNTS {
        assert_eq!(count(&mut state, 0, number as u64, &flow(number)), Counted::Once);
    }
    assert_eq!(count(&mut state, 1, 1 << 40, "one more"), Counted::TooManyCounts);
    assert_eq!(count(&mut state, 0, 1 << 41, &flow(7)), Counted::Once, "the others go on");
    state.close(minute(1));
    assert_eq!(count(&mut state, 1, 1 << 40, "one more"), Counted::Once);
    assert!(state.events.capacity() < MOST_COUNTS, "memory is given back");
}

#[test]
fn what_was_not_written_by_this_program_is_refused() {
    let mut state = State::default();
    let mut log = Vec::new();
    count(&mut state, 0, 1, "f");
    state.close(minute(0));
    commit(&mut state, &mut log);
    for (key, value) in &log {
        let value = value.as_ref().unwrap();
        let mut newer = value.clone();
        newer[0] = 2;
        let refused = State::default().restore(1, key, Some(&newer)).unwrap_err();
        assert!(matches!(refused, UnreadableState::Newer { found: 2, known: 1 }), "{refused}");
        for broken in [&[][..], &value[..value.len() - 1]] {
            let refused = State::default().restore(1, key, Some(broken)).unwrap_err();
            assert!(matches!(refused, UnreadableState::Malformed { .. }), "{refused}");
        }
    }
    for key in [&b"x"[..], b"", b"c", b"e123"] {
        State::default().restore(1, key, Some(&[1])).unwrap_err();
    }
}
