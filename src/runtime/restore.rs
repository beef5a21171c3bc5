//! State of newly assigned partitions, read back from the changelog.
//!
//! The order matters. First the committed offsets, which the broker withholds while
//! a transaction of the former owner is still being decided. Then the changelog's
//! end as it is *now*: everything that belongs to those offsets lies before it. Then
//! waiting until all of that is decided, and only then reading, committed records alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::compacted::Compacted;
use super::state::{Progress, StateError};
use super::task::Task;
use crate::backoff::Backoff;
use crate::clock;
use crate::kafka::assignment::{Assignment, partition_list};
use crate::kafka::reader::Reader;
use crate::kafka::settings::{KafkaSettings, is_slow, longer};
use crate::kafka::topic_ids::topic_ids;
use crate::kafka::{
    BaseConsumer, Consumer, FromClientConfigAndContext, KafkaError, Message, Offset, RDKafkaErrorCode,
    TopicPartitionList, TopicPartitionListElem,
};
use crate::pipeline::{Declaration, PartitionStage};

const SLICE: Duration = Duration::from_millis(500);

/// State could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{topic}/{partition}: {cause}")]
    State { topic: String, partition: i32, cause: StateError },
    #[error(
        "{what} within {} s (last: {last}): a transaction of the former owner may still be open, \
         or the broker is unwell; trying again", patience.as_secs()
    )]
    OutOfPatience { what: String, last: String, patience: Duration },
    #[error("restoring needs a consumer: {0}")]
    Consumer(KafkaError),
    #[error("shutting down")]
    Shutdown,
}

/// What restoring needs to know.
pub(super) struct Restore<'a> {
    pub kafka: &'a KafkaSettings,
    pub declaration: &'static Declaration,
    pub shutdown: &'a CancellationToken,
    /// Longest wait for each of the three steps.
    pub patience: Duration,
}

