//! trunkline as its users run it beside other programs that do the same, on the same bytes and
//! the same broker, in turns: rate, CPU per record and peak memory, medians of rounds. Each is a
//! process of its own, looked at from outside.
//!
//! `TRUNKLINE_BENCH_RECORDS` (1 000 000), `TRUNKLINE_BENCH_ROUNDS` (3), `TRUNKLINE_BENCH_JOBS`
//! (`dial,flow-minutes,latency,idle,audit,history,scaling`), `TRUNKLINE_BENCH_PROGRAMS`
//! (`trunkline,streams,streams-classic`) and
//! `TRUNKLINE_BENCH_BINARY` (another build of trunkline) change what is done.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a measurement may

mod audit;
#[path = "../flow_minutes/event.rs"]
mod event;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod http;
mod jobs;
mod paced;
mod program;
mod scaling;
mod streams;

use std::path::{Path, PathBuf};
use std::process::Command;

use trunkline::kafka::settings::KafkaSettings;

use harness::measure::cpu_seconds;
use harness::{is_bench, new_topics, number, report};
use jobs::{Asker, Course, Job, committed_records, follow};
use program::{Program, Used};
use streams::Protocol;

fn main() {
    if !is_bench() {
        return;
    }
    let rounds = number("TRUNKLINE_BENCH_ROUNDS", 3);
    let jobs = list("TRUNKLINE_BENCH_JOBS", "dial,flow-minutes,latency,idle,audit,history,scaling");
    for job in [Job::Dial, Job::FlowMinutes].into_iter().filter(|job| jobs.contains(&job.name().to_owned())) {
        compare(job, rounds);
    }
    let is_asked = |name: &str| jobs.iter().any(|job| job == name);
    if is_asked("latency") {
        latency(number("TRUNKLINE_BENCH_SECONDS", 20));
    }
    if is_asked("idle") {
        idle();
    }
    if is_asked("audit") {
        audit::audit();
    }
    if is_asked("history") {
        history::history();
    }
    if is_asked("scaling") {
        scaling::scaling();
    }
}

/// All roles with a platform that has nothing to say.
fn idle() {
    const ADDRESS: &str = "127.0.0.1:28917";
    const PLATFORM: &str = "127.0.0.1:28918";
    let kafka = new_topics("idle");
    migrate(&kafka);
    let simulator = trunkline_command(&kafka, &["simulate", "--speed", "0", "--listen", PLATFORM]);
    let simulator = Program::start(simulator, &log_of("simulator"));
    let mut command = trunkline_command(&kafka, &["run"]);
    command.env("TRUNKLINE_HTTP__LISTEN", ADDRESS);
    command.env("TRUNKLINE_GENESYS__BASE_URL", format!("http://{PLATFORM}"));
    command.env("TRUNKLINE_GENESYS__CLIENT_ID", simulator::DEMO_CLIENT_ID);
    command.env("TRUNKLINE_GENESYS__CLIENT_SECRET", simulator::DEMO_CLIENT_SECRET);
    report::write("idle", &[paced::idle("trunkline", command, ADDRESS)]);
    simulator.end();
}

/// trunkline, and what it is beside.
#[derive(Clone, Copy)]
enum Peer {
    Trunkline,
    Streams(Protocol),
}

impl Peer {
    fn asked() -> Vec<Self> {
        let all = [Self::Trunkline, Self::Streams(Protocol::Streams), Self::Streams(Protocol::Classic)];
        let named = |name: String| all.into_iter().find(|peer| peer.name() == name);
        let names = list("TRUNKLINE_BENCH_PROGRAMS", "trunkline,streams,streams-classic");
        names
            .into_iter()
            .map(|name| named(name.clone()).unwrap_or_else(|| panic!("no program {name}")))
            .collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Trunkline => "trunkline",
            Self::Streams(protocol) => protocol.program(),
        }
    }

    /// The topic of its results.
    fn output(self, job: Job, kafka: &KafkaSettings) -> String {
        match self {
            Self::Trunkline => kafka.topic(job.output()),
            Self::Streams(protocol) => streams::results(protocol, kafka),
        }
    }

    fn command(self, job: Job, kafka: &KafkaSettings) -> Command {
        match self {
            Self::Trunkline => trunkline_command(kafka, &["run", "--stages", job.stages()]),
            Self::Streams(protocol) => streams::command(protocol, job, kafka),
        }
    }

    fn run(self, job: Job, kafka: &KafkaSettings) -> (Course, Used) {
        match self {
            Self::Trunkline => {
                let (course, used) = trunkline(job, kafka, records(), 1);
                (course, used[0])
            }
            Self::Streams(protocol) => streams::run(protocol, job, kafka, records()),
        }
    }
}

fn latency(seconds: usize) {
    let mut lines = Vec::new();
    for peer in Peer::asked() {
        let kafka = new_topics("latency");
        let (command, results) = (peer.command(Job::Dial, &kafka), peer.output(Job::Dial, &kafka));
        lines.push(format!("- {}", paced::latency(peer.name(), command, &kafka, &results, seconds)));
    }
    report::write("latency", &lines);
}

fn list(name: &str, default: &str) -> Vec<String> {
    std::env::var(name).unwrap_or_else(|_| default.to_owned()).split(',').map(str::to_owned).collect()
}

fn records() -> usize {
    number("TRUNKLINE_BENCH_RECORDS", 1_000_000)
}

/// One run of one program.
struct Run {
    program: &'static str,
    course: Course,
    used: Used,
    /// CPU of the broker, for the same records.
    broker_seconds: f64,
}

