//! One point in line protocol for every dial rate that was changed.
//!
//! Reads [`OUTCOMES`] in a consumer group of its own, so that the loop never waits for it.
//! Offsets are committed after the points are written; a point that is written again
//! has the same tags and time and is the same point.

mod line;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::committed::{self, Carrier, NotDelivered, PassedOver, Reading};
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, SubscriptionError};
use crate::metrics;
use crate::model::decision::Loop;
use crate::model::organization::split;
use crate::model::outcome::{Outcome, OutcomeStatus};
use crate::role::{Kind, Role};
use crate::topics;

use line::Point;
use server::Server;

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
    /// Those of further organisations, by name; an organisation without one has no tag.
    pub regions: BTreeMap<String, Option<String>>,
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
            regions: BTreeMap::new(),
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
        Ok(()) | Err(NotDelivered::RefusedSome(_)) => Ok(()),
        Err(NotDelivered::Refused(reason) | NotDelivered::Later(reason, _)) => Err(reason),
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
    let reading = Reading {
        role: &ROLE,
        batch_records: BATCH_LIMIT,
        retry: settings.retry,
        give_up_after: settings.give_up_after,
    };
    let drift = Drift { server: Server::new(&settings)?, region: settings.region, regions: settings.regions };
    Ok(committed::run(reading, kafka, health, shutdown, drift).await?)
}

struct Drift {
    server: Server,
    region: Option<String>,
    regions: BTreeMap<String, Option<String>>,
}

impl Carrier for Drift {
    /// A point in line protocol.
    type Item = String;

    fn item(&self, record: &InboundRecord) -> Option<String> {
        match serde_json::from_slice(record.value.as_deref().unwrap_or_default()) {
            Ok(outcome) => self.point(outcome).map(|point| point.to_string()),
            Err(error) => {
                // The audit sets it aside; here it is only not a point.
                tracing::debug!(offset = record.offset, %error, "no outcome");
                count("unreadable", 1);
                None
            }
        }
    }

    async fn deliver(&self, lines: &[String]) -> Result<(), NotDelivered> {
        self.server.write(lines).await?;
        count("written", lines.len());
        Ok(())
    }

    fn passed_over(&self, lines: &[String], why: PassedOver) {
        let (result, reason) = match why {
            PassedOver::Refused(reason) => ("refused", reason),
            PassedOver::GivenUp(reason) => ("given_up", reason),
        };
        tracing::error!(
            points = lines.len(),
            first = lines.first(),
            reason,
            "drift points are {result}; skipped"
        );
        count(result, lines.len());
    }
}

impl Drift {
    fn point(&self, outcome: Outcome) -> Option<Point> {
        let is_change = outcome.r#loop == Loop::Dial && outcome.status == OutcomeStatus::Applied;
        let effect = outcome.effect.filter(|_| is_change)?.dial_rate()?;
        let further = split(&outcome.key).and_then(|(name, _)| self.regions.get(name));
        Some(Point {
            region: further.unwrap_or(&self.region).clone(),
            campaign_id: outcome.key,
            old_rate: effect.previous_dial_rate,
            new_rate: effect.dial_rate,
            at: outcome.finished_at,
        })
    }
}

fn count(result: &str, points: usize) {
    metrics::DRIFT_POINTS.counter(&[result]).increment(points as u64);
}
