//! Publishes a numbered series of records exactly once and in order, whoever
//! publishes it.
//!
//! Each transaction carries, beside its records, a mark on a compacted topic: the
//! number of its last record. There is one transactional id for all publishers, so
//! whoever connects fences the one before and ends its open transaction; the mark
//! read after that is exact, and stays so for as long as the client is not replaced.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::reader::Reader;
use super::settings::KafkaSettings;
use super::subscription::{OutboundRecord, send};
use super::transaction::{Producer, TransactionError, TransactionSettings};
use crate::topics::{Topic, partition_of};

/// One question to the brokers waits at most this long.
const ANSWER: Duration = Duration::from_secs(5);
/// How long the mark may take to be read.
const PATIENCE: Duration = Duration::from_secs(30);
/// Marks are all on this partition: they must be found again when partitions are added.
const MARKS: i32 = 0;
/// Offsets looked at first, from the end; sixteen times more while no mark is found.
const FIRST_LOOK: i64 = 64;

/// Nothing was published, or whether it was tells the mark.
#[derive(Debug, thiserror::Error)]
pub enum SeriesError {
    #[error(transparent)]
    Transaction(TransactionError),
    #[error("{what}: {cause}")]
    Kafka { what: &'static str, cause: KafkaError },
    #[error("topic {0} does not exist; run: trunkline topics apply")]
    MissingTopic(String),
    #[error("the mark on {topic} was not read within {} s: {last}", PATIENCE.as_secs())]
    NoMark { topic: String, last: String },
    #[error("the mark on {topic} at offset {offset} cannot be read: {cause}")]
    BadMark { topic: String, offset: i64, cause: serde_json::Error },
    /// Nothing was published: a record is refused for what it is.
    #[error("the brokers refuse a record: {0}")]
    Refused(String),
    /// Somebody else has published in between.
    #[error("the mark is {found}, not {expected}: somebody else has published")]
    Moved { expected: i64, found: i64 },
    #[error("shutting down")]
    Shutdown,
}

impl From<TransactionError> for SeriesError {
    fn from(error: TransactionError) -> Self {
        match error.is_refusal() {
            true => Self::Refused(error.cause.to_string()),
            false => Self::Transaction(error),
        }
    }
}

/// What stands on the topic of marks, under the series' name as key.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    published: i64,
}

/// The publisher of one series.
#[derive(Clone)]
pub struct Series {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    kafka: KafkaSettings,
    name: String,
    marks: &'static Topic,
    producer: Producer,
    reader: Option<BaseConsumer<Reader>>,
    /// With the number of clients before the one it was read with.
    mark: Option<(u64, i64)>,
    shutdown: CancellationToken,
}

impl Series {
    /// Connects on first use. `name` tells the series apart that have their marks on
    /// the topic `marks`; there is one publisher per `role`, of whatever instance.
    pub fn new(
        kafka: &KafkaSettings,
        role: &'static str,
        name: String,
        marks: &'static Topic,
        shutdown: CancellationToken,
    ) -> Self {
        let settings = TransactionSettings { linger: Duration::ZERO, ..TransactionSettings::default() };
        let inner = Inner {
            kafka: kafka.clone(),
            name,
            marks,
            producer: Producer::sole(kafka, role, &settings, shutdown.clone()),
            reader: None,
            mark: None,
            shutdown,
        };
        Self { inner: Arc::new(Mutex::new(inner)) }
    }

    /// Number of the last record published, 0 before the first. Fences other publishers.
    ///
    /// # Errors
    /// See [`SeriesError`].
    pub async fn mark(&self) -> Result<i64, SeriesError> {
        self.blocking(Inner::mark).await
    }

    /// Publishes the records from the one after `mark` to the one numbered `last`.
    ///
    /// # Errors
    /// See [`SeriesError`].
    pub async fn publish(
        &self,
        mark: i64,
        records: Vec<OutboundRecord>,
        last: i64,
    ) -> Result<(), SeriesError> {
        self.blocking(move |inner| inner.publish(mark, &records, last)).await
    }

    /// Ends the connection, which takes a moment.
    pub async fn close(self) {
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Inner) -> Result<T, SeriesError> + Send + 'static,
    ) -> Result<T, SeriesError> {
        let inner = Arc::clone(&self.inner);
        let work = move || work(&mut inner.lock().unwrap_or_else(PoisonError::into_inner));
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(SeriesError::Shutdown))
    }
}

impl Inner {
    fn mark(&mut self) -> Result<i64, SeriesError> {
        self.producer.settle()?;
        let client = self.producer.replaced();
        match self.mark {
            Some((read_with, mark)) if read_with == client => Ok(mark),
            _ => {
                let mark = self.read_mark()?;
                self.mark = Some((client, mark));
                Ok(mark)
            }
        }
    }

