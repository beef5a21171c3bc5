//! Observes flows: their publish timelines, written to `genesys.flow-versions.v1`, and where
//! their minutes are polled, their measures, written to `genesys.flow-health.v1`.
//!
//! However many instances run, each flow is observed by one at a time. What cannot be read
//! leaves a gap: a minute that nobody could measure is told as such, not as one without errors.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::names::Names;
use super::ownership::{Member, Owned, PollerError};
use super::watch::{Ended, Missed, Poller, Watch, observed_after, reading};
use crate::genesys::{Client, Measured, PlatformVersion};
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::flow::{FlowHealth, FlowVersion, FlowVersions};
use crate::model::name::Kind as NameKind;
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "flow-poller",
    kind: Kind::Source,
    description: "observes the versions of flows, and their measures where minutes are polled",
    reads: &[],
    writes: &[&topics::FLOW_VERSIONS, &topics::FLOW_HEALTH],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM],
};

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
    /// How long after its end a minute is measured: its last interactions may not have been
    /// counted before.
    pub settling: Duration,
    /// Observations under way at once in this instance, at least 1.
    pub concurrency: usize,
    /// Where the flows' names go.
    pub names: Names,
}

impl Settings {
    /// The same, with somebody who wants to know the names.
    #[must_use]
    pub fn with(self, names: Names) -> Self {
        Self { names, ..self }
    }
}

/// Pause after a measure that could not be had, as a share of a minute.
const RETRY_SHARE: u32 = 10;
/// Versions told of one flow: the newest.
const VERSIONS_TOLD: usize = 200;

/// Slowed looks at versions come at most so many times as far apart; measures are never slowed:
/// each tells of a minute of its own.
const LONGEST_STRETCH: f64 = 5.0;

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
    let member = Member { kafka: &kafka, role: &ROLE, topic: &topics::FLOW_VERSIONS, health, shutdown };
    let poller = Poller {
        member,
        client,
        nouns: ("flow", "flows"),
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
    /// Observes this instance's share of the flows until stopped.
    async fn watch_all(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        let mut flows = JoinSet::new();
        for (flow, partition) in owned.share_of(&self.settings.flows) {
            flows.spawn(Arc::clone(&self).watch(flow.to_owned(), partition, stop.clone()));
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
        let key = format!("{flow} (versions)");
        let count = |ended| metrics::FLOW_POLLS.counter(&["versions", ended]).increment(1);
        let observe = |last| self.observe_versions(flow, partition, last, stop);
        self.watch.every(self.settings.interval, &key, stop, count, observe).await;
    }

    #[tracing::instrument(skip_all, fields(flow))]
    async fn observe_versions(
        &self,
        flow: &str,
        partition: i32,
        last: Timestamp,
        stop: &CancellationToken,
    ) -> Result<Timestamp, Missed> {
        let (observed, observed_at) = {
            let _slot = self.watch.slot(flow, stop).await?;
            let observed_at = observed_after(last, (self.watch.clock)());
            let scope = self.watch.polling(flow, self.settings.interval, stop);
            (self.watch.client.flow(flow, &scope).await?, observed_at)
        };
        self.settings.names.tell(NameKind::Flow, flow, observed.name.as_deref());
        let fact = timeline(flow, observed_at, &observed.versions);
        self.watch.publish(&topics::FLOW_VERSIONS, partition, flow, &fact, stop).await?;
        Ok(observed_at)
    }

    /// One minute after the other; one that could not be measured while the next lasted is
    /// told to be incomplete.
    async fn watch_measures(&self, flow: &str, stop: &CancellationToken) {
        let key = format!("{flow} (measures)");
        let count = |ended| metrics::FLOW_POLLS.counter(&["measures", ended]).increment(1);
        let Settings { minute, settling, .. } = self.settings;
        let length = i64::try_from(minute.as_millis()).unwrap_or(i64::MAX).max(1);
        let begin_of = |at: Timestamp| Timestamp::from_millis(at.as_millis().div_euclid(length) * length);
        let mut next = begin_of((self.watch.clock)());
        loop {
            let due = next.plus(minute + settling);
            let wait = u64::try_from(due.millis_since((self.watch.clock)())).unwrap_or(0);
            tokio::select! {
                () = sleep(Duration::from_millis(wait)) => {}
                () = stop.cancelled() => return,
            }
            let seen = self.observe_measures(flow, next, stop).await;
            let ended = self.watch.tell(&key, seen.as_ref().err(), count);
            if ended == Ended::Stopped {
                return;
            }
            let newest = begin_of((self.watch.clock)().minus(minute + settling));
            if seen.is_ok() {
                next = next.plus(minute).max(newest);
            } else if newest > next {
                // Where this cannot be told either, it is a gap.
                let _ = self.tell_measures(flow, next, None, (self.watch.clock)(), stop).await;
                next = newest;
            } else {
                // What is refused is refused again: the next minute is time enough.
                let pause = if ended == Ended::Refused { minute } else { minute / RETRY_SHARE };
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop.cancelled() => return,
                }
            }
        }
    }

    #[tracing::instrument(skip_all, fields(flow))]
    async fn observe_measures(
        &self,
        flow: &str,
        minute: Timestamp,
        stop: &CancellationToken,
    ) -> Result<(), Missed> {
        let until = minute.plus(self.settings.minute);
        let (measured, observed_at) = {
            let _slot = self.watch.slot(flow, stop).await?;
            let observed_at = (self.watch.clock)();
            let scope = reading(self.settings.minute, stop);
            (self.watch.client.flow_measures(flow, minute, until, &scope).await?, observed_at)
        };
        self.tell_measures(flow, minute, Some(&measured), observed_at, stop).await
    }

    /// A minute's measures, one fact per version; without any, that it was not measured.
    async fn tell_measures(
        &self,
        flow: &str,
        minute: Timestamp,
        measured: Option<&[Measured]>,
        observed_at: Timestamp,
        stop: &CancellationToken,
    ) -> Result<(), Missed> {
        // Where versions are not told apart, or nobody was in any: whoever reads it knows the
        // timeline.
        let nothing = [Measured { version: String::new(), total: 0, errors: 0 }];
        let told = measured.filter(|measured| !measured.is_empty()).unwrap_or(&nothing);
        let count = self.watch.producer.partitions(&topics::FLOW_HEALTH).await?;
        let partition = topics::partition_of(flow.as_bytes(), count);
        for of_version in told {
            let fact = FlowHealth {
                flow_id: flow.into(),
                flow_version: of_version.version.as_str().into(),
                minute,
                total: of_version.total,
                errors: of_version.errors,
                observed_at,
                complete: measured.is_some(),
            };
            self.watch.publish(&topics::FLOW_HEALTH, partition, flow, &fact, stop).await?;
        }
        Ok(())
    }
}

/// The newest versions, in the platform's order.
fn timeline<'a>(flow: &'a str, observed_at: Timestamp, versions: &'a [PlatformVersion]) -> FlowVersions<'a> {
    let first = versions.len().saturating_sub(VERSIONS_TOLD);
    let told = versions[first..].iter().map(|version| FlowVersion {
        version: version.id.as_str().into(),
        status: (!version.status.is_empty()).then(|| version.status.as_str().into()),
        published_at: version.published_at,
        replaced_at: version.replaced_at,
    });
    FlowVersions { flow_id: flow.into(), observed_at, versions: told.collect() }
}
