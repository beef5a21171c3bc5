//! Observes campaigns and writes what it saw to `genesys.campaign-stats.v1`.
//!
//! However many instances run, each campaign is observed by one at a time: the
//! instances form a consumer group over the topic they write to, and a campaign
//! belongs to whoever is assigned the partition of its facts. Nothing is ever
//! read; the group is used for its assignment alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::complaints::Complaints;
use super::facts::{FactProducer, NotDelivered, new_traceparent};
use super::schedule::Schedule;
use crate::genesys::{CallError, CallErrorKind, Campaign, CampaignStatistics, Client, Priority, Scope};
use crate::health::Health;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::campaign::CampaignStats;
use crate::runtime::clock;
use crate::runtime::kafka::KafkaSettings;
use crate::runtime::subscription::{
    Event, Subscription, SubscriptionError, SubscriptionOptions, TopicPartition,
};
use crate::telemetry;
use crate::topics;

/// Name of the role: its consumer group, clients, readiness and `--stages`.
pub const ROLE: &str = "campaign-poller";

/// What is observed and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ids of the campaigns.
    pub campaigns: Vec<String>,
    /// Time between two observations of one campaign.
    pub interval: Duration,
    /// Named in the facts.
    pub organization_id: Option<String>,
    /// Named in the facts.
    pub region: Option<String>,
    /// Observations under way at once in this instance, at least 1.
    pub concurrency: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            campaigns: Vec::new(),
            interval: Duration::from_secs(30),
            organization_id: None,
            region: None,
            concurrency: 32,
        }
    }
}

/// A campaign that does not exist is asked for this many times less often.
const ABSENT_FACTOR: u32 = 10;
/// Least and longest time for one observation, whatever the interval.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);
/// How long a fact on its way is waited for when its campaign goes elsewhere.
const STOPPING_GRACE: Duration = Duration::from_millis(500);
const TOPIC_RETRY: Duration = Duration::from_secs(1);

/// Why the poller cannot run.
#[derive(Debug, thiserror::Error)]
pub enum PollerError {
    #[error("cannot make a Kafka producer: {0}; check the `kafka` settings")]
    Producer(#[from] rdkafka::error::KafkaError),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// Observes this instance's share of the campaigns until `shutdown`.
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
    let options = SubscriptionOptions {
        revocation_wait: STOPPING_GRACE + Duration::from_secs(1),
        health: Some(health.part(&format!("{ROLE}.group"))),
        ..SubscriptionOptions::default()
    };
    let mut subscription =
        Subscription::open(&kafka, ROLE, &[&topics::CAMPAIGN_STATS], options, shutdown.clone())?;
    let observer = Arc::new(Observer {
        slots: Semaphore::new(settings.concurrency.max(1)),
        complaints: Complaints::new("campaign", "campaigns", health.part(ROLE)),
        settings,
        client,
        producer,
        clock: clock::now,
    });
    let mut share = Share { observer, partitions: HashMap::new(), shutdown: shutdown.clone() };
    let result = loop {
        match subscription.next().await {
            Event::Assigned(assigned) => share.take(&assigned).await,
            Event::Revoked(revoked) => {
                share.release(&revoked).await;
                subscription.acknowledge_revocation().await;
            }
            Event::Lost(lost) => share.release(&lost).await,
            // No partition is ever started.
            Event::Records(_) => {}
            Event::Failed(error) => break Err(error.into()),
            Event::Closed => break Ok(()),
        }
    };
    share.release_all().await;
    subscription.close().await;
    // The last producer waits for its thread: not in the runtime's way.
    let _ = tokio::task::spawn_blocking(move || drop(share)).await;
    result
}

/// The campaigns that are this instance's to observe.
struct Share {
    observer: Arc<Observer>,
    partitions: HashMap<i32, Watch>,
    shutdown: CancellationToken,
}

/// The campaigns of one partition.
struct Watch {
    stop: CancellationToken,
    campaigns: JoinSet<()>,
}

impl Share {
    async fn take(&mut self, assigned: &[TopicPartition]) {
        let Some(count) = self.partition_count().await else { return };
        for TopicPartition { partition, .. } in assigned {
            let stop = self.shutdown.child_token();
            let mut campaigns = JoinSet::new();
            for campaign in &self.observer.settings.campaigns {
                if topics::partition_of(campaign.as_bytes(), count) == *partition {
                    campaigns.spawn(self.observer.clone().watch(campaign.clone(), *partition, stop.clone()));
                }
            }
            self.partitions.insert(*partition, Watch { stop, campaigns });
        }
        self.count();
    }

    /// Asks until there is an answer; `None` at shutdown.
    async fn partition_count(&self) -> Option<i32> {
        loop {
            match self.observer.producer.partitions(&topics::CAMPAIGN_STATS).await {
                Ok(count) => return Some(count),
                Err(error) => tracing::warn!(%error, "cannot tell which campaigns are this instance's"),
            }
            tokio::select! {
                () = sleep(TOPIC_RETRY) => {}
                () = self.shutdown.cancelled() => return None,
            }
        }
    }

    /// Stops observing; returns when nothing more will be written, within the grace.
    async fn release(&mut self, gone: &[TopicPartition]) {
        let gone: Vec<Watch> = gone.iter().filter_map(|at| self.partitions.remove(&at.partition)).collect();
        stop(gone).await;
        self.count();
    }

