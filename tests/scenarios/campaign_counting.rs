//! Campaigns whose statistics do not count: calls are counted from conversation events, and the
//! dial loop goes by those.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use simulator::{Answering, CampaignScenario, Dialer};
use trunkline::model::Timestamp;
use trunkline::model::call_counts::{CallCounts, PartitionCounts};
use trunkline::model::decision::Mode;
use trunkline::runtime::driver::Driver;
use trunkline::stages::campaign_counting::CampaignCounting;
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::rules::Rules;
use trunkline::stages::windowing::{EventCounts, Windowing};
use trunkline::topics;

const TICK: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(10);
const PARTITIONS: i32 = 3;
const CAMPAIGN: &str = "c";

const DELIVERED: &[&str] = &["outbound", "customer.start", "user.start", "acw"];
const ABANDONED: &[&str] = &["outbound", "customer.start", "customer.end"];
const NOT_ANSWERED: &[&str] = &["outbound", "customer.end"];

/// The table of what events count, as the topic has it.
#[derive(Default)]
struct Table(RwLock<BTreeMap<String, PartitionCounts>>);

impl Table {
    fn read(&self, driver: &Driver) {
        let mut held = self.0.write().unwrap();
        for record in driver.records(&topics::CAMPAIGN_COUNTS) {
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            held.insert(key, serde_json::from_slice(&record.value.unwrap()).unwrap());
        }
    }
}

impl EventCounts for Table {
    fn of(&self, campaign_id: &str) -> Option<CallCounts> {
        let held = self.0.read().unwrap();
        let of = |partition| Some(held.get(&PartitionCounts::key(campaign_id, partition))?.counts);
        (0..PARTITIONS).filter_map(of).reduce(CallCounts::and)
    }
}

fn start() -> Timestamp {
    "2026-01-02T08:00:00.000Z".parse().unwrap()
}

/// What events tell beside answered calls.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Nothing,
    AnsweredCalls,
    AllCalls,
}

struct Scene {
    driver: Driver,
    table: Arc<Table>,
    random: ChaCha8Rng,
    conversations: u64,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut driver = Driver::new(seed, PARTITIONS);
        driver.set_time(start());
        let table = Arc::new(Table::default());
        driver.add(CampaignCounting::new(SETTLE));
        driver.add(Windowing::new(table.clone()));
        driver.add(Dialing::new(Mode::Live, TICK, Rules::default(), Arc::new(())));
        Self { driver, table, random: ChaCha8Rng::seed_from_u64(seed), conversations: 0 }
    }

    fn event(&mut self, conversation: u64, event_type: &str, at: Timestamp) {
        let id = format!("conversation-{conversation}");
        let mut event = json!({
            "eventId": format!("{id}-{event_type}"), "eventType": event_type, "occurredAt": at,
            "conversationId": id, "mediaType": "VOICE", "direction": "OUTBOUND",
        });
        if event_type == "outbound" {
            event["campaignId"] = CAMPAIGN.into();
        }
        self.driver.produce(&topics::CONVERSATION_EVENTS, &id, event.to_string().as_bytes());
    }

    /// The events of a call that was answered, or not, now: in any order, some of them twice.
    fn call(&mut self, parts: &[&str]) {
        self.conversations += 1;
        let (conversation, at) = (self.conversations, self.driver.now());
        let mut parts = parts.to_vec();
        if self.random.random_bool(0.2) {
            parts.push(parts[0]);
        }
        parts.shuffle(&mut self.random);
        for part in parts {
            self.event(conversation, part, at);
        }
    }

    fn run(&mut self) {
        self.driver.run_until_idle().unwrap();
        self.table.read(&self.driver);
    }

    fn counted(&self) -> CallCounts {
        self.table.of(CAMPAIGN).unwrap_or_default()
    }

    /// Statistics that count nothing but delivered calls, and what is decided on them.
    fn observe(&mut self, dialer: &Dialer, scenario: &CampaignScenario) -> Value {
        let seen = dialer.snapshot();
        let stats = json!({
            "campaignId": CAMPAIGN, "observedAt": self.driver.now(), "answerRate": seen.answer_rate,
            "agentsIdle": seen.agents.idle, "agentsBusy": seen.agents.talking + seen.agents.wrapping_up,
            "callsDelivered": seen.calls.delivered, "dialRate": seen.dial_rate,
            "minDialRate": scenario.min_dial_rate, "maxDialRate": scenario.max_dial_rate, "revision": "\"1\"",
        });
        self.driver.produce(&topics::CAMPAIGN_STATS, CAMPAIGN, stats.to_string().as_bytes());
        self.run();
        let records = self.driver.records_of(&topics::DIAL_DECISIONS, CAMPAIGN);
        serde_json::from_slice(records.last().unwrap().value.as_ref().unwrap()).unwrap()
    }
}

