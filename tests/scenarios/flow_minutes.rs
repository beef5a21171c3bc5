//! Minutes of flows in memory: whatever comes in whatever order, and crashes in between,
//! the minutes are what the log of events says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::runtime::driver::{Driver, Stored};
use trunkline::stages::flow_counting::FlowCounting;
use trunkline::stages::flow_measuring::FlowMeasuring;
use trunkline::stages::flow_summing::FlowSumming;
use trunkline::topics::{self, Topic, partition_of};

const PARTITIONS: i32 = 3;
const MINUTE_MS: i64 = 60_000;
const LATENESS_MS: i64 = 120_000;
/// Half a minute: the idle partitions' wait.
const IDLE_MS: i64 = 30_000;

pub(crate) fn start() -> Timestamp {
    "2026-01-02T03:04:05.000Z".parse().unwrap()
}

pub(crate) fn driver(seed: u64) -> Driver {
    let mut driver = Driver::new(seed, PARTITIONS);
    driver.set_time(start());
    let minute = Duration::from_millis(MINUTE_MS as u64);
    driver.add(FlowCounting::new(minute, Duration::from_millis(LATENESS_MS as u64)));
    driver.add(FlowSumming::new(minute));
    driver
}

pub(crate) fn event(conversation: &str, id: &str, at: Timestamp, flow: (&str, &str), outcome: &str) -> Value {
    json!({
        "eventId": id, "eventType": "flow.end", "occurredAt": at, "conversationId": conversation,
        "flowId": flow.0, "flowVersion": flow.1, "outcome": outcome, "detail": {"exitReason": "DISCONNECT"},
    })
}

pub(crate) fn produce(driver: &mut Driver, event: &Value) {
    let conversation = event["conversationId"].as_str().unwrap();
    driver.produce(&topics::CONVERSATION_EVENTS, conversation, event.to_string().as_bytes());
}

fn minute_of(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis() / MINUTE_MS * MINUTE_MS)
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

/// Flow, version, minute.
pub(crate) type Key = (String, String, Timestamp);

/// All minutes told, per flow, version and minute in the order they were told: total,
/// errors, complete.
pub(crate) fn minutes(driver: &Driver) -> BTreeMap<Key, Vec<(u64, u64, bool)>> {
    let mut minutes = BTreeMap::<Key, Vec<(u64, u64, bool)>>::new();
    for record in driver.records(&topics::FLOW_MINUTES) {
        let told: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
        assert_eq!(told["source"], "events");
        let text = |name: &str| told[name].as_str().unwrap().to_owned();
        let number = |name: &str| told[name].as_u64().unwrap();
        let (total, errors) = (number("total"), number("errors"));
        let rate = if total == 0 { 0.0 } else { errors as f64 / total as f64 };
        assert_eq!(told["errorRate"], rate);
        let key = (text("flowId"), text("flowVersion"), time(&told["minute"]));
        minutes.entry(key).or_default().push((total, errors, told["complete"].as_bool().unwrap()));
    }
    minutes
}

/// The complete minutes, each of which must have been told as complete once and last.
fn complete_minutes(driver: &Driver) -> BTreeMap<Key, (u64, u64)> {
    let mut complete = BTreeMap::new();
    for (key, told) in minutes(driver) {
        for pair in told.windows(2) {
            assert!(!pair[0].2, "{key:?} was told again after it was complete: {told:?}");
            assert!(pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1, "{key:?} shrank: {told:?}");
        }
        let last = told[told.len() - 1];
        if last.2 {
            complete.insert(key, (last.0, last.1));
        }
    }
    complete
}

/// Where the records of a topic of set-aside records came from.
fn origins(driver: &Driver, topic: &Topic) -> BTreeSet<(i32, usize)> {
    let header = |record: &Stored, name: &str| -> String {
        let found = record.headers.iter().find(|(header, _)| header == name).unwrap();
        String::from_utf8(found.1.clone()).unwrap()
    };
    let records = driver.records(topic);
    let origins: BTreeSet<_> = records
        .iter()
        .map(|record| {
            let number = |name: &str| header(record, name).parse::<usize>().unwrap();
            (number("trunkline-error-partition") as i32, number("trunkline-error-offset"))
        })
        .collect();
    assert_eq!(origins.len(), records.len(), "set aside twice");
    origins
}

