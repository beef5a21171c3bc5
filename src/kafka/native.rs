//! What rdkafka's safe interface cannot give. It panics on a header whose name is not
//! UTF-8, which any producer may send, and builds every header to find one. Its flush
//! neither overrides `linger.ms` nor wakes up when the last record is acknowledged. Its send
//! looks the topic up by name, under the client's lock, for every record.
#![expect(unsafe_code, reason = "rdkafka panics on headers whose names are not UTF-8")]

use std::ffi::{CStr, CString};
use std::ptr::NonNull;
use std::time::Duration;
use std::{ptr, slice};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;

/// A topic as one producer knows it, looked up once. Must not outlive the producer.
pub(crate) struct ProducedTopic(NonNull<sys::rd_kafka_topic_t>);

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for ProducedTopic {}

impl ProducedTopic {
    /// `None` for a name that cannot be one.
    pub(crate) fn new<C: ClientContext>(producer: &Client<C>, name: &str) -> Option<Self> {
        let name = CString::new(name).ok()?;
        // SAFETY: the client's pointer and the name are valid while they are borrowed; without a
        // configuration the topic gets the client's.
        let topic = unsafe { sys::rd_kafka_topic_new(producer.native_ptr(), name.as_ptr(), ptr::null_mut()) };
        NonNull::new(topic).map(Self)
    }
}

impl Drop for ProducedTopic {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_topic_new`, given back once; the producer still lives.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// Headers a record is sent with at most.
pub(crate) const HEADERS: usize = 3;

/// What is sent to a partition, now.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'r> {
    pub partition: i32,
    pub key: &'r [u8],
    pub value: Option<&'r [u8]>,
    /// Those after the first that is missing are not sent.
    pub headers: [Option<(&'r CStr, &'r [u8])>; HEADERS],
}

/// Puts a copy of the record into the producer's send buffer.
pub(crate) fn send<C: ClientContext>(
    producer: &Client<C>,
    topic: &ProducedTopic,
    record: &Outgoing<'_>,
) -> Result<(), KafkaError> {
    use sys::rd_kafka_vtype_t as tag;
    let (value, value_len) = record.value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
    let [first, second, third] = record.headers.map(|header| match header {
        None => (tag::RD_KAFKA_VTYPE_END, ptr::null(), ptr::null(), 0),
        Some((name, value)) => {
            (tag::RD_KAFKA_VTYPE_HEADER, name.as_ptr(), value.as_ptr(), value.len().cast_signed())
        }
    });
    // SAFETY: each argument is of the type that the tag before it names, up to the first tag that
    // ends them; everything is copied during the call; the topic is one of this client's.
    let error = unsafe {
        sys::rd_kafka_producev(
            producer.native_ptr(),
            tag::RD_KAFKA_VTYPE_RKT,
            topic.0.as_ptr(),
            tag::RD_KAFKA_VTYPE_PARTITION,
            record.partition,
            tag::RD_KAFKA_VTYPE_MSGFLAGS,
            sys::RD_KAFKA_MSG_F_COPY,
            tag::RD_KAFKA_VTYPE_VALUE,
            value,
            value_len,
            tag::RD_KAFKA_VTYPE_KEY,
            record.key.as_ptr(),
            record.key.len(),
            first.0,
            first.1,
            first.2,
            first.3,
            second.0,
            second.1,
            second.2,
            second.3,
            third.0,
            third.1,
            third.2,
            third.3,
            tag::RD_KAFKA_VTYPE_END,
        )
    };
    match error {
        sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::MessageProduction(error.into())),
    }
}

/// Sends what lingers and waits until the brokers have everything. `false` when
/// `timeout` came first: failed deliveries then wait to be polled.
pub(crate) fn flush<C: ClientContext>(producer: &Client<C>, timeout: Duration) -> bool {
    let timeout_ms = timeout.as_millis().try_into().unwrap_or(i32::MAX);
    // SAFETY: the pointer is valid while the client is borrowed, and librdkafka's
    // clients may be used from any thread.
    let error = unsafe { sys::rd_kafka_flush(producer.native_ptr(), timeout_ms) };
    error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The value of the last header called `name`, if it has one.
pub(crate) fn last_header<'m>(message: &'m BorrowedMessage<'_>, name: &CStr) -> Option<&'m [u8]> {
    let headers = headers(message)?;
    let mut value = ptr::null();
    let mut length = 0;
    // SAFETY: `headers` belongs to the message and lives as long as it does; the
    // out parameters are valid for writing.
    let error = unsafe { sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut length) };
    if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || value.is_null() {
        return None;
    }
    // SAFETY: librdkafka returned `length` bytes inside the message, borrowed for 'm.
    Some(unsafe { slice::from_raw_parts(value.cast(), length) })
}

/// Bytes of all header names and values together, and how many headers there are.
pub(crate) fn headers_len(message: &BorrowedMessage<'_>) -> (usize, usize) {
    let Some(headers) = headers(message) else {
        return (0, 0);
    };
    // SAFETY: `headers` belongs to the message, which is borrowed.
    let count = unsafe { sys::rd_kafka_header_cnt(headers) };
    let mut bytes = 0;
    for index in 0..count {
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: as above; the index is below the count.
        let error =
            unsafe { sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) };
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            // SAFETY: names are zero-terminated by librdkafka.
            bytes += unsafe { CStr::from_ptr(name) }.count_bytes() + length;
        }
    }
    (bytes, count)
}

/// All headers in order. What of a name is not UTF-8 is replaced; a value that is
/// null reads as empty.
pub(crate) fn all_headers(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    let Some(headers) = headers(message) else {
        return Vec::new();
    };
    // SAFETY: `headers` belongs to the message, which is borrowed.
    let count = unsafe { sys::rd_kafka_header_cnt(headers) };
    let mut all = Vec::with_capacity(count);
    for index in 0..count {
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: as above; the index is below the count.
        let error =
            unsafe { sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) };
        if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            // SAFETY: names are zero-terminated by librdkafka.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            let value = match value.is_null() {
                true => Vec::new(),
                // SAFETY: librdkafka returned `length` bytes inside the message.
                false => unsafe { slice::from_raw_parts(value.cast::<u8>(), length) }.to_vec(),
            };
            all.push((name, value));
        }
    }
    all
}

fn headers(message: &BorrowedMessage<'_>) -> Option<*mut sys::rd_kafka_headers_t> {
    let mut headers = ptr::null_mut();
    // SAFETY: the message pointer is valid while `message` is borrowed; librdkafka
    // parses the headers on first use and keeps them with the message.
    let error = unsafe { sys::rd_kafka_message_headers(message.ptr(), &mut headers) };
    (error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && !headers.is_null()).then_some(headers)
}
