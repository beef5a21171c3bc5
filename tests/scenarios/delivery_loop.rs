//! From minutes of two flows to the share that the new one is to have, in memory, with crashes in
//! between: what the candidate meets follows from what was decided before.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::model::delivery::{Arm, Steps};
use trunkline::model::flow::MinuteSource;
use trunkline::model::settings::MaintenanceWindow;
use trunkline::runtime::driver::Driver;
use trunkline::stages::canary_minutes::{self, CanaryMinutes, Part};
use trunkline::stages::delivery::{self, Delivery};
use trunkline::topics;

const MINUTE: Duration = Duration::from_secs(60);
const ROUTE: &str = "dispatcher";
const PER_MINUTE: u64 = 200;

/// What the stages look up, changed by hand.
#[derive(Default)]
struct Tables {
    canary: Mutex<Option<String>>,
    windows: Mutex<Vec<(String, MaintenanceWindow)>>,
    pauses: Mutex<Vec<String>>,
}

impl canary_minutes::Lookup for Tables {
    fn parts(&self, flow_id: &str) -> Vec<Part> {
        let arm = match flow_id {
            "old" => Arm::Control,
            "new" => Arm::Candidate,
            _ => return Vec::new(),
        };
        let part = |canary_id: String| Part { configuration_id: ROUTE.to_owned(), canary_id, arm };
        self.canary.lock().unwrap().clone().map(part).into_iter().collect()
    }
}

impl delivery::Lookup for Tables {
    fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        self.windows.lock().unwrap().clone()
    }

    fn pauses(&self) -> Vec<String> {
        self.pauses.lock().unwrap().clone()
    }

    fn settings_revision(&self) -> u64 {
        7
    }
}

fn start() -> Timestamp {
    "2026-01-02T03:04:00.000Z".parse().unwrap()
}

struct Scene {
    driver: Driver,
    tables: Arc<Tables>,
    minute: u32,
    orders: u64,
    /// Errors of which share of each flow's interactions, as one in so many.
    control_one_in: u64,
    candidate_one_in: u64,
    counted: [u64; 2],
    /// Share that the counters of routing have, and whether they take another.
    in_force: f64,
    counters_answer: bool,
    /// Decisions that the counters have seen.
    carried_out: usize,
}

impl Scene {
    fn new(seed: u64, crashes: f64, candidate_one_in: u64) -> Self {
        let tables = Arc::new(Tables::default());
        let mut driver = Driver::new(seed, 3);
        driver.set_time(start());
        let minutes = CanaryMinutes::new(MinuteSource::Events, BTreeSet::new(), tables.clone());
        driver.add(minutes);
        driver.add(Delivery::new(Mode::Live, MINUTE, tables.clone()));
        driver.crash_with(crashes);
        let mut scene = Self {
            driver,
            tables,
            minute: 0,
            orders: 0,
            control_one_in: 100,
            candidate_one_in,
            counted: [0; 2],
            in_force: 0.0,
            counters_answer: true,
            carried_out: 0,
        };
        scene.order("start", "canary-1");
        scene
    }

    fn order(&mut self, request: &str, canary_id: &str) {
        self.orders += 1;
        let under_way = (request == "start").then(|| canary_id.to_owned());
        *self.tables.canary.lock().unwrap() = under_way;
        let order = json!({"ordered": {
            "configurationId": ROUTE, "revision": self.orders, "who": "alice", "when": self.driver.now(),
            "order": {
                "canaryId": canary_id, "request": request, "controlId": "old", "candidateId": "new",
                "steps": Steps::default().0, "holdMinutes": 15, "reason": "because",
            },
        }});
        self.driver.produce(&topics::CANARY_FACTS, ROUTE, order.to_string().as_bytes());
        self.driver.run_until_idle().expect("runs");
        self.carry_out(true);
    }

