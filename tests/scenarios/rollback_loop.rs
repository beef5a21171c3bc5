//! From flow minutes to rollback decisions and their verification, in memory, with crashes
//! in between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::model::flow::{FlowVersions, MinuteSource};
use trunkline::model::outcome::Outcome;
use trunkline::model::settings::MaintenanceWindow;
use trunkline::runtime::driver::Driver;
use trunkline::stages::rollback::rule::Rule;
use trunkline::stages::rollback::{Lookup, Rollback, Sources};
use trunkline::topics;

const MINUTE: Duration = Duration::from_secs(60);
const FLOWS: [&str; 3] = ["menu", "billing", "support"];

/// Side tables that a test changes by hand.
#[derive(Default)]
struct Tables {
    windows: Mutex<Vec<(String, MaintenanceWindow)>>,
    refusals: Mutex<BTreeMap<String, Arc<Outcome>>>,
}

impl Lookup for Tables {
    fn versions(&self, _: &str) -> Option<Arc<FlowVersions<'static>>> {
        None
    }

    fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        self.windows.lock().unwrap().clone()
    }

    fn refusal(&self, flow_id: &str) -> Option<Arc<Outcome>> {
        self.refusals.lock().unwrap().get(flow_id).cloned()
    }

    fn settings_revision(&self) -> u64 {
        self.windows.lock().unwrap().len() as u64
    }
}

fn start() -> Timestamp {
    "2026-01-02T03:04:00.000Z".parse().unwrap()
}

struct Loop {
    driver: Driver,
    minute: u32,
}

impl Loop {
    fn new(seed: u64, crashes: f64, tables: Arc<Tables>) -> Self {
        let mut driver = Driver::new(seed, 3);
        let sources = Sources { usual: MinuteSource::Events, polled: BTreeSet::from(["polled".to_owned()]) };
        driver.set_time(start());
        driver.add(Rollback::new(Mode::Live, Rule::default(), sources, tables));
        driver.crash_with(crashes);
        Self { driver, minute: 0 }
    }

    /// One minute of every flow, then time goes on.
    fn minute(&mut self, version: &str, errors: u64, total: u64) {
        for flow in FLOWS {
            self.tell(flow, version, errors, total, "events", true);
        }
        self.minute += 1;
        self.driver.set_time(start().plus(MINUTE * self.minute).plus(Duration::from_secs(2)));
        self.driver.run_until_idle().expect("runs");
    }

    fn minutes(&mut self, count: u32, version: &str, errors: u64, total: u64) {
        (0..count).for_each(|_| self.minute(version, errors, total));
    }

    fn tell(&mut self, flow: &str, version: &str, errors: u64, total: u64, source: &str, complete: bool) {
        let minute = json!({
            "flowId": flow, "flowVersion": version, "minute": start().plus(MINUTE * self.minute),
            "total": total, "errors": errors,
            "errorRate": if total == 0 { 0.0 } else { errors as f64 / total as f64 },
            "complete": complete, "source": source,
        });
        self.driver.produce(&topics::FLOW_MINUTES, flow, minute.to_string().as_bytes());
    }

    fn records(&self, topic: &'static topics::Topic, flow: &str) -> Vec<Value> {
        let records = self.driver.records_of(topic, flow);
        records.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
    }

    /// Action and reason of each decision about a flow.
    fn answers(&self, flow: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let decisions = self.records(&topics::ROLLBACK_DECISIONS, flow);
        decisions.iter().map(|decision| (text(&decision["action"]), text(&decision["reason"]))).collect()
    }
}

/// A good version, a bad publish, and the good one back.
fn history(seed: u64, crashes: f64) -> Loop {
    let mut played = Loop::new(seed, crashes, Arc::default());
    played.minutes(30, "1", 1, 100);
    played.minutes(4, "2", 20, 100);
    played.minutes(3, "2", 0, 0);
    played.minutes(14, "1", 1, 100);
    played
}

