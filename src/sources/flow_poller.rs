//! Observes flows: their publish timelines, written to `genesys.flow-versions.v1`, and where
//! their minutes are polled, their measures, written to `genesys.flow-health.v1`.
//!
//! However many instances run, each flow is observed by one at a time. What cannot be read
//! leaves a gap: a minute that nobody could measure is no minute without errors.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::complaints::Complaints;
use super::facts::{FactProducer, NotDelivered, new_traceparent};
use super::ownership::{self, Owned, STOPPING_GRACE};
use super::schedule::Schedule;
use crate::genesys::{CallError, CallErrorKind, Client, PlatformVersion, Priority, Scope};
use crate::health::Health;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::flow::{FlowHealth, FlowVersion, FlowVersions};
use crate::runtime::clock;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::SubscriptionError;
use crate::topics::{self, Topic};

/// Name of the role: its consumer group, clients, readiness and `--stages`.
pub const ROLE: &str = "flow-poller";

/// What is observed and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ids of the flows.
    pub flows: Vec<String>,
    /// Those of them whose minutes are polled.
    pub polled: Vec<String>,
    /// Time between two observations of one flow's versions.
    pub interval: Duration,
    /// Length of a minute: 60 s, less for a simulator run fast.
    pub minute: Duration,
    /// Observations under way at once in this instance, at least 1.
    pub concurrency: usize,
}

/// A minute is measured once this share of another one has passed: its last interactions
/// may not have been counted before.
const SETTLING_SHARE: u32 = 6;
/// Pause after a measure that could not be had, as a share of a minute.
const RETRY_SHARE: u32 = 10;
/// Longest time for one observation.
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
/// Versions told of one flow: the newest.
const VERSIONS_TOLD: usize = 200;

/// Why the poller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    #[error("cannot make a Kafka producer: {0}; check the `kafka` settings")]
    Producer(#[from] rdkafka::error::KafkaError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// Observes this instance's share of the flows until `shutdown`.
///
/// # Errors
/// When the Kafka clients cannot be made or the group member fails for good.
/// Brokers and a platform that do not answer are waited for.
pub async fn run(
    settings: Settings,
    kafka: KafkaSettings,
    client: Client,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), PollerError> {
    let producer = FactProducer::new(&kafka, ROLE)?;
    let observer = Arc::new(Observer {
        slots: Semaphore::new(settings.concurrency.max(1)),
        complaints: Complaints::new("flow", "flows", health.part(ROLE)),
        settings,
        client,
        producer: producer.clone(),
        clock: clock::now,
    });
    let work = |owned, stop| Arc::clone(&observer).watch_all(owned, stop);
    Ok(ownership::run(&kafka, ROLE, &topics::FLOW_VERSIONS, &producer, health, shutdown, work).await?)
}

/// What every observation needs.
struct Observer {
    settings: Settings,
    client: Client,
    producer: FactProducer,
    /// Observations under way.
    slots: Semaphore,
    complaints: Complaints,
    clock: fn() -> Timestamp,
}

/// Why there is no new fact.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Delivery(#[from] NotDelivered),
    /// The flow went elsewhere, or the process stops.
    #[error("stopped")]
    Stopped,
}

impl Missed {
    fn name(&self) -> &'static str {
        match self {
            Missed::Call(error) => error.kind.name(),
            Missed::Delivery(_) => "not_delivered",
            Missed::Stopped => "stopped",
        }
    }

    fn is_stop(&self) -> bool {
        matches!(self, Missed::Stopped | Missed::Call(CallError { kind: CallErrorKind::Cancelled, .. }))
    }
}

impl Observer {
    /// Observes this instance's share of the flows until stopped.
    async fn watch_all(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        let mut flows = JoinSet::new();
        for flow in &self.settings.flows {
            if let Some(partition) = owned.partition_of(flow) {
                flows.spawn(Arc::clone(&self).watch(flow.clone(), partition, stop.clone()));
            }
        }
        metrics::FLOWS_WATCHED.gauge(&[]).set(flows.len() as f64);
        while flows.join_next().await.is_some() {}
    }

    /// Observes one flow until stopped.
    async fn watch(self: Arc<Self>, flow: String, partition: i32, stop: CancellationToken) {
        let versions = self.watch_versions(&flow, partition, &stop);
        if self.settings.polled.contains(&flow) {
            tokio::join!(versions, self.watch_measures(&flow, &stop));
        } else {
            versions.await;
        }
    }