impl Restore<'_> {
    /// Restores `partitions` into `task` and answers where reading goes on.
    pub(super) fn run<S: PartitionStage>(
        &self,
        consumer: &BaseConsumer<Assignment>,
        task: &mut Task<S>,
        partitions: &[i32],
    ) -> Result<TopicPartitionList, RestoreError> {
        let input = self.kafka.topic(self.declaration.input);
        let topic_id = self.topic_id(consumer, &input)?;
        task.identify(topic_id);
        let mut positions = self.committed(consumer, &input, partitions)?;
        for partition in partitions {
            task.take(*partition, clock::now());
        }
        if partitions.is_empty() {
            return Ok(partition_list(&input, partitions));
        }
        let reader = self.client("read_committed")?;
        self.wait_until_decided(&reader, partitions)?;
        let progress = self.read(&reader, task, partitions)?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            let committed = positions.remove(partition).flatten();
            let recorded = progress.get(partition);
            let former = recorded.and_then(|recorded| recorded.topic_id);
            let is_another = former.is_some() && topic_id.is_some() && former != topic_id;
            let recorded = recorded.map(|recorded| recorded.next_offset);
            if is_another {
                tracing::warn!(
                    topic = input,
                    partition,
                    "the topic was deleted and made again: it is read from its beginning, its keys' state is kept"
                );
            }
            // What is committed since would have left its progress as well.
            let (committed, recorded) = if is_another { (None, None) } else { (committed, recorded) };
            let next_offset = match (committed, recorded) {
                (Some(committed), recorded) => {
                    if recorded.is_some_and(|recorded| recorded != committed) {
                        tracing::warn!(
                            topic = input,
                            partition,
                            committed,
                            recorded,
                            "the group's offset was moved by hand: state is of another place"
                        );
                    }
                    committed
                }
                // The group's offsets have expired; the state knows where it is.
                (None, Some(recorded)) => recorded,
                (None, None) => self.beginning(&reader, &input, *partition)?,
            };
            task.stand(*partition, next_offset);
            list.add_partition_offset(&input, *partition, Offset::Offset(next_offset))
                .map_err(RestoreError::Consumer)?;
        }
        Ok(list)
    }

    fn client(&self, isolation: &str) -> Result<BaseConsumer<Reader>, RestoreError> {
        let mut config = self.kafka.reader(self.declaration.name);
        config
            .set("isolation.level", isolation)
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", "10");
        // Compressed, a fetch is many times as much in memory.
        let preferences = [("fetch.message.max.bytes", "65536"), ("queued.max.messages.kbytes", "2048")];
        self.kafka.prefer(&mut config, &preferences);
        BaseConsumer::from_config_and_context(&config, Reader { what: "changelogs" })
            .map_err(RestoreError::Consumer)
    }

    /// Which topic of the input's name there is now; `None` where the brokers have no ids.
    fn topic_id(
        &self,
        consumer: &BaseConsumer<Assignment>,
        topic: &str,
    ) -> Result<Option<Uuid>, RestoreError> {
        let what = format!("which topic {topic} is could not be read");
        self.retry(&what, |wait| {
            let ids = topic_ids(consumer.client(), &[topic], wait).map_err(|problem| {
                tracing::debug!(topic, problem, "no id yet");
                KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut)
            })?;
            Ok(ids.get(topic).copied())
        })
    }

    /// The group's offsets; `None` where it has none.
    fn committed(
        &self,
        consumer: &BaseConsumer<Assignment>,
        topic: &str,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Option<i64>>, RestoreError> {
        let what = "the group's offsets could not be read";
        let list = self.retry(what, |wait| {
            let list = consumer.committed_offsets(partition_list(topic, partitions), wait)?;
            list.elements().iter().try_for_each(|element| element.error())?;
            Ok(Some(list))
        })?;
        let offset = |element: &TopicPartitionListElem<'_>| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        Ok(list.elements().iter().map(|element| (element.partition(), offset(element))).collect())
    }

    /// Offset of the first record there is.
    fn beginning(
        &self,
        reader: &BaseConsumer<Reader>,
        topic: &str,
        partition: i32,
    ) -> Result<i64, RestoreError> {
        let what = format!("the beginning of {topic}/{partition} could not be read");
        self.retry(&what, |wait| Ok(Some(reader.fetch_watermarks(topic, partition, wait)?.0)))
    }

    /// Waits until every transaction that may concern the committed offsets has ended.
    fn wait_until_decided(
        &self,
        reader: &BaseConsumer<Reader>,
        partitions: &[i32],
    ) -> Result<(), RestoreError> {
        let topic = self.kafka.topic(self.declaration.changelog);
        let all = self.client("read_uncommitted")?;
        for partition in partitions {
            let what = format!("the end of {topic}/{partition} could not be read");
            let end =
                self.retry(&what, |wait| Ok(Some(all.fetch_watermarks(&topic, *partition, wait)?.1)))?;
            let what = format!("a transaction in {topic}/{partition} did not end");
            self.retry(&what, |wait| {
                let (_, stable) = reader.fetch_watermarks(&topic, *partition, wait)?;
                Ok((stable >= end).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Reads the changelog to its end. Answers where the state stands.
    fn read<S: PartitionStage>(
        &self,
        reader: &BaseConsumer<Reader>,
        task: &mut Task<S>,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Progress>, RestoreError> {
        let topic = self.kafka.topic(self.declaration.changelog);
        let mut list = partition_list(&topic, partitions);
        list.set_all_offsets(Offset::Beginning).map_err(RestoreError::Consumer)?;
        reader.assign(&list).map_err(RestoreError::Consumer)?;
        let mut remaining: Vec<i32> = partitions.to_vec();
        let mut progress = BTreeMap::new();
        let mut records = Compacted::default();
        let mut last_news = Instant::now();
        let mut last = String::from("no reply");
        while !remaining.is_empty() {
            if self.shutdown.is_cancelled() {
                return Err(RestoreError::Shutdown);
            }
            match reader.poll(SLICE) {
                Some(Ok(record)) => {
                    last_news = Instant::now();
                    records.push(record.partition(), record.key().unwrap_or_default(), record.payload());
                    if records.is_full() {
                        take_in(&mut records, task, &topic, &mut progress)?;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    last_news = Instant::now();
                    remaining.retain(|other| *other != partition);
                }
                Some(Err(error)) => last = error.to_string(),
                None => {}
            }
            if last_news.elapsed() > self.patience {
                let what = format!("{topic} could not be read to its end");
                return Err(RestoreError::OutOfPatience { what, last, patience: self.patience });
            }
        }
        take_in(&mut records, task, &topic, &mut progress)?;
        Ok(progress)
    }

    /// Asks until there is an answer, waiting longer for it each time; `None` is "not yet".
    fn retry<T>(
        &self,
        what: &str,
        ask: impl Fn(Duration) -> Result<Option<T>, KafkaError>,
    ) -> Result<T, RestoreError> {
        let started = Instant::now();
        let mut pauses = Backoff::new((Duration::from_millis(2), Duration::from_millis(100)));
        let mut said = false;
        let mut answer_wait = SLICE;
        loop {
            let last = match ask(answer_wait) {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => "not yet".to_owned(),
                Err(error) => match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::UnstableOffsetCommit) => "a transaction is open".to_owned(),
                    _ => {
                        if is_slow(&error) {
                            answer_wait = longer(answer_wait);
                        }
                        error.to_string()
                    }
                },
            };
            if self.shutdown.is_cancelled() {
                return Err(RestoreError::Shutdown);
            }
            if started.elapsed() > self.patience {
                let what = what.to_owned();
                return Err(RestoreError::OutOfPatience { what, last, patience: self.patience });
            }
            if !said && started.elapsed() > Duration::from_secs(1) {
                said = true;
                tracing::info!(stage = self.declaration.name, what, last, "restoring waits");
            }
            pauses.sleep(self.shutdown);
        }
    }
}

/// Takes records of a changelog into the state, and notes how far that says it has come.
fn take_in<S: PartitionStage>(
    records: &mut Compacted,
    task: &mut Task<S>,
    topic: &str,
    progress: &mut BTreeMap<i32, Progress>,
) -> Result<(), RestoreError> {
    records.drain(|partition, key, value| {
        let restored = task.restore(partition, key, value).map_err(|cause| RestoreError::State {
            topic: topic.to_owned(),
            partition,
            cause,
        })?;
        if let Some(restored) = restored {
            progress.insert(partition, restored);
        }
        Ok(())
    })
}