/// Minutes as the events themselves say, without a look at trunkline's code: the first
/// of each id counts, unless it was set aside.
fn recomputed(log: &[(i32, usize, Value)], set_aside: &BTreeSet<(i32, usize)>) -> BTreeMap<Key, (u64, u64)> {
    let mut known = BTreeSet::new();
    let mut minutes = BTreeMap::<Key, (u64, u64)>::new();
    for (partition, offset, event) in log {
        if set_aside.contains(&(*partition, *offset)) || event["outcome"].is_null() {
            continue;
        }
        if !known.insert((partition, event["eventId"].as_str().unwrap().to_owned())) {
            continue;
        }
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let key = (text("flowId"), text("flowVersion"), minute_of(time(&event["occurredAt"])));
        let sum = minutes.entry(key).or_default();
        sum.0 += 1;
        sum.1 += u64::from(event["outcome"] == "error");
    }
    minutes
}

/// A log of events as they come from a real platform, and worse.
struct Feed {
    random: ChaCha8Rng,
    /// Partition, offset and event, in the order they were produced.
    log: Vec<(i32, usize, Value)>,
    ends: [usize; PARTITIONS as usize],
    poisoned: BTreeSet<(i32, usize)>,
}

impl Feed {
    fn new(seed: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            log: Vec::new(),
            ends: [0; PARTITIONS as usize],
            poisoned: BTreeSet::new(),
        }
    }

    fn one(&mut self, driver: &mut Driver) {
        let number = self.log.len();
        let kind = self.random.random_range(0..100);
        if kind < 8 && !self.log.is_empty() {
            // Again, byte for byte.
            let from = self.log.len().saturating_sub(60);
            let event = self.log[self.random.random_range(from..number)].2.clone();
            return self.produce(driver, event);
        }
        let now = driver.now();
        let behind = match kind {
            8..12 => self.random.random_range(LATENESS_MS + 70_000..LATENESS_MS + 400_000),
            _ => self.random.random_range(0..45_000),
        };
        let at = Timestamp::from_millis(now.as_millis() - behind);
        let conversation = format!("conversation-{}", self.random.random_range(0..40));
        let id = match number % 3 {
            0 => format!("event-{number}"),
            _ => uuid::Uuid::from_u128(u128::from(self.random.random::<u64>()) << 64 | number as u128)
                .to_string(),
        };
        let flow = (["main", "billing", "night"][self.random.random_range(0..3)], ["7.0", "8.0"][number % 2]);
        let outcome = ["success", "error", "abandoned"][self.random.random_range(0..3)];
        let mut event = event(&conversation, &id, at, flow, outcome);
        match kind {
            12..15 => event["outcome"] = Value::Null,
            15..18 => event["eventId"] = json!(""),
            _ => {}
        }
        self.produce(driver, event);
    }

    fn produce(&mut self, driver: &mut Driver, event: Value) {
        let conversation = event["conversationId"].as_str().unwrap();
        let partition = partition_of(conversation.as_bytes(), PARTITIONS);
        let offset = self.ends[partition as usize];
        if event["eventId"] == "" {
            self.poisoned.insert((partition, offset));
        }
        produce(driver, &event);
        self.ends[partition as usize] += 1;
        self.log.push((partition, offset, event));
    }
}

