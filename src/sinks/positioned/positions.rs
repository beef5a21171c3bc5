//! How far each partition has been read, as Postgres has it.

use std::collections::HashMap;

use uuid::Uuid;

use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, Start, TopicPartition};
use crate::kafka::topic_ids::TopicIds;
use crate::postgres::ledger::{Advance, RecordError, Stored};
use crate::postgres::{Database, Error};
use crate::role::Role;
use crate::topics::{self, Topic};

use super::{Keeper, NotKept, SetAside};

/// The stored positions of one consumer's partitions.
pub(crate) struct Positions {
    database: Database,
    role: &'static Role,
    consumer: String,
    /// All topics' full names, made once.
    names: Vec<(&'static Topic, String)>,
    /// Of each assigned partition; `None` before its first row.
    known: HashMap<TopicPartition, Option<Stored>>,
    /// Which topics these partitions are of, where the brokers tell.
    ids: HashMap<&'static str, Uuid>,
    /// An attempt failed: what is stored may differ from what we know.
    stale: bool,
}

/// What one transaction is to bring.
pub(in crate::sinks) struct Step<'r> {
    /// Those that have rows.
    pub records: Vec<&'r InboundRecord>,
    pub advances: Vec<Advance>,
    next: Offsets,
}

/// Why a step was not written.
pub(in crate::sinks) enum NotWritten {
    /// These records say nothing that could be.
    Refused(Vec<SetAside>),
    /// The database did not.
    Failed(RecordError),
}

impl From<RecordError> for NotWritten {
    fn from(error: RecordError) -> Self {
        Self::Failed(error)
    }
}

/// Writes what its records say in one transaction with the positions.
pub(in crate::sinks) trait Writer: Keeper {
    async fn write(&mut self, step: &Step<'_>) -> Result<(), NotWritten>;
}

/// Has a writer's step taken until the positions are past all of these records: where another
/// writer was there, what is left is written anew. Answers how far they moved.
pub(in crate::sinks) async fn keep<W: Writer>(
    writer: &mut W,
    records: &[InboundRecord],
    set_aside: &[SetAside],
) -> Result<Offsets, NotKept> {
    loop {
        let step = writer.positions().step(records, set_aside).await?;
        if step.next.is_empty() {
            return Ok(step.next);
        }
        let written = writer.write(&step).await;
        let positions = writer.positions();
        match written {
            Ok(()) => {
                positions.moved(&step.next);
                return Ok(step.next);
            }
            Err(NotWritten::Refused(refused)) => return Err(NotKept::Refused(refused)),
            Err(NotWritten::Failed(RecordError::Refused(error))) => {
                return Err(NotKept::RefusedSome(error.refusal()));
            }
            Err(NotWritten::Failed(RecordError::Moved)) => positions.doubt(),
            Err(NotWritten::Failed(RecordError::Unavailable(error))) => {
                positions.doubt();
                return Err(NotKept::Yet(error.to_string()));
            }
        }
    }
}

/// Why positions cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// The stored position is before one that was stored earlier: reading must begin
    /// anew from there.
    #[error("the stored position of {partition} went back")]
    Rewound { partition: TopicPartition },
    /// Another writer reads another topic of the same name: one was deleted and made again.
    #[error("the stored position of {partition} is one in another topic of that name")]
    Replaced { partition: TopicPartition },
    #[error(transparent)]
    Unavailable(#[from] Error),
}

impl Positions {
    pub(crate) fn new(database: Database, kafka: &KafkaSettings, role: &'static Role) -> Self {
        Self {
            database,
            role,
            consumer: kafka.group(role.name),
            names: topics::ALL.iter().map(|topic| (*topic, kafka.topic(topic))).collect(),
            known: HashMap::new(),
            ids: HashMap::new(),
            stale: false,
        }
    }

    pub(super) fn role(&self) -> &'static Role {
        self.role
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The consumer they are stored for.
    pub(crate) fn consumer(&self) -> &str {
        &self.consumer
    }

    /// A topic's full name.
    pub(crate) fn name(&self, topic: &Topic) -> &str {
        let found = self.names.iter().find(|(known, _)| *known == topic);
        found.map(|(_, name)| name.as_str()).expect("every topic is declared in topics::ALL")
    }

    /// Reads where newly assigned partitions go on. What is stored of another topic of the
    /// same name does not count: this one is read from its beginning.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub(crate) async fn begin(
        &mut self,
        partitions: &[TopicPartition],
        ids: &TopicIds,
    ) -> Result<Vec<(TopicPartition, Start)>, Error> {
        let stored = self.stored(partitions).await?;
        for partition in partitions {
            match ids.get(self.name(partition.topic)).copied().flatten() {
                Some(id) => self.ids.insert(partition.topic.name, id),
                None => self.ids.remove(partition.topic.name),
            };
        }
        for (partition, stored) in &stored {
            if stored.is_some_and(|stored| !self.is_of_topic(*partition, stored)) {
                tracing::warn!(
                    consumer = self.consumer,
                    topic = self.name(partition.topic),
                    partition = partition.partition,
                    "the topic was deleted and made again: it is read from its beginning"
                );
            }
        }
        self.known.extend(stored);
        let start = |partition| self.of(partition).map_or(Start::Earliest, Start::At);
        Ok(partitions.iter().map(|partition| (*partition, start(*partition))).collect())
    }

