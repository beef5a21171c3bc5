//! From conversations that were looked up to what calls count as.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::kafka::subscription::{InboundRecord, Offsets, TopicPartition};
use crate::metrics;
use crate::model::compliance::{Call, Rules};
use crate::model::enriched::EnrichedConversation;
use crate::postgres::Database;
use crate::postgres::compliance::RecordedCall;
use crate::runtime::dead_letter::Reason;
use crate::sinks::positioned::{self, Keeper, NotKept, NotWritten, Positions, SetAside, Step, Writer};

pub(super) struct Intake {
    database: Database,
    positions: Positions,
    rules: Rules,
    /// Whether this instance has partition 0.
    evaluates: Arc<AtomicBool>,
}

impl Intake {
    pub(super) fn new(
        database: Database,
        positions: Positions,
        rules: Rules,
        evaluates: Arc<AtomicBool>,
    ) -> Self {
        Self { database, positions, rules, evaluates }
    }

    fn has_first(partitions: &[TopicPartition]) -> bool {
        partitions.iter().any(|partition| partition.partition == 0)
    }
}

impl Keeper for Intake {
    fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    async fn gained(&mut self, partitions: &[TopicPartition], _shutdown: &CancellationToken) {
        self.evaluates.fetch_or(Self::has_first(partitions), Ordering::Relaxed);
    }

    async fn lost(&mut self, partitions: &[TopicPartition]) {
        self.evaluates.fetch_and(!Self::has_first(partitions), Ordering::Relaxed);
    }

    async fn end(&mut self) {
        self.evaluates.store(false, Ordering::Relaxed);
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        positioned::keep(self, records, set_aside).await
    }
}

impl Writer for Intake {
    async fn write(&mut self, step: &Step<'_>) -> Result<(), NotWritten> {
        let calls = calls(&step.records, self.rules).map_err(NotWritten::Refused)?;
        let added = self.database.record_calls(self.positions.consumer(), &step.advances, &calls).await?;
        metrics::COMPLIANCE_CALLS.counter(&["recorded"]).increment(added);
        let same = (calls.len() as u64).saturating_sub(added);
        metrics::COMPLIANCE_CALLS.counter(&["unchanged"]).increment(same);
        Ok(())
    }
}

/// What the records say about calls of campaigns. A conversation that is no longer kept says
/// nothing: what it counted as stays.
///
/// # Errors
/// The records that are no conversations.
fn calls(records: &[&InboundRecord], rules: Rules) -> Result<Vec<RecordedCall>, Vec<SetAside>> {
    let (mut calls, mut unreadable) = (Vec::new(), Vec::new());
    for record in records {
        let Some(value) = record.value.as_deref() else { continue };
        match serde_json::from_slice::<EnrichedConversation<'_>>(value) {
            Ok(conversation) => calls.extend(Call::of(&conversation).map(|call| RecordedCall {
                call,
                rules,
                looked_up_at: conversation.enriched_at,
            })),
            Err(error) => unreadable.push(SetAside::new(record, Reason::BadJson(error.to_string()))),
        }
    }
    if unreadable.is_empty() { Ok(calls) } else { Err(unreadable) }
}