    async fn watch_versions(&self, flow: &str, partition: i32, stop: &CancellationToken) {
        let schedule = Schedule::new(flow, self.settings.interval);
        loop {
            let seen = self.observe_versions(flow, partition, stop).await;
            if self.tell("versions", flow, seen.as_ref().err()) {
                return;
            }
            tokio::select! {
                () = sleep(schedule.wait((self.clock)())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn observe_versions(
        &self,
        flow: &str,
        partition: i32,
        stop: &CancellationToken,
    ) -> Result<(), Missed> {
        let (versions, observed_at) = {
            let _slot = self.slot(stop).await?;
            let observed_at = (self.clock)();
            let scope = self.scope(self.settings.interval, stop);
            (self.client.flow_versions(flow, &scope).await?, observed_at)
        };
        let fact = timeline(flow, observed_at, &versions);
        self.publish(&topics::FLOW_VERSIONS, partition, flow, &fact, stop).await
    }

    /// One minute after the other; one that could not be measured while the next lasted is
    /// left out.
    async fn watch_measures(&self, flow: &str, stop: &CancellationToken) {
        let minute = self.settings.minute;
        let length = i64::try_from(minute.as_millis()).unwrap_or(i64::MAX).max(1);
        let begin_of = |at: Timestamp| Timestamp::from_millis(at.as_millis().div_euclid(length) * length);
        let mut next = begin_of((self.clock)());
        loop {
            let due = next.plus(minute + minute / SETTLING_SHARE);
            let wait = u64::try_from(due.millis_since((self.clock)())).unwrap_or(0);
            tokio::select! {
                () = sleep(Duration::from_millis(wait)) => {}
                () = stop.cancelled() => return,
            }
            let seen = self.observe_measures(flow, next, stop).await;
            if self.tell("measures", flow, seen.as_ref().err()) {
                return;
            }
            let newest = begin_of((self.clock)().minus(minute + minute / SETTLING_SHARE));
            if seen.is_ok() {
                next = next.plus(minute).max(newest);
            } else if newest > next {
                next = newest;
            } else {
                tokio::select! {
                    () = sleep(minute / RETRY_SHARE) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    async fn observe_measures(
        &self,
        flow: &str,
        minute: Timestamp,
        stop: &CancellationToken,
    ) -> Result<(), Missed> {
        let until = minute.plus(self.settings.minute);
        let (measured, observed_at) = {
            let _slot = self.slot(stop).await?;
            let observed_at = (self.clock)();
            let scope = self.scope(self.settings.minute, stop);
            (self.client.flow_measures(flow, minute, until, &scope).await?, observed_at)
        };
        let fact = FlowHealth {
            flow_id: flow.into(),
            // The measures do not tell versions apart: whoever reads them knows the timeline.
            flow_version: "".into(),
            minute,
            total: measured.total,
            errors: measured.errors,
            observed_at,
            complete: true,
        };
        let count = self.producer.partitions(&topics::FLOW_HEALTH).await?;
        let partition = topics::partition_of(flow.as_bytes(), count);
        self.publish(&topics::FLOW_HEALTH, partition, flow, &fact, stop).await
    }

    async fn publish(
        &self,
        topic: &'static Topic,
        partition: i32,
        flow: &str,
        fact: &impl serde::Serialize,
        stop: &CancellationToken,
    ) -> Result<(), Missed> {
        let value = serde_json::to_vec(fact).expect("own values are JSON");
        let traceparent = new_traceparent();
        let stopped = async {
            stop.cancelled().await;
            sleep(STOPPING_GRACE).await;
        };
        tokio::select! {
            written = self.producer.publish(topic, partition, flow, &value, &traceparent) => Ok(written?),
            () = stopped => Err(Missed::Stopped),
        }
    }

    async fn slot(&self, stop: &CancellationToken) -> Result<tokio::sync::SemaphorePermit<'_>, Missed> {
        tokio::select! {
            slot = self.slots.acquire() => slot.map_err(|_| Missed::Stopped),
            () = stop.cancelled() => Err(Missed::Stopped),
        }
    }

    fn scope(&self, patience: Duration, stop: &CancellationToken) -> Scope {
        Scope {
            priority: Priority::Read,
            deadline: Instant::now() + patience.clamp(LEAST_PATIENCE, LONGEST_PATIENCE),
            cancelled: stop.clone(),
        }
    }

    /// Counts and tells how an observation ended. Whether it was stopped.
    fn tell(&self, what: &'static str, flow: &str, missed: Option<&Missed>) -> bool {
        let key = format!("{flow} ({what})");
        match missed {
            None => {
                metrics::FLOW_POLLS.counter(&[what, "ok"]).increment(1);
                self.complaints.withdraw(&key);
            }
            Some(missed) if missed.is_stop() => {
                self.complaints.withdraw(&key);
                return true;
            }
            Some(missed) => {
                metrics::FLOW_POLLS.counter(&[what, missed.name()]).increment(1);
                tracing::warn!(flow, what, reason = %missed, "flow not observed");
                self.complaints.file(&key, missed.to_string());
            }
        }
        false
    }
}

/// The newest versions, in the platform's order.
fn timeline<'a>(flow: &'a str, observed_at: Timestamp, versions: &'a [PlatformVersion]) -> FlowVersions<'a> {
    let first = versions.len().saturating_sub(VERSIONS_TOLD);
    let told = versions[first..].iter().map(|version| FlowVersion {
        version: version.id.as_str().into(),
        status: (!version.status.is_empty()).then(|| version.status.as_str().into()),
        published_at: version.published_at,
    });
    FlowVersions { flow_id: flow.into(), observed_at, versions: told.collect() }
}
