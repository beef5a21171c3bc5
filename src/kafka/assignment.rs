//! Which partitions a consumer holds.
//!
//! librdkafka tells of a rebalance in the middle of polling and waits for our
//! answer. The callback only takes note; the worker answers between batches,
//! when no transaction is open and state can be restored in peace.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

/// A change of the assignment that waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These are ours from now on: restore, then `incremental_assign`.
    Assigned(Vec<i32>),
    /// These are not: drop, then `incremental_unassign`. `lost` ones may already be
    /// in use elsewhere.
    Revoked { partitions: Vec<i32>, lost: bool },
}

/// Consumer context that queues the changes.
#[derive(Default)]
pub(crate) struct Assignment {
    changes: Mutex<VecDeque<Change>>,
    pending: AtomicBool,
    closing: AtomicBool,
    /// No broker can be reached, as librdkafka sees it.
    unreachable: AtomicBool,
}

impl Assignment {
    /// Whether a change waits. Cheap: asked after every record.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    pub(crate) fn next(&self) -> Option<Change> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let change = changes.pop_front();
        self.pending.store(!changes.is_empty(), Ordering::Release);
        change
    }

    /// From now on every change is answered at once: the consumer is being closed.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether the brokers were reported unreachable since the last call.
    pub(crate) fn take_unreachable(&self) -> bool {
        self.unreachable.swap(false, Ordering::AcqRel)
    }
}

impl ClientContext for Assignment {
    fn error(&self, error: KafkaError, reason: &str) {
        use rdkafka::types::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, Resolve};
        if let Some(AllBrokersDown | BrokerTransportFailure | Resolve) = error.rdkafka_error_code() {
            self.unreachable.store(true, Ordering::Release);
        }
        tracing::warn!(%error, reason, "consumer");
    }
}

impl ConsumerContext for Assignment {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            answer_at_once(consumer, assigned, partitions);
            return;
        }
        let numbers = partitions.elements().iter().map(|element| element.partition()).collect();
        let change = if assigned {
            Change::Assigned(numbers)
        } else {
            Change::Revoked { partitions: numbers, lost: consumer.assignment_lost() }
        };
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.push_back(change);
        self.pending.store(true, Ordering::Release);
    }
}

fn answer_at_once(consumer: &BaseConsumer<Assignment>, assigned: bool, partitions: &TopicPartitionList) {
    let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
    let answered = match (assigned, cooperative) {
        (true, true) => consumer.incremental_assign(partitions),
        (true, false) => consumer.assign(partitions),
        (false, true) => consumer.incremental_unassign(partitions),
        (false, false) => consumer.unassign(),
    };
    if let Err(error) = answered {
        tracing::warn!(%error, "leaving the group");
    }
}

/// A list of partitions of one topic without offsets.
pub(crate) fn partition_list(topic: &str, partitions: &[i32]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition(topic, *partition);
    }
    list
}