fn scenario() -> CampaignScenario {
    CampaignScenario {
        id: CAMPAIGN.to_owned(),
        agents: 20,
        dial_rate: 1.0,
        min_dial_rate: 1.0,
        max_dial_rate: 10.0,
        answering: Answering::Drifting { start: 0.25, min: 0.08, max: 0.50, per_minute: 0.01 },
        ..CampaignScenario::default()
    }
}

/// A shift, and what was decided in it.
fn shift(seed: u64, hours: u64, told: impl Fn(u64) -> Told) -> (Scene, Dialer, Vec<Value>) {
    let (scenario, mut scene) = (scenario(), Scene::new(seed));
    scene.driver.crash_with(0.02);
    let mut dialer = Dialer::new(scenario.clone(), seed);
    let mut decisions = Vec::new();
    for second in 1..=hours * 3_600 {
        let before = dialer.calls();
        dialer.step(second);
        scene.driver.set_time(start().plus(Duration::from_secs(second)));
        let now = dialer.calls();
        for (count, parts, is_told) in [
            (now.delivered - before.delivered, DELIVERED, told(second) != Told::Nothing),
            (now.abandoned - before.abandoned, ABANDONED, told(second) != Told::Nothing),
            (now.unanswered - before.unanswered, NOT_ANSWERED, told(second) == Told::AllCalls),
        ] {
            (0..count).filter(|_| is_told).for_each(|_| scene.call(parts));
        }
        if second % 10 == 0 {
            scene.run();
        }
        if second % 30 == 0 {
            let decision = scene.observe(&dialer, &scenario);
            dialer.set_dial_rate(decision["parameters"]["dialRate"].as_f64().unwrap());
            decisions.push(decision);
        }
    }
    (scene, dialer, decisions)
}

#[test]
fn a_shift_counted_by_events_alone_keeps_the_agents_busy_under_the_cap() {
    for told in [Told::AnsweredCalls, Told::AllCalls] {
        let (scene, dialer, decisions) = shift(11, 3, |_| told);
        let calls = dialer.calls();
        let counted = scene.counted();
        // The last calls are not judged yet.
        let settled = calls.delivered + calls.abandoned;
        assert!(counted.answers <= settled && settled - counted.answers < 20, "{counted:?} {calls:?}");
        assert!(calls.abandoned - counted.abandoned < 5, "{counted:?} {calls:?}");
        let unanswered = if told == Told::AllCalls { calls.unanswered } else { 0 };
        assert!(counted.attempts.abs_diff(counted.answers + unanswered) < 60, "{counted:?} {calls:?}");
        let abandonment = dialer.snapshot().abandonment();
        assert!(abandonment < 0.03, "{abandonment}");
        let last = decisions.last().unwrap();
        let from = &last["inputs"]["countsFrom"];
        let attempted = if told == Told::AllCalls { "events" } else { "answer_rate" };
        assert_eq!(from, &json!({"attempted": attempted, "answered": "events", "abandoned": "events"}));
        let rates = decisions.iter().map(|decision| decision["parameters"]["dialRate"].as_f64().unwrap());
        let mean = rates.sum::<f64>() / decisions.len() as f64;
        println!("mean rate {mean:.2}, {:.2} % abandoned, {calls:?}", abandonment * 100.0);
        assert!(mean > 1.5, "it has dialled ahead: {mean}");
    }
}