    /// The counters take over what was decided meanwhile, and tell so; or it has come too late.
    fn carry_out(&mut self, in_time: bool) {
        for decision in self.decisions().split_off(self.carried_out) {
            self.carried_out += 1;
            let share = decision["parameters"]["share"].as_f64().unwrap();
            if in_time {
                self.in_force = share;
            }
            if decision["action"] == "set_share" {
                let told = json!({"share": {
                    "configurationId": ROUTE, "canaryId": decision["parameters"]["canaryId"], "share": share,
                    "isInForce": in_time, "when": self.driver.now(),
                }});
                self.driver.produce(&topics::CANARY_FACTS, ROUTE, told.to_string().as_bytes());
            }
        }
        self.driver.run_until_idle().expect("runs");
    }

    fn share(&self) -> f64 {
        let decisions = self.decisions();
        decisions.last().map_or(0.0, |decision| decision["parameters"]["share"].as_f64().unwrap())
    }

    fn tell(&mut self, arm: usize, total: u64) {
        let (flow, one_in) = [("old", self.control_one_in), ("new", self.candidate_one_in)][arm];
        let before = self.counted[arm] / one_in;
        self.counted[arm] += total;
        let errors = self.counted[arm] / one_in - before;
        let minute = json!({
            "flowId": flow, "flowVersion": "1", "minute": start().plus(MINUTE * self.minute),
            "total": total, "errors": errors, "errorRate": 0.0, "complete": true, "source": "events",
        });
        self.driver.produce(&topics::FLOW_MINUTES, flow, minute.to_string().as_bytes());
    }

    fn next(&mut self) {
        self.minute += 1;
        self.driver.set_time(start().plus(MINUTE * self.minute).plus(Duration::from_secs(2)));
        self.driver.run_until_idle().expect("runs");
        if self.counters_answer {
            self.carry_out(true);
        }
    }

    /// One minute of both flows, by the share in force.
    fn minute(&mut self) {
        self.both((self.in_force * PER_MINUTE as f64).round() as u64);
        self.next();
    }

    /// So many come to the candidate, the others to the control.
    fn both(&mut self, candidate: u64) {
        if candidate < PER_MINUTE {
            self.tell(0, PER_MINUTE - candidate);
        }
        if candidate > 0 {
            self.tell(1, candidate);
        }
    }

    fn minutes(&mut self, count: u32) {
        (0..count).for_each(|_| self.minute());
    }

    fn decisions(&self) -> Vec<Value> {
        let records = self.driver.records_of(&topics::DELIVERY_DECISIONS, ROUTE);
        records.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
    }

    /// Action, reason and share of each decision.
    fn answers(&self) -> Vec<(String, String, f64)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let share = |decision: &Value| decision["parameters"]["share"].as_f64().unwrap();
        let decisions = self.decisions();
        decisions.iter().map(|it| (text(&it["action"]), text(&it["reason"]), share(it))).collect()
    }

    fn shares(&self) -> Vec<f64> {
        self.answers().into_iter().filter(|(action, ..)| action != "hold").map(|(.., share)| share).collect()
    }
}

fn count(answers: &[(String, String, f64)], action: &str, reason: &str) -> usize {
    answers.iter().filter(|(it, why, _)| it == action && why == reason).count()
}

