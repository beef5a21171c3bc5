//! The records of a request on their way to the brokers.

use std::ops::Range;

use axum::http::HeaderMap;
use tracing::Span;

use super::Edge;
use super::body::CloudAttributes;
use super::record_batch::RecordBatch;
use crate::kafka::producer::{Batch, NotDelivered, Outgoing};
use crate::kafka::{Header, OwnedHeaders};
use crate::runtime::dead_letter::ErrorHeaders;
use crate::telemetry;
use crate::topics::{self, Topic, headers};

impl Edge {
    /// Sends events and dead letters, and waits until all replicas have them. An event that the
    /// brokers refuse becomes a dead letter; those beside it may be sent twice then.
    pub(super) async fn bring_out(
        &self,
        records: &mut RecordBatch,
        attributes: Option<&CloudAttributes>,
        headers: &HeaderMap,
    ) -> Result<(), NotDelivered> {
        let traceparent = traceparent(headers);
        let of_events = base_headers(&traceparent).insert(schema(&topics::CONVERSATION_EVENTS));
        let of_letters = attributes
            .into_iter()
            .flat_map(CloudAttributes::as_kafka_headers)
            .fold(base_headers(&traceparent), |all, (key, value)| {
                all.insert(Header { key, value: Some(value) })
            });
        let (events, letters) = (self.producer.batch(), self.producer.batch());
        let sent = self.send_events(records, 0..records.event_count(), &of_events, &events);
        let letters_sent = records
            .dead_letters()
            .try_for_each(|(value, errors)| self.send_letter(Some(value), errors, &of_letters, &letters));
        let mut letters_there = records.dead_letters().count();
        if is_delivered(delivered(sent, events).await)? == Taken::Refused {
            self.bring_apart(records, &of_events).await?;
        }
        if is_delivered(delivered(letters_sent, letters).await)? == Taken::Refused {
            letters_there = 0;
        }
        for (value, errors) in records.dead_letters().skip(letters_there) {
            self.bring_letter(value, errors, &of_letters).await?;
        }
        Ok(())
    }

    /// Halves what is refused until each half is taken, or is one event that is not.
    async fn bring_apart(
        &self,
        records: &mut RecordBatch,
        headers: &OwnedHeaders,
    ) -> Result<(), NotDelivered> {
        let whole = 0..records.event_count();
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            let batch = self.producer.batch();
            let sent = self.send_events(records, part.clone(), headers, &batch);
            let refusal = match delivered(sent, batch).await {
                Err(error) if error.is_refusal() => error.to_string(),
                other => {
                    other?;
                    continue;
                }
            };
            if part.len() > 1 {
                let middle = part.start + part.len() / 2;
                parts.extend([middle..part.end, part.start..middle]);
            } else {
                tracing::error!(refusal, "the brokers refuse an event; it is set aside");
                records.refuse(part.start, &refusal);
            }
        }
        Ok(())
    }

    /// Its place and reason alone where the brokers refuse it as well.
    async fn bring_letter(
        &self,
        value: &[u8],
        errors: &ErrorHeaders,
        headers: &OwnedHeaders,
    ) -> Result<(), NotDelivered> {
        let batch = self.producer.batch();
        let sent = self.send_letter(Some(value), errors, headers, &batch);
        if is_delivered(delivered(sent, batch).await)? == Taken::All {
            return Ok(());
        }
        tracing::error!(bytes = value.len(), "the brokers refuse a dead letter; its place is kept");
        let batch = self.producer.batch();
        let sent = self.send_letter(None, errors, headers, &batch);
        delivered(sent, batch).await
    }

    /// A dead letter without contents.
    pub(super) async fn bring_place(
        &self,
        letter: &[(&'static str, String)],
        headers: &HeaderMap,
    ) -> Result<(), NotDelivered> {
        let headers = letter.iter().fold(base_headers(&traceparent(headers)), |all, (key, value)| {
            all.insert(Header { key, value: Some(value.as_str()) })
        });
        let batch = self.producer.batch();
        let topic = &self.dead_letters_topic;
        let sent = batch.send(Outgoing { topic, partition: None, key: None, value: None, headers });
        delivered(sent, batch).await
    }

    fn send_events(
        &self,
        records: &RecordBatch,
        part: Range<usize>,
        headers: &OwnedHeaders,
        batch: &Batch<'_>,
    ) -> Result<(), NotDelivered> {
        records.events(part).try_for_each(|(key, value)| {
            batch.send(Outgoing {
                topic: &self.events_topic,
                partition: None,
                key: Some(key),
                value: Some(value),
                headers: headers.clone(),
            })
        })
    }

    fn send_letter(
        &self,
        value: Option<&[u8]>,
        errors: &ErrorHeaders,
        headers: &OwnedHeaders,
        batch: &Batch<'_>,
    ) -> Result<(), NotDelivered> {
        let headers = errors
            .iter()
            .fold(headers.clone(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
        batch.send(Outgoing { topic: &self.dead_letters_topic, partition: None, key: None, value, headers })
    }
}

async fn delivered(sent: Result<(), NotDelivered>, batch: Batch<'_>) -> Result<(), NotDelivered> {
    sent?;
    batch.delivered().await
}

#[derive(PartialEq, Eq)]
enum Taken {
    All,
    /// At least one of them is refused for what it is.
    Refused,
}

fn is_delivered(result: Result<(), NotDelivered>) -> Result<Taken, NotDelivered> {
    match result {
        Ok(()) => Ok(Taken::All),
        Err(error) if error.is_refusal() => Ok(Taken::Refused),
        Err(error) => Err(error),
    }
}

fn base_headers(traceparent: &str) -> OwnedHeaders {
    let header = |key, value| Header { key, value: Some(value) };
    OwnedHeaders::new()
        .insert(header(headers::CONTENT_TYPE, headers::CONTENT_TYPE_JSON))
        .insert(header(headers::TRACEPARENT, traceparent))
}

fn schema(topic: &Topic) -> Header<'_, &str> {
    Header { key: headers::SCHEMA, value: Some(topic.schema_id()) }
}

/// The trace of the request, or the sender's where spans are not exported and it names one as W3C
/// Trace Context spells it, else a new one.
fn traceparent(headers: &HeaderMap) -> String {
    let given = || given_traceparent(headers).map(str::to_owned);
    telemetry::traceparent(&Span::current()).or_else(given).unwrap_or_else(telemetry::new_traceparent)
}

pub(super) fn given_traceparent(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(headers::TRACEPARENT).and_then(|value| value.to_str().ok());
    given.filter(|text| telemetry::is_traceparent(text))
}

impl CloudAttributes {
    /// As CloudEvents' Kafka binding names them.
    fn as_kafka_headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("ce_specversion", Some(&self.specversion)),
            ("ce_id", self.id.as_ref()),
            ("ce_type", self.r#type.as_ref()),
            ("ce_time", self.time.as_ref()),
            ("ce_source", self.source.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_senders_trace_is_kept_if_it_is_one() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", value.parse().unwrap());
            traceparent(&headers)
        };
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(of(good), good);
        for bad in ["", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", "x"] {
            assert_ne!(of(bad), bad);
            assert_eq!(of(bad).len(), good.len());
        }
    }
}