#[test]
fn minutes_are_what_the_log_says_whatever_crashes() {
    let mut late = 0;
    let mut crashes = 0;
    for seed in 0..10 {
        println!("seed {seed}");
        let mut driver = driver(seed);
        driver.crash_with(if seed == 0 { 0.0 } else { 0.35 });
        let mut feed = Feed::new(seed);
        for _ in 0..400 {
            for _ in 0..feed.random.random_range(0..4) {
                feed.one(&mut driver);
            }
            if feed.random.random_bool(0.4) {
                driver.run_until_idle().unwrap();
            }
            if feed.random.random_bool(0.05) {
                driver.restart();
            }
            let pause = feed.random.random_range(0..3_000);
            driver.advance(Duration::from_millis(pause));
        }
        // Nothing more comes: the clock closes what is open.
        driver.crash_with(0.0);
        for _ in 0..40 {
            driver.run_until_idle().unwrap();
            driver.advance(Duration::from_secs(10));
        }
        crashes += driver.crashes();

        let late_ones = origins(&driver, &topics::LATE_EVENTS);
        late += late_ones.len();
        let poisoned = origins(&driver, &topics::DEAD_LETTERS);
        assert_eq!(poisoned, feed.poisoned, "dead letters");
        late_and_in_time(&feed.log, &late_ones, &poisoned);
        let set_aside: BTreeSet<_> = late_ones.union(&poisoned).copied().collect();
        let expected = recomputed(&feed.log, &set_aside);
        let complete = complete_minutes(&driver);
        let with_traffic: BTreeMap<_, _> =
            complete.iter().filter(|(_, sum)| sum.0 > 0).map(|(key, sum)| (key.clone(), *sum)).collect();
        assert_eq!(with_traffic, expected);
        // Between its first minute and the last closed one no version has a hole.
        let last = *complete.keys().map(|(.., minute)| minute).max().unwrap();
        let first_of = |flow: &str, version: &str| {
            expected.keys().filter(|key| key.0 == flow && key.1 == version).map(|key| key.2).min().unwrap()
        };
        for (flow, version) in
            expected.keys().map(|(flow, version, _)| (flow, version)).collect::<BTreeSet<_>>()
        {
            let mut minute = first_of(flow, version);
            while minute <= last {
                assert!(
                    complete.contains_key(&(flow.clone(), version.clone(), minute)),
                    "{flow} {version} {minute}"
                );
                minute = Timestamp::from_millis(minute.as_millis() + MINUTE_MS);
            }
        }
        nothing_is_kept_of_closed_minutes(&driver);
    }
    assert!(late > 100 && crashes > 150, "too little happened: {late} late events, {crashes} crashes");
}

/// What went to the late events was late, and nothing that was late by the events' own
/// times was counted.
fn late_and_in_time(
    log: &[(i32, usize, Value)],
    late: &BTreeSet<(i32, usize)>,
    poisoned: &BTreeSet<(i32, usize)>,
) {
    let mut newest = [Timestamp::MIN; PARTITIONS as usize];
    for (partition, offset, event) in log {
        let at = time(&event["occurredAt"]);
        let newest = &mut newest[*partition as usize];
        let place = (*partition, *offset);
        if at.as_millis() < newest.as_millis() - LATENESS_MS && !poisoned.contains(&place) {
            assert!(late.contains(&place), "{place:?} is late and was not set aside");
        } else if !late.contains(&place) && !poisoned.contains(&place) {
            *newest = (*newest).max(at);
        }
    }
}

/// By key, the newest record of the counting stage's changelog.
fn nothing_is_kept_of_closed_minutes(driver: &Driver) {
    let mut newest = BTreeMap::new();
    for record in driver.records(&topics::FLOW_COUNTING_CHANGELOG) {
        newest.insert(record.key.unwrap(), record.value);
    }
    newest.retain(|_, value| value.is_some());
    let kept: Vec<_> = newest.into_keys().collect();
    assert_eq!(kept, [b"\0progress".to_vec(), b"m".to_vec()], "what a restart would have to read");
}

/// Conversations that lie in one partition.
fn conversations_in(partition: i32) -> impl Iterator<Item = String> {
    (0..)
        .map(|number| format!("conversation-{number}"))
        .filter(move |conversation| partition_of(conversation.as_bytes(), PARTITIONS) == partition)
}

#[test]
fn idle_partitions_hold_no_minute() {
    let mut driver = driver(1);
    let first = minute_of(start());
    for (number, conversation) in conversations_in(1).take(60).enumerate() {
        let now = driver.now();
        produce(&mut driver, &event(&conversation, &format!("e{number}"), now, ("main", "7.0"), "success"));
        driver.run_until_idle().unwrap();
        let complete = complete_minutes(&driver);
        // Its end, the lateness and the wait for the idle ones lie behind.
        let passed = now.millis_since(first) >= MINUTE_MS + LATENESS_MS + IDLE_MS;
        let early = now.millis_since(first) < MINUTE_MS + LATENESS_MS;
        let told = complete.contains_key(&("main".to_owned(), "7.0".to_owned(), first));
        assert!(!passed || told, "not told after {} ms", now.millis_since(first));
        assert!(!(told && early), "told after {} ms", now.millis_since(first));
        driver.advance(Duration::from_secs(5));
    }
}

