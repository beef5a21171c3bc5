//! What is ready to leave, and under which offsets.

use super::tracker::Tracker;
use crate::kafka::subscription::{Offsets, OutboundRecord, TopicPartition};
use crate::runtime::dead_letter::ErrorHeaders;
use crate::runtime::refused;

/// A record's ending as it will stand on its topic.
#[derive(Clone, Debug)]
pub(crate) struct Finished {
    pub outbound: Vec<OutboundRecord>,
    /// For the metric: an outcome's status, or `dead_letter`.
    pub status: &'static str,
}

impl Finished {
    /// Has the brokers refuse no record of it any more: dead letters take their place. `false`
    /// where nothing is left that they might take.
    pub(super) fn set_refused_aside(&mut self, errors: &ErrorHeaders) -> bool {
        let instead = |record: &OutboundRecord| refused::instead_of(record.clone(), errors);
        match self.outbound.iter().map(instead).collect::<Option<Vec<_>>>() {
            Some(instead) => {
                self.outbound = instead;
                true
            }
            None => false,
        }
    }
}

/// What goes into one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub records: Vec<OutboundRecord>,
    pub statuses: Vec<&'static str>,
    pub offsets: Offsets,
}

impl Batch {
    /// From each tracker the part without holes, `at_most` records in all.
    pub(super) fn collect<'a>(
        trackers: impl Iterator<Item = (TopicPartition, &'a Tracker<Finished>)>,
        at_most: usize,
    ) -> Self {
        let mut batch = Self::default();
        for (partition, tracker) in trackers {
            let (ready, next) = tracker.publishable(at_most - batch.statuses.len());
            for finished in ready {
                batch.records.extend(finished.outbound.iter().cloned());
                batch.statuses.push(finished.status);
            }
            batch.offsets.extend(next.map(|next| (partition, next)));
        }
        batch
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}
