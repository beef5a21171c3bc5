//! A consumer that reads partitions to their ends: there an end is news, not an error.

use rdkafka::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// Says nothing of ends in the log.
pub(crate) struct Reader {
    /// What is read, for the log.
    pub what: &'static str,
}

impl ClientContext for Reader {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF)
            && !matches!(error, KafkaError::PartitionEOF(_))
        {
            tracing::warn!(%error, reason, "reader of {}", self.what);
        }
    }
}

impl ConsumerContext for Reader {}