#[test]
fn where_neither_statistics_nor_events_count_the_least_rate_is_kept_and_the_reason_says_so() {
    let (.., decisions) = shift(11, 1, |_| Told::Nothing);
    assert!(decisions.iter().all(|decision| decision["parameters"]["dialRate"] == 1.0));
    let said = decisions.iter().filter(|decision| decision["reason"] == "counts_unknown").count();
    assert!(said > decisions.len() * 9 / 10, "{said} of {}", decisions.len());
    assert!(decisions.iter().all(|decision| decision["inputs"].get("countsFrom").is_none()));
}

#[test]
fn events_that_fall_silent_take_the_rate_to_the_least_one_and_back_when_they_return() {
    let told = |second| if (1_800..3_000).contains(&second) { Told::Nothing } else { Told::AnsweredCalls };
    let (.., decisions) = shift(11, 2, told);
    let at = |minute: usize| &decisions[minute * 2 - 1];
    assert!(at(30)["parameters"]["dialRate"].as_f64().unwrap() > 1.0, "{}", at(30));
    assert_eq!(
        (&at(40)["reason"], &at(40)["parameters"]["dialRate"]),
        (&json!("counts_unknown"), &json!(1.0))
    );
    assert!(at(90)["inputs"]["countsFrom"]["abandoned"] == "events", "{}", at(90));
    assert!(at(110)["parameters"]["dialRate"].as_f64().unwrap() > 1.0, "{}", at(110));
}

#[test]
fn calls_are_counted_once_whatever_comes_twice_late_or_in_disorder_and_crashes_are_not_seen() {
    let run = |crashes: f64| {
        let mut scene = Scene::new(3);
        scene.driver.crash_with(crashes);
        let at = |second: u64| start().plus(Duration::from_secs(second));
        // 1 is delivered, its agent told of first; 2 waits for three seconds; 3 is answered by nobody.
        scene.event(1, "user.start", at(1));
        scene.event(1, "customer.start", at(0));
        for (conversation, parts) in [
            (1, &[("outbound", 0), ("customer.end", 300)][..]),
            (2, &[("customer.start", 0), ("outbound", 0), ("user.start", 3)]),
            (3, &[("outbound", 0), ("customer.end", 22)]),
            // Rings on, or nobody tells of its end.
            (4, &[("outbound", 0)]),
            // Of no campaign.
            (5, &[("customer.start", 0), ("customer.end", 1)]),
        ] {
            for (part, second) in parts {
                scene.event(conversation, part, at(*second));
            }
        }
        // Somebody calls in: not a call of a campaign.
        let inbound = json!({"eventId": "i", "eventType": "customer.start", "occurredAt": at(2),
            "conversationId": "inbound", "mediaType": "VOICE", "direction": "INBOUND"});
        scene.driver.produce(&topics::CONVERSATION_EVENTS, "inbound", inbound.to_string().as_bytes());
        for step in 1..=60 {
            scene.driver.set_time(at(step * 20));
            if crashes > 0.0 && step % 7 == 0 {
                scene.driver.restart();
            }
            // Again and again, until it is too old.
            for part in ["outbound", "customer.start"] {
                scene.event(2, part, at(0));
            }
            scene.driver.produce(&topics::CONVERSATION_EVENTS, "broken", b"{");
            scene.run();
            // Nothing comes for a while: time goes by the clock.
            scene.driver.advance(SETTLE);
            scene.run();
        }
        assert!(scene.driver.records(&topics::DEAD_LETTERS).is_empty(), "another stage sets aside");
        scene.counted()
    };
    let expected = CallCounts { attempts: 4, answers: 2, abandoned: 1 };
    assert_eq!(run(0.0), expected);
    assert_eq!(run(0.3), expected);
}
