//! One point in line protocol for every dial rate that was changed.
//!
//! Reads [`OUTCOMES`] in a consumer group of its own, so that the loop never waits for it.
//! Offsets are committed after the points are written; a point that is written again
//! has the same tags and time and is the same point.

mod line;
mod server;

use std::time::Duration;

use secrecy::SecretString;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use crate::health::{Health, Part};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{
    CommitError, Event, InboundRecord, Offsets, Start, Subscription, SubscriptionError, SubscriptionOptions,
};
use crate::metrics;
use crate::model::decision::Loop;
use crate::model::outcome::{Outcome, OutcomeStatus};
use crate::role::{Kind, Role};
use crate::topics;

use line::Point;
use server::{Refusal, Server};

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "drift",
    kind: Kind::Sink,
    description: "writes a point per applied change in line protocol",
    reads: &[&topics::OUTCOMES],
    writes: &[],
    sets_aside: &[],
    keeps: &[],
    outside: &["InfluxDB"],
};

/// Points in one request at most.
const BATCH_LIMIT: usize = 1_000;

/// Where the points go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Base URL of an InfluxDB v2 or another server that takes its line protocol.
    pub url: String,
    pub org: String,
    pub bucket: String,
    pub token: SecretString,
    /// A tag of every point, where given.
    pub region: Option<String>,
    /// First and longest pause between two tries. Default 250 ms to 30 s.
    pub retry: (Duration, Duration),
    /// How long points are kept for a server that does not take them; then they are
    /// given up and counted. Default 1 h.
    pub give_up_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: String::new(),
            org: String::new(),
            bucket: String::new(),
            token: SecretString::default(),
            region: None,
            retry: (Duration::from_millis(250), Duration::from_secs(30)),
            give_up_after: Duration::from_secs(3_600),
        }
    }
}

/// Why drift points cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum DriftError {
    #[error("influx.url = {url:?} is not a URL: {problem}; give one such as https://influx.example.com")]
    Url { url: String, problem: String },
    #[error("the HTTP client cannot be built: {0}")]
    Http(#[source] reqwest::Error),
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
}

/// Looks whether the server takes points from us, by sending it none.
///
/// # Errors
/// When it cannot be reached, or refuses the token, the organisation or the bucket.
pub async fn reach(settings: &Settings) -> Result<(), String> {
    let server = Server::new(settings).map_err(|error| error.to_string())?;
    match server.write(&[]).await {
        // It has looked at our token, and wants at least one point.
        Ok(()) | Err(Refusal::Points(_)) => Ok(()),
        Err(Refusal::All(reason) | Refusal::Later(reason, _)) => Err(reason),
    }
}

/// Sends points until `shutdown`.
///
/// # Errors
/// See [`DriftError`]; a server that is away is none.
pub async fn run(
    kafka: &KafkaSettings,
    settings: Settings,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), DriftError> {
    let server = Server::new(&settings)?;
    let mut pause = Backoff::new(settings.retry);
    let part = health.part(ROLE.name);
    let drift = Drift { settings, server, shutdown: shutdown.clone() };
    // A lost position is for a person to decide on: the other roles go on meanwhile.
    while let Err(reason) = drift.follow(kafka, part.clone(), &mut pause).await? {
        tracing::error!(reason, "drift points are read anew from the group's offsets");
        part.not_ready(reason);
        pause.wait(&shutdown).await;
    }
    Ok(())
}

/// The offset after the last record of each partition.
fn next_offsets(records: &[InboundRecord]) -> Offsets {
    let mut offsets: Offsets = Vec::new();
    for record in records {
        let partition = record.topic_partition();
        match offsets.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, next)) => *next = record.offset + 1,
            None => offsets.push((partition, record.offset + 1)),
        }
    }
    offsets
}

/// The process stops.
struct Stopped;

struct Drift {
    settings: Settings,
    server: Server,
    shutdown: CancellationToken,
}

