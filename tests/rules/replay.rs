//! A recorded run of every loop, decided again: the same rules say the same to the byte, and a changed number makes
//! the differences that follow from the record, and no others. `scripts/record.sh` has written it.

use std::collections::BTreeSet;

use serde_json::Value;
use trunkline::model::decision::Loop;
use trunkline::replay::{Change, Header, Range, Recorded, Replay, Report, Settings};

use crate::recording::{Lines, read, stand_on_the_severe_limit};

struct Recording {
    header: Header,
    settings: Settings,
    decisions: Vec<Recorded>,
}

fn recording() -> Recording {
    let Lines { header, settings, decisions } = read();
    Recording { header, settings: Settings::of(settings), decisions }
}

impl Recording {
    fn replay(&self, of: Loop, set: &[(&str, &str)], policy: Option<&str>) -> Report {
        self.replay_from(self.header.from, of, set, policy)
    }

    fn replay_from(
        &self,
        from: trunkline::model::Timestamp,
        of: Loop,
        set: &[(&str, &str)],
        policy: Option<&str>,
    ) -> Report {
        let set: Vec<_> = set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let change = Change::of(of, &set, policy).unwrap();
        let range = Range { from, to: self.header.to };
        let numbers = self.header.numbers.clone();
        let mut replay = Replay::new(of, range, numbers, change, self.settings.clone()).unwrap();
        for recorded in &self.decisions {
            replay.take(recorded).unwrap();
        }
        replay.report()
    }

    /// Decisions of a loop as they stand on their topic.
    fn of(&self, of: Loop) -> Vec<Value> {
        let read = |recorded: &Recorded| serde_json::from_str::<Value>(recorded.decision.get()).unwrap();
        self.decisions.iter().map(read).filter(|decision| decision["loop"] == of.name()).collect()
    }

    fn ids(&self, of: Loop, is_meant: impl Fn(&Value) -> bool) -> BTreeSet<String> {
        let meant = self.of(of).into_iter().filter(|decision| is_meant(decision));
        meant.map(|decision| decision["decisionId"].as_str().unwrap().to_owned()).collect()
    }
}

