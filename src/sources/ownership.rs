//! Which partitions of a topic this instance writes facts to: by Kafka's own
//! assignment, in a group that reads nothing.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::kafka::KafkaError;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::facts::FactProducer;
use crate::health::{Health, Part};
use crate::kafka::memberships::{Ended, Memberships};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{Event, SubscriptionError, SubscriptionOptions, TopicPartition};
use crate::role::Role;
use crate::topics::{self, Topic};

/// How long work that is to stop is waited for before it is aborted.
pub(super) const STOPPING_GRACE: Duration = Duration::from_millis(500);
/// Pauses between memberships that fail.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
const TOPIC_RETRY: Duration = Duration::from_secs(1);

/// The partitions that are this instance's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub partitions: BTreeSet<i32>,
    /// How many the topic has.
    pub count: i32,
}

impl Owned {
    /// Where facts under this key go, if it is ours to write them.
    pub(super) fn partition_of(&self, key: &str) -> Option<i32> {
        let partition = topics::partition_of(key.as_bytes(), self.count);
        self.partitions.contains(&partition).then_some(partition)
    }

    /// Those of the keys whose facts are ours to write, with where they go.
    pub(super) fn share_of<'k>(&self, keys: &'k [String]) -> Vec<(&'k str, i32)> {
        keys.iter().filter_map(|key| Some((&**key, self.partition_of(key)?))).collect()
    }

    /// Of all instances one is the first: it owns partition 0.
    pub(super) fn is_first(&self) -> bool {
        self.partitions.contains(&0)
    }
}

/// Why a poller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    #[error("cannot make a Kafka client: {0}; check the `kafka` settings")]
    Client(#[from] KafkaError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// One of the instances that share a topic's keys among them.
pub(super) struct Member<'a> {
    pub kafka: &'a KafkaSettings,
    pub role: &'static Role,
    /// The topic whose keys are shared.
    pub topic: &'static Topic,
    pub health: &'a Health,
    pub shutdown: CancellationToken,
}

impl Member<'_> {
    /// Runs `work` on this instance's share until shutdown, anew with every change of it. What
    /// is not over when a partition goes elsewhere is aborted before another instance is
    /// assigned it.
    ///
    /// # Errors
    /// When the Kafka settings are not accepted.
    pub(super) async fn run<W, F>(
        self,
        producer: FactProducer,
        worker: Arc<W>,
        work: impl Fn(Arc<W>, Owned, CancellationToken) -> F,
    ) -> Result<(), PollerError>
    where
        W: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let ended = self.share(&producer, |owned, stop| work(Arc::clone(&worker), owned, stop)).await;
        // Clients wait for their threads as they go: not in the runtime's way.
        let _ = tokio::task::spawn_blocking(move || drop((worker, producer))).await;
        Ok(ended?)
    }

    async fn share<F>(
        self,
        producer: &FactProducer,
        work: impl Fn(Owned, CancellationToken) -> F,
    ) -> Result<(), SubscriptionError>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { kafka, role, topic, health, shutdown } = self;
        let part = health.part(&format!("{}.group", role.name));
        let options = SubscriptionOptions {
            revocation_wait: STOPPING_GRACE + Duration::from_secs(1),
            health: Some(part.clone()),
            ..SubscriptionOptions::default()
        };
        let mut memberships =
            Memberships::new(kafka, role, options, part.clone(), RETRY, shutdown.clone()).over(topic);
        while let Some(mut subscription) = memberships.next()? {
            let mut share = Share { partitions: BTreeSet::new(), running: None };
            let ended = loop {
                let event = subscription.next().await;
                if let Event::Records(_) = event {
                    // No partition is ever started.
                    continue;
                }
                share.stop().await;
                match event {
                    Event::Assigned(more) => share.partitions.extend(more.iter().map(|at| at.partition)),
                    Event::Revoked(less) => {
                        share.give_up(&less);
                        subscription.acknowledge_revocation().await;
                    }
                    Event::Lost(less) => share.give_up(&less),
                    Event::Failed(error) => break error.into(),
                    Event::Closed => break Ended::Shutdown,
                    Event::Records(_) => {}
                }
                let ask = || producer.partitions(topic);
                let Some(count) = partition_count(ask, &part, &shutdown).await else { continue };
                memberships.pause().reset();
                if !share.partitions.is_empty() {
                    let stop = shutdown.child_token();
                    let owned = Owned { partitions: share.partitions.clone(), count };
                    share.running = Some(Running { task: tokio::spawn(work(owned, stop.clone())), stop });
                }
            };
            share.stop().await;
            memberships.end(subscription, ended).await;
        }
        Ok(())
    }
}

/// What is this instance's in one membership, and the work on it.
struct Share {
    partitions: BTreeSet<i32>,
    running: Option<Running>,
}

impl Share {
    fn give_up(&mut self, less: &[TopicPartition]) {
        self.partitions.retain(|partition| less.iter().all(|at| at.partition != *partition));
    }

    async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

struct Running {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Running {
    async fn stop(mut self) {
        self.stop.cancel();
        if timeout(STOPPING_GRACE, &mut self.task).await.is_err() {
            self.task.abort();
            // Ends at once, as aborted.
            let _ = self.task.await;
        }
    }
}

/// Asks until there is an answer; `None` at shutdown.
async fn partition_count<E: std::fmt::Display, F: Future<Output = Result<i32, E>>>(
    ask: impl Fn() -> F,
    part: &Part,
    shutdown: &CancellationToken,
) -> Option<i32> {
    loop {
        match ask().await {
            Ok(count) => {
                part.ready();
                return Some(count);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot tell which facts are this instance's");
                part.not_ready(error.to_string());
            }
        }
        tokio::select! {
            () = sleep(TOPIC_RETRY) => {}
            () = shutdown.cancelled() => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn readiness_comes_back_with_the_first_answer() {
        let (health, shutdown, asked) = (Health::default(), CancellationToken::new(), AtomicUsize::new(0));
        let part = health.part("poller.group");
        part.ready();
        let ask = || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0 => Err("no answer in time"),
                _ => {
                    assert_eq!(health.reasons().len(), 1, "says why it waits");
                    Ok(6)
                }
            }
        };
        assert_eq!(partition_count(ask, &part, &shutdown).await, Some(6));
        assert!(health.reasons().is_empty());
    }
}
