//! Decisions of the demo's recording in the audit, and the program asked about them.

mod audit;
mod changes;

use std::time::Duration;

use serde_json::{Value, json};
use trunkline::kafka::subscription::TopicPartition;
use trunkline::kafka::topic_ids::TopicIds;
use trunkline::model::decision::Loop;
use trunkline::postgres::Database;
use trunkline::replay::Header;
use trunkline::sinks::audit::AuditWriter;
use trunkline::topics::{self, Topic};

use crate::support::postgres::TestDatabase;
use crate::support::process::Process;
use crate::support::recording::{Lines, read};
use crate::support::records::{no_kafka, record};

const PATIENCE: Duration = Duration::from_secs(300);

type Environment = Vec<(String, String)>;

/// What the demo's recording holds.
struct Recording {
    header: Header,
    settings: Vec<Value>,
    decisions: Vec<Value>,
}

fn recording() -> Recording {
    let Lines { header, settings, decisions } = read();
    Recording {
        header,
        settings: settings.into_iter().map(|setting| serde_json::to_value(setting).unwrap()).collect(),
        decisions: decisions.iter().map(|it| serde_json::from_str(it.decision.get()).unwrap()).collect(),
    }
}

fn topic_of(of: Loop) -> &'static Topic {
    match of {
        Loop::Dial => &topics::DIAL_DECISIONS,
        Loop::Rollback => &topics::ROLLBACK_DECISIONS,
        Loop::Lag => &topics::LAG_EVALUATIONS,
        Loop::Route => &topics::ROUTING_DECISIONS,
        Loop::Delivery => &topics::DELIVERY_DECISIONS,
    }
}

/// Writes decisions as the audit does, and notes what they were taken under.
async fn fill(database: &Database, recording: &Recording, decisions: &[Value]) {
    for numbers in &recording.header.numbers {
        database.note_rule_numbers(&serde_json::to_value(numbers).unwrap(), "test").await.unwrap();
    }
    let partitions = Loop::ALL.map(|of| TopicPartition { topic: topic_of(of), partition: 0 });
    let mut writer = AuditWriter::new(database.clone(), &no_kafka());
    writer.positions(&partitions, &TopicIds::new()).await.unwrap();
    let of = |decision: &Value| Loop::ALL.into_iter().find(|of| decision["loop"] == of.name()).unwrap();
    let records: Vec<_> = decisions
        .iter()
        .zip(0..)
        .map(|(decision, offset)| record(topic_of(of(decision)), offset, decision))
        .collect();
    for batch in records.chunks(500) {
        writer.write(batch, &[]).await.unwrap();
    }
}

/// The settings of the recording with their revisions; what was set between them is of other scopes.
async fn set_as_recorded(database: &Database, recording: &Recording) {
    for setting in &recording.settings {
        let (scope, revision) = (setting["scope"].as_str().unwrap(), setting["revision"].as_u64().unwrap());
        loop {
            let newest =
                database.settings_history(None, 1).await.unwrap().first().map_or(0, |it| it.revision);
            if newest + 1 == revision {
                break;
            }
            database.change_setting("route/other", "test", |_, _| Ok(json!(newest))).await.unwrap();
        }
        let value = setting["value"].clone();
        database.change_setting(scope, "test", |_, _| Ok(value)).await.unwrap();
    }
}

fn environment(own: &TestDatabase, pairs: &[(&str, &str)]) -> Environment {
    let url = own.url();
    let pairs = [&[("POSTGRES__URL", url.as_str())], pairs].concat();
    pairs.iter().map(|(name, value)| (format!("TRUNKLINE_{name}"), (*value).to_owned())).collect()
}

/// Exit code, stdout, stderr.
fn run(arguments: &[&str], environment: &Environment) -> (i32, String, String) {
    let mut process = Process::start("asked", arguments, environment);
    let mut said = String::new();
    while let Some(line) = process.line() {
        said.push_str(&line);
        said.push('\n');
    }
    (process.wait(PATIENCE).code().unwrap(), said, process.log())
}
