//! The consumer of a worker, and what it asks of the brokers before it reads.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::report::Report;
use super::stage::StageSettings;
use crate::kafka::assignment::Assignment;
use crate::kafka::settings::{KafkaSettings, QUEUE_LOOK, longer};
use crate::kafka::{BaseConsumer, ClientConfig, Consumer};

/// How long a broker may take to answer; a shutdown waits for it.
pub(super) const ANSWER_WAIT: Duration = Duration::from_millis(1_500);

pub(super) fn consumer_config(kafka: &KafkaSettings, role: &str, settings: &StageSettings) -> ClientConfig {
    let mut config = kafka.client(role);
    config
        .set("group.id", kafka.group(role))
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // Positions are always given; one that is gone must stop the stage.
        .set("auto.offset.reset", "error");
    let read_ahead_kib = settings.read_ahead_kib.to_string();
    let preferences = [
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "500"),
        ("topic.metadata.refresh.interval.ms", "5000"),
        // A partition that comes later waits for this; so often silent ones are asked.
        ("fetch.wait.max.ms", "500"),
        // Compressed: in memory it is several times as much.
        ("fetch.message.max.bytes", "131072"),
        ("queued.min.messages", "20000"),
        QUEUE_LOOK,
        ("queued.max.messages.kbytes", &read_ahead_kib),
    ];
    kafka.prefer(&mut config, &preferences);
    config
}

/// How many partitions a topic has, asked until brokers that are merely slow have answered: a
/// worker made anew would only connect anew.
pub(super) fn ask_for_partitions(
    consumer: &BaseConsumer<Assignment>,
    kafka: &KafkaSettings,
    topic: &str,
    report: &Report,
    shutdown: &CancellationToken,
) -> Result<i32, Fault> {
    let mut wait = ANSWER_WAIT;
    loop {
        match partitions_of(consumer, &kafka.brokers, topic, wait) {
            Err(fault) if fault.is_slow() && !shutdown.is_cancelled() => {
                report.not_ready(fault.to_string());
                wait = longer(wait);
            }
            known => return known,
        }
    }
}

/// How many partitions a topic has.
pub(super) fn partitions_of(
    consumer: &BaseConsumer<Assignment>,
    brokers: &str,
    topic: &str,
    wait: Duration,
) -> Result<i32, Fault> {
    let metadata = consumer
        .fetch_metadata(Some(topic), wait)
        .map_err(|cause| Fault::Unreachable { brokers: brokers.to_owned(), cause })?;
    let count = metadata
        .topics()
        .iter()
        .filter(|found| found.name() == topic && found.error().is_none())
        .map(|found| found.partitions().len())
        .next()
        .unwrap_or(0);
    match i32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Fault::TopicMissing { topic: topic.to_owned() }),
    }
}
