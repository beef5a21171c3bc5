//! From records to queued alerts, each once.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use super::{ROLE, Settings, incidents};
use crate::clock;
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, SubscriptionError};
use crate::metrics;
use crate::model::Timestamp;
use crate::postgres::Database;
use crate::postgres::alerts::Raised;
use crate::sinks::positioned::{
    self, Keeper, NotKept, NotWritten, Positions, Reading, SetAside, Step, Writer,
};
use crate::telemetry;
use crate::topics::headers;

/// Records taken in with one transaction at most.
const BATCH_RECORDS: usize = 1_000;

pub(super) async fn run(
    settings: &Settings,
    kafka: &KafkaSettings,
    database: &Database,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: BATCH_RECORDS,
        retry: settings.retry,
        commit_interval: positioned::COMMIT_INTERVAL,
    };
    let intake = || Intake { settings, database, positions: Positions::new(database.clone(), kafka, &ROLE) };
    positioned::run(reading, kafka, health, shutdown.clone(), intake).await
}

struct Intake<'a> {
    settings: &'a Settings,
    database: &'a Database,
    positions: Positions,
}

impl Keeper for Intake<'_> {
    fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        positioned::keep(self, records, set_aside).await
    }
}

impl Writer for Intake<'_> {
    async fn write(&mut self, step: &Step<'_>) -> Result<(), NotWritten> {
        let raised = self.raised(&step.records, clock::now());
        self.database.raise(self.positions.consumer(), &step.advances, &raised).await?;
        for raised in &raised {
            metrics::ALERTS_RAISED.counter(&[raised.alert.incident_type]).increment(1);
        }
        Ok(())
    }
}

impl Intake<'_> {
    /// What the records tell people, each alert once.
    fn raised(&self, records: &[&InboundRecord], now: Timestamp) -> Vec<Raised> {
        let mut met = HashSet::new();
        let all = records.iter().flat_map(|record| self.raised_by(record, now));
        all.filter(|raised| met.insert(raised.alert.id())).collect()
    }

    fn raised_by(&self, record: &InboundRecord, now: Timestamp) -> Vec<Raised> {
        let Some(value) = &record.value else { return Vec::new() };
        let too_old = now.minus(self.settings.oldest);
        let trace = record.header(headers::TRACEPARENT).and_then(|trace| std::str::from_utf8(trace).ok());
        let traceparent = trace.filter(|trace| telemetry::is_traceparent(trace)).map(str::to_owned);
        incidents::alerts(record.topic, value)
            .map(|alert| {
                let is_news = alert.occurred_at >= too_old;
                let wants = |receiver: &&super::Receiver| is_news && receiver.wants(alert.incident_type);
                let receivers = self
                    .settings
                    .receivers
                    .iter()
                    .filter(wants)
                    .map(|receiver| receiver.name.clone())
                    .collect();
                Raised {
                    receivers,
                    alert,
                    topic: self.positions.name(record.topic).to_owned(),
                    topic_id: self.positions.topic_id(record.topic),
                    partition: record.partition,
                    offset: record.offset,
                    traceparent: traceparent.clone(),
                }
            })
            .collect()
    }
}
