//! Asks the platform's event analytics about its consumer groups and writes what it
//! heard to `kafka.consumer-lag.v1`.
//!
//! One question answers for all groups, so of all instances one asks: the one that is
//! assigned the topic's first partition.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::facts::{FactLost, FactProducer, current_traceparent};
use super::ownership::{Member, Owned, PollerError};
use super::schedule::Schedule;
use super::watch::reading;
use crate::clock;
use crate::genesys::{CallError, CallErrorKind, Client, EventLagAnswer, EventLagQuery};
use crate::health::{Health, Part};
use crate::kafka::settings::KafkaSettings;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::lag::{EventLag, LagSample, LagSource, Observation};
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "analytics-poller",
    kind: Kind::Source,
    description: "asks event analytics how far behind the platform's consumer groups are",
    reads: &[],
    writes: &[&topics::CONSUMER_LAG],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM],
};

/// What is asked and how often.
#[derive(Clone, Debug)]
pub struct Settings {
    /// All of them are required: one that is on no page is missing.
    pub groups: Vec<String>,
    /// Time between two questions.
    pub interval: Duration,
    /// The time up to now that is asked about, at most 24 h.
    pub window: Duration,
}

/// Asks, if it is this instance's to ask, until `shutdown`.
///
/// # Errors
/// When the Kafka clients cannot be made or the group member fails for good. A platform
/// that does not answer is a fact.
pub async fn run(
    settings: Settings,
    kafka: KafkaSettings,
    client: Client,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), PollerError> {
    let producer = FactProducer::new(&kafka, &ROLE)?;
    let part = health.part(ROLE.name);
    part.ready();
    let poller = Arc::new(Poller { settings, client, producer: producer.clone(), part });
    let member = Member { kafka: &kafka, role: &ROLE, topic: &topics::CONSUMER_LAG, health, shutdown };
    member.run(producer, poller, Poller::work).await
}

struct Poller {
    settings: Settings,
    client: Client,
    producer: FactProducer,
    part: Part,
}

