//! What a consumer's queue brings, with the topic that an end of partition belongs to:
//! rdkafka's own error for it names the partition's number alone.
#![expect(unsafe_code, reason = "rdkafka has no interface for this")]

use std::ffi::CStr;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

use super::Found;
use crate::kafka::groups::TopicPartition;

/// What happened to a partition.
pub(super) enum Happened {
    Record(Found),
    /// Nothing more before the last stable offset.
    End,
    Failed(String),
}

/// Waits for the next event of the consumer that is about a partition.
pub(super) fn next<C: ClientContext>(
    client: &Client<C>,
    timeout: Duration,
) -> Option<(TopicPartition, Happened)> {
    let timeout_ms = timeout.as_millis().try_into().unwrap_or(i32::MAX);
    // SAFETY: the client is borrowed; queue and event are ours until they are destroyed, and
    // nothing that points into them leaves.
    unsafe {
        let queue = sys::rd_kafka_queue_get_consumer(client.native_ptr());
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        sys::rd_kafka_queue_destroy(queue);
        if event.is_null() {
            return None;
        }
        let happened = match sys::rd_kafka_event_type(event) {
            sys::RD_KAFKA_EVENT_FETCH => record(event),
            sys::RD_KAFKA_EVENT_ERROR => error(event),
            _ => None,
        };
        sys::rd_kafka_event_destroy(event);
        happened
    }
}

/// # Safety
/// The event is a valid one of a fetch.
unsafe fn record(event: *mut sys::rd_kafka_event_t) -> Option<(TopicPartition, Happened)> {
    unsafe {
        let message = sys::rd_kafka_event_message_next(event);
        let seen = message.as_ref()?;
        if seen.rkt.is_null() {
            return None;
        }
        let topic = CStr::from_ptr(sys::rd_kafka_topic_name(seen.rkt)).to_string_lossy().into_owned();
        let place = (topic, seen.partition);
        match RDKafkaErrorCode::from(seen.err) {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::PartitionEOF => return Some((place, Happened::End)),
            other => return Some((place, Happened::Failed(other.to_string()))),
        }
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let timestamp_ms = sys::rd_kafka_message_timestamp(message, &raw mut kind);
        let known = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let found = Found { offset: seen.offset, timestamp_ms: known.then_some(timestamp_ms) };
        Some((place, Happened::Record(found)))
    }
}

/// # Safety
/// The event is a valid one of an error.
unsafe fn error(event: *mut sys::rd_kafka_event_t) -> Option<(TopicPartition, Happened)> {
    unsafe {
        let named = sys::rd_kafka_event_topic_partition(event);
        let place = named.as_ref()?;
        let topic = CStr::from_ptr(place.topic).to_string_lossy().into_owned();
        let place = (topic, place.partition);
        sys::rd_kafka_topic_partition_destroy(named);
        let happened = match RDKafkaErrorCode::from(sys::rd_kafka_event_error(event)) {
            RDKafkaErrorCode::PartitionEOF => Happened::End,
            other => Happened::Failed(other.to_string()),
        };
        Some((place, happened))
    }
}
