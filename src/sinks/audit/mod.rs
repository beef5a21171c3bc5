//! Keeps every decision, every outcome and every dead letter in Postgres, each exactly once.
//!
//! Topics that every instance holds whole are read along, only to set aside what on them no
//! instance can read: the tables have no group, so each of them would do it again.

mod facts;
mod months;
mod set_aside;
mod writer;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

pub use super::positioned::SetAside;
use super::positioned::{self, Keeper, NotKept, Positions, Reading};
use crate::backoff::Backoff;
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, SubscriptionError};
use crate::metrics;
use crate::postgres::Database;
use crate::role::{self, Kind, Role};
use crate::telemetry::{self, Merged};
use crate::topics::{self, headers};

pub use writer::{AuditWriter, Stored, WriteError};

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "audit",
    kind: Kind::Sink,
    description: "keeps every decision, outcome and dead letter; sets aside what on side tables nobody can read",
    reads: &[
        &topics::DIAL_DECISIONS,
        &topics::ROLLBACK_DECISIONS,
        &topics::LAG_EVALUATIONS,
        &topics::ROUTING_DECISIONS,
        &topics::DELIVERY_DECISIONS,
        &topics::OUTCOMES,
        &topics::DEAD_LETTERS,
        &topics::SETTINGS,
        &topics::FLOW_VERSIONS,
        &topics::QUEUE_AVAILABILITY,
    ],
    writes: &[],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::POSTGRES],
};

/// How the audit works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records written with one transaction at most.
    pub batch_records: usize,
    /// Shortest and longest pause before something that failed is tried again.
    pub retry: (Duration, Duration),
    /// How often the group's offsets are brought up to date.
    pub commit_interval: Duration,
    /// Names of further organisations, by which keys are told apart.
    pub organizations: Vec<String>,
    /// How long decisions and outcomes are kept after the end of their month.
    pub retention: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_records: 2_000,
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
            commit_interval: Duration::from_secs(1),
            organizations: Vec::new(),
            retention: Duration::from_secs(1_827 * 86_400),
        }
    }
}

/// Runs the audit until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    settings: Settings,
    kafka: &KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: settings.batch_records,
        retry: settings.retry,
        commit_interval: settings.commit_interval,
    };
    let audit = || Audit { writer: AuditWriter::new(database.clone(), kafka), began: None };
    tokio::select! {
        result = positioned::run(reading, kafka, health, shutdown, audit) => result,
        never = know(&settings, &database) => never,
        never = months::keep(settings.retention, &database) => never,
    }
}

/// Makes organisations known, as soon as Postgres takes it.
async fn know<T>(settings: &Settings, database: &Database) -> T {
    let mut pause = Backoff::new(settings.retry);
    while !settings.organizations.is_empty() {
        match database.know_organizations(&settings.organizations).await {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(%error, "the audit does not know all organisations yet");
                tokio::time::sleep(pause.pause()).await;
            }
        }
    }
    std::future::pending().await
}

/// Spans that end with the transaction: one of all records, and for each one of its own trace.
fn traced(records: &[InboundRecord]) -> (Merged, Vec<Span>) {
    let mut merged = Merged::new(|| tracing::info_span!(parent: None, "write", role = ROLE.name));
    let wanted = records.iter().filter(|_| telemetry::is_exported());
    let spans = wanted.filter_map(|record| {
        let traceparent = record.header(headers::TRACEPARENT)?;
        merged.add(traceparent);
        let (topic, partition, offset) = (record.topic.name, record.partition, record.offset);
        let span = tracing::info_span!(parent: None, "keep", role = ROLE.name, topic, partition, offset);
        telemetry::continue_trace(&span, traceparent);
        Some(span)
    });
    let spans = spans.collect();
    (merged, spans)
}

struct Audit {
    writer: AuditWriter,
    /// When the batch under way came.
    began: Option<Instant>,
}

impl Keeper for Audit {
    fn positions(&mut self) -> &mut Positions {
        self.writer.stored_positions()
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        let began = *self.began.get_or_insert_with(Instant::now);
        let _traced = traced(records);
        match self.writer.write(records, set_aside).await {
            Ok(stored) => {
                stored.count();
                metrics::AUDIT_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
                self.began = None;
                Ok(stored.next)
            }
            Err(WriteError::Refused(refused)) => Err(NotKept::Refused(refused)),
            Err(WriteError::Rewound { partition }) => Err(NotKept::Rewound { partition }),
            Err(WriteError::Replaced { partition }) => Err(NotKept::Replaced { partition }),
            Err(WriteError::Unavailable(error)) => Err(NotKept::Yet(error.to_string())),
        }
    }
}