#[test]
fn a_good_candidate_gets_everything_step_by_step_whatever_crashes() {
    let play = |seed, crashes| {
        let mut scene = Scene::new(seed, crashes, 100);
        scene.minutes(200);
        scene
    };
    let undisturbed = play(1, 0.0);
    assert_eq!(undisturbed.shares(), [0.01, 0.05, 0.2, 0.5, 1.0]);
    let answers = undisturbed.answers();
    assert_eq!(count(&answers, "hold", "proven"), 1, "{answers:?}");
    assert_eq!(answers.last().unwrap().1, "proven", "nothing is said after the end");
    let decisions = undisturbed.decisions();
    let sequences: Vec<u64> = decisions.iter().map(|it| it["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=decisions.len() as u64).collect::<Vec<_>>(), "gap-free");
    let held = decisions.iter().find(|it| it["reason"] == "interactions_missing").unwrap();
    assert_eq!(held["parameters"]["chain"]["bound"], "evidence");
    assert_eq!(held["parameters"]["chain"]["raw"], 0.05, "where it would go on to");
    assert_eq!(held["parameters"]["share"], 0.01);
    for seed in 2..6 {
        let crashed = play(seed, 0.2);
        assert!(crashed.driver.crashes() > 0);
        assert_eq!(crashed.answers(), answers, "seed {seed}");
        let ids = |scene: &Scene| -> Vec<Value> {
            scene.decisions().iter().map(|it| it["decisionId"].clone()).collect()
        };
        assert_eq!(ids(&crashed), ids(&undisturbed), "seed {seed}");
    }
}

#[test]
fn a_bad_candidate_is_aborted_once_and_stays_so() {
    for (seed, crashes) in [(1, 0.0), (2, 0.2), (3, 0.2)] {
        let mut scene = Scene::new(seed, crashes, 4);
        scene.minutes(60);
        let answers = scene.answers();
        assert_eq!(count(&answers, "abort", "candidate_worse"), 1, "{answers:?}");
        assert_eq!((answers.last().unwrap().0.as_str(), scene.share()), ("abort", 0.0));
        let abort = scene.decisions().pop().unwrap();
        assert!(abort["inputs"]["evidence"].as_f64() >= abort["inputs"]["abortAt"].as_f64());
        assert_eq!(abort["parameters"]["state"], "aborted");
    }
}

#[test]
fn people_abort_and_promote_and_a_later_canary_begins_anew() {
    let mut scene = Scene::new(1, 0.2, 100);
    scene.minutes(10);
    assert_eq!(scene.share(), 0.01);
    scene.order("promote", "canary-1");
    assert_eq!(scene.share(), 0.01, "what has not proven itself is not promoted");
    scene.order("abort", "canary-of-another-day");
    assert_eq!(scene.share(), 0.01);
    scene.order("abort", "canary-1");
    let aborted = scene.decisions().pop().unwrap();
    assert_eq!((&aborted["action"], &aborted["parameters"]["share"]), (&json!("abort"), &json!(0.0)));
    assert_eq!(aborted["inputs"]["orderedBy"], "alice");
    let before = scene.answers().len();
    scene.minutes(20);
    assert_eq!(scene.answers().len(), before, "it is over");
    scene.order("start", "canary-2");
    scene.minutes(200);
    assert_eq!(scene.answers().last().unwrap().1, "proven");
    scene.order("promote", "canary-2");
    let promotions = scene.answers().iter().filter(|(action, ..)| action == "promote").count();
    assert_eq!(promotions, 1);
    assert_eq!(scene.share(), 1.0, "until it is published everything goes to the candidate");
}

#[test]
fn an_open_window_is_no_evidence_and_is_said_once() {
    let mut scene = Scene::new(1, 0.0, 4);
    scene.minutes(5);
    let window = MaintenanceWindow {
        flow_id: Some("new".to_owned()),
        from: scene.driver.now(),
        until: scene.driver.now().plus(MINUTE * 60),
        reason: None,
    };
    *scene.tables.windows.lock().unwrap() = vec![("maintenance/1".to_owned(), window)];
    scene.minutes(60);
    let answers = scene.answers();
    assert_eq!(count(&answers, "abort", "candidate_worse"), 0, "{answers:?}");
    assert_eq!(count(&answers, "hold", "maintenance_window"), 1, "said once: {answers:?}");
    assert_eq!(scene.decisions().pop().unwrap()["inputs"]["heldBy"], json!(["maintenance/1"]));
    scene.minutes(60);
    assert_eq!(count(&scene.answers(), "abort", "candidate_worse"), 1);
}

#[test]
fn a_pause_advances_nothing_and_a_worse_candidate_is_taken_away_all_the_same() {
    let mut paused = Scene::new(1, 0.0, 100);
    *paused.tables.pauses.lock().unwrap() = vec!["pause/all".to_owned()];
    paused.minutes(60);
    assert_eq!(paused.shares(), [0.0; 0]);
    paused.tables.pauses.lock().unwrap().clear();
    paused.minutes(60);
    assert!(paused.share() > 0.0);
    *paused.tables.pauses.lock().unwrap() = vec!["pause/delivery".to_owned()];
    let share = paused.share();
    paused.minutes(100);
    assert_eq!(paused.share(), share);
    paused.candidate_one_in = 2;
    paused.minutes(30);
    assert_eq!(paused.share(), 0.0, "to take the candidate away is not to advance");
}

#[test]
fn minutes_of_one_flow_alone_say_nothing_and_silence_is_said_once() {
    let mut scene = Scene::new(1, 0.0, 100);
    scene.minutes(6);
    let before = scene.answers().len();
    // Routing stands still: nobody comes to the candidate.
    for _ in 0..60 {
        scene.tell(0, PER_MINUTE);
        scene.next();
    }
    let answers = scene.answers();
    assert_eq!(scene.share(), 0.01);
    assert_eq!(answers.len(), before + 1, "{answers:?}");
    assert_eq!(answers.last().unwrap().1, "no_minutes");
    scene.minutes(120);
    assert!(scene.share() > 0.01, "it goes on");
}

#[test]
fn a_share_that_is_not_in_force_is_no_evidence_of_its_step() {
    let mut scene = Scene::new(1, 0.2, 100);
    scene.minutes(6);
    assert_eq!((scene.share(), scene.in_force), (0.01, 0.01));
    while scene.share() < 0.05 {
        scene.counters_answer = false;
        scene.minute();
    }
    // Decided, and nobody carries it out: the candidate still has 1 %.
    assert_eq!(scene.in_force, 0.01);
    scene.minutes(60);
    let answers = scene.answers();
    assert_eq!(scene.share(), 0.05, "nothing is proven at a share that nobody has: {answers:?}");
    assert_eq!(count(&answers, "hold", "share_not_in_force"), 1, "said once: {answers:?}");
    let held = scene.decisions().pop().unwrap();
    assert_eq!(held["inputs"]["stepMinutes"], 0);
    // It came too late and is decided again; then it is in force, and the step has all its minutes to go.
    scene.carry_out(false);
    assert_eq!(count(&scene.answers(), "set_share", "share_came_too_late"), 1);
    scene.carry_out(true);
    scene.counters_answer = true;
    let before = scene.minute;
    while scene.share() < 0.2 {
        scene.minute();
    }
    assert!(scene.minute - before >= 15, "{}", scene.minute - before);
    // What the candidate does meanwhile speaks against it all the same.
    scene.counters_answer = false;
    scene.candidate_one_in = 2;
    scene.minutes(30);
    assert_eq!(scene.answers().last().unwrap().1, "candidate_worse");
}

#[test]
fn minutes_told_again_count_once() {
    let (mut once, mut twice) = (Scene::new(1, 0.0, 100), Scene::new(1, 0.0, 100));
    for _ in 0..80 {
        once.minute();
        let candidate = (twice.in_force * PER_MINUTE as f64).round() as u64;
        let before = twice.counted;
        twice.both(candidate);
        let told = twice.counted;
        twice.next();
        // The minute before once more, and nobody has met anything new.
        (twice.minute, twice.counted) = (twice.minute - 1, before);
        twice.both(candidate);
        twice.driver.run_until_idle().expect("runs");
        (twice.minute, twice.counted) = (twice.minute + 1, told);
    }
    assert_eq!(once.answers(), twice.answers());
}
