//! What tells a topic from another of the same name that was made after it was deleted:
//! the id the brokers gave it (KIP-516). rdkafka's safe interface does not have it.
#![expect(unsafe_code, reason = "rdkafka does not offer topic ids")]

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::slice;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;
use sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR as NO_ERROR;
use uuid::Uuid;

/// Topics that exist, by their full names, with their ids; `None` where brokers older than
/// Kafka 2.8 have none.
pub type TopicIds = HashMap<String, Option<Uuid>>;

/// Asks the brokers, which takes `timeout` at most. Topics that do not exist are left out.
///
/// # Errors
/// When there is no answer, in a form for people.
pub(crate) fn topic_ids<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Result<TopicIds, String> {
    if names.is_empty() {
        return Ok(TopicIds::new());
    }
    let names: Vec<CString> = names
        .iter()
        .map(|name| CString::new(*name).map_err(|_| "a topic's name holds a NUL".to_owned()))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = timeout.as_millis().clamp(1, 3_600_000) as i32;
    // SAFETY: the client is borrowed and may be used from any thread; names are copied into the
    // collection, and collection and options into the request. All are destroyed once, the queue
    // last; an answer that comes in later than that is dropped with it.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client.native_ptr());
        let options = sys::rd_kafka_AdminOptions_new(
            client.native_ptr(),
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut text = [0 as c_char; 256];
        // A timeout that is not taken leaves the default, which is bounded as well.
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text.as_mut_ptr(), text.len());
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        sys::rd_kafka_DescribeTopics(client.native_ptr(), topics, options, queue);
        sys::rd_kafka_TopicCollection_destroy(topics);
        sys::rd_kafka_AdminOptions_destroy(options);
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms);
        let answer = if event.is_null() { Err("no answer in time".to_owned()) } else { read(event) };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        answer
    }
}

/// # Safety
/// The event is a valid one.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Result<TopicIds, String> {
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != NO_ERROR {
            return Err(RDKafkaErrorCode::from(error).to_string());
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("the answer is of another kind than the question".to_owned());
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        let topics = if topics.is_null() { &[][..] } else { slice::from_raw_parts(topics, count) };
        let mut ids = TopicIds::new();
        for topic in topics {
            let error = sys::rd_kafka_TopicDescription_error(*topic);
            if !error.is_null() && sys::rd_kafka_error_code(error) != NO_ERROR {
                use RDKafkaErrorCode::{UnknownTopic, UnknownTopicOrPartition};
                match RDKafkaErrorCode::from(sys::rd_kafka_error_code(error)) {
                    UnknownTopic | UnknownTopicOrPartition => continue,
                    other => return Err(other.to_string()),
                }
            }
            let name = CStr::from_ptr(sys::rd_kafka_TopicDescription_name(*topic));
            let id = sys::rd_kafka_TopicDescription_topic_id(*topic);
            let id = (!id.is_null()).then(|| {
                Uuid::from_u64_pair(
                    sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned(),
                    sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned(),
                )
            });
            ids.insert(name.to_string_lossy().into_owned(), id.filter(|id| !id.is_nil()));
        }
        Ok(ids)
    }
}
