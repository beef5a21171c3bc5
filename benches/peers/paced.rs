//! From a statistic to its committed decision at a steady pace; and what a program uses while
//! nothing happens.

use std::cell::Cell;
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::Offset;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics;

use crate::harness::measure::{percentile, threads};
use crate::harness::{PACE_PER_SECOND, answered, now, producer, reader_of, send};
use crate::jobs::{campaign, statistics};
use crate::program::Program;
use crate::{http, log_of};

const SETTLING: Duration = Duration::from_secs(5);
const WARMING_SECONDS: usize = 30;
const IDLE: Duration = Duration::from_secs(20);

/// Runs `command` and gives it statistics; decisions are read from the topic `results`.
pub(crate) fn latency(
    name: &str,
    command: Command,
    kafka: &KafkaSettings,
    results: &str,
    seconds: usize,
) -> String {
    let program = Program::start(command, &log_of(name));
    let reader = reader_of(kafka, results, Offset::Beginning);
    let producer = producer(kafka);
    let topic = kafka.topic(&topics::CAMPAIGN_STATS);
    send(&producer, &topic, &campaign(0), &statistics(&campaign(0), 0, now()));
    producer.flush(Duration::from_secs(10)).expect("written");
    reader.poll(Duration::from_secs(60)).expect("it answers").expect("a decision");
    std::thread::sleep(SETTLING);

    let sent = Cell::new(0);
    let paced = |seconds| {
        answered(&producer, &reader, seconds, |_| {
            sent.set(sent.get() + 1);
            let (observed_at, key) = (now(), campaign(sent.get()));
            send(&producer, &topic, &key, &statistics(&key, 1 + sent.get() / 10_000, observed_at));
            (key, observed_at)
        })
    };
    // A broker that was just started, and a program on the JVM, are slow at first.
    paced(WARMING_SECONDS);
    let before = program.used();
    let latencies = paced(seconds);
    let cpu = program.used().cpu_seconds - before.cpu_seconds;
    program.end();
    let at = |share| percentile(&latencies, share).as_secs_f64() * 1e3;
    let told = format!(
        "{name}: {PACE_PER_SECOND} statistics a second for {seconds} s: p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, max {:.0} ms; CPU {:.0} µs each",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        cpu * 1e6 / latencies.len() as f64
    );
    println!("{told}");
    told
}

/// What a program uses that has nothing to do. `address` is its HTTP address.
pub(crate) fn idle(name: &str, command: Command, address: &str) -> String {
    let program = Program::start(command, &log_of(name));
    let ready = loop {
        if http::get(address, "/readyz") == Some(200) {
            break program.started().elapsed();
        }
        assert!(program.started().elapsed() < Duration::from_secs(60), "{name} is not ready after a minute");
        std::thread::sleep(Duration::from_millis(10));
    };
    std::thread::sleep(SETTLING);
    let (before, at) = (program.used(), Instant::now());
    std::thread::sleep(IDLE);
    let share = (program.used().cpu_seconds - before.cpu_seconds) / at.elapsed().as_secs_f64();
    let told = format!(
        "{name}, all roles: ready after {:.2} s, {:.0} MB at most, {} threads, {:.1} % of a core while idle",
        ready.as_secs_f64(),
        program.used().peak_megabytes,
        threads(&program.id()),
        share * 100.0
    );
    program.end();
    println!("{told}");
    told
}
