//! The jobs as Kafka Streams applications (`benches/peers/streams`), exactly once (v2), lz4,
//! commits every 100 ms, two threads, caches on.

use std::path::{Path, PathBuf};
use std::process::Command;

use trunkline::kafka::settings::KafkaSettings;

use crate::jobs::{Asker, Course, Job, follow};
use crate::log_of;
use crate::program::{Program, Used};

/// Compiles it, once; answers where classes and libraries are.
fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/streams");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("streams-peer");
    if !target.join("libs").exists() {
        let status = Command::new("mvn")
            .args(["-B", "-q", "-f"])
            .arg(folder.join("pom.xml"))
            .arg(format!("-Dtarget={}", target.display()))
            .args(["compile", "dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", target.join("libs").display()))
            .status()
            .expect("mvn, which `scripts/setup.sh services` installs");
        assert!(status.success(), "the Kafka Streams peer does not compile");
    }
    target
}

/// How its instances share partitions among them.
#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    /// The brokers assign tasks.
    Streams,
    /// One of the members does.
    Classic,
}

impl Protocol {
    /// What the program with it is called in tables and settings.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Classic => "streams-classic",
        }
    }

    /// As `group.protocol` has it.
    fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Classic => "classic",
        }
    }
}

pub(crate) fn run(protocol: Protocol, job: Job, kafka: &KafkaSettings, records: usize) -> (Course, Used) {
    let (group, input) = (group(protocol, kafka), kafka.topic(job.input()));
    let mut program = Program::start(command(protocol, job, kafka), &log_of(protocol.program()));
    let first = Asker::new(kafka, &group, &input);
    // Events are keyed anew, and read a second time.
    let between =
        (job == Job::FlowMinutes).then(|| Asker::new(kafka, &group, &format!("{group}-flow-repartition")));
    let course = follow(
        program.started(),
        records,
        || {
            let read: i64 = first.committed().iter().sum();
            let all = read >= records as i64 && between.as_ref().is_none_or(Asker::is_done);
            (read as usize, all)
        },
        || program.assert_runs(),
    );
    let used = program.used();
    program.end();
    (course, used)
}

fn group(protocol: Protocol, kafka: &KafkaSettings) -> String {
    format!("{}{}", kafka.topic_prefix, protocol.program())
}

pub(crate) fn results(protocol: Protocol, kafka: &KafkaSettings) -> String {
    format!("{}-results", group(protocol, kafka))
}

/// The application, with new topics and a new folder for its state.
pub(crate) fn command(protocol: Protocol, job: Job, kafka: &KafkaSettings) -> Command {
    let target = build();
    let (group, output) = (group(protocol, kafka), results(protocol, kafka));
    create(kafka, &output);
    let state = target.join("state");
    // Nobody may have left any.
    drop(std::fs::remove_dir_all(&state));
    let mut command = Command::new("java");
    command
        .args(["-Xmx512m", "-cp"])
        .arg(format!("{}:{}/*", target.join("classes").display(), target.join("libs").display()))
        .args(["peers.Main", &kafka.brokers, job.name(), &group, &kafka.topic(job.input()), &output])
        .arg(state)
        .arg(protocol.name());
    command
}

/// The topic of results, as many partitions as the others.
fn create(kafka: &KafkaSettings, name: &str) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    use rdkafka::client::DefaultClientContext;
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &kafka.brokers).create().expect("a client");
    let topic = NewTopic::new(name, crate::harness::PARTITIONS, TopicReplication::Fixed(1));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for created in runtime.block_on(admin.create_topics([&topic], &AdminOptions::new())).expect("an answer") {
        created.expect("created");
    }
}