    /// The id of the topic that is read, where the brokers tell.
    pub(crate) fn topic_id(&self, topic: &Topic) -> Option<Uuid> {
        self.ids.get(topic.name).copied()
    }

    /// Whether a stored position is one in the topic that is read. Where either is not known,
    /// it is taken for one.
    fn is_of_topic(&self, partition: TopicPartition, stored: Stored) -> bool {
        match (stored.topic_id, self.topic_id(partition.topic)) {
            (Some(stored), Some(read)) => stored == read,
            _ => true,
        }
    }

    /// These partitions are no longer ours.
    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        self.known.retain(|partition, _| !partitions.contains(partition));
    }

    /// Records that are not behind the positions, and how far these move with them.
    pub(crate) fn ahead<'r>(&self, records: &'r [InboundRecord]) -> (Vec<&'r InboundRecord>, Offsets) {
        let mut next = Offsets::new();
        let mut ahead = Vec::with_capacity(records.len());
        for record in records {
            let partition = record.topic_partition();
            if self.of(partition).is_some_and(|position| record.offset < position) {
                continue;
            }
            match next.iter_mut().find(|(known, _)| *known == partition) {
                Some((_, reached)) => *reached = (record.offset + 1).max(*reached),
                None => next.push((partition, record.offset + 1)),
            }
            ahead.push(record);
        }
        (ahead, next)
    }

    /// What of `records` is to be written with one transaction now, and what moves with it.
    /// Nothing does where the positions are past them all.
    ///
    /// # Errors
    /// See [`PositionError`].
    async fn step<'r>(
        &mut self,
        records: &'r [InboundRecord],
        set_aside: &[SetAside],
    ) -> Result<Step<'r>, PositionError> {
        self.make_sure(records).await?;
        let (mut records, next) = self.ahead(records);
        records.retain(|record| !set_aside.iter().any(|other| other.is_of(record)));
        Ok(Step { records, advances: self.advances(&next), next })
    }

    /// What moves the stored positions to `next`.
    pub(crate) fn advances(&self, next: &[(TopicPartition, i64)]) -> Vec<Advance> {
        let advance = |(partition, next): &(TopicPartition, i64)| Advance {
            topic: self.name(partition.topic).to_owned(),
            partition: partition.partition,
            expected: self.known.get(partition).copied().flatten(),
            next: self.next(*partition, *next),
        };
        next.iter().map(advance).collect()
    }

    /// They were moved.
    pub(crate) fn moved(&mut self, next: &[(TopicPartition, i64)]) {
        for (partition, next) in next {
            self.known.insert(*partition, Some(self.next(*partition, *next)));
        }
    }

    fn next(&self, partition: TopicPartition, next_offset: i64) -> Stored {
        let before = self.known.get(&partition).copied().flatten();
        let topic_id = self.topic_id(partition.topic).or(before.and_then(|stored| stored.topic_id));
        Stored { topic_id, next_offset }
    }

    /// It is not known whether they were moved, or another writer has moved them.
    pub(crate) fn doubt(&mut self) {
        self.stale = true;
    }

    /// Where there is doubt, what was committed is taken over: by us without our knowing, or
    /// by another writer.
    ///
    /// # Errors
    /// See [`PositionError`].
    pub(crate) async fn make_sure(&mut self, records: &[InboundRecord]) -> Result<(), PositionError> {
        if !self.stale {
            return Ok(());
        }
        let mut partitions: Vec<TopicPartition> = self.known.keys().copied().collect();
        for record in records {
            if !partitions.contains(&record.topic_partition()) {
                partitions.push(record.topic_partition());
            }
        }
        for (partition, stored) in self.stored(&partitions).await? {
            let before = self.of(partition);
            let known = self.known.insert(partition, stored).flatten();
            if stored != known && stored.is_some_and(|stored| !self.is_of_topic(partition, stored)) {
                return Err(PositionError::Replaced { partition });
            }
            if self.of(partition) < before {
                return Err(PositionError::Rewound { partition });
            }
        }
        self.stale = false;
        Ok(())
    }

    fn of(&self, partition: TopicPartition) -> Option<i64> {
        let stored = self.known.get(&partition).copied().flatten()?;
        self.is_of_topic(partition, stored).then_some(stored.next_offset)
    }

    async fn stored(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<Stored>)>, Error> {
        let name = |partition: &TopicPartition| (self.name(partition.topic).to_owned(), partition.partition);
        let names: Vec<_> = partitions.iter().map(name).collect();
        let stored = self.database.positions(&self.consumer, &names).await?;
        Ok(partitions.iter().copied().zip(stored).collect())
    }
}
