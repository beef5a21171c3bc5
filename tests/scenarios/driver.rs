//! The driver keeps the promises of the real log: nothing lost, nothing twice,
//! whatever crashes.

use std::fmt::Write as _;

use proptest::prelude::*;
use trunkline::model::Timestamp;
use trunkline::runtime::RecordCounts;
use trunkline::runtime::driver::{Driver, Stored};
use trunkline::topics;

use crate::support::counting::{CHANGELOG, Counting, NUMBERS, SUMS, number, order, poisons};

fn start() -> Timestamp {
    "2026-01-02T03:04:05.000Z".parse().unwrap()
}

fn driver(seed: u64) -> Driver {
    let mut driver = Driver::new(seed, 3);
    driver.set_time(start());
    driver.add(Counting);
    driver
}

const KEYS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Inputs of every kind, made from numbers.
fn feed(driver: &mut Driver, choices: &[(u8, u8)]) {
    for (index, (key, kind)) in choices.iter().enumerate() {
        let key = KEYS[usize::from(*key) % KEYS.len()];
        let n = index as i64;
        let at = start().plus(std::time::Duration::from_secs(index as u64));
        driver.set_time(at);
        let late = Timestamp::from_millis(at.as_millis() - 3_600_000);
        match kind % 16 {
            0 => driver.produce(&NUMBERS, key, &order(key, at, n, "reject")),
            1 => driver.produce(&NUMBERS, key, &order(key, at, n, "shout")),
            2 => driver.produce(&NUMBERS, key, &order(key, at, n, "grow")),
            3 => driver.produce(&NUMBERS, key, &order(key, at, n, "nothing")),
            4 => driver.produce(&NUMBERS, key, b"{broken"),
            5 => driver.produce(&NUMBERS, key, &number(key, late, n)),
            _ => driver.produce(&NUMBERS, key, &number(key, at, n)),
        }
    }
}

