//! The second stage's part of a transaction of the first.

use super::links::Links;
use crate::kafka::KafkaError;
use crate::kafka::log_ends::LogEnds;
use crate::kafka::transaction::{Transaction, Verdict};
use crate::model::Timestamp;
use crate::pipeline::PartitionStage;
use crate::runtime::batch::{BatchError, blame, send_offsets};
use crate::runtime::input::ANSWER_WAIT;
use crate::runtime::onward::{Handed, Onward};
use crate::runtime::outbox::{Outbox, Sent};
use crate::runtime::seat::Seat;
use crate::runtime::writer::Incoming;
use crate::telemetry::Merged;

/// Lets the second stage take over what the first sends to linked partitions.
pub(super) struct Handover<'c, S: PartitionStage> {
    pub second: &'c mut Seat<S>,
    pub links: &'c mut Links,
    pub handed: &'c mut Handed,
    pub ends: &'c LogEnds,
    pub merged: Merged,
    /// Whether anything was taken over in this transaction.
    pub has_taken: bool,
}

fn not_answered(cause: KafkaError) -> BatchError {
    BatchError::Again(format!("where the topic between ends is not known: {cause}"), Verdict::Abortable)
}

impl<S: PartitionStage> Onward for Handover<'_, S> {
    fn handed(&mut self) -> &mut Handed {
        self.handed
    }

    fn take_over(&mut self, at: Timestamp, transaction: &mut Transaction<'_>) -> Result<(), BatchError> {
        let Seat { task, routes, input, .. } = &mut *self.second;
        for record in self.handed.records() {
            let (partition, offset) = (record.partition, self.links.offset(record.partition, record.nth));
            let (topic, traceparent) = (self.handed.topic(), record.traceparent);
            let sent = Sent { topic, name: input, partition, offset, traceparent };
            let (key, value) = (Some(record.key), Some(record.value));
            let incoming = Incoming { partition, offset, written_at: Some(at), key, value };
            let mut outbox = Outbox::of_sent(transaction, routes, sent, &mut self.merged);
            self.has_taken = true;
            task.process(at, &incoming, &mut outbox).map_err(|failure| blame(failure, input))?;
        }
        self.handed.clear();
        Ok(())
    }

    fn conclude(&mut self, at: Timestamp, transaction: &mut Transaction<'_>) -> Result<(), BatchError> {
        if !self.has_taken {
            return Ok(());
        }
        let Seat { task, routes, consumer, input, .. } = &mut *self.second;
        task.advance(at);
        let mut outbox = Outbox::without_record(transaction, routes, &mut self.merged);
        task.write_changes(&mut outbox).map_err(|failure| blame(failure, input))?;
        send_offsets(transaction, consumer, task, input)
    }

    fn verify(&mut self, transaction: &mut Transaction<'_>) -> Result<(), BatchError> {
        let sent = self.links.held_of(self.handed.sent());
        if sent.is_empty() {
            return Ok(());
        }
        transaction.flush()?;
        let partitions: Vec<i32> = sent.iter().map(|(partition, _)| *partition).collect();
        let ends = self.ends.of(&self.second.input, &partitions, ANSWER_WAIT).map_err(not_answered)?;
        for ((partition, sent), end) in sent.into_iter().zip(ends) {
            if !self.links.see_end(partition, sent, end) {
                let why = format!("somebody else writes to {}/{partition}", self.second.input);
                return Err(BatchError::Again(why, Verdict::Abortable));
            }
        }
        Ok(())
    }
}
