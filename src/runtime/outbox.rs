//! A task's results, written into a Kafka transaction.

use std::borrow::Cow;
use std::ffi::CStr;

use tracing::Span;

use super::dead_letter::{ErrorHeaders, PER_HEADER};
use super::writer::{Incoming, Writer};
use crate::kafka::native::{self, Outgoing};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::{Transaction, TransactionError};
use crate::kafka::{BorrowedHeaders, BorrowedMessage, Header, Message, OwnedHeaders};
use crate::pipeline::{Declaration, Destination, Output};
use crate::telemetry::{self, Merged};
use crate::topics::{self, Topic, headers, partition_of};

const TRACEPARENT: &CStr = c"traceparent";
const CONTENT_TYPE: &CStr = c"content-type";
const SCHEMA: &CStr = c"trunkline-schema";

/// Where a stage's records go: names, numbers of partitions and constant headers,
/// looked up once.
pub(super) struct Routes(Vec<Route>);

struct Route {
    topic: &'static Topic,
    name: String,
    partitions: i32,
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
            Ok(Route { topic, name: kafka.topic(topic), partitions: partitions_of(topic)? })
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
    /// All records of the transaction.
    merged: &'t mut Merged,
    /// The trace that is handed on, once looked for.
    trace: Option<Option<Cow<'t, str>>>,
    /// Of this record, where something comes of it and spans are exported.
    span: Option<Span>,
}

impl<'t, 'p, 'm> Outbox<'t, 'p, 'm> {
    pub(super) fn new(
        transaction: &'t mut Transaction<'p>,
        routes: &'t Routes,
        message: &'t BorrowedMessage<'m>,
        merged: &'t mut Merged,
    ) -> Self {
        if telemetry::is_exported()
            && let Some(traceparent) = native::last_header(message, TRACEPARENT)
        {
            merged.add(traceparent);
        }
        Self { transaction, routes, message: Some(message), merged, trace: None, span: None }
    }

    /// For what no record is the cause of: the changelog, and what time brings.
    pub(super) fn without_record(
        transaction: &'t mut Transaction<'p>,
        routes: &'t Routes,
        merged: &'t mut Merged,
    ) -> Self {
        Self { transaction, routes, message: None, merged, trace: None, span: None }
    }

    /// The record's trace; where spans are exported, as it goes on from a span of its own. What
    /// time brings goes on from the transaction, which links to the records that moved time.
    fn look_for_trace(&mut self) -> Option<Cow<'t, str>> {
        let Some(message) = self.message else {
            return self.merged.traceparent().map(Cow::Owned);
        };
        let came = native::last_header(message, TRACEPARENT);
        if !telemetry::is_exported() {
            let text = std::str::from_utf8(came?).ok()?;
            return telemetry::is_traceparent(text).then_some(Cow::Borrowed(text));
        }
        let span = tracing::info_span!(
            parent: None,
            "process",
            otel.name = format!("process {}", message.topic()),
            otel.kind = "consumer",
            messaging.system = "kafka",
            messaging.destination.name = message.topic(),
            messaging.destination.partition.id = message.partition(),
            messaging.kafka.offset = message.offset(),
        );
        telemetry::continue_trace(&span, came.unwrap_or_default());
        let traceparent = telemetry::traceparent(&span);
        self.span = Some(span);
        traceparent.map(Cow::Owned)
    }

    fn original_headers(&self) -> Option<&'t BorrowedHeaders> {
        self.message.and_then(|message| message.headers())
    }
}

impl Writer for Outbox<'_, '_, '_> {
    type Error = TransactionError;

    fn output(&mut self, output: Output<'_>) -> Result<(), TransactionError> {
        let route = self.routes.of(output.topic);
        if self.trace.is_none() {
            self.trace = Some(self.look_for_trace());
        }
        let trace = self.trace.as_ref().and_then(Option::as_deref);
        let headers = [
            Some((CONTENT_TYPE, headers::CONTENT_TYPE_JSON.as_bytes())),
            Some((SCHEMA, output.topic.schema_id().as_bytes())),
            trace.map(|trace| (TRACEPARENT, trace.as_bytes())),
        ];
        let partitions = match output.destination {
            Destination::Key => {
                let partition = partition_of(output.key, route.partitions);
                partition..partition + 1
            }
            Destination::EveryPartition => 0..route.partitions,
        };
        for partition in partitions {
            let record = Outgoing { partition, key: output.key, value: Some(output.value), headers };
            self.transaction.send_quickly(&route.name, &record)?;
        }
        Ok(())
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
        let record = Outgoing { partition, key, value, headers: Default::default() };
        self.transaction.send_quickly(&self.routes.of(topic).name, &record)
    }

    fn headers_len(&self) -> usize {
        let (bytes, count) = self.message.map_or((0, 0), native::headers_len);
        bytes + count * PER_HEADER
    }
}