    async fn release_all(&mut self) {
        stop(self.partitions.drain().map(|(_, watch)| watch).collect()).await;
        self.count();
    }

    fn count(&self) {
        let owned: usize = self.partitions.values().map(|watch| watch.campaigns.len()).sum();
        metrics::CAMPAIGNS_WATCHED.gauge(&[]).set(owned as f64);
    }
}

async fn stop(watches: Vec<Watch>) {
    for watch in &watches {
        watch.stop.cancel();
    }
    let ended = async {
        for mut watch in watches {
            while watch.campaigns.join_next().await.is_some() {}
        }
    };
    // What has not ended by then is aborted with its set.
    let _ = timeout(STOPPING_GRACE, ended).await;
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
    /// The campaign went elsewhere, or the process stops.
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
    /// Observes one campaign at once and then every interval, until stopped.
    async fn watch(self: Arc<Self>, campaign: String, partition: i32, stop: CancellationToken) {
        let schedule = Schedule::new(&campaign, self.settings.interval);
        let mut last = Timestamp::MIN;
        loop {
            let observed = self.observe(&campaign, partition, last, &stop).await;
            let mut wait = schedule.wait((self.clock)());
            match observed {
                Ok(at) => {
                    last = at;
                    metrics::CAMPAIGN_POLLS.counter(&["ok"]).increment(1);
                    self.complaints.withdraw(&campaign);
                }
                Err(missed) if missed.is_stop() => break,
                Err(missed) => {
                    metrics::CAMPAIGN_POLLS.counter(&[missed.name()]).increment(1);
                    tracing::warn!(campaign, reason = %missed, "campaign not observed");
                    if matches!(&missed, Missed::Call(error) if error.kind == CallErrorKind::NotFound) {
                        wait = wait.saturating_add(self.settings.interval.saturating_mul(ABSENT_FACTOR - 1));
                    }
                    self.complaints.file(&campaign, missed.to_string());
                }
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => break,
            }
        }
        self.complaints.withdraw(&campaign);
    }

    /// One observation: asks the platform, writes the fact, says when it was.
    #[tracing::instrument(skip_all, fields(campaign = id))]
    async fn observe(
        &self,
        id: &str,
        partition: i32,
        last: Timestamp,
        stop: &CancellationToken,
    ) -> Result<Timestamp, Missed> {
        let _slot = tokio::select! {
            slot = self.slots.acquire() => slot.map_err(|_| Missed::Stopped)?,
            () = stop.cancelled() => return Err(Missed::Stopped),
        };
        let scope = Scope {
            priority: Priority::Read,
            deadline: Instant::now() + self.settings.interval.clamp(LEAST_PATIENCE, LONGEST_PATIENCE),
            cancelled: stop.clone(),
        };
        let campaign = async { self.client.campaign(id, &scope).await.map(|read| (read, (self.clock)())) };
        let statistics =
            async { self.client.campaign_statistics(id, &scope).await.map(|read| (read, (self.clock)())) };
        let ((campaign, campaign_at), (statistics, statistics_at)) = tokio::try_join!(campaign, statistics)?;
        let observed_at = later(campaign_at.min(statistics_at), last);
        let fact = self.fact(&campaign, &statistics, observed_at);
        let value = serde_json::to_vec(&fact).expect("own values are JSON");
        let traceparent = telemetry::traceparent(&Span::current()).unwrap_or_else(new_traceparent);
        let written = self.producer.publish(&topics::CAMPAIGN_STATS, partition, id, &value, &traceparent);
        let stopped = async {
            stop.cancelled().await;
            sleep(STOPPING_GRACE).await;
        };
        tokio::select! {
            written = written => written?,
            () = stopped => return Err(Missed::Stopped),
        }
        tracing::debug!(campaign = id, %observed_at, traceparent, "campaign observed");
        Ok(observed_at)
    }

    fn fact<'a>(
        &'a self,
        campaign: &'a Campaign,
        statistics: &CampaignStatistics,
        observed_at: Timestamp,
    ) -> CampaignStats<'a> {
        CampaignStats {
            campaign_id: campaign.id.as_str().into(),
            organization_id: self.settings.organization_id.as_deref().map(Into::into),
            region: self.settings.region.as_deref().map(Into::into),
            observed_at,
            answer_rate: statistics.answer_rate,
            attempts: statistics.attempts,
            answers: statistics.answers,
            abandoned: statistics.abandoned,
            agents_idle: statistics.agents_idle,
            agents_busy: statistics.agents_busy,
            calls_delivered: statistics.calls_delivered,
            dial_rate: campaign.dial_rate,
            min_dial_rate: campaign.min_dial_rate,
            max_dial_rate: campaign.max_dial_rate,
            revision: campaign.revision.as_str().into(),
        }
    }
}

/// Observations of one campaign never share a time nor run back, whatever the clock does.
fn later(now: Timestamp, last: Timestamp) -> Timestamp {
    now.max(last.plus(Duration::from_millis(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_of_a_campaign_have_times_that_grow() {
        let at = |millis| Timestamp::from_millis(millis);
        assert_eq!(later(at(1_000), Timestamp::MIN), at(1_000));
        assert_eq!(later(at(1_000), at(1_000)), at(1_001), "twice in a millisecond");
        assert_eq!(later(at(500), at(1_000)), at(1_001), "the clock was set back");
    }
}