impl Drift {
    /// One membership in the group: until shutdown, or why a new one is to go on.
    async fn follow(
        &self,
        kafka: &KafkaSettings,
        part: Part,
        pause: &mut Backoff,
    ) -> Result<Result<(), String>, SubscriptionError> {
        let options = SubscriptionOptions {
            batch_records: BATCH_LIMIT,
            health: Some(part),
            ..SubscriptionOptions::default()
        };
        let mut subscription = Subscription::open(kafka, &ROLE, ROLE.reads, options, self.shutdown.clone())?;
        let ended = loop {
            match subscription.next().await {
                Event::Assigned(partitions) => {
                    let positions = partitions.into_iter().map(|partition| (partition, Start::Committed));
                    subscription.start(positions.collect()).await;
                }
                // Nothing is kept between two events: what was read is written, or read again.
                Event::Revoked(_) => subscription.acknowledge_revocation().await,
                Event::Lost(_) => {}
                Event::Records(records) => {
                    if self.deliver(&records).await.is_err() {
                        break Ok(());
                    }
                    pause.reset();
                    match subscription.commit(next_offsets(&records)).await {
                        Ok(()) | Err(CommitError::Closed) => {}
                        // Written again after a restart they are the same points.
                        Err(error) => tracing::warn!(%error, "drift points were written"),
                    }
                }
                Event::Failed(error) => break Err(error.to_string()),
                Event::Closed => break Ok(()),
            }
        };
        subscription.close().await;
        Ok(ended)
    }

    async fn deliver(&self, records: &[InboundRecord]) -> Result<(), Stopped> {
        let lines: Vec<String> =
            records.iter().filter_map(|record| self.point(record)).map(|point| point.to_string()).collect();
        // Halves of what was refused come before the rest, so that the order stays.
        let mut waiting: Vec<&[String]> = vec![&lines];
        while let Some(lines) = waiting.pop() {
            if lines.is_empty() {
                continue;
            }
            match self.write(lines).await? {
                Written::All => count("written", lines.len()),
                Written::GivenUp => count("given_up", lines.len()),
                Written::Refused(reason) => {
                    tracing::error!(points = lines.len(), reason, "drift points are refused; skipped");
                    count("refused", lines.len());
                }
                Written::RefusedSome(reason) if lines.len() == 1 => {
                    tracing::error!(line = lines[0], reason, "a drift point is refused; skipped");
                    count("refused", 1);
                }
                Written::RefusedSome(_) => {
                    let (first, second) = lines.split_at(lines.len() / 2);
                    waiting.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// Writes, with growing pauses, until there is an answer that stays.
    async fn write(&self, lines: &[String]) -> Result<Written, Stopped> {
        let began = Instant::now();
        let (mut pause, longest) = self.settings.retry;
        loop {
            let answer = tokio::select! {
                answer = self.server.write(lines) => answer,
                () = self.shutdown.cancelled() => return Err(Stopped),
            };
            let (reason, wait) = match answer {
                Ok(()) => return Ok(Written::All),
                Err(Refusal::All(reason)) => return Ok(Written::Refused(reason)),
                Err(Refusal::Points(reason)) => return Ok(Written::RefusedSome(reason)),
                Err(Refusal::Later(reason, wait)) => (reason, wait),
            };
            if began.elapsed() >= self.settings.give_up_after {
                tracing::error!(points = lines.len(), reason, "drift points are given up");
                return Ok(Written::GivenUp);
            }
            tracing::warn!(reason, pause_ms = pause.as_millis() as u64, "drift points wait");
            let jitter = rand::random_range(0.0..0.5);
            let wait = wait.map_or(pause, |wait| wait.clamp(pause, longest)).mul_f64(1.0 + jitter);
            tokio::select! {
                () = sleep(wait) => {}
                () = self.shutdown.cancelled() => return Err(Stopped),
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// The point of an outcome that has one.
    fn point(&self, record: &InboundRecord) -> Option<Point> {
        let outcome: Outcome = match serde_json::from_slice(record.value.as_deref().unwrap_or_default()) {
            Ok(outcome) => outcome,
            Err(error) => {
                // The audit sets it aside; here it is only not a point.
                tracing::debug!(offset = record.offset, %error, "no outcome");
                count("unreadable", 1);
                return None;
            }
        };
        let is_change = outcome.r#loop == Loop::Dial && outcome.status == OutcomeStatus::Applied;
        let effect = outcome.effect.filter(|_| is_change)?.dial_rate()?;
        Some(Point {
            campaign_id: outcome.key,
            region: self.settings.region.clone(),
            old_rate: effect.previous_dial_rate,
            new_rate: effect.dial_rate,
            at: outcome.finished_at,
        })
    }
}

/// What became of some lines.
enum Written {
    All,
    /// All of them, for good.
    Refused(String),
    /// At least one of them, for good.
    RefusedSome(String),
    /// The server was away for too long.
    GivenUp,
}

fn count(result: &str, points: usize) {
    metrics::DRIFT_POINTS.counter(&[result]).increment(points as u64);
}
