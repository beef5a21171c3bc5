//! Minutes of flows on the real log: what the events on it say, whatever is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::runtime::{StageSettings, run_stage};
use trunkline::stages::flow_counting::FlowCounting;
use trunkline::stages::flow_summing::FlowSumming;
use trunkline::topics::{self, Topic};

use super::crashes::{Process, life_of_a_child};
use super::exactly_once::{Running, now};
use crate::support::kafka::{self, client, create_topics, produce, read_all};
use crate::support::until;

static TOPICS: &[&Topic] = &[
    &topics::CONVERSATION_EVENTS,
    &topics::FLOW_COUNTS,
    &topics::FLOW_MINUTES,
    &topics::FLOW_COUNTING_CHANGELOG,
    &topics::FLOW_SUMMING_CHANGELOG,
    &topics::DEAD_LETTERS,
    &topics::LATE_EVENTS,
];

/// Minutes as short as they may be: the tests wait for their end by the real clock.
const MINUTE: Duration = Duration::from_secs(1);
const LATENESS: Duration = Duration::from_secs(3);

/// Both stages at work.
fn start(kafka: &KafkaSettings, name: &str) -> Running {
    let kafka = KafkaSettings { instance: name.to_owned(), ..kafka.clone() };
    let settings = StageSettings::default();
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let (counting, summing) = (health.part("counting"), health.part("summing"));
    let handles = vec![
        run_stage(FlowCounting::new(MINUTE, LATENESS), &kafka, &settings, counting, shutdown.clone()),
        run_stage(FlowSumming::new(MINUTE), &kafka, &settings, summing, shutdown.clone()),
    ];
    Running { shutdown, handles }
}

#[test]
#[ignore = "runs as a child of the tests here"]
fn child() {
    life_of_a_child(|kafka| start(kafka, "mortal"));
}

fn event(conversation: &str, id: &str, at: Timestamp, flow: &str, outcome: &str) -> Value {
    json!({
        "eventId": id, "eventType": "flow.end", "occurredAt": at, "conversationId": conversation,
        "flowId": flow, "flowVersion": "7.0", "outcome": outcome,
    })
}

async fn send(kafka: &KafkaSettings, events: &[Value]) {
    let records: Vec<(&str, Vec<u8>)> = events
        .iter()
        .map(|event| (event["conversationId"].as_str().unwrap(), event.to_string().into_bytes()))
        .collect();
    let records: Vec<(&str, &[u8])> = records.iter().map(|(key, value)| (*key, &**value)).collect();
    produce(kafka, &topics::CONVERSATION_EVENTS, None, &records).await;
}

fn value(message: &OwnedMessage) -> Value {
    serde_json::from_slice(message.payload().expect("a value")).expect("JSON")
}

fn header(message: &OwnedMessage, name: &str) -> String {
    let headers = message.headers().expect("headers");
    let found = headers.iter().find(|header| header.key == name).expect("the header");
    String::from_utf8(found.value.expect("a value").to_vec()).expect("text")
}

/// Flow and minute.
type Key = (String, Timestamp);

fn time(value: &Value) -> Timestamp {
    value.as_str().expect("text").parse().expect("a time")
}

/// Minutes recomputed from the log: every event once that is not among the late ones.
fn recomputed(kafka: &KafkaSettings) -> (BTreeMap<Key, (u64, u64)>, usize) {
    let late: BTreeSet<(i32, i64)> = read_all(kafka, &topics::LATE_EVENTS)
        .iter()
        .map(|record| {
            let number = |name: &str| header(record, name).parse::<i64>().expect("a number");
            (number("trunkline-error-partition") as i32, number("trunkline-error-offset"))
        })
        .collect();
    let mut known = BTreeSet::new();
    let mut minutes = BTreeMap::<Key, (u64, u64)>::new();
    for record in read_all(kafka, &topics::CONVERSATION_EVENTS) {
        let event = value(&record);
        if late.contains(&(record.partition(), record.offset()))
            || !known.insert(event["eventId"].to_string())
        {
            continue;
        }
        let at = time(&event["occurredAt"]).as_millis();
        let minute = Timestamp::from_millis(at - at % MINUTE.as_millis() as i64);
        let sum = minutes.entry((event["flowId"].as_str().unwrap().to_owned(), minute)).or_default();
        sum.0 += 1;
        sum.1 += u64::from(event["outcome"] == "error");
    }
    (minutes, late.len())
}

/// Complete minutes with interactions; each told as complete once, and nothing after.
fn complete(kafka: &KafkaSettings) -> BTreeMap<Key, (u64, u64)> {
    let mut complete = BTreeMap::new();
    for record in read_all(kafka, &topics::FLOW_MINUTES) {
        let told = value(&record);
        let key = (told["flowId"].as_str().unwrap().to_owned(), time(&told["minute"]));
        assert!(!complete.contains_key(&key), "{key:?} was told again after it was complete");
        if told["complete"] == true {
            complete.insert(key, (told["total"].as_u64().unwrap(), told["errors"].as_u64().unwrap()));
        }
    }
    complete.retain(|_, sum| sum.0 > 0);
    complete
}

