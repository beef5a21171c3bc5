//! Clocks that are wrong, one at a time: none of them may silence a partition, and what one
//! has spoilt heals once it is right.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::driver::{Driver, Stored};
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::proportional::Proportional;
use trunkline::stages::flow_counting::FlowCounting;
use trunkline::stages::flow_measuring::FlowMeasuring;
use trunkline::stages::flow_summing::FlowSumming;
use trunkline::stages::windowing::Windowing;
use trunkline::topics::{self, Topic, partition_of};

const PARTITIONS: i32 = 3;
const TICK: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
const AHEAD: Duration = Duration::from_secs(50 * 60);

fn start() -> Timestamp {
    "2026-01-02T03:04:05.000Z".parse().unwrap()
}

fn driver(seed: u64) -> Driver {
    let mut driver = Driver::new(seed, PARTITIONS);
    driver.set_time(start());
    driver
}

fn dial_driver(seed: u64) -> Driver {
    let mut driver = driver(seed);
    driver.add(Windowing::new(Arc::new(())));
    driver.add(Dialing::new(Mode::Live, TICK, Proportional::default().into(), Arc::new(())));
    driver
}

fn flow_driver(seed: u64) -> Driver {
    let mut driver = driver(seed);
    driver.add(FlowCounting::new(MINUTE, 2 * MINUTE));
    driver.add(FlowSumming::new(MINUTE));
    driver
}

/// A fact whose value and record have this time.
fn produce(driver: &mut Driver, topic: &'static Topic, key: &str, at: Timestamp, value: &Value) {
    let record = Stored {
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
        written_at: Some(at),
    };
    driver.produce_record(topic, record);
}

fn observe(driver: &mut Driver, campaign: &str, at: Timestamp) {
    let stats = json!({
        "campaignId": campaign, "observedAt": at, "answerRate": 0.5, "agentsIdle": 4, "agentsBusy": 16,
        "callsDelivered": at.as_millis(), "dialRate": 1.0, "minDialRate": 0.5, "maxDialRate": 3.0, "revision": "1",
    });
    produce(driver, &topics::CAMPAIGN_STATS, campaign, at, &stats);
}

fn event(driver: &mut Driver, conversation: &str, id: &str, at: Timestamp) {
    let event = json!({
        "eventId": id, "eventType": "flow.end", "occurredAt": at, "conversationId": conversation,
        "flowId": "main", "flowVersion": "7.0", "outcome": "error", "detail": {},
    });
    produce(driver, &topics::CONVERSATION_EVENTS, conversation, at, &event);
}

fn values(driver: &Driver, topic: &Topic) -> Vec<Value> {
    let records = driver.records(topic);
    records.iter().map(|record| serde_json::from_slice(record.value.as_ref().unwrap()).unwrap()).collect()
}

fn reasons(driver: &Driver) -> Vec<String> {
    let letters = driver.records(&topics::DEAD_LETTERS);
    let reason = |letter: &Stored| {
        let header = letter.headers.iter().find(|(name, _)| name == "trunkline-error-reason").unwrap();
        String::from_utf8(header.1.clone()).unwrap()
    };
    letters.iter().map(reason).collect()
}

/// Interactions of complete minutes that begin at or after `from`, the last word on each.
fn completed(driver: &Driver, from: Timestamp) -> u64 {
    let mut minutes = std::collections::BTreeMap::new();
    for minute in values(driver, &topics::FLOW_MINUTES) {
        let begins: Timestamp = minute["minute"].as_str().unwrap().parse().unwrap();
        if minute["complete"] == true && begins >= from {
            minutes.insert(begins, minute["total"].as_u64().unwrap());
        }
    }
    minutes.values().sum()
}

/// Conversations that lie in one partition.
fn conversation_in(partition: i32) -> String {
    let mut names = (0..).map(|number| format!("conversation-{number}"));
    names.find(|name| partition_of(name.as_bytes(), PARTITIONS) == partition).unwrap()
}

#[test]
fn statistics_of_a_poller_whose_clock_is_ahead_are_set_aside_and_the_others_decided_on() {
    for seed in 0..10 {
        let mut driver = dial_driver(seed);
        driver.crash_with(0.3);
        let now = driver.now();
        observe(&mut driver, "c", now.plus(AHEAD));
        for _ in 0..5 {
            let now = driver.now();
            observe(&mut driver, "c", now);
            driver.run_until_idle().unwrap();
            driver.advance(TICK);
        }
        assert_eq!(values(&driver, &topics::DIAL_DECISIONS).len(), 5, "seed {seed}");
        assert!(driver.records(&topics::LATE_EVENTS).is_empty(), "seed {seed}");
        let reasons = reasons(&driver);
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].starts_with("from_the_future: 3000000 ms ahead of the clock"), "{reasons:?}");
    }
}

#[test]
fn an_event_far_ahead_is_set_aside_and_the_minutes_of_the_others_are_complete() {
    for seed in 0..10 {
        let mut driver = flow_driver(seed);
        driver.crash_with(0.3);
        let conversation = conversation_in(1);
        let now = driver.now();
        event(&mut driver, &conversation, "ahead", now.plus(AHEAD));
        for number in 0..60 {
            let now = driver.now();
            event(&mut driver, &conversation, &format!("e{number}"), now);
            driver.run_until_idle().unwrap();
            driver.advance(Duration::from_secs(10));
        }
        assert!(driver.records(&topics::LATE_EVENTS).is_empty(), "seed {seed}");
        assert_eq!(reasons(&driver).len(), 1);
        let complete = completed(&driver, start().minus(MINUTE));
        assert!((30..=60).contains(&complete), "{complete} of 60 are in complete minutes");
    }
}

