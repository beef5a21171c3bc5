//! What rdkafka's safe interface cannot give. It panics on a header whose name is not
//! UTF-8, which any producer may send, and builds every header to find one. Its flush
//! neither overrides `linger.ms` nor wakes up when the last record is acknowledged.
#![expect(unsafe_code, reason = "rdkafka panics on headers whose names are not UTF-8")]

use std::ffi::CStr;
use std::time::Duration;
use std::{ptr, slice};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::message::BorrowedMessage;
use rdkafka_sys as sys;

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
