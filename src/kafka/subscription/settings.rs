//! How a member of a role's group asks the brokers.

use rdkafka::ClientConfig;

use crate::kafka::settings::{KafkaSettings, QUEUE_LOOK};

pub(super) fn consumer(kafka: &KafkaSettings, group: &str, role: &str) -> ClientConfig {
    let mut config = kafka.client(role);
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A position that is gone stops the subscription; it is never skipped silently.
        .set("auto.offset.reset", "error");
    let preferences = [
        ("session.timeout.ms", "6000"),
        // How soon a member hears that others wait for it in a rebalance. Twice as often is half a percent of
        // a core for all sinks of an idle process, and so are fetches that find nothing (below).
        ("heartbeat.interval.ms", "1000"),
        // How soon a topic or partition that comes later is found.
        ("topic.metadata.refresh.interval.ms", "5000"),
        ("fetch.wait.max.ms", "500"),
        ("queued.max.messages.kbytes", "16384"),
        QUEUE_LOOK,
    ];
    kafka.prefer(&mut config, &preferences);
    config
}
