//! What librdkafka tells of a producer from threads of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};

/// Notes what librdkafka reports from its own threads.
#[derive(Clone, Default)]
pub(super) struct Watch {
    /// A connection broke or a request timed out: something may have been sent twice.
    pub(super) unsettled: Arc<AtomicBool>,
    delivery_error: Arc<Mutex<Option<RDKafkaErrorCode>>>,
}

impl Watch {
    pub(super) fn take_delivery_error(&self) -> Option<RDKafkaErrorCode> {
        self.delivery_error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Watch {
    /// A closed connection is an error event only at times, but always a line of
    /// the facility FAIL. One that never came up carried nothing.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "REQTMOUT" || (facility == "FAIL" && message.contains("in state UP")) {
            self.unsettled.store(true, Ordering::Release);
        }
        match level {
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "producer"),
            _ => tracing::warn!(facility, message, "producer"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "producer");
    }
}

impl ProducerContext<NoCustomPartitioner> for Watch {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            let mut first = self.delivery_error.lock().unwrap_or_else(PoisonError::into_inner);
            // Purged records only follow from the first failure.
            if first.is_none() {
                *first = Some(code);
            }
        }
    }
}
