//! Properties of the client library: it knows its own names and ranges best.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

/// Why a property is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is none of this name.
    Unknown,
    /// The value is not allowed; in the library's words, which may repeat it.
    Value(Option<String>),
}

/// Whether a property of this name takes this value.
///
/// # Errors
/// When it does not.
pub fn check(name: &str, value: &str) -> Result<(), Refused> {
    match ClientConfig::new().set(name, value).create_native_config() {
        Ok(_) => Ok(()),
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => Err(Refused::Unknown),
        Err(KafkaError::ClientConfig(_, described, ..)) => Err(Refused::Value(Some(described))),
        Err(_) => Err(Refused::Value(None)),
    }
}