async fn expect_what_the_log_says(kafka: &KafkaSettings) -> usize {
    let give_up = Instant::now() + Duration::from_secs(90);
    loop {
        let (expected, late) = recomputed(kafka);
        let found = complete(kafka);
        if found == expected {
            return late;
        }
        let wrong: Vec<_> = found.iter().filter(|(key, sum)| expected.get(*key) != Some(*sum)).collect();
        assert!(
            Instant::now() < give_up,
            "{} of {} minutes are complete, wrong: {wrong:?}",
            found.len(),
            expected.len()
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn minutes_are_what_the_log_says_whatever_is_killed() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 3).await;
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sent: Vec<Value> = Vec::new();
    for life in 0..5 {
        let process = Process::running("flow_minutes::child", &kafka, "");
        let counted = || read_all(&kafka, &topics::FLOW_MINUTES).len();
        let before = counted();
        for _ in 0..12 {
            let mut events = Vec::new();
            for _ in 0..150 {
                let number = sent.len() + events.len();
                if number > 200 && random.random_bool(0.05) {
                    events
                        .push(sent[random.random_range(sent.len().saturating_sub(400)..sent.len())].clone());
                    continue;
                }
                let at = now().as_millis() - random.random_range(0..1_500);
                let conversation = format!("conversation-{}", random.random_range(0..60));
                let flow = ["main", "billing"][random.random_range(0..2)];
                let outcome = ["success", "success", "error"][random.random_range(0..3)];
                let id = uuid::Uuid::now_v7().to_string();
                events.push(event(&conversation, &id, Timestamp::from_millis(at), flow, outcome));
            }
            send(&kafka, &events).await;
            sent.extend(events);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..100))).await;
        }
        until("work", async || (counted() > before).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        println!("life {life} ends");
        drop(process);
    }
    let last = Process::running("flow_minutes::child", &kafka, "");
    let other = start(&kafka, "other");
    let late = expect_what_the_log_says(&kafka).await;
    assert!(late < sent.len() / 2, "{late} of {} events were late: nothing was tried", sent.len());
    other.stop().await;
    drop(last);
}

/// A record that cannot be used: the reason's code, key and value.
type Poison = (&'static str, Option<Vec<u8>>, Option<Vec<u8>>);

/// One record of each kind, for events of the time `at`.
fn poisons(at: Timestamp) -> Vec<Poison> {
    let fields = format!(
        r#""eventId":"e-p","eventType":"flow.end","occurredAt":"{at}","conversationId":"p","flowId":"f","outcome":"error""#
    );
    let whole = format!("{{{fields}}}");
    let key = || Some(b"p".to_vec());
    let text = |code: &'static str, value: String| (code, key(), Some(value.into_bytes()));
    let mut invalid = whole.clone().into_bytes();
    invalid.insert(13, 0xff);
    let mut framed = vec![0, 0, 0, 0, 7];
    framed.extend(whole.as_bytes());
    let with_detail = |detail: &str| format!("{{{fields},\"detail\":{detail}}}");
    let future = whole.replace(&at.to_string(), &at.plus(Duration::from_secs(172_800)).to_string());
    vec![
        text("bad_json", "{\"eventId\":".to_owned()),
        text("bad_json", r#"{"schema":"of something else"}"#.to_owned()),
        text("bad_json", format!("{{{fields},\"flowId\":\"g\"}}")),
        text("bad_json", with_detail("{\"a\":1e999,}")),
        text("rejected", with_detail("{\"a\":1,\"a\":2}")),
        text("rejected", with_detail("{\"a\":1e999}")),
        text("rejected", whole.replace("\"e-p\"", "\"\"")),
        text("too_deep", with_detail(&format!("{}{}", "[".repeat(200), "]".repeat(200)))),
        text("too_large", with_detail(&format!("\"{}\"", "x".repeat(900_000)))),
        text("nul_character", with_detail("\"a\\u0000b\"")),
        ("invalid_utf8", key(), Some(invalid)),
        ("schema_registry_framing", key(), Some(framed)),
        ("tombstone", key(), None),
        ("key_missing", None, Some(whole.clone().into_bytes())),
        ("key_mismatch", Some(b"q".to_vec()), Some(whole.into_bytes())),
        text("from_the_future", future),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_among_the_events_is_set_aside_once_and_its_neighbours_count() {
    let kafka = kafka::settings();
    create_topics(&kafka, TOPICS, 2).await;
    let at = now();
    let poisons = poisons(at);
    let (config, name, records) =
        (client(&kafka), kafka.topic(&topics::CONVERSATION_EVENTS), poisons.clone());
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config.create().unwrap();
        for (number, (_, key, value)) in records.into_iter().enumerate() {
            let neighbour = event("p", &format!("e-{number}"), at, "f", "success").to_string().into_bytes();
            for (key, value) in [(key, value), (Some(b"p".to_vec()), Some(neighbour))] {
                let mut record = BaseRecord::<[u8], [u8]>::to(&name).partition(0);
                record.timestamp = Some(at.as_millis());
                record.key = key.as_deref();
                record.payload = value.as_deref();
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    })
    .await
    .unwrap();
    // Both the first and the second to read the records set them aside only once.
    let first = start(&kafka, "one");
    until("a dead letter", async || (!read_all(&kafka, &topics::DEAD_LETTERS).is_empty()).then_some(()))
        .await;
    first.stop().await;
    let second = start(&kafka, "one");
    let minutes = until("the complete minute", async || {
        let minutes = complete(&kafka);
        (!minutes.is_empty()).then_some(minutes)
    })
    .await;
    assert_eq!(minutes.into_values().collect::<Vec<_>>(), [(poisons.len() as u64, 0)]);
    let mut letters = read_all(&kafka, &topics::DEAD_LETTERS);
    for (code, key, value) in poisons {
        let found = letters.iter().position(|letter| {
            let reason = header(letter, "trunkline-error-reason");
            letter.key() == key.as_deref()
                && letter.payload() == value.as_deref()
                && reason.split(':').next() == Some(code)
        });
        letters.remove(found.unwrap_or_else(|| {
            let reasons: Vec<_> =
                letters.iter().map(|letter| header(letter, "trunkline-error-reason")).collect();
            panic!("no dead letter for {code} among {reasons:?}")
        }));
    }
    assert!(letters.is_empty(), "{} dead letters too many", letters.len());
    second.stop().await;
}
