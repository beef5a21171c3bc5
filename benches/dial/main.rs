//! The dialing stage on a real broker: rate, CPU and memory for a full topic, beside
//! the limit of reading it alone and a bare loop that decides the same; and the time from a window to its committed decision
//! at a steady pace. Each measured part is a process of its own, so that CPU and memory
//! are its alone.
//!
//! `TRUNKLINE_BENCH_RECORDS` (1 000 000), `TRUNKLINE_BENCH_WORKERS` (2) and
//! `TRUNKLINE_BENCH_SECONDS` (20, at 1 000 records a second) change its size;
//! `TRUNKLINE_BENCH_PROPERTIES="linger.ms=1 compression.type=none"` tries librdkafka properties.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

mod bare;
#[path = "../harness/mod.rs"]
mod harness;
mod window;

use std::sync::Arc;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::model::decision::Mode;
use trunkline::runtime::{StageSettings, run_stage};
use trunkline::stages::dialing::Dialing;
use trunkline::stages::dialing::proportional::Proportional;
use trunkline::topics;

use harness::measure::percentile;
use harness::{
    PACE_PER_SECOND, answered, child, is_bench, kafka, measure_stage, new_topics, now, number, part,
    producer, read_alone, reader, records, run_parts, send, table_of, workers,
};

const CAMPAIGNS: usize = 10_000;
const SETTLING: Duration = Duration::from_secs(5);

fn main() {
    if !is_bench() {
        return;
    }
    match part().as_deref() {
        Some("read") => read_alone(&topics::CAMPAIGN_WINDOWS),
        Some("bare") => harness::bare::run::<bare::Maker>(&kafka()),
        Some("stage") => stage(),
        Some("serve") => serve(),
        _ => orchestrate(),
    }
}

fn orchestrate() {
    let seconds = number("TRUNKLINE_BENCH_SECONDS", 20);
    // A broker that was just started compiles itself for its first half minute.
    warm(&new_topics("warm"));
    let mut lines = full(&new_topics("full"));
    lines.extend([String::new(), paced(&new_topics("paced"), seconds)]);
    harness::tell("dialing-alone", &lines);
}

/// All parts once, unreported.
fn warm(kafka: &KafkaSettings) {
    for _ in 0..2 {
        fill(kafka, records());
    }
    run_parts(&["read", "stage"]);
}

fn full(kafka: &KafkaSettings) -> Vec<String> {
    fill(kafka, records());
    table_of(format!("{} windows of {CAMPAIGNS} campaigns:", records()), &["read", "bare", "stage"])
}

fn campaign(index: usize) -> String {
    format!("5f0b1c1e-6c1f-4a0e-9d6e-{:012}", index % CAMPAIGNS)
}

fn send_window(producer: &BaseProducer, topic: &str, index: usize, observed_at: Timestamp) {
    let key = campaign(index);
    send(producer, topic, &key, &window::text(&key, observed_at));
}

/// Every campaign's windows in the order of their time.
fn fill(kafka: &KafkaSettings, count: usize) {
    let producer = producer(kafka);
    let topic = kafka.topic(&topics::CAMPAIGN_WINDOWS);
    let start = now().as_millis() - 1_000;
    for index in 0..count {
        send_window(&producer, &topic, index, Timestamp::from_millis(start + (index / CAMPAIGNS) as i64));
    }
    producer.flush(Duration::from_secs(120)).expect("everything is written");
}

fn run(kafka: &KafkaSettings, shutdown: &CancellationToken) -> trunkline::runtime::StageHandle {
    let stage =
        Dialing::new(Mode::Live, Duration::from_secs(30), Proportional::default().into(), Arc::new(()));
    let settings = StageSettings { workers: workers(), ..StageSettings::default() };
    run_stage(stage, kafka, &settings, Health::default().part("dialing"), shutdown.clone())
}

fn stage() {
    let kafka = kafka();
    let shutdown = CancellationToken::new();
    let running = run(&kafka, &shutdown);
    measure_stage(&kafka, "dialing", &topics::CAMPAIGN_WINDOWS, "dialing stage, exactly once");
    shutdown.cancel();
    running.join();
}

/// The stage until this process is killed.
fn serve() {
    run(&kafka(), &CancellationToken::new()).join();
}

fn paced(kafka: &KafkaSettings, seconds: usize) -> String {
    let mut running = child("serve").spawn().expect("starts");
    let reader = reader(kafka, &topics::DIAL_DECISIONS, Offset::Beginning);
    let producer = producer(kafka);
    let topic = kafka.topic(&topics::CAMPAIGN_WINDOWS);
    // The stage is ready once it answers one record, and its workers have shared the
    // partitions between them once they had some seconds more.
    send_window(&producer, &topic, 0, now());
    producer.flush(Duration::from_secs(10)).expect("written");
    reader.poll(Duration::from_secs(60)).expect("the stage answers").expect("a decision");
    std::thread::sleep(SETTLING);

    let latencies = answered(&producer, &reader, seconds, |nth| {
        let observed_at = now();
        send_window(&producer, &topic, nth, observed_at);
        (campaign(nth), observed_at)
    });
    running.kill().expect("killed");
    running.wait().expect("reaped");
    let at = |share| percentile(&latencies, share).as_secs_f64() * 1e3;
    format!(
        "From a window to its committed decision at {PACE_PER_SECOND} a second for {seconds} s: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms.",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
