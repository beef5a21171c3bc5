//! What can be set about the event stream.

use serde::{Deserialize, Serialize};

/// Deliveries waiting at once, at most.
const MAX_BACKLOG: usize = 2_000_000;
/// Longest delay: a day.
const MAX_DELAY_MS: u64 = 86_400_000;
/// Requests at once, at most.
pub(super) const MAX_CONNECTIONS: usize = 16;

/// The event stream. Times are real ones, shares fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct EventSettings {
    /// Address events are posted to, such as `http://127.0.0.1:8080/v1/events`; none for nobody.
    pub to: Option<String>,
    /// API key sent as bearer token. Never shown.
    #[serde(skip_serializing)]
    pub key: Option<String>,
    /// False: what happens from now on is not emitted; what is queued still is.
    pub active: bool,
    /// Lets so many people into the flows that about so many events happen per second,
    /// once the first of them have come through. None for as many as the flows' habits say.
    pub events_per_second: Option<f64>,
    /// Whether the campaigns' calls are emitted too.
    pub campaigns: bool,
    /// Share of events delivered a second time, within so many milliseconds.
    pub duplicate_share: f64,
    pub duplicate_within_ms: u64,
    /// Share of events delayed at random, by so many milliseconds at most.
    pub disorder_share: f64,
    pub disorder_ms: u64,
    /// Share of events delayed by exactly so many milliseconds.
    pub late_share: f64,
    pub late_ms: u64,
    /// Events per request, 1–1 000.
    pub batch: usize,
    /// Requests at once, 1–16.
    pub connections: usize,
    /// Deliveries that may wait; further events are dropped and counted.
    pub backlog: usize,
}

impl Default for EventSettings {
    fn default() -> Self {
        Self {
            to: None,
            key: None,
            active: true,
            events_per_second: None,
            campaigns: true,
            duplicate_share: 0.0,
            duplicate_within_ms: 5_000,
            disorder_share: 0.0,
            disorder_ms: 2_000,
            late_share: 0.0,
            late_ms: 120_000,
            batch: 100,
            connections: 4,
            backlog: 500_000,
        }
    }
}

impl EventSettings {
    /// All that is impossible, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let share = |name: &str, value: f64| {
            ((0.0..=1.0).contains(&value), format!("{name} {value} must be from 0 to 1"))
        };
        let delay = |name: &str, value: u64| {
            (value <= MAX_DELAY_MS, format!("{name} {value} must be at most {MAX_DELAY_MS}"))
        };
        let whole = |name: &str, value: usize, most: usize| {
            ((1..=most).contains(&value), format!("{name} {value} must be 1 to {most}"))
        };
        let is_url = self.to.as_deref().is_none_or(|to| {
            reqwest::Url::parse(to).is_ok_and(|url| ["http", "https"].contains(&url.scheme()))
        });
        let rate = self.events_per_second.unwrap_or(0.0);
        [
            (is_url, format!("to {:?} must be an http or https address", self.to)),
            ((0.0..=100_000.0).contains(&rate), format!("eventsPerSecond {rate} must be 0 to 100000")),
            share("duplicateShare", self.duplicate_share),
            share("disorderShare", self.disorder_share),
            share("lateShare", self.late_share),
            delay("duplicateWithinMs", self.duplicate_within_ms),
            delay("disorderMs", self.disorder_ms),
            delay("lateMs", self.late_ms),
            whole("batch", self.batch, 1_000),
            whole("connections", self.connections, MAX_CONNECTIONS),
            whole("backlog", self.backlog, MAX_BACKLOG),
        ]
        .into_iter()
        .filter(|(allowed, _)| !allowed)
        .map(|(_, problem)| problem)
        .collect()
    }
}
