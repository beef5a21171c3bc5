//! Commits of a reader that is no member of its group.

use std::time::{Duration, Instant};

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use trunkline::kafka::settings::KafkaSettings;

use super::{consumer, pause};

/// Tries again while the brokers make or read the topic that groups are kept in.
pub(super) fn commit(kafka: &KafkaSettings, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let consumer = consumer(kafka, group);
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).expect("an offset");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = consumer.commit(&list, CommitMode::Sync) {
        let is_loading = error.rdkafka_error_code() == Some(RDKafkaErrorCode::CoordinatorLoadInProgress);
        assert!(is_loading && Instant::now() < deadline, "is committed: {error}");
        pause(100);
    }
}