impl Poller {
    async fn work(self: Arc<Self>, owned: Owned, stop: CancellationToken) {
        if !owned.is_first() {
            return;
        }
        let _end = self.part.ready_at_end();
        let schedule = Schedule::new(ROLE.name, self.settings.interval);
        loop {
            tokio::select! {
                () = self.poll(&owned, &stop) => {}
                () = stop.cancelled() => return,
            }
            tokio::select! {
                () = sleep(schedule.wait(clock::now())) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn poll(&self, owned: &Owned, stop: &CancellationToken) {
        let at = clock::now();
        let scope = reading(self.settings.interval, stop);
        let mut samples = Vec::new();
        let (mut refused, mut problem) = (None, None);
        // Where a question is refused, smaller ones find out which group is at fault.
        let mut parts = vec![self.settings.groups.as_slice()];
        while let Some(groups) = parts.pop() {
            let query =
                EventLagQuery { consumer_groups: groups, from: at.minus(self.settings.window), to: at };
            let answered = self.client.event_lag(&query, &scope).await;
            let result = match &answered {
                Err(CallError { kind: CallErrorKind::Cancelled, .. }) => return,
                Ok(answer) => {
                    problem = problem.or(complaint(answer));
                    "ok"
                }
                Err(error) => error.kind.name(),
            };
            metrics::LAG_POLLS.counter(&[result]).increment(1);
            match &answered {
                Err(error) if error.kind == CallErrorKind::Rejected && groups.len() > 1 => {
                    let (first, second) = groups.split_at(groups.len() / 2);
                    parts.extend([second, first]);
                    continue;
                }
                Err(error) if error.is_refusal() => refused = Some(error.to_string()),
                Err(error) => problem = Some(error.to_string()),
                Ok(_) => {}
            }
            let answered = answered.as_ref().map_err(ToString::to_string);
            samples.extend(self::samples(groups, self.settings.window, at, answered));
        }
        let written = self.write(&samples, owned).await;
        match (problem.or_else(|| written.err().map(|error| error.to_string())), refused) {
            (None, None) => self.part.ready(),
            (Some(problem), _) => {
                tracing::warn!(problem, "event analytics");
                self.part.not_ready(problem);
            }
            (None, Some(refused)) => {
                tracing::warn!(refused, "event analytics");
                self.part.impaired(refused);
            }
        }
    }

    #[tracing::instrument(name = "observe", skip_all, fields(role = ROLE.name, samples = samples.len()))]
    async fn write(&self, samples: &[LagSample], owned: &Owned) -> Result<(), FactLost> {
        let traceparent = current_traceparent();
        let records = samples.iter().map(|sample| {
            let key = sample.consumer_group.as_str();
            let value = serde_json::to_vec(sample).expect("own values are JSON");
            (topics::partition_of(key.as_bytes(), owned.count), key, value)
        });
        self.producer.publish_all(&topics::CONSUMER_LAG, records, &traceparent).await
    }
}

/// What was wrong with rows, in a line.
fn complaint(answer: &EventLagAnswer) -> Option<String> {
    let first = answer.problems.first()?;
    Some(format!("{} rows of the answer make no sense, the first: {first}", answer.problems.len()))
}

/// Samples of one answer, all pages together: of each group all its event types, or
/// that it is missing. Groups nobody asked about are left out.
fn samples(
    groups: &[String],
    window: Duration,
    at: Timestamp,
    answered: Result<&EventLagAnswer, String>,
) -> Vec<LagSample> {
    let interval_seconds = window.as_secs_f64();
    let mut seen: BTreeMap<&str, Vec<Observation>> =
        groups.iter().map(|group| (group.as_str(), Vec::new())).collect();
    match &answered {
        Ok(answer) => {
            for row in &answer.rows {
                if let Some(observations) = seen.get_mut(row.consumer_group.as_str()) {
                    observations.push(Observation::EventType(EventLag {
                        event_type: row.event_type.clone(),
                        event_count: row.event_count,
                        processing_latency_ms: row.processing_latency_ms,
                        interval_seconds,
                    }));
                }
            }
            // Rows that could not be read may have been of any group: absence proves nothing then.
            let unread = complaint(answer);
            for observations in seen.values_mut().filter(|observations| observations.is_empty()) {
                observations.push(match &unread {
                    None => Observation::Missing {},
                    Some(reason) => Observation::Failed { reason: reason.clone() },
                });
            }
        }
        Err(reason) => {
            for observations in seen.values_mut() {
                observations.push(Observation::Failed { reason: reason.clone() });
            }
        }
    }
    seen.into_iter()
        .flat_map(|(group, observations)| {
            let of = u32::try_from(observations.len()).unwrap_or(u32::MAX);
            observations.into_iter().map(move |observation| LagSample {
                consumer_group: group.to_owned(),
                source: LagSource::Analytics,
                group_type: None,
                observed_at: at,
                poll_samples: of,
                observation,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesys::EventLagRow;

    fn row(group: &str, event_type: &str) -> EventLagRow {
        EventLagRow {
            consumer_group: group.into(),
            event_type: event_type.into(),
            event_count: 90,
            processing_latency_ms: 7.0,
        }
    }

    fn of(answer: Result<EventLagAnswer, String>) -> Vec<(String, u32, Observation)> {
        let groups = ["a".to_owned(), "b".to_owned()];
        let window = Duration::from_secs(1_800);
        samples(&groups, window, Timestamp::from_millis(0), answer.as_ref().map_err(Clone::clone))
            .into_iter()
            .map(|sample| (sample.consumer_group, sample.poll_samples, sample.observation))
            .collect()
    }

    #[test]
    fn a_group_is_missing_only_when_it_is_on_no_page() {
        let rows = vec![row("a", "x"), row("stranger", "x"), row("a", "y")];
        let found = of(Ok(EventLagAnswer { rows, problems: vec![] }));
        assert_eq!(found.len(), 3, "{found:?}");
        let Observation::EventType(first) = &found[0].2 else { panic!("{found:?}") };
        assert_eq!((found[0].1, first.interval_seconds), (2, 1_800.0), "the true interval");
        assert_eq!(found[2], ("b".to_owned(), 1, Observation::Missing {}));
    }

    #[test]
    fn rows_that_cannot_be_read_and_calls_that_fail_prove_no_absence() {
        let found = of(Ok(EventLagAnswer { rows: vec![row("a", "x")], problems: vec!["rows[1]".into()] }));
        assert!(matches!(found[1].2, Observation::Failed { .. }), "{found:?}");
        let found = of(Err("HTTP 503".into()));
        assert!(found.iter().all(|(_, _, seen)| matches!(seen, Observation::Failed { .. })), "{found:?}");
        assert_eq!(found.len(), 2);
    }
}
