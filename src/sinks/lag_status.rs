//! Keeps the newest evaluation of each consumer group in Postgres, where every
//! instance's HTTP interface reads it, and shows it as metrics.
//!
//! Writing an evaluation again changes nothing, so offsets are committed after the
//! rows and need not be part of their transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Part};
use crate::metrics;
use crate::model::lag::{LagEvaluation, LagStatus};
use crate::postgres::Database;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    Event, InboundRecord, Start, Subscription, SubscriptionError, SubscriptionOptions,
};
use crate::topics;

/// Name of the role: `--stages`, consumer group, readiness.
pub const ROLE: &str = "lag-status";

/// Groups with metrics of their own at most: labels are bounded.
const MOST_LABELS: usize = 500;
/// Pause before Postgres is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often rows of groups long gone are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3_600);

/// Runs until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted or the group member fails for good; a
/// database that is away is waited for.
pub async fn run(
    kafka: &KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let options = SubscriptionOptions {
        health: Some(health.part(&format!("{ROLE}.group"))),
        ..SubscriptionOptions::default()
    };
    let mut subscription =
        Subscription::open(kafka, ROLE, &[&topics::LAG_STATUS], options, shutdown.clone())?;
    let mut sink = Sink { database, part: health.part(ROLE), labels: Labels::default() };
    sink.part.ready();
    let mut prune_at = Instant::now();
    let result = loop {
        match subscription.next().await {
            Event::Assigned(partitions) => {
                let starts = partitions.into_iter().map(|partition| (partition, Start::Committed));
                subscription.start(starts.collect()).await;
            }
            Event::Revoked(_) => subscription.acknowledge_revocation().await,
            Event::Lost(_) => {}
            Event::Records(records) => {
                let newest = newest(&records);
                if !sink.keep(&newest, &shutdown).await {
                    continue;
                }
                sink.labels.show(newest.values());
                let mut next = HashMap::new();
                for record in &records {
                    next.insert(record.topic_partition(), record.offset + 1);
                }
                if let Err(error) = subscription.commit(next.into_iter().collect()).await {
                    tracing::debug!(%error, "the same evaluations will be written again");
                }
                if Instant::now() >= prune_at {
                    prune_at = Instant::now() + PRUNE_EVERY;
                    sink.prune().await;
                }
            }
            Event::Failed(error) => break Err(error),
            Event::Closed => break Ok(()),
        }
    };
    subscription.close().await;
    result
}

/// The last evaluation of each group; what cannot be read was not written by us, and
/// the next poll takes its place.
fn newest(records: &[InboundRecord]) -> BTreeMap<String, LagEvaluation> {
    let mut newest = BTreeMap::new();
    for record in records {
        let Some(value) = record.value.as_deref() else { continue };
        match serde_json::from_slice::<LagEvaluation>(value) {
            Ok(evaluation) => drop(newest.insert(evaluation.consumer_group.clone(), evaluation)),
            Err(error) => tracing::warn!(
                partition = record.partition,
                offset = record.offset,
                %error,
                "an evaluation cannot be read and is passed over"
            ),
        }
    }
    newest
}

struct Sink {
    database: Database,
    part: Part,
    labels: Labels,
}

impl Sink {
    /// Writes until it is written; `false` at shutdown.
    async fn keep(&self, newest: &BTreeMap<String, LagEvaluation>, shutdown: &CancellationToken) -> bool {
        let evaluations: Vec<&LagEvaluation> = newest.values().collect();
        loop {
            let written = tokio::select! {
                written = self.database.put_lag_status(&evaluations) => written,
                () = shutdown.cancelled() => return false,
            };
            match written {
                Ok(()) => {
                    self.part.ready();
                    return true;
                }
                Err(error) => {
                    tracing::warn!(%error, "the status of consumer groups waits for Postgres");
                    self.part.not_ready(error.to_string());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    async fn prune(&self) {
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
