//! Observes campaigns and writes what it saw to `genesys.campaign-stats.v1`.
//!
//! However many instances run, each campaign is observed by one at a time: the
//! instances form a consumer group over the topic they write to, and a campaign
//! belongs to whoever is assigned the partition of its facts. Nothing is ever
//! read; the group is used for its assignment alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::ownership::{Member, Owned, PollerError};
use super::watch::{Missed, Poller, Watch, observed_after};
use crate::genesys::{Campaign, CampaignStatistics, Client};
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::campaign::{CampaignStats, Reading, ticks_to_stale};
use crate::model::name::Kind as NameKind;
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "campaign-poller",
    kind: Kind::Source,
    description: "observes each campaign once per interval, whichever instance it falls to",
    reads: &[],
    writes: &[&topics::CAMPAIGN_STATS],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM],
};

/// What is observed and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Ids of the campaigns.
    pub campaigns: Vec<String>,
    /// Time between two observations of one campaign.
    pub interval: Duration,
    /// Observations under way at once in this instance, at least 1.
    pub concurrency: usize,
    /// Where the campaigns' names go.
    pub names: Names,
}

impl Settings {
    /// The same, with somebody who wants to know the names.
    #[must_use]
    pub fn with(self, names: Names) -> Self {
        Self { names, ..self }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            campaigns: Vec::new(),
            interval: Duration::from_secs(30),
            concurrency: 32,
            names: Names::default(),
        }
    }
}

/// Slowed polls come at most so many times as far apart: statistics that are two intervals old
/// are late.
const LONGEST_STRETCH: f64 = 1.5;

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
    let member = Member { kafka: &kafka, role: &ROLE, topic: &topics::CAMPAIGN_STATS, health, shutdown };
    let poller = Poller {
        member,
        client,
        nouns: ("campaign", "campaigns"),
        concurrency: settings.concurrency,
        longest_stretch: LONGEST_STRETCH,
    };
    poller.run(|watch| Observer { settings, watch }, Observer::watch_all).await
}

struct Observer {
    settings: Settings,
    watch: Watch,
}

impl Observer {
    /// Observes this instance's share of the campaigns until stopped.
    async fn watch_all(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        let own = owned.share_of(&self.settings.campaigns);
        self.watch.client.expect_campaigns(own.iter().map(|(campaign, _)| *campaign));
        let mut campaigns = JoinSet::new();
        for (campaign, partition) in own {
            campaigns.spawn(Arc::clone(&self).watch(campaign.to_owned(), partition, stop.clone()));
        }
        metrics::CAMPAIGNS_WATCHED.gauge(&[]).set(campaigns.len() as f64);
        while campaigns.join_next().await.is_some() {}
    }

    async fn watch(self: Arc<Self>, campaign: String, partition: i32, stop: CancellationToken) {
        let count = |ended| metrics::CAMPAIGN_POLLS.counter(&[ended]).increment(1);
        let repetition = Mutex::new(Repetition::default());
        let observe = |last| self.observe(&campaign, partition, last, &repetition, &stop);
        self.watch.every(self.settings.interval, &campaign, &stop, count, observe).await;
    }

    /// One observation: asks the platform, writes the fact, says when it was.
    #[tracing::instrument(skip_all, fields(campaign = id))]
    async fn observe(
        &self,
        id: &str,
        partition: i32,
        last: Timestamp,
        repetition: &Mutex<Repetition>,
        stop: &CancellationToken,
    ) -> Result<Timestamp, Missed> {
        let Watch { client, clock, .. } = &self.watch;
        let ((campaign, campaign_at), (statistics, statistics_at)) = {
            let _slot = self.watch.slot(id, stop).await?;
            let scope = self.watch.polling(id, self.settings.interval, stop);
            let campaign = async { client.campaign_lately(id, &scope).await.map(|read| (read, clock())) };
            let statistics =
                async { client.campaign_statistics(id, &scope).await.map(|read| (read, clock())) };
            tokio::try_join!(campaign, statistics)?
        };
        self.settings.names.tell(NameKind::Campaign, id, campaign.name.as_deref());
        let observed_at = observed_after(last, campaign_at.min(statistics_at.minus(statistics.age)));
        let fact = self.fact(&campaign, &statistics, observed_at);
        self.watch.publish(&topics::CAMPAIGN_STATS, partition, id, &fact, stop).await?;
        let mut repetition = repetition.lock().unwrap_or_else(PoisonError::into_inner);
        self.watch.doubt(id, repetition.doubt(fact.reading()));
        tracing::debug!(campaign = id, %observed_at, "campaign observed");
        Ok(observed_at)
    }

    fn fact<'a>(
        &'a self,
        campaign: &'a Campaign,
        statistics: &CampaignStatistics,
        observed_at: Timestamp,
    ) -> CampaignStats<'a> {
        let organization = self.watch.client.organization_of(&campaign.id);
        CampaignStats {
            campaign_id: campaign.id.as_str().into(),
            organization_id: organization.id.as_deref().map(Into::into),
            region: organization.region.as_deref().map(Into::into),
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

/// How often a campaign's statistics have said the same.
#[derive(Default)]
struct Repetition {
    last: Option<Reading>,
    polls: u32,
}

impl Repetition {
    /// Takes the next statistics in. Answers what is wrong with them, if anything is.
    fn doubt(&mut self, reading: Reading) -> Option<String> {
        let is_news = self.last.is_none_or(|last| reading.is_news_after(&last));
        self.polls = if is_news { 0 } else { self.polls.saturating_add(1) };
        self.last = Some(reading);
        (self.polls >= ticks_to_stale(reading.agents_idle)).then(|| {
            format!(
                "its statistics have said the same {} times in a row: they are frozen, or nobody is called \
                 although agents are idle; its dial rate is kept at the least",
                self.polls + 1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_that_do_not_change_are_doubted_until_they_do() {
        let reading = |calls_delivered, agents_idle| Reading {
            answer_rate: 0.3,
            attempts: None,
            answers: None,
            abandoned: None,
            calls_delivered,
            agents_idle,
            agents_busy: 3,
        };
        let mut repetition = Repetition::default();
        let mut polls = |calls: u64, idle: u32, count: usize| -> Vec<bool> {
            (0..count).map(|_| repetition.doubt(reading(calls, idle)).is_some()).collect()
        };
        assert_eq!(polls(1, 2, 6), [false, false, false, false, true, true]);
        assert_eq!(polls(2, 2, 1), [false]);
        assert!(!polls(3, 0, 20).contains(&true), "with nobody idle nobody is called");
        assert_eq!(polls(3, 0, 1), [true]);
    }
}
