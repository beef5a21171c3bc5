//! The dialing stage on a real broker: rate, CPU and memory for a full topic, beside
//! the limit of reading it alone and a bare loop that decides the same; and the time from a window to its committed decision
//! at a steady pace. Each measured part is a process of its own, so that CPU and memory
//! are its alone.
//!
//! `TRUNKLINE_BENCH_RECORDS` (1 000 000), `TRUNKLINE_BENCH_WORKERS` (2) and
//! `TRUNKLINE_BENCH_SECONDS` (20, at 1 000 records a second) change its size;
//! `TRUNKLINE_BENCH_PROPERTIES="linger.ms=1 compression.type=none"` tries librdkafka properties.

mod bare;
mod measure;
mod window;

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::admin::{self, TopicSettings};
use trunkline::runtime::kafka::KafkaSettings;
use trunkline::runtime::{StageSettings, run_stage};
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::proportional::Proportional;
use trunkline::topics::{self, Topic, partition_of};

use measure::{Usage, percentile};

const CAMPAIGNS: usize = 10_000;
const PARTITIONS: i32 = 4;
const PACE_PER_SECOND: usize = 1_000;

fn main() {
    // cargo runs harness-less benches with `--bench`, and under `cargo test` without.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    match std::env::var("TRUNKLINE_BENCH_PART").as_deref() {
        Ok("read") => read_alone(),
        Ok("bare") => bare::run(&kafka()),
        Ok("stage") => stage(),
        Ok("serve") => serve(),
        _ => orchestrate(),
    }
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn records() -> usize {
    number("TRUNKLINE_BENCH_RECORDS", 1_000_000)
}

fn workers() -> usize {
    number("TRUNKLINE_BENCH_WORKERS", 2)
}

fn kafka() -> KafkaSettings {
    KafkaSettings {
        brokers: std::env::var("TRUNKLINE_TEST_KAFKA")
            .expect("TRUNKLINE_TEST_KAFKA is not set: run `make bench`, which starts a broker"),
        topic_prefix: std::env::var("TRUNKLINE_BENCH_PREFIX").unwrap_or_default(),
        instance: "bench".to_owned(),
        properties: std::env::var("TRUNKLINE_BENCH_PROPERTIES")
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|property| property.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect(),
    }
}

fn orchestrate() {
    let seconds = number("TRUNKLINE_BENCH_SECONDS", 20);
    // A broker that was just started compiles itself for its first half minute.
    for (name, part) in [("warm", Part::Warm), ("full", Part::Full), ("paced", Part::Paced(seconds))] {
        let prefix = format!("b-{name}-{}-", uuid::Uuid::now_v7().simple());
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("TRUNKLINE_BENCH_PREFIX", &prefix) };
        let kafka = kafka();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let wanted = TopicSettings { partitions: PARTITIONS, replication: 1 };
        runtime.block_on(admin::apply(&kafka, &wanted, topics::ALL)).expect("topics");
        drop(runtime);
        match part {
            Part::Warm => warm(&kafka),
            Part::Full => full(&kafka),
            Part::Paced(seconds) => paced(&kafka, seconds),
        }
    }
}

enum Part {
    Warm,
    Full,
    Paced(usize),
}

fn child(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.arg("--bench").env("TRUNKLINE_BENCH_PART", part);
    command
}

/// All parts once, unreported.
fn warm(kafka: &KafkaSettings) {
    for _ in 0..2 {
        fill(kafka, records());
    }
    for part in ["read", "stage"] {
        let status = child(part).stdout(std::process::Stdio::null()).status().expect("the part runs");
        assert!(status.success(), "{part}: {status}");
    }
}

fn full(kafka: &KafkaSettings) {
    let filled = Instant::now();
    fill(kafka, records());
    println!(
        "{} windows of {} campaigns written in {:.1} s",
        records(),
        CAMPAIGNS,
        filled.elapsed().as_secs_f64()
    );
    println!("{:<28}{:>12}{:>16}{:>12}", "", "records/s", "CPU µs/record", "peak MB");
    for part in ["read", "bare", "stage"] {
        let status = child(part).status().expect("the part runs");
        assert!(status.success(), "{part}: {status}");
    }
}

fn producer(kafka: &KafkaSettings) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("linger.ms", "2")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("delivery.report.only.error", "true")
        .create()
        .expect("a producer")
}

fn campaign(index: usize) -> String {
    format!("5f0b1c1e-6c1f-4a0e-9d6e-{:012}", index % CAMPAIGNS)
}

fn send(producer: &BaseProducer, topic: &str, index: usize, observed_at: Timestamp) {
    let key = campaign(index);
    let value = window::text(&key, observed_at);
    let partition = partition_of(key.as_bytes(), PARTITIONS);
    let mut record = BaseRecord::to(topic).key(&key).payload(&value).partition(partition);
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                record = again;
                producer.poll(Duration::from_millis(1));
            }
            Err((error, _)) => panic!("{error}"),
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(i64::try_from(since.as_millis()).expect("before the year 292 million"))
}

