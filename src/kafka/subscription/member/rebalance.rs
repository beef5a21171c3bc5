//! Partitions come, are started, and go.

use std::sync::PoisonError;
use std::time::Instant;

use rdkafka::consumer::Consumer;
use rdkafka::{Offset, TopicPartitionList};

use super::context::Rebalance;
use super::{LOOKUP_RETRY, Member, Partition, Revoking, add};
use crate::kafka::settings::longer;
use crate::kafka::subscription::exchange::{Held, Queued};
use crate::kafka::subscription::{Start, TopicPartition};

impl Member {
    pub(super) fn answer_rebalances(&mut self) {
        // A revocation in progress is answered before anything newer is looked at.
        while self.revoking.is_none() {
            let next =
                self.consumer.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                None => return,
                Some(Rebalance::Assign(partitions)) => self.assigned(&partitions),
                Some(Rebalance::Revoke { partitions, lost }) => self.revoked(&partitions, lost),
                Some(Rebalance::Error(error)) => {
                    tracing::warn!(group = self.group, error, "rebalance failed; all partitions are let go");
                    let all: Vec<_> = self.held.keys().copied().collect();
                    self.let_go(&all, true);
                }
            }
        }
    }

    pub(super) fn ours(&self, partitions: &[(String, i32)]) -> Vec<TopicPartition> {
        partitions
            .iter()
            .filter_map(|(name, partition)| {
                Some(TopicPartition { topic: self.names.get(name)?, partition: *partition })
            })
            .collect()
    }

    pub(super) fn assigned(&mut self, partitions: &[(String, i32)]) {
        if let Err(error) = self.consumer.incremental_assign(&TopicPartitionList::new()) {
            tracing::error!(group = self.group, %error, "cannot acknowledge an assignment");
        }
        self.joined = true;
        self.reached();
        let mut held = Vec::new();
        for partition in self.ours(partitions) {
            self.next_epoch += 1;
            let epoch = self.next_epoch;
            self.held.insert(partition, Partition { epoch, started: false, paused: false });
            held.push(Held { partition, epoch });
        }
        tracing::info!(group = self.group, partitions = %listed(held.iter().map(|h| h.partition)), "assigned");
        // An owner is also to know that it has none, not that others have come or gone.
        if !held.is_empty() || self.held.is_empty() {
            self.shared.push(Queued::Assigned(held));
        }
    }

    pub(super) fn revoked(&mut self, partitions: &[(String, i32)], lost: bool) {
        let partitions: Vec<_> =
            self.ours(partitions).into_iter().filter(|partition| self.held.contains_key(partition)).collect();
        tracing::info!(group = self.group, partitions = %listed(partitions.iter().copied()), lost, "revoked");
        self.shared.withdraw(&partitions);
        self.joined &= !lost;
        if lost || partitions.is_empty() {
            self.let_go(&partitions, lost);
            return;
        }
        // Nothing further is delivered, while what is under way can be committed.
        self.stop_fetching(&partitions);
        self.shared.push(Queued::Revoked(partitions.clone()));
        self.revoking = Some(Revoking { partitions, until: Instant::now() + self.options.revocation_wait });
    }

    pub(super) fn finish_revocation(&mut self) {
        let over = |revoking: &Revoking| revoking.until <= Instant::now() || self.shutdown.is_cancelled();
        if let Some(revoking) = self.revoking.take_if(|revoking| over(revoking)) {
            self.let_go(&revoking.partitions, false);
        }
    }

    /// Takes partitions out of the assignment, which answers the revocation.
    pub(super) fn let_go(&mut self, partitions: &[TopicPartition], lost: bool) {
        let mut assigned = TopicPartitionList::new();
        for partition in partitions {
            if self.held.remove(partition).is_some_and(|held| held.started) {
                assigned.add_partition(&self.kafka.topic(partition.topic), partition.partition);
            }
        }
        if let Err(error) = self.consumer.incremental_unassign(&assigned) {
            tracing::error!(group = self.group, %error, "cannot let partitions go");
        }
        if lost && !partitions.is_empty() {
            self.shared.push(Queued::Lost(partitions.to_vec()));
        }
    }

    pub(super) fn stop_fetching(&mut self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            if let Some(held) = self.held.get_mut(partition).filter(|held| held.started) {
                held.paused = true;
                list.add_partition(&self.kafka.topic(partition.topic), partition.partition);
            }
        }
        self.pause_in_client(&list);
    }

    pub(super) fn start_partitions(&mut self) {
        let now = Instant::now();
        if !self.starting.iter().any(|(at, ..)| *at <= now) {
            return;
        }
        let held = &self.held;
        // Gone, or started already: passed over.
        self.starting.retain(|(_, wanted, _)| {
            held.get(&wanted.partition).is_some_and(|held| held.epoch == wanted.epoch && !held.started)
        });
        let due: Vec<_> = self.starting.extract_if(.., |(at, ..)| *at <= now).collect();
        let mut list = TopicPartitionList::new();
        let mut unknown = TopicPartitionList::new();
        for (_, wanted, start) in &due {
            let name = self.kafka.topic(wanted.partition.topic);
            match start {
                Start::At(offset) => {
                    add(&mut list, &name, wanted.partition.partition, Offset::Offset(*offset))
                }
                Start::Earliest => add(&mut list, &name, wanted.partition.partition, Offset::Beginning),
                Start::Committed => add(&mut unknown, &name, wanted.partition.partition, Offset::Invalid),
            }
        }
        if unknown.count() > 0 {
            match self.committed(unknown) {
                Ok(found) => {
                    for (name, partition, offset) in found {
                        let offset = offset.map_or(Offset::Beginning, Offset::Offset);
                        add(&mut list, &name, partition, offset);
                    }
                }
                Err(error) => {
                    tracing::warn!(group = self.group, %error, "cannot look up committed offsets; trying again");
                    self.lookup_wait = longer(self.lookup_wait);
                    let again = Instant::now() + LOOKUP_RETRY;
                    self.starting.extend(due.into_iter().map(|(_, wanted, start)| (again, wanted, start)));
                    return;
                }
            }
        }
        if list.count() > 0 {
            self.assign_at(&list);
        }
    }

    pub(super) fn assign_at(&mut self, list: &TopicPartitionList) {
        if let Err(error) = self.consumer.incremental_assign(list) {
            tracing::error!(group = self.group, %error, "cannot start partitions");
            return;
        }
        for element in list.elements() {
            let Some(topic) = self.names.get(element.topic()) else { continue };
            let partition = TopicPartition { topic, partition: element.partition() };
            let Some(held) = self.held.get_mut(&partition) else { continue };
            held.started = true;
            let mut single = TopicPartitionList::new();
            single.add_partition(element.topic(), element.partition());
            if held.paused || self.full {
                self.pause_in_client(&single);
            } else {
                // A pause outlives an assignment in librdkafka.
                self.resume_in_client(&single);
            }
        }
    }
}

fn listed(partitions: impl Iterator<Item = TopicPartition>) -> String {
    partitions.map(|partition| partition.to_string()).collect::<Vec<_>>().join(" ")
}