    fn publish(&mut self, mark: i64, records: &[OutboundRecord], last: i64) -> Result<(), SeriesError> {
        let found = self.mark()?;
        if found != mark {
            return Err(SeriesError::Moved { expected: mark, found });
        }
        let client = self.producer.replaced();
        let mut routes = Vec::with_capacity(records.len());
        let mut known: Vec<(&Topic, String, i32)> = Vec::new();
        for record in records {
            let at = match known.iter().position(|(topic, ..)| *topic == record.topic) {
                Some(at) => at,
                None => {
                    let name = self.kafka.topic(record.topic);
                    let partitions = self.partitions(&name)?;
                    known.push((record.topic, name, partitions));
                    known.len() - 1
                }
            };
            routes.push(at);
        }
        let marks = self.kafka.topic(self.marks);
        let mut transaction = self.producer.begin()?;
        if transaction.replaced() != client {
            // The mark was read with another client: read it again first.
            return Err(SeriesError::Moved { expected: mark, found });
        }
        for (record, at) in records.iter().zip(routes) {
            let (_, topic, partitions) = &known[at];
            let partition = record.key.as_deref().map_or(0, |key| partition_of(key, *partitions));
            send(&mut transaction, topic, partition, record)?;
        }
        let value = serde_json::to_vec(&Mark { published: last }).expect("a number is JSON");
        transaction.send(&marks, MARKS, Some(self.name.as_bytes()), Some(&value), None, None)?;
        transaction.commit()?;
        self.mark = Some((client, last));
        Ok(())
    }

    fn reader(&mut self) -> Result<&BaseConsumer<Reader>, SeriesError> {
        if self.reader.is_none() {
            let mut config = self.kafka.reader("series");
            config.set("auto.offset.reset", "error").set("fetch.wait.max.ms", "10");
            let reader = BaseConsumer::from_config_and_context(&config, Reader { what: "marks of series" })
                .map_err(|cause| SeriesError::Kafka { what: "a consumer cannot be made", cause })?;
            self.reader = Some(reader);
        }
        Ok(self.reader.as_ref().expect("just made"))
    }

    fn partitions(&mut self, topic: &str) -> Result<i32, SeriesError> {
        let metadata = self.reader()?.fetch_metadata(Some(topic), ANSWER).map_err(|cause| {
            SeriesError::Kafka { what: "the brokers do not tell about their topics", cause }
        })?;
        match metadata.topics().first().map_or(0, |topic| topic.partitions().len()) {
            0 => Err(SeriesError::MissingTopic(topic.to_owned())),
            partitions => Ok(i32::try_from(partitions).unwrap_or(i32::MAX)),
        }
    }

    /// The newest mark of this series. All transactions of earlier clients have ended.
    fn read_mark(&mut self) -> Result<i64, SeriesError> {
        let mark = self.look_back();
        // With a partition it would go on asking for records, a hundred times a second.
        if let Some(Err(error)) = self.reader.as_ref().map(Consumer::unassign) {
            tracing::warn!(%error, "the reader of marks keeps its partition");
        }
        mark
    }

    fn look_back(&mut self) -> Result<i64, SeriesError> {
        let topic = self.kafka.topic(self.marks);
        self.partitions(&topic)?;
        let (first, end) = self.reader()?.fetch_watermarks(&topic, MARKS, ANSWER).map_err(|cause| {
            SeriesError::Kafka { what: "the brokers do not tell where the marks end", cause }
        })?;
        let mut look = FIRST_LOOK;
        loop {
            let from = first.max(end.saturating_sub(look));
            if let Some(mark) = self.newest_mark(&topic, from, end)? {
                return Ok(mark);
            }
            if from == first {
                return Ok(0);
            }
            look = look.saturating_mul(16);
        }
    }

    fn newest_mark(&mut self, topic: &str, from: i64, end: i64) -> Result<Option<i64>, SeriesError> {
        let name = self.name.clone();
        let shutdown = self.shutdown.clone();
        let reader = self.reader()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, MARKS, Offset::Offset(from))
            .and_then(|()| reader.assign(&list))
            .map_err(|cause| SeriesError::Kafka { what: "the marks cannot be read", cause })?;
        let started = Instant::now();
        let (mut newest, mut last, mut next) = (None, String::from("no reply"), from);
        while next < end {
            if shutdown.is_cancelled() {
                return Err(SeriesError::Shutdown);
            }
            if started.elapsed() > PATIENCE {
                return Err(SeriesError::NoMark { topic: topic.to_owned(), last });
            }
            match reader.poll(Duration::from_millis(200)) {
                Some(Ok(record)) => {
                    next = record.offset() + 1;
                    if record.key() == Some(name.as_bytes()) {
                        let mark: Mark = serde_json::from_slice(record.payload().unwrap_or_default())
                            .map_err(|cause| SeriesError::BadMark {
                                topic: topic.to_owned(),
                                offset: record.offset(),
                                cause,
                            })?;
                        newest = Some(mark.published);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => last = error.to_string(),
                None => {}
            }
        }
        Ok(newest)
    }
}
