//! Flow minutes on a real broker, from events to complete minutes: rate, CPU and memory of
//! both stages together for a full topic, beside the limit of reading it alone and a bare loop that counts the same.
//!
//! `TRUNKLINE_BENCH_RECORDS` (1 000 000), `TRUNKLINE_BENCH_WORKERS` (2, of each stage) and
//! `TRUNKLINE_BENCH_PROPERTIES` change it as they do the dial bench.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

mod bare;
mod event;
#[path = "../harness/mod.rs"]
mod harness;

use std::time::Duration;

use rdkafka::producer::Producer;
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::runtime::{StageSettings, run_stage};
use trunkline::stages::flow_counting::FlowCounting;
use trunkline::stages::flow_summing::FlowSumming;
use trunkline::topics;

use harness::{
    is_bench, kafka, measure_stage, new_topics, now, part, producer, read_alone, records, run_parts, send,
    table_of, workers,
};

const CONVERSATIONS: usize = 50_000;
const FLOWS: usize = 100;
/// Every so many events one comes again.
const DUPLICATE_EVERY: usize = 33;
/// Pace of the events' own times.
const EVENTS_PER_SECOND: usize = 1_000;

fn main() {
    if !is_bench() {
        return;
    }
    match part().as_deref() {
        Some("read") => read_alone(&topics::CONVERSATION_EVENTS),
        Some("bare") => harness::bare::run::<bare::Minutes>(&kafka()),
        Some("stage") => stage(),
        _ => orchestrate(),
    }
}

fn orchestrate() {
    // A broker that was just started compiles itself for its first half minute.
    fill(&new_topics("warm"));
    run_parts(&["read", "bare", "stage"]);
    fill(&new_topics("full"));
    let twice = 100.0 / DUPLICATE_EVERY as f64;
    let what = format!("{} events of {FLOWS} flows, {twice:.0} % of them twice:", records());
    harness::tell("flow-minutes-alone", &table_of(what, &["read", "bare", "stage"]));
}

/// Events in the order of their time, up to now.
fn fill(kafka: &KafkaSettings) {
    let producer = producer(kafka);
    let topic = kafka.topic(&topics::CONVERSATION_EVENTS);
    let start = now().as_millis() - (records() / EVENTS_PER_SECOND * 1_000) as i64;
    for index in 0..records() {
        let number = if index % DUPLICATE_EVERY == DUPLICATE_EVERY - 1 { index - 1 } else { index };
        let at = Timestamp::from_millis(start + (number * 1_000 / EVENTS_PER_SECOND) as i64);
        let conversation = event::conversation(number % CONVERSATIONS);
        send(&producer, &topic, &conversation, &event::text(number, &conversation, number % FLOWS, at));
    }
    producer.flush(Duration::from_secs(120)).expect("everything is written");
}

/// Both stages, as they run in one instance.
fn stage() {
    let kafka = kafka();
    let shutdown = CancellationToken::new();
    let (minute, lateness) = (Duration::from_secs(60), Duration::from_secs(120));
    let settings = StageSettings { workers: workers(), ..StageSettings::default() };
    let part = |name: &str| Health::default().part(name);
    let counting = FlowCounting::new(minute, lateness);
    let running = [
        run_stage(counting, &kafka, &settings, part("flow-counting"), shutdown.clone()),
        run_stage(FlowSumming::new(minute), &kafka, &settings, part("flow-summing"), shutdown.clone()),
    ];
    measure_stage(&kafka, "flow-counting", &topics::CONVERSATION_EVENTS, "flow minutes, exactly once");
    shutdown.cancel();
    for stage in running {
        stage.join();
    }
}
