//! What conversation events count of campaigns' calls, from all their partitions.

use crate::health::Health;
use crate::kafka::global_consumer::GlobalConsumer;
use crate::kafka::global_table::{Entries, GlobalTable};
use crate::model::call_counts::{CallCounts, PartitionCounts};
use crate::stages::windowing::EventCounts;
use crate::topics;

/// Campaigns times partitions known at most.
const ENTRIES_LIMIT: usize = 500_000;

/// The sums of all partitions; clones share them.
#[derive(Clone, Debug)]
pub(super) struct CountTable(GlobalTable<PartitionCounts>);

impl CountTable {
    /// Starts reading. Registers `windowing.counts` with `health`.
    pub(super) fn open(global: &GlobalConsumer, health: &Health) -> Self {
        let part = health.part("windowing.counts");
        Self(GlobalTable::open(global, &topics::CAMPAIGN_COUNTS, ENTRIES_LIMIT, part))
    }

    /// Waits until all is read. `false` when the shutdown came first.
    pub(super) async fn caught_up(&self) -> bool {
        self.0.caught_up().await
    }
}

impl EventCounts for CountTable {
    fn of(&self, campaign_id: &str) -> Option<CallCounts> {
        summed(&self.0.entries(), campaign_id)
    }
}

/// A campaign's counts of all partitions together, where any has told some.
fn summed(entries: &Entries<PartitionCounts>, campaign_id: &str) -> Option<CallCounts> {
    // All partitions know alike how many they are.
    let partitions = entries.values().next()?.partitions;
    let told = (0..partitions).filter_map(|partition| {
        Some(entries.get(PartitionCounts::key(campaign_id, partition).as_str())?.counts)
    });
    told.reduce(CallCounts::and)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn partitions_add_up_and_silence_is_not_zero() {
        let told = |answers| {
            let counts = CallCounts { attempts: answers, answers, abandoned: 1 };
            Arc::new(PartitionCounts { partitions: 3, counts })
        };
        let key = |campaign_id: &str, partition| PartitionCounts::key(campaign_id, partition).into();
        let entries: Entries<PartitionCounts> =
            [(key("a", 0), told(5)), (key("a", 2), told(7)), (key("b", 1), told(1))].into();
        assert_eq!(summed(&entries, "a"), Some(CallCounts { attempts: 12, answers: 12, abandoned: 2 }));
        assert_eq!(summed(&entries, "c"), None);
        assert_eq!(summed(&Entries::new(), "a"), None);
    }
}