/// Every campaign's windows in the order of their time.
fn fill(kafka: &KafkaSettings, count: usize) {
    let producer = producer(kafka);
    let topic = kafka.topic(&topics::CAMPAIGN_WINDOWS);
    let start = now().as_millis() - 1_000;
    for index in 0..count {
        send(&producer, &topic, index, Timestamp::from_millis(start + (index / CAMPAIGNS) as i64));
    }
    producer.flush(Duration::from_secs(120)).expect("everything is written");
}

fn reader(kafka: &KafkaSettings, topic: &Topic, from: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}reader", kafka.topic_prefix))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "5")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(&kafka.topic(topic), partition, from).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    consumer
}

/// The floor: librdkafka hands over every record, nothing is done with it.
fn read_alone() {
    let kafka = kafka();
    let consumer = reader(&kafka, &topics::CAMPAIGN_WINDOWS, Offset::Beginning);
    let (mut seen, mut bytes) = (0, 0);
    let mut begun = None;
    while seen < records() {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else { panic!("nothing for 30 s") };
        let message = message.expect("a record");
        bytes += message.payload_len();
        seen += 1;
        begun.get_or_insert_with(Usage::now);
    }
    begun.expect("something was read").report("reading alone (librdkafka)", seen);
    println!("{:<28}{:>12} bytes/record", "", bytes / seen);
}

fn run(kafka: &KafkaSettings, shutdown: &CancellationToken) -> trunkline::runtime::StageHandle {
    let stage = Dialing::new(Mode::Live, Duration::from_secs(30), Proportional::default());
    let settings = StageSettings { workers: workers(), ..StageSettings::default() };
    run_stage(stage, kafka, &settings, Health::default().part("dialing"), shutdown.clone())
}

/// Sum of the stage's committed offsets: one per record, the input has no markers.
fn committed(kafka: &KafkaSettings, asker: &BaseConsumer) -> i64 {
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition(&kafka.topic(&topics::CAMPAIGN_WINDOWS), partition);
    }
    let committed = asker.committed_offsets(partitions, Duration::from_secs(10));
    committed.map_or(0, |committed| {
        committed
            .elements()
            .iter()
            .map(|partition| match partition.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            })
            .sum()
    })
}

fn stage() {
    let kafka = kafka();
    let asker: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", kafka.group("dialing"))
        .create()
        .expect("an asker");
    let shutdown = CancellationToken::new();
    let running = run(&kafka, &shutdown);
    let target = i64::try_from(records()).expect("a count");
    // From the first committed batch on: joining the group is not the stage's speed.
    let (mut begun, mut before) = (None, 0);
    loop {
        let done = committed(&kafka, &asker);
        if done > 0 && begun.is_none() {
            (begun, before) = (Some(Usage::now()), done);
        }
        if done >= target {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let counted = usize::try_from(target - before).expect("a count");
    begun.expect("something was committed").report("dialing stage, exactly once", counted);
    shutdown.cancel();
    running.join();
}

/// The stage until this process is killed.
fn serve() {
    run(&kafka(), &CancellationToken::new()).join();
}

fn paced(kafka: &KafkaSettings, seconds: usize) {
    let mut running = child("serve").spawn().expect("starts");
    let reader = reader(kafka, &topics::DIAL_DECISIONS, Offset::Beginning);
    let producer = producer(kafka);
    let topic = kafka.topic(&topics::CAMPAIGN_WINDOWS);
    // The stage is ready once it answers one record.
    send(&producer, &topic, 0, now());
    producer.flush(Duration::from_secs(10)).expect("written");
    reader.poll(Duration::from_secs(60)).expect("the stage answers").expect("a decision");

    let count = seconds * PACE_PER_SECOND;
    let mut sent: HashMap<(String, String), Instant> = HashMap::with_capacity(count);
    let mut latencies = Vec::with_capacity(count);
    let begun = Instant::now();
    let mut next = 0;
    while latencies.len() < count {
        let due = (begun.elapsed().as_millis() as usize * PACE_PER_SECOND / 1_000).min(count);
        while next < due {
            next += 1;
            let observed_at = now();
            sent.insert((campaign(next), observed_at.to_string()), Instant::now());
            send(&producer, &topic, next, observed_at);
        }
        producer.poll(Duration::ZERO);
        // Sleeps instead of polling with a short timeout, which spins and would take a core
        // from the stage and the broker.
        std::thread::sleep(Duration::from_micros(500));
        while let Some(message) = reader.poll(Duration::ZERO) {
            let message = message.expect("a decision");
            let decision: serde_json::Value =
                serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
            let text = |name: &str| decision[name].as_str().expect("text").to_owned();
            if let Some(at) = sent.remove(&(text("key"), text("eventTime"))) {
                latencies.push(at.elapsed());
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(seconds as u64 + 60), "decisions are missing");
    }
    running.kill().expect("killed");
    running.wait().expect("reaped");
    latencies.sort();
    let at = |share| percentile(&latencies, share).as_secs_f64() * 1e3;
    println!(
        "window → committed decision at {PACE_PER_SECOND}/s for {seconds} s: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
