//! A task's results, written into a Kafka transaction.

use std::borrow::Cow;
use std::ffi::CStr;

use tracing::Span;

use super::dead_letter::{ErrorHeaders, PER_HEADER, PER_RECORD, overhead};
use super::onward::Handed;
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

/// What a record comes of.
#[derive(Clone, Copy)]
enum Cause<'t, 'm> {
    /// One that was read.
    Message(&'t BorrowedMessage<'m>),
    /// One that is on its way to the brokers, as it will stand there.
    Sent(Sent<'t>),
    Time,
}

/// A record of this transaction that the same worker takes over.
#[derive(Clone, Copy)]
pub(super) struct Sent<'t> {
    pub topic: &'static Topic,
    /// The topic's full name.
    pub name: &'t str,
    pub partition: i32,
    pub offset: i64,
    pub traceparent: Option<&'t [u8]>,
}

impl Sent<'_> {
    fn headers(&self) -> OwnedHeaders {
        let trace = self.traceparent.map(|trace| Header { key: headers::TRACEPARENT, value: Some(trace) });
        let constant = [
            Header { key: headers::CONTENT_TYPE, value: Some(headers::CONTENT_TYPE_JSON.as_bytes()) },
            Header { key: headers::SCHEMA, value: Some(self.topic.schema_id().as_bytes()) },
        ];
        constant.into_iter().chain(trace).fold(OwnedHeaders::new(), OwnedHeaders::insert)
    }
}

impl<'t> Cause<'t, '_> {
    fn traceparent(&self) -> Option<&'t [u8]> {
        match self {
            Self::Message(message) => native::last_header(message, TRACEPARENT),
            Self::Sent(sent) => sent.traceparent,
            Self::Time => None,
        }
    }

    fn place(&self) -> Option<(&'t str, i32, i64)> {
        match self {
            Self::Message(message) => Some((message.topic(), message.partition(), message.offset())),
            Self::Sent(sent) => Some((sent.name, sent.partition, sent.offset)),
            Self::Time => None,
        }
    }
}

/// Writes what comes of one record.
pub(super) struct Outbox<'t, 'p, 'm> {
    transaction: &'t mut Transaction<'p>,
    routes: &'t Routes,
    cause: Cause<'t, 'm>,
    /// All records of the transaction.
    merged: &'t mut Merged,
    /// For the stage that goes on in this transaction.
    handed: Option<&'t mut Handed>,
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
        Self::of(Cause::Message(message), transaction, routes, merged)
    }

    pub(super) fn of_sent(
        transaction: &'t mut Transaction<'p>,
        routes: &'t Routes,
        sent: Sent<'t>,
        merged: &'t mut Merged,
    ) -> Self {
        Self::of(Cause::Sent(sent), transaction, routes, merged)
    }

    /// For what no record is the cause of: the changelog, and what time brings.
    pub(super) fn without_record(
        transaction: &'t mut Transaction<'p>,
        routes: &'t Routes,
        merged: &'t mut Merged,
    ) -> Self {
        Self::of(Cause::Time, transaction, routes, merged)
    }

    fn of(
        cause: Cause<'t, 'm>,
        transaction: &'t mut Transaction<'p>,
        routes: &'t Routes,
        merged: &'t mut Merged,
    ) -> Self {
        if telemetry::is_exported()
            && let Some(traceparent) = cause.traceparent()
        {
            merged.add(traceparent);
        }
        Self { transaction, routes, cause, merged, handed: None, trace: None, span: None }
    }

    /// Notes in `handed` what is sent.
    pub(super) fn handing(self, handed: Option<&'t mut Handed>) -> Self {
        Self { handed, ..self }
    }

    /// The record's trace; where spans are exported, as it goes on from a span of its own. What
    /// time brings goes on from the transaction, which links to the records that moved time.
    fn look_for_trace(&mut self) -> Option<Cow<'t, str>> {
        let Some((topic, partition, offset)) = self.cause.place() else {
            return self.merged.traceparent().map(Cow::Owned);
        };
        let came = self.cause.traceparent();
        if !telemetry::is_exported() {
            let text = std::str::from_utf8(came?).ok()?;
            return telemetry::is_traceparent(text).then_some(Cow::Borrowed(text));
        }
        let span = tracing::info_span!(
            parent: None,
            "process",
            otel.name = format!("process {topic}"),
            otel.kind = "consumer",
            messaging.system = "kafka",
            messaging.destination.name = topic,
            messaging.destination.partition.id = partition,
            messaging.kafka.offset = offset,
        );
        telemetry::continue_trace(&span, came.unwrap_or_default());
        let traceparent = telemetry::traceparent(&span);
        self.span = Some(span);
        traceparent.map(Cow::Owned)
    }

    fn original_headers(&self) -> OwnedHeaders {
        match self.cause {
            Cause::Message(message) => {
                message.headers().map_or_else(OwnedHeaders::new, BorrowedHeaders::detach)
            }
            Cause::Sent(sent) => sent.headers(),
            Cause::Time => OwnedHeaders::new(),
        }
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
            if let Some(handed) = &mut self.handed {
                handed.note(output.topic, partition, output.key, output.value, trace);
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
    ) -> Result<(), TransactionError> {
        let route = self.routes.of(topic);
        let mut headers = if keep_headers { self.original_headers() } else { OwnedHeaders::new() };
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
        match self.cause {
            Cause::Message(message) => {
                let (bytes, count) = native::headers_len(message);
                bytes + count * PER_HEADER
            }
            Cause::Sent(sent) => overhead(sent.topic) - PER_RECORD,
            Cause::Time => 0,
        }
    }
}
