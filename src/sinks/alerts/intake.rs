//! From records to queued alerts, each once.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{ROLE, Settings, incidents};
use crate::health::{Health, Part};
use crate::metrics;
use crate::postgres::Database;
use crate::postgres::alerts::Raised;
use crate::postgres::ledger::{Advance, RecordError};
use crate::runtime::clock;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    Event, InboundRecord, Start, Subscription, SubscriptionError, SubscriptionOptions, TopicPartition,
};

/// Work in progress may take this long once shutdown has begun.
const GRACE: Duration = Duration::from_secs(1);

pub(super) async fn run(
    settings: &Settings,
    kafka: &KafkaSettings,
    database: &Database,
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<(), SubscriptionError> {
    let part = health.part(ROLE);
    let mut pause = settings.retry.0;
    while !shutdown.is_cancelled() {
        let options = SubscriptionOptions {
            health: Some(health.part("alerts consumer")),
            ..SubscriptionOptions::default()
        };
        let subscription = Subscription::open(kafka, ROLE, &incidents::topics(), options, shutdown.clone())?;
        let mut intake = Intake {
            settings,
            kafka,
            database,
            subscription,
            part: &part,
            consumer: kafka.group(ROLE),
            positions: HashMap::new(),
            pause: &mut pause,
        };
        let ended = intake.run(shutdown).await;
        intake.subscription.close().await;
        let Err(reason) = ended else { break };
        tracing::warn!(reason, "alerts are taken in anew from the stored positions");
        part.not_ready(reason);
        wait(&mut pause, settings, shutdown).await;
    }
    Ok(())
}

/// `false` when shutdown ended the wait.
async fn wait(pause: &mut Duration, settings: &Settings, shutdown: &CancellationToken) -> bool {
    let this = *pause;
    *pause = (this * 2).min(settings.retry.1);
    tokio::select! {
        () = tokio::time::sleep(this) => true,
        () = shutdown.cancelled() => false,
    }
}

struct Intake<'a> {
    settings: &'a Settings,
    kafka: &'a KafkaSettings,
    database: &'a Database,
    subscription: Subscription,
    part: &'a Part,
    consumer: String,
    /// Stored position of each assigned partition; `None` before its first record.
    positions: HashMap<TopicPartition, Option<i64>>,
    pause: &'a mut Duration,
}

impl Intake<'_> {
    /// Until shutdown, or why it has to begin anew.
    async fn run(&mut self, shutdown: &CancellationToken) -> Result<(), String> {
        loop {
            let event = self.subscription.next().await;
            let patience = async {
                shutdown.cancelled().await;
                tokio::time::sleep(GRACE).await;
            };
            let goes_on = tokio::select! {
                handled = self.handle(event, shutdown) => handled?,
                () = patience => false,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// `false` when shutdown has begun.
    async fn handle(&mut self, event: Event, shutdown: &CancellationToken) -> Result<bool, String> {
        match event {
            Event::Assigned(partitions) => self.begin(&partitions, shutdown).await,
            Event::Revoked(partitions) => {
                self.positions.retain(|partition, _| !partitions.contains(partition));
                self.subscription.acknowledge_revocation().await;
                Ok(true)
            }
            Event::Lost(partitions) => {
                self.positions.retain(|partition, _| !partitions.contains(partition));
                Ok(true)
            }
            Event::Records(records) => self.take(&records, shutdown).await,
            Event::Failed(error) => Err(error.to_string()),
            Event::Closed => Ok(false),
        }
    }

    async fn begin(
        &mut self,
        partitions: &[TopicPartition],
        shutdown: &CancellationToken,
    ) -> Result<bool, String> {
        let names: Vec<_> = partitions
            .iter()
            .map(|partition| (self.kafka.topic(partition.topic), partition.partition))
            .collect();
        loop {
            match self.database.positions(&self.consumer, &names).await {
                Ok(stored) => {
                    let stored: Vec<_> = partitions.iter().copied().zip(stored).collect();
                    self.positions.extend(stored.iter().copied());
                    let start = |position: Option<i64>| position.map_or(Start::Earliest, Start::At);
                    let starts = stored.into_iter().map(|(partition, at)| (partition, start(at))).collect();
                    self.subscription.start(starts).await;
                    self.works();
                    return Ok(true);
                }
                Err(error) => {
                    self.part.not_ready(error.to_string());
                    if !wait(self.pause, self.settings, shutdown).await {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Queues what the records tell, however long it takes.
    async fn take(
        &mut self,
        records: &[InboundRecord],
        shutdown: &CancellationToken,
    ) -> Result<bool, String> {
        let mut raised: Vec<Raised> = records.iter().flat_map(|record| self.raised(record)).collect();
        let mut met = HashSet::new();
        raised.retain(|raised| met.insert(raised.alert.id()));
        let mut next: HashMap<TopicPartition, i64> = HashMap::new();
        for record in records {
            next.insert(record.topic_partition(), record.offset + 1);
        }
        let advances: Vec<Advance> = next
            .iter()
            .map(|(partition, next)| Advance {
                topic: self.kafka.topic(partition.topic),
                partition: partition.partition,
                expected: self.positions.get(partition).copied().flatten(),
                next: *next,
            })
            .collect();
        loop {
            match self.database.raise(&self.consumer, &advances, &raised).await {
                Ok(_) => {
                    self.positions.extend(next.into_iter().map(|(partition, next)| (partition, Some(next))));
                    for raised in &raised {
                        metrics::ALERTS_RAISED.counter(&[raised.alert.incident_type]).increment(1);
                    }
                    self.works();
                    return Ok(true);
                }
                // Another member was quicker, or this one without knowing it.
                Err(RecordError::Moved) => return Err("the stored positions have moved on".to_owned()),
                Err(RecordError::Refused(error) | RecordError::Unavailable(error)) => {
                    tracing::warn!(%error, "alerts wait for Postgres");
                    self.part.not_ready(error.to_string());
                    if !wait(self.pause, self.settings, shutdown).await {
                        return Ok(false);
                    }
                }
            }
        }
    }

    fn raised(&self, record: &InboundRecord) -> Vec<Raised> {
        let Some(value) = &record.value else { return Vec::new() };
        let too_old = clock::now().minus(self.settings.oldest);
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
                    topic: self.kafka.topic(record.topic),
                    partition: record.partition,
                    offset: record.offset,
                }
            })
            .collect()
    }

    fn works(&mut self) {
        self.part.ready();
        *self.pause = self.settings.retry.0;
    }
}
