//! Where partitions end: one question to each broker for all of them. rdkafka's safe interface
//! asks so for consumers alone, and for producers one partition after the other, each twice.
#![expect(unsafe_code, reason = "rdkafka lets only consumers ask for offsets of several partitions")]

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use rdkafka_sys as sys;

use super::reader::Reader;
use super::settings::KafkaSettings;

const ASKED_AGAIN: Duration = Duration::from_millis(20);

/// Where partitions end whatever of them is committed.
///
/// Asks with a client of its own, made when it is needed: one that reads has connections on which
/// requests wait for records.
pub(crate) struct LogEnds {
    config: ClientConfig,
    client: OnceCell<BaseConsumer<Reader>>,
}

impl LogEnds {
    pub(crate) fn new(kafka: &KafkaSettings, role: &str) -> Self {
        let mut config = kafka.reader(role);
        config.set("isolation.level", "read_uncommitted");
        Self { config, client: OnceCell::new() }
    }

    fn client(&self) -> Result<&BaseConsumer<Reader>, KafkaError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = BaseConsumer::from_config_and_context(&self.config, Reader { what: "ends of logs" })?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Offset after the last record or marker of each of a topic's `partitions`, in their order.
    ///
    /// # Errors
    /// When not all of them have answered within `wait`.
    pub(crate) fn of(&self, topic: &str, partitions: &[i32], wait: Duration) -> Result<Vec<i64>, KafkaError> {
        ends(self.client()?.client(), topic, partitions, wait)
    }
}

/// Where each of a topic's `partitions` ends for this client, in their order. One request to each
/// broker, and again where a broker has begun anew since it was asked last.
///
/// # Errors
/// When not all of them have answered within `wait`.
pub(super) fn ends<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[i32],
    wait: Duration,
) -> Result<Vec<i64>, KafkaError> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match ask(client, topic, partitions, left) {
            Err(_) if Instant::now() < until => std::thread::sleep(ASKED_AGAIN),
            answer => return answer,
        }
    }
}

fn ask<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[i32],
    wait: Duration,
) -> Result<Vec<i64>, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        // In the place of a time this stands for the end.
        list.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let wait_ms = wait.as_millis().try_into().unwrap_or(i32::MAX);
    // SAFETY: client and list are valid while they are borrowed; the call returns when it has no more
    // use for either.
    let error = unsafe { sys::rd_kafka_offsets_for_times(client.native_ptr(), list.ptr(), wait_ms) };
    if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Err(KafkaError::OffsetFetch(error.into()));
    }
    let end = |partition: &i32| {
        let found = list.find_partition(topic, *partition).ok_or(KafkaError::NoMessageReceived)?;
        found.error()?;
        found.offset().to_raw().filter(|end| *end >= 0).ok_or(KafkaError::NoMessageReceived)
    };
    partitions.iter().map(end).collect()
}