#[test]
fn with_no_events_at_all_the_clock_closes_the_minutes() {
    let mut driver = driver(1);
    produce(&mut driver, &event("c", "e", start(), ("main", "7.0"), "error"));
    driver.run_until_idle().unwrap();
    let key = ("main".to_owned(), "7.0".to_owned(), minute_of(start()));
    assert_eq!(minutes(&driver)[&key], [(1, 1, false)], "told at once, though not complete");
    // 55 s of the minute are left.
    driver.advance(Duration::from_millis((55_000 + LATENESS_MS + IDLE_MS) as u64 - 1));
    driver.run_until_idle().unwrap();
    assert!(complete_minutes(&driver).is_empty());
    driver.advance(Duration::from_millis(1));
    driver.run_until_idle().unwrap();
    assert_eq!(complete_minutes(&driver)[&key], (1, 1));
    // An hour of silence is told, and then no more.
    for _ in 0..80 {
        driver.advance(Duration::from_secs(60));
        driver.run_until_idle().unwrap();
    }
    let silent = complete_minutes(&driver).values().filter(|sum| **sum == (0, 0)).count();
    assert_eq!(silent, 60);
}

#[test]
fn a_minute_waits_for_partitions_that_have_not_spoken() {
    let mut driver = Driver::new(1, PARTITIONS);
    driver.set_time(start());
    driver.add(FlowSumming::new(Duration::from_millis(MINUTE_MS as u64)));
    let closed = |partition: i32| json!({"closed": {"partition": partition, "partitions": 2, "before": start().plus(Duration::from_secs(3_600))}});
    let counted = json!({"counted": {
        "flowId": "main", "flowVersion": "7.0", "minute": minute_of(start()), "partition": 0, "total": 3, "errors": 1,
    }});
    driver.set_time(start().plus(Duration::from_secs(3_600)));
    driver.produce(&topics::FLOW_COUNTS, "main", counted.to_string().as_bytes());
    let everywhere = |driver: &mut Driver, value: &Value| {
        let record = Stored {
            key: Some(b"".to_vec()),
            value: Some(value.to_string().into_bytes()),
            headers: Vec::new(),
            written_at: Some(driver.now()),
        };
        for partition in 0..PARTITIONS {
            driver.produce_to(&topics::FLOW_COUNTS, partition, record.clone());
        }
    };
    everywhere(&mut driver, &closed(0));
    driver.run_until_idle().unwrap();
    assert!(complete_minutes(&driver).is_empty(), "partition 1 has not spoken");
    everywhere(&mut driver, &closed(1));
    driver.run_until_idle().unwrap();
    let key = ("main".to_owned(), "7.0".to_owned(), minute_of(start()));
    assert_eq!(complete_minutes(&driver)[&key], (3, 1));
}

#[test]
fn polled_measures_become_minutes_each_change_once() {
    let mut driver = Driver::new(1, PARTITIONS);
    driver.set_time(start());
    driver.add(FlowMeasuring);
    driver.crash_with(0.4);
    let minute = minute_of(start());
    let measured = |seconds: u64, total: u64, complete: bool| {
        json!({
            "flowId": "main", "flowVersion": "7.0", "minute": minute, "total": total, "errors": 1,
            "observedAt": start().plus(Duration::from_secs(seconds)), "complete": complete,
        })
    };
    driver.set_time(start().plus(Duration::from_secs(300)));
    let polls = [
        measured(0, 5, false),
        measured(30, 5, false),
        measured(60, 9, false),
        measured(50, 7, false),
        measured(200, 9, true),
        measured(230, 10, true),
        measured(240, 0, true),
    ];
    for poll in &polls {
        driver.produce(&topics::FLOW_HEALTH, "main", poll.to_string().as_bytes());
    }
    let counts = driver.run_until_idle().unwrap()["flow-measuring"];
    assert_eq!((counts.applied, counts.no_op, counts.rejected), (3, 3, 1));
    let told: Vec<(Value, Value)> = driver
        .records(&topics::FLOW_MINUTES)
        .iter()
        .map(|record| {
            let told: Value = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            assert_eq!(told["source"], "polled");
            (told["total"].clone(), told["complete"].clone())
        })
        .collect();
    let expected =
        [(5, false), (9, false), (9, true)].map(|(total, complete)| (json!(total), json!(complete)));
    assert_eq!(told, expected);
}
