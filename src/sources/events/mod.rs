//! The edge: takes conversation events in over HTTP and brings them to
//! `genesys.conversation-events.v1`.
//!
//! Accept → validate → produce with acks=all → reply. Each event is judged by itself: one
//! that cannot be used becomes a dead letter and is named in the receipt, its neighbours go
//! through. What is acknowledged is on all replicas; what is not acknowledged may be there
//! too, so a sender who tries again brings duplicates, which the counting drops by event id. So
//! does a request with an event that the brokers refuse: it is found by halving the request.

mod body;
mod delivery;
mod encoding;
mod event;
mod identity;
mod names;
mod oversized;
mod pace;
mod record_batch;
mod texts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use metrics::{Counter, Histogram};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::clock;
use crate::health::{Health, Part};
use crate::kafka::KafkaError;
use crate::kafka::producer::{IdempotentProducer, NotDelivered};
use crate::kafka::settings::KafkaSettings;
use crate::metrics as table;
use crate::model::ingest::{Receipt, Refusal};
use crate::role::{Kind, Role};
use crate::telemetry;
use crate::topics;

use body::Form;
use delivery::given_traceparent;
use encoding::{Decoded, Encoding};
use pace::{Gate, Rate};
use record_batch::RecordBatch;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "ingest",
    kind: Kind::Source,
    description: "takes conversation events in, on the console's listener",
    reads: &[],
    writes: &[&topics::CONVERSATION_EVENTS],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &["event senders"],
};

/// What the edge takes.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Events one request may bring.
    pub max_events: usize,
    /// Bytes of a body once it is decompressed.
    pub max_body_bytes: usize,
    /// Events per second this instance takes; `None` is no limit of its own.
    pub events_per_second: Option<u32>,
    /// How long the brokers may take to acknowledge a request.
    pub delivery_timeout: Duration,
    /// Names of further organisations by their ids on the platform, which the `source` of an envelope
    /// holds.
    pub organizations: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_events: 10_000,
            max_body_bytes: 1_048_576,
            events_per_second: None,
            delivery_timeout: Duration::from_secs(4),
            organizations: BTreeMap::new(),
        }
    }
}

/// After a failure requests are let through one per pause, and the brokers are asked as often.
const PAUSE: Duration = Duration::from_secs(1);
/// Large batches; and what the producer holds at most, in records and KiB.
const PREFERENCES: [(&str, &str); 5] = [
    ("linger.ms", "2"),
    ("compression.type", "lz4"),
    ("batch.size", "1000000"),
    ("queue.buffering.max.messages", "200000"),
    ("queue.buffering.max.kbytes", "131072"),
];

/// Takes requests in; shared by everybody who does.
pub struct Edge {
    settings: Settings,
    producer: IdempotentProducer,
    events_topic: String,
    dead_letters_topic: String,
    rate: Mutex<Option<Rate>>,
    oversized_rate: Mutex<Rate>,
    gate: Mutex<Gate>,
    /// Whether the last thing heard from the brokers was good.
    brokers_answer: AtomicBool,
    part: Part,
    counts: Counts,
}

struct Counts {
    accepted: Counter,
    duplicates: Counter,
    rejected: Counter,
    skipped: Counter,
    /// Types that events were skipped of, as many as are told apart.
    skipped_types: Mutex<BTreeSet<String>>,
    seconds: Histogram,
}

