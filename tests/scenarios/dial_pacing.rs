//! The dial loop under `pacing`: what it keeps survives crashes, what is set at run time holds at
//! the next tick, and whatever keeps a rate down is on record.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Answering, CampaignScenario, Dialer};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::model::dial_rate::Limits;
use trunkline::model::settings::{DialPolicy, DialSettings};
use trunkline::runtime::driver::{Driver, Stored};
use trunkline::stages::dialing::judgement::{Answered, Around, judge};
use trunkline::stages::dialing::pacing::{self, Observation, Pacing};
use trunkline::stages::dialing::rules::Rules;
use trunkline::stages::dialing::{Dialing, InForce, Lookup};
use trunkline::stages::windowing::Windowing;
use trunkline::topics;

const TICK: Duration = Duration::from_secs(30);
const SHIFT_SECONDS: u64 = 14_400;

/// What the stage looks up, set by hand.
#[derive(Default)]
struct Surroundings {
    set: RwLock<InForce>,
    lagging: RwLock<Vec<String>>,
}

impl Lookup for Surroundings {
    fn settings(&self, _: &str) -> InForce {
        *self.set.read().unwrap()
    }

    fn lagging(&self, _: Timestamp) -> Vec<String> {
        self.lagging.read().unwrap().clone()
    }
}

struct Scene {
    driver: Driver,
    around: Arc<Surroundings>,
    attempts: u64,
    answers: u64,
    abandoned: u64,
    /// The rate that the campaign has.
    rate: f64,
}

fn start() -> Timestamp {
    "2026-01-02T08:00:00.000Z".parse().unwrap()
}

impl Scene {
    fn new(seed: u64, rules: Rules) -> Self {
        let mut driver = Driver::new(seed, 3);
        driver.set_time(start());
        driver.add(Windowing::new(Arc::new(())));
        let around = Arc::new(Surroundings::default());
        driver.add(Dialing::new(Mode::Live, TICK, rules, around.clone()));
        Self { driver, around, attempts: 0, answers: 0, abandoned: 0, rate: 1.0 }
    }

    /// Calls of one tick, and what was decided on them. The rate is what was decided before.
    fn tick(&mut self, attempts: u64, answers: u64, abandoned: u64, idle: u32) -> Value {
        self.attempts += attempts;
        self.answers += answers;
        self.abandoned += abandoned;
        let stats = json!({
            "campaignId": "c", "observedAt": self.driver.now(), "answerRate": 0.25,
            "attempts": self.attempts, "answers": self.answers, "abandoned": self.abandoned,
            "agentsIdle": idle, "agentsBusy": 20 - idle, "callsDelivered": self.answers - self.abandoned,
            "dialRate": self.rate, "minDialRate": 1.0, "maxDialRate": 10.0, "revision": "\"1\"",
        });
        self.observe(&stats)
    }

    fn observe(&mut self, stats: &Value) -> Value {
        self.driver.produce(&topics::CAMPAIGN_STATS, "c", stats.to_string().as_bytes());
        self.driver.run_until_idle().unwrap();
        self.driver.advance(TICK);
        let decision = self.decisions().pop().expect("each tick is decided on");
        self.rate = decision["parameters"]["dialRate"].as_f64().unwrap();
        decision
    }

    fn decisions(&self) -> Vec<Value> {
        let records = self.driver.records_of(&topics::DIAL_DECISIONS, "c");
        records.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
    }

    fn set(&self, revision: u64, settings: DialSettings) {
        *self.around.set.write().unwrap() = InForce { revision, settings };
    }

    /// Until the rate has risen.
    fn warmed_up(mut self) -> Self {
        for _ in 0..30 {
            self.tick(20, 5, 0, 3);
        }
        assert!(self.rate > 1.5, "{}", self.rate);
        self
    }
}

fn reason(decision: &Value) -> (&str, &str, f64) {
    let text = |name: &str| decision[name].as_str().unwrap();
    (text("action"), text("reason"), decision["parameters"]["dialRate"].as_f64().unwrap())
}

