//! Observes how many of a queue's agents are available and writes it to
//! `genesys.queue-availability.v1`, for routing to know without asking.
//!
//! However many instances run, each queue is observed by one at a time. A queue that cannot be
//! read keeps its last value, which whoever reads it ignores once it is too old.

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
use crate::genesys::{CallError, CallErrorKind, Client, Priority, Scope};
use crate::health::Health;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::routing::QueueAvailability;
use crate::runtime::clock;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::SubscriptionError;
use crate::topics;

/// Name of the role: its consumer group, clients, readiness and `--stages`.
pub const ROLE: &str = "queue-poller";

/// What is observed and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ids of the queues.
    pub queues: Vec<String>,
    /// Time between two observations of one queue.
    pub interval: Duration,
    /// Named in the facts.
    pub organization_id: Option<String>,
    /// Observations under way at once in this instance, at least 1.
    pub concurrency: usize,
}

/// Least and longest time for one observation, whatever the interval.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// Why the poller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    #[error("cannot make a Kafka producer: {0}; check the `kafka` settings")]
    Producer(#[from] rdkafka::error::KafkaError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// Observes this instance's share of the queues until `shutdown`.
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
        complaints: Complaints::new("queue", "queues", health.part(ROLE)),
        settings,
        client,
        producer: producer.clone(),
        clock: clock::now,
    });
    let work = |owned, stop| Arc::clone(&observer).watch_all(owned, stop);
    Ok(ownership::run(&kafka, ROLE, &topics::QUEUE_AVAILABILITY, &producer, health, shutdown, work).await?)
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
    /// The queue went elsewhere, or the process stops.
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
    /// Observes this instance's share of the queues until stopped.
    async fn watch_all(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        let mut queues = JoinSet::new();
        for queue in &self.settings.queues {
            if let Some(partition) = owned.partition_of(queue) {
                queues.spawn(Arc::clone(&self).watch(queue.clone(), partition, stop.clone()));
            }
        }
        while queues.join_next().await.is_some() {}
    }

    /// Observes one queue at once and then every interval, until stopped.
    async fn watch(self: Arc<Self>, queue: String, partition: i32, stop: CancellationToken) {
        let schedule = Schedule::new(&queue, self.settings.interval);
        loop {
            match self.observe(&queue, partition, &stop).await {
                Ok(()) => {
                    metrics::QUEUE_POLLS.counter(&["ok"]).increment(1);
                    self.complaints.withdraw(&queue);
                }
                Err(missed) if missed.is_stop() => break,
                Err(missed) => {
                    metrics::QUEUE_POLLS.counter(&[missed.name()]).increment(1);
                    tracing::warn!(queue, reason = %missed, "queue not observed");
                    self.complaints.file(&queue, missed.to_string());
                }
            }
            tokio::select! {
                () = sleep(schedule.wait((self.clock)())) => {}
                () = stop.cancelled() => break,
            }
        }
        self.complaints.withdraw(&queue);
    }

    async fn observe(&self, queue: &str, partition: i32, stop: &CancellationToken) -> Result<(), Missed> {
        let (available, observed_at) = {
            let _slot = tokio::select! {
                slot = self.slots.acquire() => slot.map_err(|_| Missed::Stopped)?,
                () = stop.cancelled() => return Err(Missed::Stopped),
            };
            let scope = Scope {
                priority: Priority::Read,
                deadline: Instant::now() + self.settings.interval.clamp(LEAST_PATIENCE, LONGEST_PATIENCE),
                cancelled: stop.clone(),
            };
            let observed_at = (self.clock)();
            (self.client.queue_availability(queue, &scope).await?, observed_at)
        };
        let fact = QueueAvailability {
            queue_id: queue.into(),
            organization_id: self.settings.organization_id.as_deref().map(Into::into),
            availability: available.availability,
            available_agents: available.agents,
            observed_at,
        };
        let value = serde_json::to_vec(&fact).expect("own values are JSON");
        let traceparent = new_traceparent();
        let stopped = async {
            stop.cancelled().await;
            sleep(STOPPING_GRACE).await;
        };
        tokio::select! {
            written = self.producer.publish(&topics::QUEUE_AVAILABILITY, partition, queue, &value, &traceparent) => Ok(written?),
            () = stopped => Err(Missed::Stopped),
        }
    }
}