impl Edge {
    /// # Errors
    /// When the `kafka` settings are not accepted; brokers that do not answer are no error.
    pub fn new(settings: Settings, kafka: &KafkaSettings, health: &Health) -> Result<Self, KafkaError> {
        let rate = settings.events_per_second.map(|rate| Rate::new(rate, Instant::now()));
        let event = |result| table::INGEST_EVENTS.counter(&[result]);
        let topic = |topic| {
            ROLE.assert_sends(topic);
            kafka.topic(topic)
        };
        Ok(Self {
            producer: IdempotentProducer::new(kafka, ROLE.name, settings.delivery_timeout, &PREFERENCES)?,
            settings,
            events_topic: topic(&topics::CONVERSATION_EVENTS),
            dead_letters_topic: topic(&topics::DEAD_LETTERS),
            rate: Mutex::new(rate),
            oversized_rate: Mutex::new(Rate::new(oversized::PER_SECOND, Instant::now())),
            gate: Mutex::default(),
            brokers_answer: AtomicBool::new(false),
            part: health.part(ROLE.name),
            counts: Counts {
                accepted: event("accepted"),
                duplicates: event("duplicate"),
                rejected: event("rejected"),
                skipped: event("skipped"),
                skipped_types: Mutex::default(),
                seconds: table::INGEST_SECONDS.histogram(&[]),
            },
        })
    }