/// What was read while the instance's clock was ahead, of whatever time, must not stand
/// against what is read once it is right: not the watermark, not the newest observation.
#[test]
fn campaigns_go_on_at_once_when_a_clock_that_was_ahead_is_put_right() {
    for (seed, restart) in (0..10).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut driver = dial_driver(seed);
        driver.crash_with(0.3);
        let now = driver.now();
        observe(&mut driver, "c", now);
        driver.run_until_idle().unwrap();
        driver.advance(AHEAD);
        let now = driver.now();
        observe(&mut driver, "c", now);
        driver.run_until_idle().unwrap();
        let before = values(&driver, &topics::DIAL_DECISIONS).len();
        driver.set_time(start().plus(TICK));
        if restart {
            driver.restart();
        }
        for _ in 0..4 {
            let now = driver.now();
            observe(&mut driver, "c", now);
            driver.run_until_idle().unwrap();
            driver.advance(TICK);
        }
        let decided = values(&driver, &topics::DIAL_DECISIONS);
        assert_eq!(decided.len() - before, 4, "seed {seed}");
        assert!(driver.records(&topics::LATE_EVENTS).is_empty(), "seed {seed}");
    }
}

#[test]
fn minutes_are_complete_again_when_a_clock_that_was_ahead_is_put_right() {
    for (seed, restart) in (0..10).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut driver = flow_driver(seed);
        driver.crash_with(0.3);
        let conversation = conversation_in(1);
        let now = driver.now();
        event(&mut driver, &conversation, "first", now);
        driver.run_until_idle().unwrap();
        // Nothing comes, the clock is put ahead: all partitions seem to be idle, and minutes close.
        driver.advance(AHEAD);
        driver.run_until_idle().unwrap();
        assert_eq!(completed(&driver, start().minus(MINUTE)), 1);
        driver.set_time(start().plus(TICK));
        if restart {
            driver.restart();
        }
        driver.run_until_idle().unwrap();
        // The minute after the present one is open again.
        driver.advance(2 * MINUTE);
        let from = driver.now();
        for number in 0..60 {
            let now = driver.now();
            event(&mut driver, &conversation, &format!("e{number}"), now);
            driver.run_until_idle().unwrap();
            driver.advance(Duration::from_secs(10));
        }
        assert!(driver.records(&topics::LATE_EVENTS).is_empty(), "seed {seed}");
        let complete = completed(&driver, from.minus(MINUTE));
        assert!((30..=60).contains(&complete), "seed {seed}: {complete} of 60 are in complete minutes");
    }
}

/// The instance's clock is ahead of everybody's, and one partition has no records: what is
/// closed there goes by the times of the records elsewhere.
#[test]
fn a_clock_that_is_ahead_closes_no_minutes_of_silent_partitions_before_their_time() {
    for seed in 0..10 {
        let mut driver = flow_driver(seed);
        let (busy, silent) = (conversation_in(1), conversation_in(2));
        let mut real = start();
        driver.set_time(real.plus(AHEAD));
        for number in 0..60 {
            event(&mut driver, &busy, &format!("e{number}"), real);
            driver.run_until_idle().unwrap();
            real = real.plus(Duration::from_secs(10));
            driver.set_time(real.plus(AHEAD));
        }
        event(&mut driver, &silent, "at last", real);
        driver.run_until_idle().unwrap();
        assert!(driver.records(&topics::LATE_EVENTS).is_empty(), "seed {seed}");
        assert!(driver.records(&topics::DEAD_LETTERS).is_empty(), "seed {seed}");
        let complete = completed(&driver, start().minus(MINUTE));
        assert!((30..=60).contains(&complete), "silent partitions do not hold the minutes: {complete}");
    }
}

#[test]
fn measures_of_a_poller_that_was_ahead_do_not_stand_against_those_of_their_time() {
    let mut driver = driver(1);
    driver.add(FlowMeasuring);
    let measure =
        |driver: &mut Driver, minute: Timestamp, observed_at: Timestamp, total: u64, complete: bool| {
            let health = json!({
                "flowId": "main", "flowVersion": "7.0", "minute": minute, "total": total, "errors": 0,
                "observedAt": observed_at, "complete": complete,
            });
            produce(driver, &topics::FLOW_HEALTH, "main", observed_at, &health);
        };
    let minute: Timestamp = "2026-01-02T03:04:00.000Z".parse().unwrap();
    driver.set_time(start().plus(AHEAD));
    let ahead = driver.now();
    measure(&mut driver, minute.plus(AHEAD), ahead, 0, true);
    measure(&mut driver, minute, ahead, 1, false);
    driver.run_until_idle().unwrap();
    let minute_ahead = minute.plus(AHEAD);
    driver.set_time(start().plus(MINUTE));
    let now = driver.now();
    measure(&mut driver, minute, now, 5, true);
    driver.run_until_idle().unwrap();
    driver.set_time(minute_ahead.plus(2 * MINUTE));
    let now = driver.now();
    measure(&mut driver, minute_ahead, now, 9, true);
    driver.run_until_idle().unwrap();
    let told: Vec<u64> =
        values(&driver, &topics::FLOW_MINUTES).iter().map(|told| told["total"].as_u64().unwrap()).collect();
    assert_eq!(told, [0, 1, 5, 9]);
}
