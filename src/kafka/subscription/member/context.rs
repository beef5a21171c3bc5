//! What librdkafka reports from within `poll`, queued for the loop.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::TopicPartitionList;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

use crate::kafka::subscription::exchange::Shared;

/// Queues what librdkafka reports from within `poll`.
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) rebalances: Mutex<VecDeque<Rebalance>>,
    /// While the consumer closes, revocations are answered where they arrive.
    pub(super) closing: AtomicBool,
}

pub(super) enum Rebalance {
    Assign(Vec<(String, i32)>),
    Revoke { partitions: Vec<(String, i32)>, lost: bool },
    Error(String),
}

impl ClientContext for Context {}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: Code, partitions: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Acquire) {
            let assigned = consumer.assignment().unwrap_or_else(|_| TopicPartitionList::new());
            if let Err(error) = consumer.incremental_unassign(&assigned) {
                tracing::debug!(%error, "while leaving the group");
            }
            return;
        }
        let list = partitions
            .elements()
            .iter()
            .map(|element| (element.topic().to_owned(), element.partition()))
            .collect();
        let rebalance = match code {
            Code::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Rebalance::Assign(list),
            Code::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                Rebalance::Revoke { partitions: list, lost: consumer.assignment_lost() }
            }
            other => Rebalance::Error(RDKafkaErrorCode::from(other).to_string()),
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
        self.shared.work.set();
    }
}
