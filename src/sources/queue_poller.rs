//! Observes how many of a queue's agents are available and writes it to
//! `genesys.queue-availability.v1`, for routing to know without asking.
//!
//! However many instances run, each queue is observed by one at a time. A queue that cannot be
//! read keeps its last value, which whoever reads it ignores once it is too old.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ownership::{Member, Owned, PollerError};
use super::watch::{Missed, Poller, Watch, observed_after};
use crate::genesys::Client;
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::routing::QueueAvailability;
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "queue-poller",
    kind: Kind::Source,
    description: "observes how many of each queue's agents are available",
    reads: &[],
    writes: &[&topics::QUEUE_AVAILABILITY],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM],
};

/// What is observed and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ids of the queues.
    pub queues: Vec<String>,
    /// Time between two observations of one queue.
    pub interval: Duration,
    /// Observations under way at once in this instance, at least 1.
    pub concurrency: usize,
    /// Where the month's allowance of calls does not last: at most so many times as far apart.
    pub longest_stretch: f64,
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
    let member = Member { kafka: &kafka, role: &ROLE, topic: &topics::QUEUE_AVAILABILITY, health, shutdown };
    let poller = Poller {
        member,
        client,
        nouns: ("queue", "queues"),
        concurrency: settings.concurrency,
        longest_stretch: settings.longest_stretch,
    };
    poller.run(|watch| Observer { settings, watch }, Observer::watch_all).await
}

struct Observer {
    settings: Settings,
    watch: Watch,
}

impl Observer {
    /// Observes this instance's share of the queues until stopped.
    async fn watch_all(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        let own = owned.share_of(&self.settings.queues);
        self.watch.client.expect_queues(own.iter().map(|(queue, _)| *queue));
        let mut queues = JoinSet::new();
        for (queue, partition) in own {
            queues.spawn(Arc::clone(&self).watch(queue.to_owned(), partition, stop.clone()));
        }
        while queues.join_next().await.is_some() {}
    }

    async fn watch(self: Arc<Self>, queue: String, partition: i32, stop: CancellationToken) {
        let count = |ended| metrics::QUEUE_POLLS.counter(&[ended]).increment(1);
        let observe = |last| self.observe(&queue, partition, last, &stop);
        self.watch.every(self.settings.interval, &queue, &stop, count, observe).await;
    }

    #[tracing::instrument(skip_all, fields(queue))]
    async fn observe(
        &self,
        queue: &str,
        partition: i32,
        last: Timestamp,
        stop: &CancellationToken,
    ) -> Result<Timestamp, Missed> {
        let (available, observed_at) = {
            let _slot = self.watch.slot(queue, stop).await?;
            let observed_at = observed_after(last, (self.watch.clock)());
            let scope = self.watch.polling(queue, self.settings.interval, stop);
            (self.watch.client.queue_availability(queue, &scope).await?, observed_at)
        };
        let fact = QueueAvailability {
            queue_id: queue.into(),
            organization_id: self.watch.client.organization_of(queue).id.as_deref().map(Into::into),
            availability: available.availability,
            available_agents: available.agents,
            observed_at,
        };
        self.watch.publish(&topics::QUEUE_AVAILABILITY, partition, queue, &fact, stop).await?;
        Ok(observed_at)
    }
}
