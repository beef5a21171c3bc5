//! Dial decisions with more campaigns and with more instances; and how long the state takes to be
//! read back.

use std::time::{Duration, Instant};

use rdkafka::producer::Producer as _;
use rdkafka::topic_partition_list::Offset;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics;

use crate::harness::report;
use crate::harness::{new_topics, now, producer, reader_of, send};
use crate::jobs::{Job, campaign_of, fill_statistics, statistics};
use crate::program::{Program, Used};
use crate::{log_of, records, trunkline, trunkline_command};

const CAMPAIGNS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const INSTANCES: [usize; 3] = [1, 2, 3];
const CAMPAIGNS_OF_INSTANCES: usize = 10_000;

pub(crate) fn scaling() {
    let mut lines = vec![
        "| campaigns | records | records/s | CPU µs/record | peak MB | first decision after a restart, s | peak MB after it |".to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    for campaigns in CAMPAIGNS {
        let kafka = new_topics(&format!("campaigns-{campaigns}"));
        let records = records().max(campaigns);
        fill(&kafka, records, campaigns);
        let (course, used) = trunkline(Job::Dial, &kafka, records, 1);
        let (restored, after) = restarted(&kafka, records / campaigns + 1);
        lines.push(format!(
            "| {campaigns} | {records} | {:.0} | {:.1} | {:.0} | {:.1} | {:.0} |",
            course.rate,
            cpu_each(&used, records),
            peak(&used),
            restored.as_secs_f64(),
            after.peak_megabytes
        ));
        println!("{}", lines.last().expect("just pushed"));
    }
    lines.push(String::new());
    lines.push(
        "| instances | records/s | CPU µs/record of all | peak MB of all | first result after s |".to_owned(),
    );
    lines.push("|---|---|---|---|---|".to_owned());
    for instances in INSTANCES {
        let kafka = new_topics(&format!("instances-{instances}"));
        fill(&kafka, records(), CAMPAIGNS_OF_INSTANCES);
        let (course, used) = trunkline(Job::Dial, &kafka, records(), instances);
        lines.push(format!(
            "| {instances} | {:.0} | {:.1} | {:.0} | {:.1} |",
            course.rate,
            cpu_each(&used, records()),
            peak(&used),
            course.first_after.as_secs_f64()
        ));
        println!("{}", lines.last().expect("just pushed"));
    }
    report::write("scaling", &lines);
}

fn cpu_each(used: &[Used], records: usize) -> f64 {
    used.iter().map(|used| used.cpu_seconds).sum::<f64>() * 1e6 / records as f64
}

fn peak(used: &[Used]) -> f64 {
    used.iter().map(|used| used.peak_megabytes).sum()
}

fn fill(kafka: &KafkaSettings, records: usize, campaigns: usize) {
    let producer = producer(kafka);
    fill_statistics(&producer, &kafka.topic(&topics::CAMPAIGN_STATS), records, campaigns);
    producer.flush(Duration::from_secs(120)).expect("everything is written");
}

/// Starts it again and waits for the decision on one more statistic.
fn restarted(kafka: &KafkaSettings, tick: usize) -> (Duration, Used) {
    let reader = reader_of(kafka, &kafka.topic(&topics::DIAL_DECISIONS), Offset::End);
    // The reader stands at the ends once it has been asked.
    reader.poll(Duration::from_secs(1));
    let producer = producer(kafka);
    let key = campaign_of(0, 1);
    send(&producer, &kafka.topic(&topics::CAMPAIGN_STATS), &key, &statistics(&key, tick, now()));
    producer.flush(Duration::from_secs(10)).expect("written");
    let command = trunkline_command(kafka, &["run", "--stages", Job::Dial.stages()]);
    let program = Program::start(command, &log_of("trunkline-restarted"));
    let started = Instant::now();
    reader.poll(Duration::from_secs(300)).expect("a decision").expect("a decision");
    let restored = started.elapsed();
    let used = program.used();
    program.end();
    (restored, used)
}