    /// Keeps readiness true to the brokers until `shutdown`.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if !self.brokers_answer.load(Ordering::Acquire) {
                let edge = Arc::clone(&self);
                let names = [self.events_topic.clone(), self.dead_letters_topic.clone()];
                let probed = tokio::task::spawn_blocking(move || {
                    names.iter().try_for_each(|name| edge.producer.partitions(name).map(drop))
                });
                tokio::select! {
                    probed = probed => match probed {
                        Ok(Ok(())) => self.worked(),
                        Ok(Err(reason)) => self.part.not_ready(reason),
                        Err(error) => self.part.not_ready(error.to_string()),
                    },
                    () = shutdown.cancelled() => return,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    /// Takes one request in. Answers once all replicas have every event that is accepted
    /// and every dead letter.
    ///
    /// # Errors
    /// When nothing of it was taken, or not all of it is known to be there.
    pub async fn take(&self, headers: &HeaderMap, body: &[u8]) -> Result<Receipt, Refusal> {
        let begun = Instant::now();
        let span = tracing::info_span!("ingest", otel.kind = "server", role = ROLE.name, bytes = body.len());
        telemetry::continue_trace(&span, given_traceparent(headers).unwrap_or_default().as_bytes());
        let result = self.bring(headers, body).instrument(span).await;
        match &result {
            Ok(receipt) => {
                self.counts.accepted.increment(receipt.accepted);
                self.counts.duplicates.increment(receipt.duplicates);
                self.counts.rejected.increment(receipt.rejected.len() as u64);
                self.counts.skipped.increment(receipt.skipped);
                table::INGEST_REQUESTS.counter(&["taken"]).increment(1);
            }
            Err(refusal) => count_refused(refusal),
        }
        self.counts.seconds.record(begun.elapsed().as_secs_f64());
        result
    }

    /// Refuses a body over `limit` bytes, of which this much was `read`. Once all replicas have
    /// the dead letter that says so; what is beyond the rate for these leaves none.
    pub async fn refuse_too_large(&self, headers: &HeaderMap, read: &[u8], limit: usize) -> Refusal {
        let kept = self.keep_oversized(headers, read, limit).await;
        let refusal = kept.err().unwrap_or(Refusal::BodyTooLarge { limit });
        count_refused(&refusal);
        refusal
    }

    async fn keep_oversized(&self, headers: &HeaderMap, read: &[u8], limit: usize) -> Result<(), Refusal> {
        Form::of(headers)?;
        Encoding::of(headers)?;
        let now = Instant::now();
        if self.oversized_rate.lock().unwrap_or_else(PoisonError::into_inner).take(1, now).is_err() {
            tracing::warn!(limit, "a body was too large and left no dead letter: there are too many");
            return Ok(());
        }
        self.gate_admits(now)?;
        let kept = oversized::letter_headers(headers, read, limit, clock::now());
        self.judge(self.bring_place(&kept, headers).await)
    }

    async fn bring(&self, headers: &HeaderMap, body: &[u8]) -> Result<Receipt, Refusal> {
        let form = Form::of(headers)?;
        let limit = self.settings.max_body_bytes;
        let decoded = match Encoding::of(headers)?.decode(body, limit)? {
            Decoded::Whole(body) => body,
            Decoded::TooLarge(read) => {
                self.keep_oversized(headers, &read, limit).await?;
                return Err(Refusal::BodyTooLarge { limit });
            }
        };
        let body = &*decoded;
        let items = form.items(body, self.settings.max_events)?;
        self.admit(items.len())?;
        let attributes = match &form {
            Form::Binary(attributes) => Some(attributes),
            _ => None,
        };
        let received_at = clock::now();
        let mut records = RecordBatch::new(body.len(), items.len(), self.settings.max_events, received_at);
        for (index, item) in items.iter().enumerate() {
            event::read(item, attributes, received_at, |mut found| {
                found.belongs_to(&self.settings.organizations);
                records.take(index, found);
            });
        }
        drop(items);
        records.admissible()?;
        self.judge(self.bring_out(&mut records, attributes, headers).await)?;
        self.counts.count_skipped(records.take_skipped());
        Ok(records.into_receipt())
    }

    /// What it means for the sender how the records of a request fared.
    fn judge(&self, delivered: Result<(), NotDelivered>) -> Result<(), Refusal> {
        match delivered {
            Ok(()) => {
                self.worked();
                Ok(())
            }
            Err(NotDelivered::QueueFull) => {
                Err(Refusal::Busy("more events are on their way than fit".to_owned()))
            }
            Err(error) => {
                self.failed(&error);
                Err(Refusal::NotDelivered(error.to_string()))
            }
        }
    }

    fn gate_admits(&self, now: Instant) -> Result<(), Refusal> {
        match self.gate.lock().unwrap_or_else(PoisonError::into_inner).admits(now, PAUSE) {
            true => Ok(()),
            false => Err(Refusal::Busy("the brokers do not take records at the moment".to_owned())),
        }
    }

    /// Before anything is sent: the limits of this instance.
    fn admit(&self, events: usize) -> Result<(), Refusal> {
        let now = Instant::now();
        self.gate_admits(now)?;
        match self
            .rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
            .map(|rate| rate.take(events, now))
        {
            Some(Err(wait)) => Err(Refusal::Busy(format!(
                "more than ingest.events_per_second; the next {events} fit in {} ms",
                wait.as_millis()
            ))),
            _ => Ok(()),
        }
    }

    fn worked(&self) {
        if self.brokers_answer.swap(true, Ordering::AcqRel) {
            return;
        }
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).worked();
        self.part.ready();
    }

    fn failed(&self, error: &NotDelivered) {
        tracing::warn!(%error, "events were not taken in");
        self.gate.lock().unwrap_or_else(PoisonError::into_inner).failed(Instant::now(), PAUSE);
        self.part.not_ready(error.to_string());
        self.brokers_answer.store(false, Ordering::Release);
    }
}

/// Types of skipped events that are counted by name; senders choose the names.
const SKIPPED_TYPES: usize = 100;

impl Counts {
    fn count_skipped(&self, skipped: BTreeMap<String, u64>) {
        let mut known = self.skipped_types.lock().unwrap_or_else(PoisonError::into_inner);
        for (event_type, number) in skipped {
            let is_told = known.contains(&event_type) || known.len() < SKIPPED_TYPES;
            let label = if is_told { event_type.as_str() } else { "other" };
            table::INGEST_SKIPPED.counter(&[label]).increment(number);
            if is_told {
                known.insert(event_type);
            }
        }
    }
}

fn count_refused(refusal: &Refusal) {
    let told = match refusal {
        Refusal::Busy(_) => "busy",
        Refusal::NotDelivered(_) => "not_delivered",
        _ => "refused",
    };
    table::INGEST_REQUESTS.counter(&[told]).increment(1);
}
