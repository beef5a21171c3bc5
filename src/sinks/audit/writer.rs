//! From records to one transaction in the ledger.

use super::{facts, set_aside};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Start, TopicPartition};
use crate::kafka::topic_ids::TopicIds;
use crate::metrics;
use crate::postgres::ledger::{Batch, Logged, LoggedDecision, LoggedOutcome, RecordError, Written};
use crate::postgres::{Database, Error};
use crate::runtime::dead_letter::Reason;
use crate::sinks::positioned::{PositionError, Positions, SetAside};
use crate::topics;

/// Writes batches and knows how far each partition has been read.
pub struct AuditWriter {
    database: Database,
    positions: Positions,
}

/// What one call of [`AuditWriter::write`] brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub written: Written,
    pub set_aside: u64,
    /// Offset of the next record, per partition of the batch.
    pub next: Vec<(TopicPartition, i64)>,
}

impl Stored {
    pub(super) fn count(&self) {
        let rows = |kind, result, count| {
            if count > 0 {
                metrics::AUDIT_ROWS.counter(&[kind, result]).increment(count);
            }
        };
        rows("decision", "stored", self.written.decisions);
        rows("outcome", "stored", self.written.outcomes);
        rows("dead_letter", "stored", self.written.dead_letters);
        rows("other", "duplicate", self.written.duplicates);
        rows("other", "dead_letter", self.set_aside);
    }
}

/// Why a batch is not in the ledger yet.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// These records cannot be kept: set them aside, then write again without them.
    #[error("{} records cannot be kept", .0.len())]
    Refused(Vec<SetAside>),
    /// The stored position is before one that was stored earlier: reading must begin
    /// anew from there.
    #[error("the stored position of {partition} went back")]
    Rewound { partition: TopicPartition },
    /// Another writer reads another topic of the same name: reading must begin anew.
    #[error("the topic of {partition} was deleted and made again")]
    Replaced { partition: TopicPartition },
    /// Write the same batch again later; what was committed after all is not written twice.
    #[error(transparent)]
    Unavailable(Error),
}

impl AuditWriter {
    pub fn new(database: Database, kafka: &KafkaSettings) -> Self {
        Self { positions: Positions::new(database.clone(), kafka, &super::ROLE), database }
    }

    /// Reads where newly assigned partitions go on.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn positions(
        &mut self,
        partitions: &[TopicPartition],
        ids: &TopicIds,
    ) -> Result<Vec<(TopicPartition, Start)>, Error> {
        self.positions.begin(partitions, ids).await
    }

    pub(super) fn stored_positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    /// Writes what of `records` is not in the ledger yet, in one transaction. Records
    /// in `set_aside` only move the position.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn write(
        &mut self,
        records: &[InboundRecord],
        set_aside: &[SetAside],
    ) -> Result<Stored, WriteError> {
        loop {
            self.positions.make_sure(records).await?;
            let plan = Plan::new(&self.positions, records, set_aside)?;
            if plan.next.is_empty() {
                return Ok(Stored::default());
            }
            match self.database.record(self.positions.consumer(), &plan.batch).await {
                Ok(written) => {
                    let stored = Stored { written, set_aside: plan.set_aside, next: plan.next };
                    self.positions.moved(&stored.next);
                    return Ok(stored);
                }
                Err(RecordError::Moved) => {
                    metrics::AUDIT_RETRIES.counter(&["moved"]).increment(1);
                    self.positions.doubt();
                }
                Err(RecordError::Unavailable(error)) => {
                    metrics::AUDIT_RETRIES.counter(&["unavailable"]).increment(1);
                    self.positions.doubt();
                    return Err(WriteError::Unavailable(error));
                }
                Err(RecordError::Refused(error)) => {
                    metrics::AUDIT_RETRIES.counter(&["refused"]).increment(1);
                    return Err(self.find_refused(&plan, error).await);
                }
            }
        }
    }

    async fn find_refused(&self, plan: &Plan<'_>, error: Error) -> WriteError {
        match self.database.refusals(&plan.batch).await {
            Err(error) => WriteError::Unavailable(error),
            // The batch as a whole is refused but none of its rows: not the rows' fault.
            Ok(refusals) if refusals.is_empty() => WriteError::Unavailable(error),
            Ok(refusals) => WriteError::Refused(
                refusals
                    .into_iter()
                    .filter_map(|refusal| {
                        let is_this = |partition: &&TopicPartition| {
                            partition.partition == refusal.partition
                                && self.positions.name(partition.topic) == refusal.topic
                        };
                        let partition = *plan.next.iter().map(|(partition, _)| partition).find(is_this)?;
                        Some(SetAside {
                            partition,
                            offset: refusal.offset,
                            reason: Reason::Rejected(refusal.reason),
                        })
                    })
                    .collect(),
            ),
        }
    }
}

impl From<PositionError> for WriteError {
    fn from(error: PositionError) -> Self {
        match error {
            PositionError::Rewound { partition } => Self::Rewound { partition },
            PositionError::Replaced { partition } => Self::Replaced { partition },
            PositionError::Unavailable(error) => Self::Unavailable(error),
        }
    }
}

/// What one transaction is to write.
#[derive(Default)]
struct Plan<'r> {
    batch: Batch<'r>,
    set_aside: u64,
    next: Vec<(TopicPartition, i64)>,
}

impl<'r> Plan<'r> {
    /// Decodes what is not stored yet and says how far each partition moves.
    fn new(
        positions: &'r Positions,
        records: &'r [InboundRecord],
        set_aside: &[SetAside],
    ) -> Result<Self, WriteError> {
        let (ahead, next) = positions.ahead(records);
        let mut plan = Self { next, ..Self::default() };
        let mut refused = Vec::new();
        for record in ahead {
            if set_aside.iter().any(|other| other.is_of(record)) {
                plan.set_aside += 1;
            } else if let Err(reason) = plan.decode(record, positions) {
                refused.push(SetAside::new(record, reason));
            }
        }
        if !refused.is_empty() {
            return Err(WriteError::Refused(refused));
        }
        plan.batch.advances = positions.advances(&plan.next);
        Ok(plan)
    }

    fn decode(&mut self, record: &'r InboundRecord, positions: &'r Positions) -> Result<(), Reason> {
        let (topic, partition, offset) = (positions.name(record.topic), record.partition, record.offset);
        let topic_id = positions.topic_id(record.topic);
        if record.topic == &topics::DEAD_LETTERS {
            let value = set_aside::letter(record);
            self.batch.dead_letters.push(Logged { topic, topic_id, partition, offset, value });
            return Ok(());
        }
        if let Some(read) = facts::read(record) {
            return read;
        }
        let bytes = record.value.as_deref().ok_or(Reason::Tombstone)?;
        let bad_json = |error: serde_json::Error| Reason::BadJson(error.to_string());
        if record.topic == &topics::OUTCOMES {
            let value: LoggedOutcome<'r> = serde_json::from_slice(bytes).map_err(bad_json)?;
            self.batch.outcomes.push(Logged { topic, topic_id, partition, offset, value });
        } else {
            let value: LoggedDecision<'r> = serde_json::from_slice(bytes).map_err(bad_json)?;
            self.batch.decisions.push(Logged { topic, topic_id, partition, offset, value });
        }
        Ok(())
    }
}
