//! Records as a member reads and publishes them.

use super::TopicPartition;
use crate::topics::Topic;

/// A record as it was read.
#[derive(Clone, Debug)]
pub struct InboundRecord {
    pub topic: &'static Topic,
    pub partition: i32,
    pub offset: i64,
    /// The record's timestamp, milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl InboundRecord {
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic, partition: self.partition }
    }

    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// Bytes of key, value and headers.
    pub(super) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// A record to be published. The key chooses the partition as Kafka's Java clients do.
#[derive(Clone, Debug)]
pub struct OutboundRecord {
    pub topic: &'static Topic,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl OutboundRecord {
    /// What the broker weighs against the topic's limit, in bytes, with the
    /// record's own framing rounded up.
    pub fn size(&self) -> usize {
        const FRAMING: usize = 128;
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
        FRAMING + self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}
