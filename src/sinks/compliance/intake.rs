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
use crate::sinks::positioned::{Keeper, NotKept, Positions, SetAside, Step};

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
        loop {
            let Step { records, advances, next } = self.positions.step(records, set_aside).await?;
            if next.is_empty() {
                return Ok(next);
            }
            let calls = calls(&records, self.rules).map_err(NotKept::Refused)?;
            let written = self.database.record_calls(self.positions.consumer(), &advances, &calls).await;
            let added = *written.as_ref().unwrap_or(&0);
            if let Some(next) = self.positions.settle(next, written.map(drop))? {
                metrics::COMPLIANCE_CALLS.counter(&["recorded"]).increment(added);
                let same = (calls.len() as u64).saturating_sub(added);
                metrics::COMPLIANCE_CALLS.counter(&["unchanged"]).increment(same);
                return Ok(next);
            }
        }
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