#[test]
fn a_bad_publish_is_taken_back_once_and_verified_whatever_crashes() {
    let undisturbed = history(1, 0.0);
    for flow in FLOWS {
        let answers = undisturbed.answers(flow);
        let rollbacks = answers.iter().filter(|(action, _)| action == "rollback").count();
        assert_eq!(rollbacks, 1, "{answers:?}");
        let outcomes = undisturbed.records(&topics::OUTCOMES, flow);
        assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        assert_eq!(outcomes[0]["status"], "recovered");
        let decisions = undisturbed.records(&topics::ROLLBACK_DECISIONS, flow);
        let sequences: Vec<u64> = decisions.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, (1..=decisions.len() as u64).collect::<Vec<_>>(), "gap-free");
        assert!(decisions.iter().any(|decision| decision["decisionId"] == outcomes[0]["decisionId"]));
    }
    for seed in 2..8 {
        let crashed = history(seed, 0.3);
        for flow in FLOWS {
            assert_eq!(crashed.answers(flow), undisturbed.answers(flow), "seed {seed}");
            let ids = |played: &Loop| -> Vec<Value> {
                let decisions = played.records(&topics::ROLLBACK_DECISIONS, flow);
                decisions.iter().map(|decision| decision["decisionId"].clone()).collect()
            };
            assert_eq!(ids(&crashed), ids(&undisturbed), "seed {seed}");
            assert_eq!(crashed.records(&topics::OUTCOMES, flow).len(), 1, "seed {seed}");
        }
    }
}

#[test]
fn only_complete_minutes_of_the_flows_own_source_count() {
    let mut played = Loop::new(1, 0.0, Arc::default());
    for _ in 0..5 {
        played.tell("menu", "1", 50, 100, "events", false);
        played.tell("menu", "1", 50, 100, "polled", true);
        played.tell("polled", "1", 50, 100, "events", true);
        played.minute += 1;
        played.driver.set_time(start().plus(MINUTE * played.minute).plus(Duration::from_secs(2)));
        played.driver.run_until_idle().expect("runs");
    }
    assert!(played.answers("menu").is_empty() && played.answers("polled").is_empty());
}

impl Loop {
    /// A minute goes by without a word about the usual flows; others may go on.
    fn silence(&mut self, others: bool) {
        if others {
            for number in 0..8 {
                self.tell(&format!("other-{number}"), "1", 1, 100, "events", true);
            }
        }
        self.minute += 1;
        self.driver.set_time(start().plus(MINUTE * self.minute).plus(Duration::from_secs(2)));
        self.driver.run_until_idle().expect("runs");
    }
}

#[test]
fn a_flow_of_which_nothing_more_is_heard_is_inconclusive_and_that_is_said_once() {
    for (seed, others) in (0..6).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut played = Loop::new(seed, 0.3, Arc::default());
        let inconclusive = ("hold".to_owned(), "inconclusive".to_owned());
        for round in 0..2 {
            played.minutes(30, "1", 1, 100);
            let heard = played.answers("menu").len();
            (0..14).for_each(|_| played.silence(others));
            assert_eq!(played.answers("menu").len(), heard, "seed {seed}, round {round}: too early");
            (0..30).for_each(|_| played.silence(others));
            assert_eq!(
                played.answers("menu")[heard..],
                std::slice::from_ref(&inconclusive)[..],
                "seed {seed}, round {round}"
            );
        }
        let told = played.records(&topics::ROLLBACK_DECISIONS, "menu").pop().unwrap();
        assert_eq!((&told["inputs"]["unmeasured"], &told["causeIds"]), (&json!(true), &json!([])));
    }
}

#[test]
fn silence_from_before_a_start_is_not_held_against_a_flow() {
    let mut played = Loop::new(1, 0.0, Arc::default());
    played.minutes(30, "1", 1, 100);
    let heard = played.answers("menu").len();
    played.driver.restart();
    played.minute += 600;
    (0..10).for_each(|_| played.silence(true));
    assert_eq!(played.answers("menu").len(), heard);
    (0..10).for_each(|_| played.silence(true));
    assert_eq!(played.answers("menu").len(), heard + 1);
}

#[test]
fn minutes_told_by_a_clock_that_was_ahead_do_not_stand_against_those_of_their_time() {
    let mut played = Loop::new(1, 0.3, Arc::default());
    played.minutes(5, "1", 1, 100);
    played.minute += 50;
    played.minute("1", 1, 100);
    played.minute = 6;
    played.driver.set_time(start().plus(MINUTE * 6));
    played.minutes(5, "1", 90, 100);
    let answers = played.answers("menu");
    assert!(answers.iter().any(|(action, _)| action == "rollback"), "{answers:?}");
}

