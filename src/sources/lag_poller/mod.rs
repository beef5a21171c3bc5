//! Observes consumer groups at their brokers and writes what it saw to
//! `kafka.consumer-lag.v1`.
//!
//! A group is observed by the instance that is assigned the partition of its facts.

mod choice;
mod cluster;
mod name;
mod others;
mod spans;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::facts::{FactLost, FactProducer, current_traceparent};
use super::ownership::{Member, Owned, PollerError};
use super::schedule::Schedule;
use super::watch::observed_after;
use crate::clock;
use crate::health::{Health, Part};
use crate::kafka::settings::KafkaSettings;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::lag::LagSample;
use crate::role::{Kind, Role};
use crate::topics;

pub use choice::Choice;
pub use cluster::Cluster;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "lag-poller",
    kind: Kind::Source,
    description: "observes consumer groups at their brokers, trunkline's own among them",
    reads: &[],
    writes: &[&topics::CONSUMER_LAG],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &["Kafka clusters"],
};

/// What is observed and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Groups of trunkline's own cluster.
    pub own: Choice,
    /// Other clusters: name, how to reach it, and which of its groups.
    pub others: Vec<(String, KafkaSettings, Choice)>,
    /// Time between two polls of a cluster.
    pub interval: Duration,
}

/// Least and longest time for one poll, whatever the interval.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PATIENCE: Duration = Duration::from_secs(30);

/// Observes this instance's share of the groups until `shutdown`.
///
/// # Errors
/// When the Kafka clients cannot be made or the group member fails for good. Clusters
/// that do not answer are facts.
pub async fn run(
    settings: Settings,
    kafka: KafkaSettings,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), PollerError> {
    let producer = FactProducer::new(&kafka, &ROLE)?;
    let reader = |kafka: &KafkaSettings| kafka.group(&format!("{}-heads", ROLE.name));
    let mut clusters = vec![Watched {
        name: "own".to_owned(),
        cluster: Mutex::new(Cluster::new(None, settings.own, &kafka.client(ROLE.name), &reader(&kafka))?),
        part: health.part(ROLE.name),
    }];
    for (name, other, choice) in settings.others {
        let cluster = Cluster::new(Some(name.clone()), choice, &other.client(ROLE.name), &reader(&other))?;
        let part = health.part(&format!("{}.{name}", ROLE.name));
        clusters.push(Watched { name, cluster: Mutex::new(cluster), part });
    }
    // Where this instance owns nothing nobody polls: that is no fault.
    clusters.iter().for_each(|watched| watched.part.ready());
    let poller = Arc::new(Poller {
        clusters: clusters.into_iter().map(Arc::new).collect(),
        interval: settings.interval,
        producer: producer.clone(),
        last: Mutex::new(Timestamp::MIN),
    });
    let member = Member { kafka: &kafka, role: &ROLE, topic: &topics::CONSUMER_LAG, health, shutdown };
    member.run(producer, poller, Poller::work).await
}

struct Watched {
    name: String,
    /// Locked by one poll at a time.
    cluster: Mutex<Cluster>,
    part: Part,
}

struct Poller {
    clusters: Vec<Arc<Watched>>,
    interval: Duration,
    producer: FactProducer,
    /// When the newest poll was.
    last: Mutex<Timestamp>,
}

impl Poller {
    /// Polls every cluster at its own point of the interval.
    async fn work(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        let owned = Arc::new(owned);
        let mut clusters = JoinSet::new();
        for watched in &self.clusters {
            clusters.spawn(Arc::clone(&self).watch(Arc::clone(watched), Arc::clone(&owned), stop.clone()));
        }
        // Aborted with this set where they do not end themselves.
        while clusters.join_next().await.is_some() {}
    }

    async fn watch(self: Arc<Self>, watched: Arc<Watched>, owned: Arc<Owned>, stop: CancellationToken) {
        let _end = watched.part.ready_at_end();
        let schedule = Schedule::new(&watched.name, self.interval);
        loop {
            tokio::select! {
                () = self.poll(&watched, &owned) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = sleep(schedule.wait(clock::now())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn poll(&self, watched: &Arc<Watched>, owned: &Arc<Owned>) {
        let at = self.next_time();
        let patience = self.interval.clamp(LEAST_PATIENCE, LONGEST_PATIENCE);
        let began = std::time::Instant::now();
        let asked = tokio::task::spawn_blocking({
            let (watched, owned) = (Arc::clone(watched), Arc::clone(owned));
            move || {
                let mut cluster = watched.cluster.lock().unwrap_or_else(PoisonError::into_inner);
                cluster.poll(at, |group| owned.partition_of(group).is_some(), patience)
            }
        });
        let Ok((samples, answered)) = asked.await else { return };
        metrics::LAG_POLL_SECONDS.histogram(&[]).record(began.elapsed().as_secs_f64());
        let count = samples.len();
        let written = self.write(&samples, owned).await;
        let result = match (&answered, &written) {
            (Err(_), _) => "no_answer",
            (Ok(()), Err(_)) => "not_delivered",
            (Ok(()), Ok(())) => "ok",
        };
        metrics::LAG_POLLS.counter(&[result]).increment(1);
        tracing::debug!(cluster = watched.name, %at, samples = count, result, "consumer groups observed");
        let problem = answered.err().map(|error| error.to_string());
        match problem.or_else(|| written.err().map(|error| error.to_string())) {
            None => watched.part.ready(),
            Some(problem) => {
                tracing::warn!(cluster = watched.name, problem, "consumer groups not observed");
                watched.part.not_ready(format!("cluster {}: {problem}", watched.name));
            }
        }
    }

    #[tracing::instrument(name = "observe", skip_all, fields(role = ROLE.name, samples = samples.len()))]
    async fn write(&self, samples: &[LagSample], owned: &Owned) -> Result<(), FactLost> {
        let traceparent = current_traceparent();
        let records = samples.iter().filter_map(|sample| {
            let partition = owned.partition_of(&sample.consumer_group)?;
            let value = serde_json::to_vec(sample).expect("own values are JSON");
            Some((partition, sample.consumer_group.as_str(), value))
        });
        self.producer.publish_all(&topics::CONSUMER_LAG, records, &traceparent).await
    }

    /// Polls of this instance never share a time nor run back, whatever the clock does.
    fn next_time(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = observed_after(*last, clock::now());
        *last
    }
}
