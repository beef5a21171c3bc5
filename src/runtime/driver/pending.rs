//! What a batch in memory has written before it commits.

use std::convert::Infallible;

use super::Stored;
use crate::model::Timestamp;
use crate::pipeline::{Destination, Output};
use crate::runtime::dead_letter::{ErrorHeaders, PER_HEADER};
use crate::runtime::writer::{Incoming, Writer};
use crate::telemetry;
use crate::topics::{Topic, headers, partition_of};

/// What a batch has written so far.
pub(super) struct Pending<'b> {
    pub at: Timestamp,
    pub partitions: i32,
    /// The one being processed.
    pub record: Option<&'b Stored>,
    pub records: &'b mut Vec<(&'static Topic, i32, Stored)>,
}

impl Writer for Pending<'_> {
    type Error = Infallible;

    fn output(&mut self, output: Output<'_>) -> Result<(), Infallible> {
        let Output { topic, destination, key, value } = output;
        let mut all = vec![
            (headers::CONTENT_TYPE.to_owned(), headers::CONTENT_TYPE_JSON.as_bytes().to_vec()),
            (headers::SCHEMA.to_owned(), topic.schema_id().as_bytes().to_vec()),
        ];
        let traces = self.record.iter().flat_map(|record| &record.headers);
        let mut traces = traces.filter(|(name, value)| {
            name == headers::TRACEPARENT && std::str::from_utf8(value).is_ok_and(telemetry::is_traceparent)
        });
        all.extend(traces.next_back().cloned());
        let stored = Stored {
            key: Some(key.to_vec()),
            value: Some(value.to_vec()),
            headers: all,
            written_at: Some(self.at),
        };
        match destination {
            Destination::Key => self.records.push((topic, partition_of(key, self.partitions), stored)),
            Destination::EveryPartition => {
                let copies = (0..self.partitions).map(|partition| (topic, partition, stored.clone()));
                self.records.extend(copies);
            }
        }
        Ok(())
    }

    fn set_aside(
        &mut self,
        topic: &'static Topic,
        record: &Incoming<'_>,
        keep_headers: bool,
        errors: &ErrorHeaders,
    ) -> Result<(), Infallible> {
        let mut stored = self.record.expect("a record is being processed").clone();
        if !keep_headers {
            stored.headers.clear();
        }
        stored
            .headers
            .extend(errors.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        let partition = record.key.map_or(record.partition, |key| partition_of(key, self.partitions));
        self.records.push((topic, partition, stored));
        Ok(())
    }

    fn changelog(
        &mut self,
        topic: &'static Topic,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Infallible> {
        let stored = Stored {
            key: Some(key.to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: Vec::new(),
            written_at: Some(self.at),
        };
        self.records.push((topic, partition, stored));
        Ok(())
    }

    fn headers_len(&self) -> usize {
        let headers = self.record.iter().flat_map(|record| &record.headers);
        headers.map(|(name, value)| name.len() + value.len() + PER_HEADER).sum()
    }
}