impl Run {
    fn numbers(&self) -> [f64; 5] {
        let each = |seconds: f64| seconds * 1e6 / records() as f64;
        [
            self.course.rate,
            each(self.used.cpu_seconds),
            each(self.broker_seconds),
            self.used.peak_megabytes,
            self.course.first_after.as_secs_f64(),
        ]
    }
}

/// CPU that the broker of `make bench` has used.
fn broker_seconds() -> f64 {
    let services = std::env::var("TRUNKLINE_TEST_SERVICES").expect("TRUNKLINE_TEST_SERVICES");
    let process = std::fs::read_to_string(Path::new(&services).join("kafka/pid")).expect("the broker's id");
    cpu_seconds(process.split_whitespace().next().expect("an id"))
}

const COLUMNS: [&str; 5] =
    ["records/s", "CPU µs/record", "broker CPU µs/record", "peak MB", "first result after s"];

fn compare(job: Job, rounds: usize) {
    let peers = Peer::asked();
    let mut runs = Vec::new();
    let mut bytes = 0;
    for round in 0..rounds {
        let kafka = new_topics(&format!("{}-{round}", job.name()));
        bytes = job.fill(&kafka, records());
        for peer in &peers {
            let program = peer.name();
            let before = broker_seconds();
            let (course, used) = peer.run(job, &kafka);
            let broker_seconds = broker_seconds() - before;
            let results = committed_records(&kafka, &peer.output(job, &kafka));
            let fewest = job.fewest_results(records());
            assert!(
                results >= fewest,
                "{program} committed {results} results, {fewest} at least were to come"
            );
            let run = Run { program, course, used, broker_seconds };
            println!("{} {program} {:.2?}, {results} results", job.name(), run.numbers());
            runs.push(run);
        }
    }
    let medians: Vec<_> = peers.iter().map(|peer| (peer.name(), medians(&runs, peer.name()))).collect();
    let mut lines = vec![
        format!("{} records of {bytes} bytes, medians of {rounds} rounds in turns:", records()),
        String::new(),
        format!("| {} | {} |", job.name(), COLUMNS.join(" | ")),
        "|---|---|---|---|---|---|".to_owned(),
    ];
    for (program, [rate, cpu, broker, memory, first]) in &medians {
        lines.push(format!("| {program} | {rate:.0} | {cpu:.1} | {broker:.1} | {memory:.0} | {first:.1} |"));
    }
    let ours = medians[0].1;
    for (program, theirs) in &medians[1..] {
        let [rate, cpu, broker, memory, _]: [f64; 5] = std::array::from_fn(|column| match column {
            0 => ours[0] / theirs[0],
            column => theirs[column] / ours[column],
        });
        lines.push(format!(
            "| {} beside {program} | {rate:.1} × | {cpu:.1} × | {broker:.1} × | {memory:.1} × | |",
            peers[0].name()
        ));
    }
    harness::tell(job.name(), &lines);
}

fn medians(runs: &[Run], program: &str) -> [f64; 5] {
    let of: Vec<_> = runs.iter().filter(|run| run.program == program).map(Run::numbers).collect();
    std::array::from_fn(|column| {
        let mut values: Vec<f64> = of.iter().map(|numbers| numbers[column]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    })
}

pub(crate) fn log_of(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("peers-{name}.log"))
}

/// trunkline as installed: no configuration but where its services are.
fn trunkline_command(kafka: &KafkaSettings, arguments: &[&str]) -> Command {
    let binary = std::env::var_os("TRUNKLINE_BENCH_BINARY");
    let mut command = Command::new(binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_trunkline").into()));
    command
        .args(arguments)
        .env("TRUNKLINE_KAFKA__BROKERS", &kafka.brokers)
        .env("TRUNKLINE_KAFKA__TOPIC_PREFIX", &kafka.topic_prefix)
        .env("TRUNKLINE_POSTGRES__URL", database())
        .env("TRUNKLINE_GENESYS__BASE_URL", "http://127.0.0.1:9")
        .env("TRUNKLINE_GENESYS__CLIENT_ID", "bench")
        .env("TRUNKLINE_GENESYS__CLIENT_SECRET", "bench")
        .env("TRUNKLINE_HTTP__LISTEN", "127.0.0.1:0");
    command
}

/// Lets so many instances do all of a job on `records`.
fn trunkline(job: Job, kafka: &KafkaSettings, records: usize, instances: usize) -> (Course, Vec<Used>) {
    let start = |number| {
        let mut command = trunkline_command(kafka, &["run", "--stages", job.stages()]);
        command.env("TRUNKLINE_INSTANCE__NAME", format!("bench-{number}"));
        Program::start(command, &log_of(&format!("trunkline-{number}")))
    };
    let mut programs: Vec<Program> = (0..instances).map(start).collect();
    let [first, last] =
        job.steps().map(|(role, topic)| Asker::new(kafka, &kafka.group(role), &kafka.topic(topic)));
    let course = follow(
        programs[0].started(),
        records,
        || {
            let read: i64 = first.committed().iter().sum();
            (read as usize, read >= records as i64 && last.is_done())
        },
        || programs.iter_mut().for_each(Program::assert_runs),
    );
    let used = programs.iter().map(Program::used).collect();
    programs.into_iter().for_each(Program::end);
    (course, used)
}

fn migrate(kafka: &KafkaSettings) {
    let migrated = trunkline_command(kafka, &["database", "migrate"]).status().expect("it runs");
    assert!(migrated.success(), "the database cannot be migrated");
}

fn database() -> String {
    std::env::var("TRUNKLINE_TEST_POSTGRES").expect("TRUNKLINE_TEST_POSTGRES is set by `make bench`")
}

fn psql(command: &str) -> String {
    let run = Command::new("psql").args([&*database(), "-XAtc", command]).output().expect("psql runs");
    assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("text").trim().to_owned()
}