fn different(report: &Report) -> BTreeSet<String> {
    report.items.iter().map(|item| item.decision_id.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_loop_decides_its_recorded_run_again_to_the_byte() {
    let recording = recording();
    for of in Loop::ALL {
        let report = recording.replay(of, &[], None);
        let without_counters = recording
            .ids(of, |decision| of == Loop::Route && decision["parameters"]["source"] != "exact")
            .len();
        let not_taken: u64 = report.not_taken.values().sum();
        assert_eq!((report.different, not_taken), (0, without_counters as u64), "{of:?}: {:?}", report.items);
        assert_eq!(report.identical + not_taken, report.decisions);
        assert_eq!(report.decisions, recording.of(of).len() as u64);
        assert!(report.decisions > 0, "{of:?} is not in the recording");
    }
}

#[test]
fn what_a_campaigns_memory_tells_is_enough_to_begin_in_the_middle() {
    let recording = recording();
    let told: Vec<Value> = recording
        .of(Loop::Dial)
        .into_iter()
        .filter(|decision| !decision["parameters"]["memory"].is_null())
        .collect();
    assert!(!told.is_empty(), "the recording is too short");
    // Only what begins with a memory, as if nothing before it were on record.
    let mut rest = recording.of(Loop::Dial);
    rest.retain(|decision| {
        told.iter().any(|told| {
            told["key"] == decision["key"]
                && told["sequence"].as_u64().unwrap() <= decision["sequence"].as_u64().unwrap()
        })
    });
    let later = Recording {
        decisions: recording
            .decisions
            .iter()
            .filter(|recorded| {
                let decision: Value = serde_json::from_str(recorded.decision.get()).unwrap();
                rest.iter().any(|rest| rest["decisionId"] == decision["decisionId"])
            })
            .cloned()
            .collect(),
        header: recording.header.clone(),
        settings: recording.settings.clone(),
    };
    let report = later.replay(Loop::Dial, &[], None);
    assert_eq!((report.identical, report.different), (rest.len() as u64, 0), "{:?}", report.items);
}

#[test]
fn a_changed_record_is_found_with_the_field_and_its_cause() {
    let mut recording = recording();
    let text = |recorded: &Recorded| recorded.decision.get().to_owned();
    let at = recording.decisions.iter().position(|recorded| text(recorded).contains("\"reason\":\"severe\""));
    let at = at.expect("a rollback is in the recording");
    let restated = text(&recording.decisions[at]).replace("\"fired\":false", "\"fired\":true");
    recording.decisions[at].decision = serde_json::value::RawValue::from_string(restated).unwrap();
    let report = recording.replay(Loop::Rollback, &[], None);
    assert_eq!(report.different, 1);
    let mismatch = report.items[0].mismatch.as_ref().unwrap();
    assert_eq!((mismatch.field.as_str(), mismatch.cause.name()), ("action", "data_restated"));
    // Other numbers than those of then.
    recording.header.numbers.iter_mut().for_each(|numbers| numbers.lag.cooldown_ms += 1);
    let report = recording.replay(Loop::Lag, &[], None);
    assert_eq!(report.causes.keys().copied().collect::<Vec<_>>(), ["settings"]);
}

#[test]
fn a_changed_limit_of_rollback_makes_the_differences_that_follow_and_no_others() {
    let recording = recording();
    let report = recording.replay(Loop::Rollback, &[("severe_limit", "1e300")], None);
    let expected = stand_on_the_severe_limit(&recording.of(Loop::Rollback));
    assert_eq!(different(&report), expected, "{:?}", report.items);
    let same = recording.replay(Loop::Rollback, &[("severe_limit", "10001")], None);
    let between = recording.ids(Loop::Rollback, |decision| {
        let severe = decision["inputs"]["statistics"]["severe"].as_f64().unwrap();
        (10_000.0..10_001.0).contains(&severe)
    });
    assert_eq!((different(&same), between), Default::default(), "nothing lies between both limits");
}

#[test]
fn lower_budgets_lower_only_rates_that_the_budget_had_a_say_in() {
    let recording = recording();
    assert_eq!(recording.replay(Loop::Dial, &[("target", "0.5")], None).different, 0, "no live rule has it");
    let report = recording.replay(Loop::Dial, &[("goal", "0.005")], None);
    assert!(report.different > 0);
    for item in &report.items {
        let (recorded, replayed) = (item.recorded.value.as_f64(), item.replayed.value.as_f64());
        assert!(replayed <= recorded, "{item:?}");
    }
    let untouched = recording.ids(Loop::Dial, |decision| {
        let limits = decision["parameters"]["chain"]["limits"].as_array().unwrap();
        limits.iter().any(|limited| limited["limit"] == "evidence")
    });
    assert!(!untouched.is_empty() && untouched.is_disjoint(&different(&report)));
}

#[test]
fn other_weights_move_conversations_by_exact_shares() {
    let recording = recording();
    let support =
        recording.of(Loop::Route).into_iter().find(|decision| decision["key"] == "support").unwrap();
    let groups = support["inputs"]["groups"].as_array().unwrap();
    let id = |nth: usize| groups[nth]["destinationId"].as_str().unwrap();
    let only = Recording {
        decisions: recording
            .decisions
            .iter()
            .filter(|recorded| recorded.decision.get().contains("\"key\":\"support\""))
            .cloned()
            .collect(),
        header: recording.header.clone(),
        settings: recording.settings.clone(),
    };
    let report = only.replay(Loop::Route, &[(id(0), "1"), (id(1), "3")], None);
    let count = |nth: usize| {
        let name = format!("support to {}", id(nth));
        report.score.iter().find(|figure| figure.figure == name).unwrap().replayed
    };
    let total = count(0) + count(1);
    assert!(total > 100.0 && (count(0) - total / 4.0).abs() < 1.0, "{} of {total}", count(0));
}

#[test]
fn groups_are_called_for_by_the_age_that_is_set() {
    let recording = recording();
    let is_by_age =
        |decision: &Value| decision["inputs"]["evaluation"]["reasons"][0]["rule"] == "age_over_error";
    let by_age = recording.ids(Loop::Lag, is_by_age);
    let report = recording.replay(Loop::Lag, &[("errorAgeMs", "3600000")], None);
    // Nothing else than what was in ERROR by its age, and what follows from that in the same group.
    let in_error: Vec<Value> = recording.of(Loop::Lag).into_iter().filter(is_by_age).collect();
    let is_of_such = |key: &str| in_error.iter().any(|decision| decision["key"] == key);
    assert!(report.items.iter().all(|item| is_of_such(&item.key)));
    assert!(by_age.is_subset(&different(&report)), "{by_age:?} {:?}", report.items);
    let report = recording.replay(Loop::Lag, &[("polls", "2")], None);
    assert_eq!(report.different, 0, "it is what it was");
}

/// By the median campaign of the recording: its agents' time and its abandoned answers, played with the
/// rates that were dialled.
#[test]
fn the_model_that_settings_are_recommended_by_comes_near_to_what_was() {
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/demo.jsonl.gz");
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(["recommend", "dial", "--plays", "2", "--json", "--recording", recording])
        .output()
        .expect("the program runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&run.stdout).expect("JSON");
    let campaigns = answer["items"].as_array().expect("a list");
    let median_error = |figure: &str| {
        let of =
            |campaign: &serde_json::Value, what: &str| campaign[what][figure].as_f64().expect("a figure");
        let mut errors: Vec<f64> = campaigns
            .iter()
            .map(|campaign| (of(campaign, "recorded") - of(campaign, "modelAsDialled")).abs())
            .collect();
        errors.sort_by(f64::total_cmp);
        errors[errors.len() / 2]
    };
    assert_eq!(campaigns.len(), 9);
    assert!(median_error("utilisation") <= 0.03, "{}", median_error("utilisation"));
    assert!(median_error("abandonment") <= 0.005, "{}", median_error("abandonment"));
    for campaign in campaigns {
        let rows = campaign["rows"].as_array().expect("rows");
        assert!(rows.iter().any(|row| row["inForce"] == true) && rows.len() == 9, "{campaign}");
        assert!(rows.iter().all(|row| row["onFrontier"] == false || row["overCap"] == false), "{campaign}");
    }
}

/// Days whose whole course is known: what the model makes of their polls, and of the same days dialled otherwise.
#[test]
fn the_model_comes_near_to_whole_days_and_to_the_same_days_under_a_change() {
    let days = ["--seed", "9000", "--days", "2", "--plays", "2", "--worlds", "walk,shift", "--agents", "20"];
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_trunkline"))
        .args(["evaluate", "model", "--json"])
        .args(days)
        .output()
        .expect("the program runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&run.stdout).expect("JSON");
    let rows = answer["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2);
    for row in rows {
        for kind in ["asDialled", "byTheRule", "underTheChange"] {
            assert!(row[kind]["utilisationMean"].as_f64() <= Some(0.03), "{kind}: {row}");
            assert!(row[kind]["abandonmentMean"].as_f64() <= Some(0.005), "{kind}: {row}");
        }
    }
}
