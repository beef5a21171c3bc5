//! How far each partition has been read, as Postgres has it.

use std::collections::HashMap;

use crate::postgres::ledger::Advance;
use crate::postgres::{Database, Error};
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{InboundRecord, Offsets, Start, TopicPartition};
use crate::topics::{self, Topic};

/// The stored positions of one consumer's partitions.
pub struct Positions {
    database: Database,
    consumer: String,
    /// All topics' full names, made once.
    names: Vec<(&'static Topic, String)>,
    /// Of each assigned partition; `None` before its first row.
    known: HashMap<TopicPartition, Option<i64>>,
    /// An attempt failed: what is stored may differ from what we know.
    stale: bool,
}

/// Why positions cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// The stored position is before one that was stored earlier: reading must begin
    /// anew from there.
    #[error("the stored position of {partition} went back")]
    Rewound { partition: TopicPartition },
    #[error(transparent)]
    Unavailable(#[from] Error),
}

impl Positions {
    pub fn new(database: Database, kafka: &KafkaSettings, role: &str) -> Self {
        Self {
            database,
            consumer: kafka.group(role),
            names: topics::ALL.iter().map(|topic| (*topic, kafka.topic(topic))).collect(),
            known: HashMap::new(),
            stale: false,
        }
    }

    /// The consumer they are stored for.
    pub fn consumer(&self) -> &str {
        &self.consumer
    }

    /// A topic's full name.
    pub fn name(&self, topic: &Topic) -> &str {
        let found = self.names.iter().find(|(known, _)| *known == topic);
        found.map(|(_, name)| name.as_str()).expect("every topic is declared in topics::ALL")
    }

    /// Reads where newly assigned partitions go on.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn begin(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Start)>, Error> {
        let stored = self.stored(partitions).await?;
        self.known.extend(stored.iter().copied());
        let start = |position: Option<i64>| position.map_or(Start::Earliest, Start::At);
        Ok(stored.into_iter().map(|(partition, position)| (partition, start(position))).collect())
    }

    /// These partitions are no longer ours.
    pub fn forget(&mut self, partitions: &[TopicPartition]) {
        self.known.retain(|partition, _| !partitions.contains(partition));
    }

    /// Records that are not behind the positions, and how far these move with them.
    pub fn ahead<'r>(&self, records: &'r [InboundRecord]) -> (Vec<&'r InboundRecord>, Offsets) {
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

    /// What moves the stored positions to `next`.
    pub fn advances(&self, next: &[(TopicPartition, i64)]) -> Vec<Advance> {
        let advance = |(partition, next): &(TopicPartition, i64)| Advance {
            topic: self.name(partition.topic).to_owned(),
            partition: partition.partition,
            expected: self.of(*partition),
            next: *next,
        };
        next.iter().map(advance).collect()
    }

    /// They were moved.
    pub fn moved(&mut self, next: &[(TopicPartition, i64)]) {
        self.known.extend(next.iter().map(|(partition, next)| (*partition, Some(*next))));
    }

    /// It is not known whether they were moved, or another writer has moved them.
    pub fn doubt(&mut self) {
        self.stale = true;
    }

    /// Where there is doubt, what was committed is taken over: by us without our knowing, or
    /// by another writer.
    ///
    /// # Errors
    /// See [`PositionError`].
    pub async fn make_sure(&mut self, records: &[InboundRecord]) -> Result<(), PositionError> {
        if !self.stale {
            return Ok(());
        }
        let mut partitions: Vec<TopicPartition> = self.known.keys().copied().collect();
        for record in records {
            if !partitions.contains(&record.topic_partition()) {
                partitions.push(record.topic_partition());
            }
        }
        for (partition, position) in self.stored(&partitions).await? {
            let known = self.known.insert(partition, position).flatten();
            if position < known {
                return Err(PositionError::Rewound { partition });
            }
        }
        self.stale = false;
        Ok(())
    }

    fn of(&self, partition: TopicPartition) -> Option<i64> {
        self.known.get(&partition).copied().flatten()
    }

    async fn stored(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<i64>)>, Error> {
        let name = |partition: &TopicPartition| (self.name(partition.topic).to_owned(), partition.partition);
        let names: Vec<_> = partitions.iter().map(name).collect();
        let stored = self.database.positions(&self.consumer, &names).await?;
        Ok(partitions.iter().copied().zip(stored).collect())
    }
}
