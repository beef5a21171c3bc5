//! Carries the shares that canaries are to have to the counters of routing, and takes a canary off
//! them once what it tried out is published. Decisions are carried out in their order, each in one
//! transaction with the position it was read from and with its outcome.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::positioned::{self, Keeper, NotKept, NotWritten, Positions, Reading, SetAside, Step, Writer};
use crate::clock;
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, SubscriptionError};
use crate::model::decision::Loop;
use crate::model::outcome::Outcome;
use crate::postgres::Database;
use crate::postgres::canaries::Delivered;
use crate::role::{self, Kind, Role};
use crate::runtime::decided;
use crate::topics::{self, headers};

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "canary-shares",
    kind: Kind::Sink,
    description: "gives canaries their shares at the counters of routing",
    reads: &[&topics::DELIVERY_DECISIONS, &topics::OUTCOMES],
    writes: &[],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::POSTGRES],
};

/// Records kept with one transaction at most.
const BATCH_RECORDS: usize = 500;
/// Shortest and longest pause before Postgres is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Runs until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    kafka: &KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: BATCH_RECORDS,
        retry: RETRY,
        commit_interval: positioned::COMMIT_INTERVAL,
    };
    let sink =
        || Sink { positions: Positions::new(database.clone(), kafka, &ROLE), database: database.clone() };
    positioned::run(reading, kafka, health, shutdown, sink).await
}

struct Sink {
    database: Database,
    positions: Positions,
}

impl Keeper for Sink {
    fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        positioned::keep(self, records, set_aside).await
    }
}

impl Writer for Sink {
    async fn write(&mut self, step: &Step<'_>) -> Result<(), NotWritten> {
        let (decisions, published) = read(&step.records).map_err(NotWritten::Refused)?;
        let (consumer, now) = (self.positions.consumer(), clock::now());
        self.database.apply_deliveries(consumer, &step.advances, &decisions, &published, now).await?;
        Ok(())
    }
}

/// Decisions about canaries, and outcomes of this loop, promotions among them. Those that cannot be
/// read are set aside by the audit.
///
/// # Errors
/// The records that are no decisions.
fn read<'r>(records: &[&'r InboundRecord]) -> Result<(Vec<Delivered<'r>>, Vec<Outcome>), Vec<SetAside>> {
    let (mut decisions, mut published, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for record in records.iter().copied() {
        if *record.topic == topics::OUTCOMES {
            let outcome =
                record.value.as_deref().and_then(|value| serde_json::from_slice::<Outcome>(value).ok());
            published.extend(outcome.filter(|outcome| outcome.r#loop == Loop::Delivery));
            continue;
        }
        match decided::read(record) {
            Ok(decision) => {
                decisions.push(Delivered { decision, traceparent: record.header(headers::TRACEPARENT) });
            }
            Err(reason) => unreadable.push(SetAside::new(record, reason)),
        }
    }
    if unreadable.is_empty() { Ok((decisions, published)) } else { Err(unreadable) }
}