/// Everything that became of each key, in order, as text.
fn results(driver: &Driver) -> String {
    let mut text = String::new();
    for topic in [&SUMS, &topics::DEAD_LETTERS, &topics::LATE_EVENTS] {
        for record in KEYS.iter().flat_map(|key| driver.records_of(topic, key)) {
            let bytes = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = record.headers.iter().map(|(name, value)| format!("{name}={} ", bytes(value)));
            let headers = headers.collect::<String>();
            let value = bytes(&record.value.unwrap());
            writeln!(text, "{} {} {value} {headers}", topic.name, bytes(&record.key.unwrap())).unwrap();
        }
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn crashes_change_nothing_that_can_be_seen(
        choices in prop::collection::vec((any::<u8>(), any::<u8>()), 1..200),
        seed in any::<u64>(),
    ) {
        let mut smooth = driver(0);
        feed(&mut smooth, &choices);
        let expected = smooth.run_until_idle().unwrap()["counting"];

        let mut rough = driver(seed);
        rough.crash_with(0.5);
        feed(&mut rough, &choices);
        rough.run_until_idle().unwrap();
        prop_assert_eq!(results(&rough), results(&smooth));
        let all = expected.applied + expected.no_op + expected.rejected + expected.dead_letter + expected.late;
        prop_assert_eq!(all, choices.len() as u64, "each record ended in exactly one way");
        // What survives in the changelog is what went on in memory.
        rough.restart();
        rough.crash_with(0.0);
        for key in KEYS {
            rough.produce(&NUMBERS, key, &number(key, rough.now(), 7));
            smooth.produce(&NUMBERS, key, &number(key, smooth.now(), 7));
        }
        rough.run_until_idle().unwrap();
        smooth.run_until_idle().unwrap();
        prop_assert_eq!(results(&rough), results(&smooth));
    }
}

#[test]
fn an_armed_crash_happens_and_the_count_goes_on() {
    let mut crashes = 0;
    for seed in 0..50 {
        let mut driver = driver(seed);
        for n in 0..20 {
            driver.crash_somewhere();
            driver.produce(&NUMBERS, "a", &number("a", start(), n));
            driver.run_until_idle().unwrap();
        }
        let sums = driver.records_of(&SUMS, "a");
        let counts: Vec<u64> = sums
            .iter()
            .map(|sum| {
                let value: serde_json::Value = serde_json::from_slice(sum.value.as_ref().unwrap()).unwrap();
                value["count"].as_u64().unwrap()
            })
            .collect();
        assert_eq!(counts, (1..=20).collect::<Vec<_>>(), "seed {seed}");
        crashes += driver.crashes();
    }
    assert!(crashes > 200, "{crashes} crashes of 1000: too few to have shown anything");
}

#[test]
fn poison_of_every_kind_is_set_aside_whole_and_its_neighbours_go_through() {
    let mut driver = driver(1);
    let poisons = poisons(start());
    for (_, key, value) in &poisons {
        driver.produce(&NUMBERS, "p", &number("p", start(), 1));
        driver.produce_record(
            &NUMBERS,
            Stored {
                key: key.clone(),
                value: value.clone(),
                headers: vec![("theirs".to_owned(), vec![0xff, 0])],
                written_at: Some(start()),
            },
        );
    }
    let counts = driver.run_until_idle().unwrap()["counting"];
    let rejected = 1;
    let expected = RecordCounts {
        applied: poisons.len() as u64,
        rejected,
        dead_letter: poisons.len() as u64 - rejected,
        ..RecordCounts::default()
    };
    assert_eq!(counts, expected);
    let mut letters = driver.records(&topics::DEAD_LETTERS);
    for (code, key, value) in poisons {
        let found = letters.iter().position(|letter| {
            let reason = letter.headers.iter().find(|(name, _)| name == "trunkline-error-reason").unwrap();
            let reason = String::from_utf8(reason.1.clone()).unwrap();
            letter.key == key && letter.value == value && reason.split(':').next() == Some(code)
        });
        let letter = letters.remove(found.unwrap_or_else(|| panic!("no dead letter for {code}")));
        assert_eq!(letter.headers[0], ("theirs".to_owned(), vec![0xff, 0]), "{code}");
        assert_eq!(letter.written_at, Some(start()), "{code}");
    }
    assert!(letters.is_empty(), "dead letters too many: {letters:?}");
}

#[test]
fn a_state_that_outgrows_its_changelog_costs_only_the_record_that_did_it() {
    let mut driver = driver(1);
    for n in 0..5 {
        driver.produce(&NUMBERS, "a", &order("a", start(), n, if n == 1 || n == 3 { "grow" } else { "" }));
    }
    let counts = driver.run_until_idle().unwrap()["counting"];
    assert_eq!((counts.applied, counts.dead_letter), (4, 1));
    assert_eq!(driver.records(&SUMS).len(), 4);
    let letters = driver.records(&topics::DEAD_LETTERS);
    assert_eq!(letters[0].value, Some(order("a", start(), 3, "grow")), "the second is too much");
}

#[test]
fn lateness_survives_a_restart() {
    let mut driver = driver(1);
    driver.produce(&NUMBERS, "a", &number("a", start(), 1));
    driver.run_until_idle().unwrap();
    driver.restart();
    let late = Timestamp::from_millis(start().as_millis() - 60_001);
    driver.produce(&NUMBERS, "a", &number("a", late, 2));
    let counts = driver.run_until_idle().unwrap()["counting"];
    assert_eq!(counts, RecordCounts { late: 1, ..RecordCounts::default() });
    assert_eq!(driver.records(&topics::LATE_EVENTS)[0].value, Some(number("a", late, 2)));
}

#[test]
fn a_changelog_of_a_newer_program_stops_the_stage() {
    let mut driver = driver(1);
    driver.produce(&CHANGELOG, "a", br#"{"v":2,"s":{"count":7}}"#);
    driver.produce(&NUMBERS, "a", &number("a", start(), 1));
    let refused = driver.run_until_idle().unwrap_err();
    assert!(refused.to_string().contains("state version 2, this program knows up to 1"), "{refused}");
    assert!(driver.records(&SUMS).is_empty());
}

#[test]
fn a_trace_is_handed_from_cause_to_effect() {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut driver = driver(1);
    driver.produce_record(
        &NUMBERS,
        Stored {
            key: Some(b"a".to_vec()),
            value: Some(number("a", start(), 1)),
            headers: vec![("traceparent".to_owned(), trace.as_bytes().to_vec())],
            written_at: Some(start()),
        },
    );
    driver.run_until_idle().unwrap();
    let expected =
        [("content-type", "application/json"), ("trunkline-schema", "test.sums.v1"), ("traceparent", trace)];
    let expected: Vec<_> =
        expected.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    assert_eq!(driver.records(&SUMS)[0].headers, expected);
}