#[test]
fn what_pacing_goes_by_survives_crashes_to_the_byte() {
    for seed in 0..10 {
        let run = |crashes: f64| {
            let rules = Rules { shadow: Some(DialPolicy::Proportional), ..Rules::default() };
            let mut scene = Scene::new(seed, rules);
            scene.driver.crash_with(crashes);
            for tick in 0..80u64 {
                if crashes > 0.0 && tick % 13 == 0 {
                    scene.driver.restart();
                }
                scene.tick(20 + tick % 7, 4 + tick % 4, u64::from(tick % 17 == 0), (tick % 5) as u32);
            }
            let records = scene.driver.records_of(&topics::DIAL_DECISIONS, "c");
            records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
        };
        let smooth: Vec<String> = run(0.0);
        assert_eq!(smooth.len(), 80);
        assert_eq!(run(0.4), smooth, "seed {seed}: crashes can be seen");
    }
}

#[test]
fn the_chain_leads_from_the_rules_answer_to_the_rate() {
    let mut scene = Scene::new(1, Rules::default()).warmed_up();
    for decision in scene.decisions() {
        let chain = &decision["parameters"]["chain"];
        let limits: Vec<&str> = chain["limits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|limited| limited["limit"].as_str().unwrap())
            .collect();
        let last = chain["limits"].as_array().unwrap().last().unwrap()["value"].as_f64();
        assert_eq!(last, decision["parameters"]["dialRate"].as_f64());
        let expected = ["budget", "brake", "slew", "minimum", "maximum", "staleness", "hold", "rounding"];
        // The first window has no predecessor to count from.
        if decision["sequence"] != 1 {
            assert_eq!(limits, expected, "{decision}");
        }
    }
    let braked = scene.tick(20, 5, 4, 3);
    assert_eq!(reason(&braked), ("set_dial_rate", "abandonment_over_cap", 1.0));
    assert_eq!(braked["parameters"]["chain"]["bound"], "brake");
    assert_eq!(braked["policy"]["name"], "pacing");
}

#[test]
fn what_is_set_at_run_time_holds_at_the_next_tick_and_its_revision_is_on_record() {
    let mut scene = Scene::new(1, Rules::default()).warmed_up();
    let before = scene.tick(20, 5, 0, 3);
    assert_eq!(before["settingsRevision"], 0);
    scene.set(7, DialSettings { cap: Some(0.001), goal: Some(0.001), ..DialSettings::default() });
    let tight = scene.tick(20, 5, 0, 3);
    assert_eq!((&tight["settingsRevision"], &tight["policy"]["name"]), (&json!(7), &json!("pacing")));
    assert!(scene.rate < before["parameters"]["dialRate"].as_f64().unwrap(), "{tight}");
    assert_ne!(tight["policy"]["hash"], before["policy"]["hash"]);
    scene.set(8, DialSettings { policy: Some(DialPolicy::Proportional), ..DialSettings::default() });
    let other = scene.tick(20, 5, 0, 3);
    assert_eq!((&other["settingsRevision"], &other["policy"]["name"]), (&json!(8), &json!("proportional")));
    assert_eq!(reason(&other).1, "towards_target");
    scene.set(9, DialSettings::default());
    let back = scene.tick(20, 5, 0, 3);
    assert_eq!((&back["settingsRevision"], &back["policy"]), (&json!(9), &before["policy"]));
}

#[test]
fn no_rate_rises_while_what_takes_statistics_in_is_behind() {
    let mut scene = Scene::new(1, Rules::default());
    for _ in 0..3 {
        scene.tick(20, 5, 0, 3);
    }
    let rate = scene.rate;
    *scene.around.lagging.write().unwrap() = vec!["trunkline-windowing".to_owned()];
    for _ in 0..3 {
        let held = scene.tick(20, 5, 0, 3);
        assert_eq!(reason(&held), ("hold", "lag_error", rate));
        assert_eq!(held["parameters"]["chain"]["bound"], "hold");
        assert_eq!(held["parameters"]["holds"], json!(["lag_error:trunkline-windowing"]));
    }
    let down = scene.tick(40, 30, 20, 3);
    assert_eq!(reason(&down), ("set_dial_rate", "abandonment_over_cap", 1.0));
    scene.around.lagging.write().unwrap().clear();
    assert!(scene.tick(20, 5, 0, 3)["parameters"]["holds"].is_null());
}

#[test]
fn late_statistics_hold_a_rate_with_that_reason() {
    let mut scene = Scene::new(1, Rules::default());
    scene.tick(20, 5, 0, 3);
    scene.tick(20, 5, 0, 3);
    let rate = scene.rate;
    let observed = scene.driver.now();
    scene.driver.advance(TICK * 2 + Duration::from_millis(1));
    let late = scene.observe(&json!({
        "campaignId": "c", "observedAt": observed, "answerRate": 0.25, "attempts": 60, "answers": 15,
        "abandoned": 0, "agentsIdle": 3, "agentsBusy": 17, "callsDelivered": 15,
        "dialRate": rate, "minDialRate": 1.0, "maxDialRate": 10.0, "revision": "\"1\"",
    }));
    assert_eq!(reason(&late), ("hold", "statistics_late", rate));
    assert_eq!(late["parameters"]["holds"], json!(["statistics_late"]));
}

#[test]
fn somebody_elses_rate_stays_for_a_tick_and_is_on_record() {
    let mut scene = Scene::new(1, Rules::default()).warmed_up();
    scene.rate = 6.0;
    let theirs = scene.tick(20, 5, 0, 3);
    assert_eq!(reason(&theirs), ("hold", "other_writer", 6.0));
    let after = scene.tick(20, 5, 0, 3);
    assert!(scene.rate < 6.0, "{after}");
    scene.rate = 9.0;
    let braked = scene.tick(40, 30, 20, 3);
    assert_eq!(reason(&braked), ("set_dial_rate", "abandonment_over_cap", 1.0));
    assert_eq!(braked["parameters"]["holds"], json!(["other_writer"]), "and still it is on record");
}

#[test]
fn a_decision_that_is_carried_out_a_tick_late_is_nobody_elses() {
    let mut scene = Scene::new(1, Rules::default());
    let mut rates = vec![scene.rate, scene.rate];
    for tick in 0..40 {
        scene.rate = rates[rates.len() - 2];
        let decision = scene.tick(20, 5, u64::from(tick % 20 == 19), 1 + tick % 4);
        assert_ne!(decision["reason"], "other_writer", "tick {tick}");
        rates.push(scene.rate);
    }
    assert!(rates.windows(2).any(|two| two[0] != two[1]), "{rates:?}");
}

#[test]
fn where_nobody_counts_the_least_rate_is_set_and_the_reason_says_so() {
    let mut scene = Scene::new(1, Rules::default());
    scene.rate = 4.0;
    let mut reasons = Vec::new();
    for tick in 1..5 {
        let decision = scene.observe(&json!({
            "campaignId": "c", "observedAt": scene.driver.now(), "answerRate": 0.25, "agentsIdle": 3,
            "agentsBusy": 17, "callsDelivered": 10 * tick, "dialRate": scene.rate, "minDialRate": 1.0,
            "maxDialRate": 10.0, "revision": "\"1\"",
        }));
        let (action, reason, rate) = reason(&decision);
        reasons.push((action.to_owned(), reason.to_owned(), rate));
    }
    let expected = [
        ("hold", "no_data", 4.0),
        ("set_dial_rate", "counts_unknown", 1.0),
        ("hold", "counts_unknown", 1.0),
        ("hold", "counts_unknown", 1.0),
    ];
    assert_eq!(reasons, expected.map(|(action, reason, rate)| (action.to_owned(), reason.to_owned(), rate)));
}

#[test]
fn a_shadow_policy_answers_to_the_same_inputs_and_changes_nothing() {
    let run = |shadow| {
        let mut scene = Scene::new(1, Rules { shadow, ..Rules::default() });
        (0..40).map(|tick| scene.tick(20, 5, u64::from(tick == 30), tick % 5)).collect::<Vec<_>>()
    };
    let (alone, beside) = (run(None), run(Some(DialPolicy::Proportional)));
    for (mut one, mut other) in alone.into_iter().zip(beside) {
        let shadow = other["parameters"].as_object_mut().unwrap().remove("shadow").expect("it has answered");
        assert_eq!(shadow["policy"], "proportional");
        if other["reason"] != "no_data" {
            let wanted = one["parameters"]["previousDialRate"].as_f64().unwrap() * 0.85 / 0.25;
            let rate = shadow["dialRate"].as_f64().unwrap();
            assert!((rate - wanted.min(10.0)).abs() < 0.01, "{shadow}");
        }
        assert_eq!(one["parameters"].take(), other["parameters"].take());
    }
}

/// A shift under the rule itself: abandonment and share of the agents' time with customers.
fn direct(scenario: &CampaignScenario, seed: u64) -> (f64, f64) {
    let rule = Pacing::default();
    let (mut dialer, mut state) = (Dialer::new(scenario.clone(), seed), pacing::State::default());
    let limits = Limits { min: scenario.min_dial_rate, max: scenario.max_dial_rate };
    let (mut before, mut busy, mut present) = (dialer.snapshot().calls, 0u64, 0u64);
    for second in 1..=SHIFT_SECONDS {
        dialer.step(second);
        let seen = dialer.snapshot();
        busy += u64::from(seen.agents.talking + seen.agents.wrapping_up);
        present += u64::from(seen.agents.talking + seen.agents.wrapping_up + seen.agents.idle);
        if second % 30 == 0 {
            let observation = Observation {
                at: start().plus(Duration::from_secs(second)),
                attempts: seen.calls.attempts - before.attempts,
                answers: seen.calls.answers - before.answers,
                abandoned: seen.calls.abandoned - before.abandoned,
                agents_idle: seen.agents.idle,
                agents_busy: seen.agents.talking + seen.agents.wrapping_up,
                answer_rate: seen.answer_rate,
                dial_rate: seen.dial_rate,
                limits,
            };
            before = seen.calls;
            rule.take_in(&mut state, &observation);
            let answered = Answered::by_pacing(&rule, &state, &observation);
            dialer.set_dial_rate(judge(answered, seen.dial_rate, limits, Around::default()).chain.value());
        }
    }
    (dialer.snapshot().abandonment(), busy as f64 / present as f64)
}

/// The same shift through both stages, with crashes.
fn staged(scenario: &CampaignScenario, seed: u64) -> (f64, f64) {
    let mut scene = Scene::new(seed, Rules::default());
    scene.driver.crash_with(0.1);
    let mut dialer = Dialer::new(scenario.clone(), seed);
    let (mut busy, mut present) = (0u64, 0u64);
    for second in 1..=SHIFT_SECONDS {
        dialer.step(second);
        let seen = dialer.snapshot();
        busy += u64::from(seen.agents.talking + seen.agents.wrapping_up);
        present += u64::from(seen.agents.talking + seen.agents.wrapping_up + seen.agents.idle);
        if second % 30 == 0 {
            scene.driver.set_time(start().plus(Duration::from_secs(second)));
            scene.observe(&json!({
                "campaignId": "c", "observedAt": scene.driver.now(), "answerRate": seen.answer_rate,
                "attempts": seen.calls.attempts, "answers": seen.calls.answers, "abandoned": seen.calls.abandoned,
                "agentsIdle": seen.agents.idle, "agentsBusy": seen.agents.talking + seen.agents.wrapping_up,
                "callsDelivered": seen.calls.delivered, "dialRate": seen.dial_rate,
                "minDialRate": scenario.min_dial_rate, "maxDialRate": scenario.max_dial_rate, "revision": "\"1\"",
            }));
            dialer.set_dial_rate(scene.rate);
        }
    }
    (dialer.snapshot().abandonment(), busy as f64 / present as f64)
}

#[test]
fn a_shift_through_the_stages_is_what_the_rule_alone_makes_of_it() {
    let scenario = CampaignScenario {
        id: "walk".to_owned(),
        agents: 20,
        dial_rate: 1.0,
        min_dial_rate: 1.0,
        max_dial_rate: 10.0,
        answering: Answering::Drifting { start: 0.25, min: 0.08, max: 0.50, per_minute: 0.01 },
        ..CampaignScenario::default()
    };
    let (abandoned, utilisation) = direct(&scenario, 11);
    let (abandoned_staged, utilisation_staged) = staged(&scenario, 11);
    assert!(abandoned_staged < 0.03, "{abandoned_staged}");
    // Statistics that say nothing new are held on by the stages and decided on by the rule alone.
    assert!((abandoned - abandoned_staged).abs() < 0.008, "{abandoned} {abandoned_staged}");
    assert!((utilisation - utilisation_staged).abs() < 0.03, "{utilisation} {utilisation_staged}");
}

/// The nine campaigns of the demo, left alone: each tick is decided on, and carried out two seconds later.
#[test]
fn the_demos_campaigns_left_alone_stay_under_the_cap() {
    let is_long = std::env::var("TRUNKLINE_FAULTS").is_ok_and(|form| form == "long");
    let hours = if is_long { 8 } else { 1 };
    let scenario = simulator::Scenario::default();
    let mut dialers: Vec<(CampaignScenario, Dialer)> =
        scenario.campaigns.into_iter().map(|campaign| (campaign.clone(), Dialer::new(campaign, 1))).collect();
    let mut driver = Driver::new(1, 3);
    driver.add(Windowing::new(Arc::new(())));
    driver.add(Dialing::new(Mode::Live, TICK, Rules::default(), Arc::new(())));
    let mut decided: Vec<(u64, usize, f64)> = Vec::new();
    for second in 1..=hours * 3_600 {
        for (at, nth, rate) in decided.extract_if(.., |(at, ..)| *at == second) {
            assert_eq!(at, second);
            dialers[nth].1.set_dial_rate(rate);
        }
        dialers.iter_mut().for_each(|(_, dialer)| dialer.step(second));
        if second % 30 != 0 {
            continue;
        }
        driver.set_time(start().plus(Duration::from_secs(second)));
        for (scenario, dialer) in &dialers {
            let seen = dialer.snapshot();
            let stats = json!({
                "campaignId": scenario.id, "observedAt": driver.now(), "answerRate": seen.answer_rate,
                "attempts": seen.calls.attempts, "answers": seen.calls.answers, "abandoned": seen.calls.abandoned,
                "agentsIdle": seen.agents.idle, "agentsBusy": seen.agents.talking + seen.agents.wrapping_up,
                "callsDelivered": seen.calls.delivered, "dialRate": seen.dial_rate,
                "minDialRate": scenario.min_dial_rate, "maxDialRate": scenario.max_dial_rate, "revision": "\"1\"",
            });
            driver.produce(&topics::CAMPAIGN_STATS, &scenario.id, stats.to_string().as_bytes());
        }
        driver.run_until_idle().unwrap();
        let records = driver.records(&topics::DIAL_DECISIONS);
        for (nth, (scenario, _)) in dialers.iter().enumerate() {
            let is_own = |record: &&Stored| record.key.as_deref() == Some(scenario.id.as_bytes());
            let newest = records.iter().rev().find(is_own).expect("each is decided on");
            let decision: Value = serde_json::from_slice(newest.value.as_ref().unwrap()).unwrap();
            decided.push((second + 2, nth, decision["parameters"]["dialRate"].as_f64().unwrap()));
        }
    }
    let (mut abandoned, mut settled) = (0, 0);
    for (scenario, dialer) in &dialers {
        let calls = dialer.snapshot().calls;
        println!("{}: {} of {} abandoned", scenario.name, calls.abandoned, calls.abandoned + calls.delivered);
        (abandoned, settled) = (abandoned + calls.abandoned, settled + calls.abandoned + calls.delivered);
        if is_long {
            assert!(dialer.snapshot().abandonment() < 0.03, "{}: {calls:?}", scenario.name);
        }
    }
    println!("{abandoned} of {settled} in {hours} h");
    assert!(settled > 300 * hours, "{settled}");
    assert!((abandoned as f64) < 0.03 * settled as f64, "{abandoned} of {settled}");
}
