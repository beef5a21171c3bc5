//! One poll of ten thousand partitions on a real broker, and what is kept of each.
//!
//! `TRUNKLINE_BENCH_LAG_PARTITIONS` (10 000) are spread over topics of a thousand; a group
//! reads each topic and is behind in every second partition. Polled are groups nobody
//! has seen before, groups that stand still, and groups whose commits move in every
//! partition that lags, so that each costs a fetch.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

mod allocated;
#[path = "../harness/mod.rs"]
mod harness;

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::model::decision::{Mode, Position};
use trunkline::model::lag::LagSample;
use trunkline::pipeline::{Outputs, Record, Stage};
use trunkline::sources::lag_poller::{Choice, Cluster};
use trunkline::stages::lag::rules::Thresholds;
use trunkline::stages::lag::{Intervals, Lag, State};

use harness::{is_bench, kafka, now, number};

const PER_TOPIC: usize = 1_000;
const RECORDS: i64 = 8;
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    if !is_bench() {
        return;
    }
    let kafka = kafka();
    let prefix = format!("b-lag-{}-", uuid::Uuid::now_v7().simple());
    let partitions = number("TRUNKLINE_BENCH_LAG_PARTITIONS", 10_000).next_multiple_of(PER_TOPIC);
    let topics: Vec<String> = (0..partitions / PER_TOPIC).map(|topic| format!("{prefix}{topic}")).collect();
    let filled = Instant::now();
    create(&kafka, &topics);
    fill(&kafka, &topics);
    commit(&kafka, &topics, 0);
    eprintln!("{partitions} partitions made in {:.0} s", filled.elapsed().as_secs_f64());

    let choice = Choice { include: vec![format!("{prefix}*")], ..Choice::default() };
    let before = resident_bytes();
    let mut cluster =
        Cluster::new(None, choice, &kafka.client("lag-bench"), &kafka.group("lag-bench")).expect("a client");
    let (samples, first) = poll(&mut cluster, "a first poll", partitions);
    let mut lines =
        vec![format!("Polls of {partitions} partitions, half of them behind:"), String::new(), first];
    lines.extend((0..3).map(|_| poll(&mut cluster, "nothing has moved", partitions).1));
    for moved in 1..=3 {
        commit(&kafka, &topics, moved);
        lines.push(poll(&mut cluster, "every second has moved", partitions).1);
    }
    let each = (resident_bytes() - before) / partitions as f64;
    lines.push(format!("- the poller keeps {each:.0} bytes for a partition, clients and samples included"));
    lines.push(evaluate(&samples, partitions));
    remove(&kafka, &topics);
    harness::tell("lag", &lines);
}

/// What came of it, and a line about it.
fn poll(cluster: &mut Cluster, what: &str, partitions: usize) -> (Vec<LagSample>, String) {
    let began = Instant::now();
    let (samples, answered) = cluster.poll(now(), |_| true, PATIENCE);
    answered.expect("the brokers answer");
    let took = began.elapsed();
    let behind = samples.iter().filter(|sample| is_behind(sample)).count();
    assert_eq!((samples.len(), behind), (partitions, partitions / 2), "{what}");
    (samples, format!("- {what}: {:.0} ms", took.as_secs_f64() * 1_000.0))
}

fn is_behind(sample: &LagSample) -> bool {
    let value = serde_json::to_value(&sample.observation).expect("JSON");
    value.pointer("/partition/head").is_some()
}

/// An hour of such polls through the stage, as if each group were its key; a line about it.
fn evaluate(samples: &[LagSample], partitions: usize) -> String {
    let intervals = Intervals { broker: Duration::from_secs(10), analytics: Duration::from_secs(60) };
    let stage = Lag::new(Mode::Shadow, Thresholds::default(), intervals);
    let mut states: std::collections::HashMap<String, State> = Default::default();
    let mut outputs = Outputs::default();
    let before = allocated::bytes();
    let began = Instant::now();
    const POLLS: i64 = 60;
    for number in 0..POLLS {
        for sample in samples {
            let at = Timestamp::from_millis(sample.observed_at.as_millis() + number * 10_000);
            let sample = LagSample { observed_at: at, ..sample.clone() };
            let key = sample.consumer_group.clone();
            let position = Position { topic: "t", partition: 0, offset: number };
            let record = Record { at, key: &key, value: "", position };
            let state = states.entry(key.clone()).or_default();
            stage.step(&record, state, sample, &mut outputs);
            outputs.clear();
        }
    }
    let steps = POLLS as usize * partitions;
    let took = began.elapsed().as_secs_f64() * 1e6 / steps as f64;
    let memory = (allocated::bytes() - before) / partitions as f64;
    let written: usize = states.values().map(|state| serde_json::to_vec(state).expect("JSON").len()).sum();
    format!(
        "- the stage takes {took:.1} µs for a sample and keeps {memory:.0} bytes for a partition, {:.0} on its changelog",
        written as f64 / partitions as f64
    )
}

fn client(kafka: &KafkaSettings) -> ClientConfig {
    kafka.client("lag-bench-load")
}

fn create(kafka: &KafkaSettings, topics: &[String]) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for topic in topics {
        let new = NewTopic::new(topic, PER_TOPIC as i32, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(60)));
        let made = runtime.block_on(admin.create_topics(&[new], &options)).expect("an answer");
        made.into_iter().for_each(|made| drop(made.expect("is created")));
    }
}

fn remove(kafka: &KafkaSettings, topics: &[String]) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _ = runtime.block_on(admin.delete_topics(&names, &AdminOptions::new()));
}

fn fill(kafka: &KafkaSettings, topics: &[String]) {
    let producer: BaseProducer = client(kafka).set("linger.ms", "50").create().expect("a producer");
    for topic in topics {
        for partition in 0..PER_TOPIC as i32 {
            for _ in 0..RECORDS {
                let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(&[b'x'; 300]);
                producer.send(record).map_err(|(error, _)| error).expect("is queued");
            }
        }
        producer.flush(Duration::from_secs(120)).expect("is written");
    }
}

/// The group of each topic: at its end in even partitions, `moved` records from the
/// beginning in odd ones.
fn commit(kafka: &KafkaSettings, topics: &[String], moved: i64) {
    for topic in topics {
        let consumer: BaseConsumer = client(kafka)
            .set("group.id", topic)
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::with_capacity(PER_TOPIC);
        for partition in 0..PER_TOPIC as i32 {
            let offset = if partition % 2 == 0 { RECORDS } else { moved };
            list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        }
        consumer.commit(&list, CommitMode::Sync).expect("is committed");
    }
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).expect("kB") * 1_024.0
}
