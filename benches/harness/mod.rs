//! What the benches of stages share: topics of their own, records written and read, and
//! each measured part as a process of its own, so that CPU and memory are its alone.
#![expect(unsafe_code, reason = "the parts of a bench find their topics by an environment variable")]
#![allow(dead_code)] // each bench uses its own part

pub(crate) mod bare;
pub(crate) mod measure;
pub(crate) mod report;

use std::collections::HashMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use trunkline::kafka::admin::{self, TopicSettings};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::topics::{self, Topic, partition_of};

pub(crate) use measure::Usage;

pub(crate) const PARTITIONS: i32 = 4;

/// The part of the bench that this process is, `None` for the whole.
pub(crate) fn part() -> Option<String> {
    std::env::var("TRUNKLINE_BENCH_PART").ok()
}

/// Whether this is a run of benches: cargo runs harness-less ones with `--bench`, and under
/// `cargo test` without.
pub(crate) fn is_bench() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

pub(crate) fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

pub(crate) fn records() -> usize {
    number("TRUNKLINE_BENCH_RECORDS", 1_000_000)
}

pub(crate) fn workers() -> usize {
    number("TRUNKLINE_BENCH_WORKERS", 2)
}

pub(crate) fn kafka() -> KafkaSettings {
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

/// New topics under a prefix that this process and its children use from now on.
pub(crate) fn new_topics(name: &str) -> KafkaSettings {
    let prefix = format!("b-{name}-{}-", uuid::Uuid::now_v7().simple());
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var("TRUNKLINE_BENCH_PREFIX", &prefix) };
    let kafka = kafka();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let wanted = TopicSettings { partitions: PARTITIONS, replication: 1 };
    runtime.block_on(admin::apply(&kafka, &wanted, topics::ALL)).expect("topics");
    kafka
}

pub(crate) fn child(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command.arg("--bench").env("TRUNKLINE_BENCH_PART", part);
    command
}

/// Runs the parts one after the other, each in its own process; answers the lines they print.
pub(crate) fn run_parts(parts: &[&str]) -> Vec<String> {
    let mut lines = Vec::new();
    for part in parts {
        let ran = child(part).stderr(std::process::Stdio::inherit()).output().expect("the part runs");
        assert!(ran.status.success(), "{part}: {}", ran.status);
        lines.extend(String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned));
    }
    lines
}

/// A table of the parts, run one after the other, below a line that says what of.
pub(crate) fn table_of(what: String, parts: &[&str]) -> Vec<String> {
    let head = measure::HEAD.map(str::to_owned);
    [what, String::new()].into_iter().chain(head).chain(run_parts(parts)).collect()
}

/// Shows what was measured, and writes it as part `name` of the page.
pub(crate) fn tell(name: &str, lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
    report::write(name, lines);
}

pub(crate) fn producer(kafka: &KafkaSettings) -> BaseProducer {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("linger.ms", "2")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("delivery.report.only.error", "true")
        .create()
        .expect("a producer")
}

/// Writes a record to the partition of its key. Waits while the send buffer is full.
pub(crate) fn send(producer: &BaseProducer, topic: &str, key: &str, value: &str) {
    let partition = partition_of(key.as_bytes(), PARTITIONS);
    let mut record = BaseRecord::to(topic).key(key).payload(value).partition(partition);
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

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(i64::try_from(since.as_millis()).expect("before the year 292 million"))
}

pub(crate) fn reader(kafka: &KafkaSettings, topic: &Topic, from: Offset) -> BaseConsumer {
    reader_of(kafka, &kafka.topic(topic), from)
}

/// `topic` by its full name.
pub(crate) fn reader_of(kafka: &KafkaSettings, topic: &str, from: Offset) -> BaseConsumer {
    assigned(&reader_config(kafka), topic, from)
}

/// Reads what is committed, in no group that commits anything.
pub(crate) fn reader_config(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}reader", kafka.topic_prefix))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "5")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "5");
    config
}

/// A consumer of all partitions of `topic`.
pub(crate) fn assigned(config: &ClientConfig, topic: &str, from: Offset) -> BaseConsumer {
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, from).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigned");
    consumer
}

/// The floor: librdkafka hands over every record, nothing is done with it.
pub(crate) fn read_alone(topic: &Topic) {
    let kafka = kafka();
    let consumer = reader(&kafka, topic, Offset::Beginning);
    let (mut seen, mut bytes) = (0, 0);
    let mut begun = None;
    while seen < records() {
        let Some(message) = consumer.poll(Duration::from_secs(30)) else { panic!("nothing for 30 s") };
        let message = message.expect("a record");
        bytes += message.payload_len();
        seen += 1;
        begun.get_or_insert_with(Usage::now);
    }
    let what = format!("reading alone, {} bytes each (librdkafka)", bytes / seen);
    begun.expect("something was read").report(&what, seen);
}

/// Waits until a stage has committed all records of its input, and reports its speed from
/// the first committed batch on: joining the group is not the stage's speed.
pub(crate) fn measure_stage(kafka: &KafkaSettings, role: &str, input: &Topic, what: &str) {
    let asker: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", kafka.group(role))
        .create()
        .expect("an asker");
    let target = i64::try_from(records()).expect("a count");
    let (mut begun, mut before) = (None, 0);
    loop {
        let done = committed(kafka, &asker, input);
        if done > 0 && begun.is_none() {
            (begun, before) = (Some(Usage::now()), done);
        }
        if done >= target {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let counted = usize::try_from(target - before).expect("a count");
    begun.expect("something was committed").report(what, counted);
}

/// Sum of the stage's committed offsets: one per record, the input has no markers.
fn committed(kafka: &KafkaSettings, asker: &BaseConsumer, topic: &Topic) -> i64 {
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition(&kafka.topic(topic), partition);
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

/// Records a second at a steady pace.
pub(crate) const PACE_PER_SECOND: usize = 1_000;

/// Times from a record to the decision about it, in order, at a steady pace for so many seconds. `send`
/// writes the nth record and answers its key and its time.
pub(crate) fn answered<C: rdkafka::consumer::ConsumerContext>(
    producer: &BaseProducer,
    reader: &BaseConsumer<C>,
    seconds: usize,
    mut send: impl FnMut(usize) -> (String, Timestamp),
) -> Vec<Duration> {
    let count = seconds * PACE_PER_SECOND;
    let mut sent: HashMap<(String, String), Instant> = HashMap::with_capacity(count);
    let mut latencies = Vec::with_capacity(count);
    let begun = Instant::now();
    let mut next = 0;
    while latencies.len() < count {
        let due = (begun.elapsed().as_millis() as usize * PACE_PER_SECOND / 1_000).min(count);
        while next < due {
            next += 1;
            let at = Instant::now();
            let (key, observed_at) = send(next);
            sent.insert((key, observed_at.to_string()), at);
        }
        producer.poll(Duration::ZERO);
        // Sleeps instead of polling with a short timeout, which spins and would take a core from
        // what is measured and the broker.
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
    latencies.sort();
    latencies
}
