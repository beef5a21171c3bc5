//! What is sent over TCP, a line each, brought to the topic by rsyslog (`rsyslog` and `rsyslog-kafka` of
//! Debian): an ingest program of the same trade. The easier job: lines are neither looked at nor
//! keyed, and the sender is never told whether they have arrived.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics;

use crate::harness::{self, PARTITIONS, Usage};
use crate::load::{DIGITS, Load};

const ADDRESS: &str = "127.0.0.1:28919";
const PATIENCE: Duration = Duration::from_secs(120);

/// A row of what it used for such a load of lines like `value`, in which `id` differs; why there is none.
pub(crate) fn measured(kafka: &KafkaSettings, load: Load, value: &str, id: &str) -> Result<String, String> {
    let topic = kafka.topic(&topics::CONVERSATION_EVENTS);
    let rsyslog = start(&kafka.brokers, &topic)?;
    let process = rsyslog.0.id().to_string();
    let asker = harness::reader(kafka, &topics::CONVERSATION_EVENTS, rdkafka::Offset::End);
    // Two loads: the first one brings its threads and connections up.
    let mut row = String::new();
    for _ in 0..2 {
        let (before, begun) = (end(&asker, &topic), Usage::of(&process));
        send(load, value, id);
        let waited = Instant::now();
        loop {
            let (brought, sent) = (end(&asker, &topic) - before, load.events);
            if brought >= sent as i64 {
                break;
            }
            if waited.elapsed() > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(format!(
                    "rsyslog brought {brought} of {sent} lines in {seconds} s: not measured"
                ));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        row = begun.row(&process, "rsyslog, lines over TCP, neither checked nor keyed", load.events);
    }
    Ok(row)
}

/// Ends with whoever holds it.
struct Rsyslog(Child);

impl Drop for Rsyslog {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Once it listens.
fn start(brokers: &str, topic: &str) -> Result<Rsyslog, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rsyslog-peer");
    std::fs::create_dir_all(&folder).expect("a folder");
    let (configuration, pid) = (folder.join("rsyslog.conf"), folder.join("pid"));
    std::fs::write(&configuration, configured(brokers, topic, &folder)).expect("written");
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(&configuration).arg("-i").arg(&pid);
    let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let started = started
        .map_err(|error| format!("rsyslog was not measured: {error}; apt-get install rsyslog rsyslog-kafka"));
    let mut rsyslog = Rsyslog(started?);
    let begun = Instant::now();
    while TcpStream::connect(ADDRESS).is_err() {
        let has_ended = rsyslog.0.try_wait().expect("asked").is_some();
        if has_ended || begun.elapsed() > Duration::from_secs(10) {
            return Err(
                "rsyslog was not measured: it does not listen; apt-get install rsyslog-kafka".to_owned()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(rsyslog)
}

fn configured(brokers: &str, topic: &str, folder: &Path) -> String {
    let (host, port) = ADDRESS.split_once(':').expect("an address");
    format!(
        r#"global(workDirectory="{folder}" maxMessageSize="64k")
module(load="imptcp" threads="2")
module(load="omkafka")
template(name="line" type="string" string="%rawmsg%")
main_queue(queue.size="200000" queue.dequeueBatchSize="1000" queue.workerThreads="2")
input(type="imptcp" address="{host}" port="{port}" socketBacklog="64")
action(type="omkafka" broker=["{brokers}"] topic="{topic}" template="line" partitions.auto="on"
    confParam=["acks=all", "enable.idempotence=true", "compression.codec=lz4", "linger.ms=5",
               "batch.size=1000000", "queue.buffering.max.messages=100000"])
"#,
        folder = folder.display()
    )
}

/// Lines over as many connections as the edge's load has.
fn send(load: Load, value: &str, id: &str) {
    let line = format!("{value}\n");
    let places: Vec<usize> = line.match_indices(id).map(|(at, _)| at).collect();
    let each = load.events / load.connections;
    std::thread::scope(|threads| {
        for connection in 0..load.connections {
            let (mut line, places) = (line.clone(), &places);
            let last = connection + 1 == load.connections;
            let count = if last { load.events - each * connection } else { each };
            threads.spawn(move || {
                let stream = TcpStream::connect(ADDRESS).expect("rsyslog listens");
                let mut stream = std::io::BufWriter::with_capacity(64 * 1_024, stream);
                for number in 0..count {
                    let id = format!("{:0DIGITS$}", connection * each + number);
                    places.iter().for_each(|at| line.replace_range(*at..*at + DIGITS, &id));
                    stream.write_all(line.as_bytes()).expect("rsyslog reads");
                }
                stream.flush().expect("rsyslog reads");
            });
        }
    });
}

/// Records on the topic so far.
fn end(asker: &BaseConsumer, topic: &str) -> i64 {
    let end = |partition| asker.fetch_watermarks(topic, partition, PATIENCE).expect("an answer").1;
    (0..PARTITIONS).map(end).sum()
}