#[test]
fn an_open_window_suppresses_and_is_named() {
    let tables = Arc::new(Tables::default());
    let window = MaintenanceWindow {
        flow_id: Some("menu".to_owned()),
        from: start(),
        until: start().plus(MINUTE * 60),
        reason: None,
    };
    tables.windows.lock().unwrap().push(("maintenance/1".to_owned(), window));
    let mut played = Loop::new(1, 0.0, tables);
    played.minutes(5, "1", 50, 100);
    assert!(played.answers("menu").iter().all(|(action, _)| action == "hold"));
    assert!(played.answers("billing").iter().any(|(action, _)| action == "rollback"));
    let suppressed = played.records(&topics::ROLLBACK_DECISIONS, "menu").pop().unwrap();
    assert_eq!(suppressed["reason"], "suppressed_by_maintenance_window");
    assert_eq!(suppressed["inputs"]["maintenance"], json!(["maintenance/1"]));
    assert_eq!(suppressed["settingsRevision"], 1);
}

/// What the actuator tells of the last rollback of "menu".
fn refuse(
    played: &Loop,
    tables: &Tables,
    status: &str,
    reason: &str,
    not_before: Option<Timestamp>,
) -> Value {
    let decided = played.records(&topics::ROLLBACK_DECISIONS, "menu");
    let rollback = decided.iter().rfind(|decision| decision["action"] == "rollback").expect("a rollback");
    let outcome = json!({
        "decisionId": rollback["decisionId"], "loop": "rollback", "key": "menu", "sequence": rollback["sequence"],
        "status": status, "reason": reason, "attempts": 0, "finishedAt": start(), "notBefore": not_before,
    });
    let told = Arc::new(serde_json::from_value(outcome).expect("an outcome"));
    tables.refusals.lock().unwrap().insert("menu".to_owned(), told);
    rollback.clone()
}

#[test]
fn a_refused_rollback_is_decided_again_once_it_may_be() {
    for (status, reason, told, wait) in [
        ("unchanged", "maintenance_window: maintenance/1", None, 1),
        // Until its own lockout is over: a stage whose clock is behind must not decide every minute.
        ("expired", "older than its expiry", None, 14),
        ("unchanged", "cooldown: rolled back before", Some(5), 5),
    ] {
        let tables = Arc::new(Tables::default());
        let mut played = Loop::new(1, 0.0, Arc::clone(&tables));
        played.minutes(30, "1", 1, 100);
        played.minutes(4, "2", 20, 100);
        let last = |played: &Loop| played.answers("menu").pop().expect("an answer");
        assert_eq!(last(&played), ("hold".to_owned(), "already_decided".to_owned()));
        let not_before = told.map(|minutes| start().plus(MINUTE * (played.minute + minutes)));
        let refused = refuse(&played, &tables, status, reason, not_before);
        for _ in 1..wait {
            played.minute("2", 20, 100);
            assert_eq!(last(&played), ("hold".to_owned(), "cooldown".to_owned()));
        }
        played.minute("2", 20, 100);
        assert_eq!(last(&played).0, "rollback", "{reason}");
        // It is told back once: the next one is not taken for refused.
        played.minutes(10, "2", 20, 100);
        assert_eq!(last(&played), ("hold".to_owned(), "already_decided".to_owned()));
        // Others were not refused.
        assert_eq!(played.answers("billing").iter().filter(|(action, _)| action == "rollback").count(), 1);
        let again = played.records(&topics::ROLLBACK_DECISIONS, "menu");
        let again = again.iter().rfind(|decision| decision["action"] == "rollback").unwrap();
        assert_ne!(again["decisionId"], refused["decisionId"]);
        // What was not done is not verified.
        played.minutes(3, "2", 0, 0);
        played.minutes(14, "1", 1, 100);
        let outcomes = played.records(&topics::OUTCOMES, "menu");
        let verified: Vec<_> = outcomes.iter().map(|outcome| &outcome["decisionId"]).collect();
        assert_eq!(verified, [&again["decisionId"]]);
    }
}

#[test]
fn a_rollback_names_its_candidates() {
    let played = history(1, 0.0);
    let decided = played.records(&topics::ROLLBACK_DECISIONS, "menu");
    let rollback = decided.iter().find(|decision| decision["action"] == "rollback").expect("a rollback");
    let expected = json!([{"flowVersion": "1", "reason": "baseline"}]);
    assert_eq!(rollback["parameters"]["candidates"], expected);
    let others = decided.iter().filter(|decision| decision["action"] != "rollback");
    assert!(
        others.clone().count() > 0
            && others.into_iter().all(|it| it["parameters"].get("candidates").is_none())
    );
}
