//! Events over HTTP with acks=all, in requests of 100 and of 1, beside what the same
//! broker takes from librdkafka alone, with the very same records, and what rsyslog brings to it. The edge, the
//! peers and the load are processes of their own.
//!
//! `TRUNKLINE_BENCH_EVENTS` (500 000 in requests of 100, a tenth of it in requests of 1)
//! changes its size, `TRUNKLINE_BENCH_CONNECTIONS` (16) how many senders of 100 there are;
//! those of 1 are four times as many.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

#[path = "../harness/mod.rs"]
mod harness;

mod load;
mod rsyslog;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::Offset;
use tokio_util::sync::CancellationToken;
use trunkline::console::{Console, EventIntake, Metrics, Settings};
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::postgres::{self, Database};
use trunkline::sources::events::{self, Edge};
use trunkline::topics::{self, headers};

use harness::measure::{HEAD, percentile};
use harness::{PARTITIONS, Usage, kafka, number};
use load::{Load, Sent};

fn main() {
    if !harness::is_bench() {
        return;
    }
    match harness::part().as_deref() {
        Some("produce") => produce(),
        Some("serve") => serve(),
        _ => orchestrate(),
    }
}

fn orchestrate() {
    let kafka = harness::new_topics("ingest");
    let events = number("TRUNKLINE_BENCH_EVENTS", 500_000);
    let connections = number("TRUNKLINE_BENCH_CONNECTIONS", 16);
    let hundreds = Load { connections, batch: 100, events };
    let singles = Load { connections: 4 * connections, batch: 1, events: events / 10 };
    // A broker that was just started compiles itself for its first half minute.
    for _ in 0..2 {
        edge("warm", hundreds);
    }
    let (key, value) = one_record(&kafka);
    peer(events, &key, &value);
    let mut lines =
        vec![format!("Records of {} bytes, {PARTITIONS} partitions, acks=all:", value.len()), String::new()];
    lines.extend(HEAD.map(str::to_owned));
    let (told, limit) = peer(events, &key, &value);
    lines.push(told);
    let mut words = Vec::new();
    for (name, load) in [("edge, requests of 100", hundreds), ("edge, requests of 1", singles)] {
        let (told, sent) = edge(name, load);
        lines.push(told);
        let rate = sent.events as f64 / sent.took.as_secs_f64();
        let at = |share| percentile(&sent.latencies, share).as_secs_f64() * 1e3;
        words.push(format!(
            "- {name}: {:.2} of the limit; {} connections, a request p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            rate / limit,
            load.connections,
            at(0.5),
            at(0.99),
            at(1.0)
        ));
    }
    match rsyslog::measured(&kafka, hundreds, &value, &key[key.len() - load::DIGITS..]) {
        Ok(row) => lines.push(row),
        Err(why) => words.push(format!("- {why}")),
    }
    lines.push(String::new());
    lines.extend(words);
    harness::tell("ingest", &lines);
}

fn child(part: &str) -> Command {
    let mut command = harness::child(part);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn line(output: &mut impl BufRead) -> String {
    let mut line = String::new();
    output.read_line(&mut line).expect("text");
    line.trim_end().to_owned()
}

fn ended(mut child: Child, name: &str) {
    let status = child.wait().expect("reaped");
    assert!(status.success(), "{name}: {status}");
}

/// Starts the edge and sends the load; answers a row of what the edge used for it.
fn edge(name: &str, load: Load) -> (String, Sent) {
    let mut child = child("serve").spawn().expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut input = child.stdin.take().expect("piped");
    let address = line(&mut output);
    let sent = load::send(&address, load);
    writeln!(input, "{name}\t{}", sent.events).expect("the edge listens");
    let told = line(&mut output);
    ended(child, name);
    (told, sent)
}

/// The edge until it is told how many events it has had.
fn serve() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let edge = Arc::new(Edge::new(events::Settings::default(), &kafka(), &health).expect("a producer"));
        tokio::spawn(edge.clone().run(shutdown.clone()));
        while !health.reasons().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let url = "postgres://nobody@127.0.0.1:9/nowhere".to_owned().into();
        let database = postgres::Settings { url, ..postgres::Settings::default() };
        let database = Database::connect(&database).expect("a good URL");
        let metrics = Metrics::install().expect("the first");
        let settings = Settings { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..Settings::default() };
        let console = Console::bind(settings, database, health, metrics, Some(edge as Arc<dyn EventIntake>));
        let console = console.expect("listens");
        println!("{}", console.address());
        tokio::spawn(console.serve(shutdown));
        let begun = Usage::now();
        let told = tokio::task::spawn_blocking(|| line(&mut std::io::stdin().lock())).await.expect("read");
        let (name, events) = told.split_once('\t').expect("a name and a count");
        begun.report(name, events.parse().expect("a count"));
    });
}

/// What librdkafka alone used, as a line, and the records per second it brought to the broker.
fn peer(records: usize, key: &str, value: &str) -> (String, f64) {
    let mut child = child("produce")
        .env("TRUNKLINE_BENCH_RECORDS", records.to_string())
        .env("TRUNKLINE_BENCH_KEY", key)
        .env("TRUNKLINE_BENCH_VALUE", value)
        .spawn()
        .expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let told = line(&mut output);
    ended(child, "produce");
    let rate = told.split('|').nth(2).and_then(|rate| rate.trim().parse().ok()).expect("a rate");
    (told, rate)
}

/// The floor: the same records from one thread, as fast as librdkafka takes them.
fn produce() {
    let kafka = kafka();
    let variable = |name: &str| std::env::var(name).expect("told by the parent");
    let (key, value) = (variable("TRUNKLINE_BENCH_KEY"), variable("TRUNKLINE_BENCH_VALUE"));
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "5")
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer");
    let topic = kafka.topic(&topics::CONVERSATION_EVENTS);
    let header = |key, value| Header { key, value: Some(value) };
    let headers = OwnedHeaders::new()
        .insert(header(headers::CONTENT_TYPE, headers::CONTENT_TYPE_JSON))
        .insert(header(headers::TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
        .insert(header(headers::SCHEMA, topics::CONVERSATION_EVENTS.schema_id()));
    // What differs from event to event in the edge's records differs here too.
    let digits = load::DIGITS;
    let (mut key, mut value) = (key, value);
    let places: Vec<usize> = value.match_indices(&key[key.len() - digits..]).map(|(at, _)| at).collect();
    let records = number("TRUNKLINE_BENCH_RECORDS", 0);
    let begun = Usage::now();
    for index in 0..records {
        let id = format!("{index:0digits$}");
        key.replace_range(key.len() - digits.., &id);
        places.iter().for_each(|at| value.replace_range(*at..*at + digits, &id));
        let mut record = BaseRecord::to(&topic).key(&key).payload(&value).headers(headers.clone());
        while let Err((error, again)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            record = again;
            producer.poll(Duration::from_millis(1));
        }
    }
    producer.flush(Duration::from_secs(120)).expect("everything is written");
    begun.report("librdkafka alone", records);
}

/// Key and value of a record that the edge has written.
fn one_record(kafka: &KafkaSettings) -> (String, String) {
    let reader = harness::reader(kafka, &topics::CONVERSATION_EVENTS, Offset::Beginning);
    let record = reader.poll(Duration::from_secs(30)).expect("a record").expect("a record");
    let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("there").to_vec()).expect("text");
    (text(record.key()), text(record.payload()))
}
