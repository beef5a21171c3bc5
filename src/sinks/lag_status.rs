//! Keeps the newest evaluation of each consumer group in Postgres, where every
//! instance's HTTP interface reads it, and shows it as metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::positioned::{self, Keeper, NotKept, Positions, Reading, SetAside, Step};
use crate::health::Health;
use crate::metrics;
use crate::model::lag::{LagEvaluation, LagStatus};
use crate::postgres::Database;
use crate::runtime::dead_letter::Reason;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{InboundRecord, Offsets, SubscriptionError};
use crate::topics;

/// Name of the role: `--stages`, consumer group, readiness.
pub const ROLE: &str = "lag-status";

/// Groups with metrics of their own at most: labels are bounded.
const MOST_LABELS: usize = 500;
/// Records kept with one transaction at most.
const BATCH_RECORDS: usize = 1_000;
/// Shortest and longest pause before Postgres is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often rows of groups long gone are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

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
        role: ROLE,
        topics: vec![&topics::LAG_STATUS],
        batch_records: BATCH_RECORDS,
        retry: RETRY,
        commit_interval: positioned::COMMIT_INTERVAL,
    };
    let sink = || Sink {
        positions: Positions::new(database.clone(), kafka, ROLE),
        database: database.clone(),
        labels: Labels::default(),
        prune_at: Instant::now(),
    };
    positioned::run(reading, kafka, health, shutdown, sink).await
}

/// The last evaluation of each group. A record without a value says that a group is gone.
///
/// # Errors
/// The records that are no evaluations.
fn newest(records: &[&InboundRecord]) -> Result<BTreeMap<String, LagEvaluation>, Vec<SetAside>> {
    let (mut newest, mut unreadable) = (BTreeMap::new(), Vec::new());
    for record in records {
        let Some(value) = record.value.as_deref() else { continue };
        match serde_json::from_slice::<LagEvaluation>(value) {
            Ok(evaluation) => drop(newest.insert(evaluation.consumer_group.clone(), evaluation)),
            Err(error) => unreadable.push(SetAside::new(record, Reason::BadJson(error.to_string()))),
        }
    }
    if unreadable.is_empty() { Ok(newest) } else { Err(unreadable) }
}

struct Sink {
    database: Database,
    positions: Positions,
    labels: Labels,
    prune_at: Instant,
}

impl Keeper for Sink {
    fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        loop {
            let Step { records, advances, next } = self.positions.step(records, set_aside).await?;
            if next.is_empty() {
                return Ok(next);
            }
            let newest = newest(&records).map_err(NotKept::Refused)?;
            let evaluations: Vec<&LagEvaluation> = newest.values().collect();
            let consumer = self.positions.consumer();
            let written = self.database.put_lag_status(consumer, &advances, &evaluations).await;
            if let Some(next) = self.positions.settle(next, written)? {
                self.labels.show(newest.values());
                self.prune().await;
                return Ok(next);
            }
        }
    }
}

impl Sink {
    async fn prune(&mut self) {
        if Instant::now() < self.prune_at {
            return;
        }
        self.prune_at = Instant::now() + PRUNE_EVERY;
        if let Err(error) = self.database.prune_lag_status().await {
            tracing::warn!(%error, "groups long gone are still kept");
        }
    }
}

/// The groups that have metrics.
#[derive(Default)]
struct Labels {
    shown: BTreeSet<String>,
}

impl Labels {
    fn show<'e>(&mut self, evaluations: impl Iterator<Item = &'e LagEvaluation>) {
        for evaluation in evaluations {
            let group = evaluation.consumer_group.as_str();
            if !self.shown.contains(group) {
                if self.shown.len() >= MOST_LABELS {
                    continue;
                }
                self.shown.insert(group.to_owned());
            }
            metrics::LAG_GROUP_STATUS.gauge(&[group]).set(f64::from(severity(evaluation.status)));
            metrics::LAG_GROUP_AGE_SECONDS.gauge(&[group]).set(evaluation.age_seconds);
            if let Some(lag) = evaluation.lag {
                metrics::LAG_GROUP_RECORDS.gauge(&[group]).set(lag as f64);
            }
            if let Some(replicas) = evaluation.replicas {
                metrics::LAG_GROUP_REPLICAS.gauge(&[group]).set(f64::from(replicas));
            }
        }
    }
}

/// As the metric's help spells it: 0 is OK, 9 the worst.
fn severity(status: LagStatus) -> u8 {
    let worse = LagStatus::ALL.iter().rev().take_while(|other| **other != status).count();
    u8::try_from(worse).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_those_the_metrics_help_names() {
        for (number, status) in LagStatus::ALL.iter().rev().enumerate() {
            assert_eq!(usize::from(severity(*status)), number);
            let named = format!("{number} {}", status.name());
            assert!(metrics::LAG_GROUP_STATUS.help.contains(&named), "{named}");
        }
    }
}
