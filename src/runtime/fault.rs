//! What ends a worker.

use super::restore::RestoreError;
use crate::kafka::KafkaError;
use crate::kafka::settings::is_slow;
use crate::kafka::transaction::TransactionError;

/// What ends a worker. A new one is started, after a pause, unless told otherwise.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot reach Kafka at {brokers}: {cause}")]
    Unreachable { brokers: String, cause: KafkaError },
    #[error("topic {topic} does not exist: create it with `trunkline topics apply`")]
    TopicMissing { topic: String },
    #[error(
        "{input} has {input_partitions} partitions and {changelog} has {changelog_partitions}: state would be \
         looked for in the wrong place; give both the same number (see `trunkline topics list`)"
    )]
    NotCopartitioned { input: String, input_partitions: i32, changelog: String, changelog_partitions: i32 },
    #[error(
        "the number of partitions of {topic} has changed from {then} to {now} while running: keys have moved; \
         give it its former number, or delete changelog and group to begin anew"
    )]
    PartitionsChanged { topic: String, then: i32, now: i32 },
    #[error(
        "{topic}: the next record to read is gone, retention was faster than this stage. Nothing was skipped. \
         To accept the loss, stop this stage on every instance and move the group to the earliest offset: \
         kafka-consumer-groups.sh --group {group} --reset-offsets --to-earliest --execute for that topic"
    )]
    OffsetsExpired { topic: String, group: String },
    #[error(
        "{topic}/{partition} offset {offset} has to be set aside, but its {bytes} bytes do not fit {aside}: \
         skip it by moving the group's offset, after keeping a copy"
    )]
    DoesNotFit { topic: String, partition: i32, offset: i64, bytes: usize, aside: &'static str },
    #[error("the stage sends {bytes} bytes to {topic}, whose limit is {limit}: this is a bug")]
    OutputTooLarge { topic: &'static str, bytes: usize, limit: usize },
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error("{0}")]
    Transaction(#[from] TransactionError),
    #[error("{step}: {cause}")]
    Kafka { step: &'static str, cause: KafkaError },
    #[error("got a record of partition {partition}, which is not assigned")]
    NotAssigned { partition: i32 },
}

impl Fault {
    pub(super) fn is_slow(&self) -> bool {
        matches!(self, Fault::Unreachable { cause, .. } if is_slow(cause))
    }

    pub(super) fn kafka(step: &'static str) -> impl Fn(KafkaError) -> Fault {
        move |cause| Fault::Kafka { step, cause }
    }
}
