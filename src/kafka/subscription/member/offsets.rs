//! What is committed: offsets alone, or with records in one transaction.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Context;
use super::{LOOKUP_RETRY, LOOKUP_TIMEOUT, Member, add};
use crate::kafka::subscription::exchange::Held;
use crate::kafka::subscription::publisher::{Failure, Publisher};
use crate::kafka::subscription::{CommitError, OutboundRecord, PublishError, TopicPartition};

impl Member {
    /// The group's committed offsets; waits for transactions that still hold them.
    pub(super) fn committed(&self, of: TopicPartitionList) -> KafkaResult<Vec<(String, i32, Option<i64>)>> {
        let found = self.consumer.committed_offsets(of, self.lookup_wait)?;
        found
            .elements()
            .iter()
            .map(|element| {
                element.error()?;
                let offset = if let Offset::Offset(offset) = element.offset() { Some(offset) } else { None };
                Ok((element.topic().to_owned(), element.partition(), offset))
            })
            .collect()
    }

    /// The first partition that is no longer held as it was when the command was given.
    pub(super) fn first_gone(&self, offsets: &[(Held, i64)]) -> Option<TopicPartition> {
        offsets
            .iter()
            .map(|(wanted, _)| wanted)
            .find(|wanted| self.held.get(&wanted.partition).is_none_or(|held| held.epoch != wanted.epoch))
            .map(|wanted| wanted.partition)
    }

    pub(super) fn offset_list(&self, offsets: &[(Held, i64)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (held, offset) in offsets {
            let name = self.kafka.topic(held.partition.topic);
            add(&mut list, &name, held.partition.partition, Offset::Offset(*offset));
        }
        list
    }

    pub(super) fn publish(
        &mut self,
        records: Vec<OutboundRecord>,
        offsets: &[(Held, i64)],
    ) -> Result<(), PublishError> {
        // A rebalance that is known but not answered yet counts.
        self.answer_rebalances();
        if let Some(partition) = self.first_gone(offsets) {
            return Err(PublishError::Gone(format!("{partition} is not assigned")));
        }
        let list = self.offset_list(offsets);
        let Some(metadata) = self.consumer.group_metadata() else {
            return Err(PublishError::Retry("the group's metadata is not known yet".to_owned()));
        };
        let shutdown = &self.shutdown;
        let publisher =
            self.publisher.get_or_insert_with(|| Publisher::new(&self.kafka, self.role, shutdown.clone()));
        let consumer = &self.consumer;
        let unknown = match publisher.publish(&records, &list, &metadata, |topic| count(consumer, topic)) {
            Ok(()) => return Ok(()),
            Err(Failure::Aborted(reason)) => return Err(PublishError::Retry(reason)),
            Err(Failure::Refused(reason)) => return Err(PublishError::Refused(reason)),
            Err(Failure::Unknown(reason)) => reason,
        };
        tracing::warn!(
            group = self.group,
            reason = unknown,
            "a transaction's end is not known; looking it up"
        );
        if offsets.is_empty() {
            return Err(PublishError::Retry(unknown));
        }
        // Nothing of ours can go on before this is known, so nothing else is done.
        while !self.shutdown.is_cancelled() && !self.shared.lock().closed {
            match self.has_committed(&list) {
                Some(true) => return Ok(()),
                Some(false) => return Err(PublishError::Retry(unknown)),
                None => std::thread::sleep(LOOKUP_RETRY),
            }
        }
        Err(PublishError::Closed)
    }

    /// Whether the transaction with these offsets was committed: they were part of it,
    /// so where they stand tells, once a new producer has waited for the old one's end.
    pub(super) fn has_committed(&mut self, offsets: &TopicPartitionList) -> Option<bool> {
        if !self.publisher.as_mut()?.prepare() {
            return None;
        }
        match self.committed(offsets.clone()) {
            Ok(found) => {
                let stands = |(topic, partition, offset): &(String, i32, Option<i64>)| {
                    let sent = offsets.find_partition(topic, *partition);
                    let sent = sent.and_then(|element| element.offset().to_raw());
                    offset.zip(sent).is_some_and(|(stands, sent)| stands >= sent)
                };
                Some(found.iter().all(stands))
            }
            Err(error) => {
                tracing::warn!(group = self.group, %error, "cannot look up committed offsets");
                None
            }
        }
    }

    /// librdkafka bounds the wait for the coordinator by the session's timeout.
    pub(super) fn commit(&mut self, offsets: &[(Held, i64)]) -> Result<(), CommitError> {
        self.answer_rebalances();
        if let Some(partition) = self.first_gone(offsets) {
            return Err(CommitError::Gone(format!("{partition} is not assigned")));
        }
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.offset_list(offsets);
        self.consumer.commit(&list, CommitMode::Sync).map_err(|error| CommitError::Retry(error.to_string()))
    }
}

/// How many partitions a topic has.
fn count(consumer: &BaseConsumer<Context>, topic: &str) -> Result<i32, String> {
    let metadata =
        consumer.fetch_metadata(Some(topic), LOOKUP_TIMEOUT).map_err(|error| format!("{topic}: {error}"))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions = found.map_or(0, |found| found.partitions().len());
    match i32::try_from(partitions) {
        Ok(partitions) if partitions > 0 => Ok(partitions),
        _ => Err(format!("topic {topic} does not exist; run `trunkline topics apply`")),
    }
}
