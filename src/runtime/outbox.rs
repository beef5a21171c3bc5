//! A task's results, written into a Kafka transaction.

use std::ffi::CStr;

use super::dead_letter::{ErrorHeaders, PER_HEADER};
use super::task::{Incoming, Writer};
use crate::kafka::native;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::{Transaction, TransactionError};
use crate::kafka::{BorrowedHeaders, BorrowedMessage, Header, Message, OwnedHeaders};
use crate::pipeline::{Declaration, Destination, Output};
use crate::topics::{self, Topic, headers, partition_of};

const TRACEPARENT: &CStr = c"traceparent";

/// Where a stage's records go: names, numbers of partitions and constant headers,
/// looked up once.
pub(super) struct Routes(Vec<Route>);

struct Route {
    topic: &'static Topic,
    name: String,
    partitions: i32,
    headers: OwnedHeaders,
}

impl Routes {
    pub(super) fn new<E>(
        declaration: &'static Declaration,
        kafka: &KafkaSettings,
        partitions_of: impl Fn(&Topic) -> Result<i32, E>,
    ) -> Result<Self, E> {
        let topics = declaration.outputs.iter().copied().chain([
            declaration.changelog,
            &topics::DEAD_LETTERS,
            &topics::LATE_EVENTS,
        ]);
        let route = |topic: &'static Topic| {
            let headers = OwnedHeaders::new_with_capacity(3)
                .insert(Header { key: headers::CONTENT_TYPE, value: Some(headers::CONTENT_TYPE_JSON) })
                .insert(Header { key: headers::SCHEMA, value: Some(topic.schema_id()) });
            Ok(Route { topic, name: kafka.topic(topic), partitions: partitions_of(topic)?, headers })
        };
        topics.map(route).collect::<Result<_, E>>().map(Self)
    }

    fn of(&self, topic: &'static Topic) -> &Route {
        self.0
            .iter()
            .find(|route| std::ptr::eq(route.topic, topic))
            .or_else(|| self.0.iter().find(|route| route.topic == topic))
            .unwrap_or_else(|| panic!("stage sends to {topic:?} without declaring it"))
    }
}

/// Writes what comes of one record.
pub(super) struct Outbox<'t, 'p, 'm> {
    transaction: &'t mut Transaction<'p>,
    routes: &'t Routes,
    message: Option<&'t BorrowedMessage<'m>>,
    /// The record's trace, once looked for.
    trace: Option<Option<&'t str>>,
}

impl<'t, 'p, 'm> Outbox<'t, 'p, 'm> {
    pub(super) fn new(
        transaction: &'t mut Transaction<'p>,
        routes: &'t Routes,
        message: &'t BorrowedMessage<'m>,
    ) -> Self {
        Self { transaction, routes, message: Some(message), trace: None }
    }

    /// For what no record is the cause of: the changelog, and what time brings.
    pub(super) fn without_record(transaction: &'t mut Transaction<'p>, routes: &'t Routes) -> Self {
        Self { transaction, routes, message: None, trace: None }
    }

    fn trace(&mut self) -> Option<&'t str> {
        let message = self.message;
        *self.trace.get_or_insert_with(|| {
            let value = native::last_header(message?, TRACEPARENT)?;
            std::str::from_utf8(value).ok().filter(|text| is_traceparent(text))
        })
    }

    fn original_headers(&self) -> Option<&'t BorrowedHeaders> {
        self.message.and_then(|message| message.headers())
    }
}

impl Writer for Outbox<'_, '_, '_> {
    type Error = TransactionError;

    fn output(&mut self, output: Output<'_>) -> Result<(), TransactionError> {
        let route = self.routes.of(output.topic);
        let mut headers = route.headers.clone();
        if let Some(trace) = self.trace() {
            headers = headers.insert(Header { key: headers::TRACEPARENT, value: Some(trace) });
        }
        let (key, value) = (Some(output.key), Some(output.value));
        match output.destination {
            Destination::Key => {
                let partition = partition_of(output.key, route.partitions);
                self.transaction.send(&route.name, partition, key, value, Some(headers), None)
            }
            Destination::EveryPartition => (0..route.partitions).try_for_each(|partition| {
                self.transaction.send(&route.name, partition, key, value, Some(headers.clone()), None)
            }),
        }
    }

    fn set_aside(
        &mut self,
        topic: &'static Topic,
        record: &Incoming<'_>,
        keep_headers: bool,
        errors: &ErrorHeaders,
    ) -> Result<(), TransactionError> {
        let route = self.routes.of(topic);
        let originals = self.original_headers().filter(|_| keep_headers);
        let mut headers = originals.map_or_else(OwnedHeaders::new, BorrowedHeaders::detach);
        for (key, value) in errors.iter() {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let partition = match record.key {
            Some(key) => partition_of(key, route.partitions),
            None => record.partition % route.partitions,
        };
        let written_at = record.written_at.map(|at| at.as_millis());
        self.transaction.send(&route.name, partition, record.key, record.value, Some(headers), written_at)
    }

    fn changelog(
        &mut self,
        topic: &'static Topic,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), TransactionError> {
        self.transaction.send(&self.routes.of(topic).name, partition, Some(key), value, None, None)
    }

    fn headers_len(&self) -> usize {
        let (bytes, count) = self.message.map_or((0, 0), native::headers_len);
        bytes + count * PER_HEADER
    }
}

/// Whether a text is a `traceparent` of version 00 (W3C Trace Context): other
/// versions and all-zero ids are not handed on.
pub(super) fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        parts.next().filter(|part| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
    let valid = hex(2) == Some("00")
        && hex(32).is_some_and(|id| !is_zero(id))
        && hex(16).is_some_and(|id| !is_zero(id))
        && hex(2).is_some();
    valid && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_traces_are_handed_on() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(valid));
        for wrong in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }
}
