//! The configuration: a file, overridden by the environment. Read and checked as a
//! whole, so that every problem is told at once.

mod campaign;
mod item;
mod keys;
mod kind;
mod load;
mod property;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;

use crate::model::compliance::{Campaigns, Rules, WarningRule};
use crate::model::decision::Mode;
use crate::model::settings::DialPolicy;

pub use campaign::CampaignEntry;
pub use keys::{KEYS, Key, environment_name};
pub use load::{Needs, Source, load};
pub use webhook::Webhook;

/// A configuration in which every value is possible and all of them fit together.
#[derive(Debug)]
pub struct Config {
    pub instance: Option<String>,
    pub kafka: Kafka,
    pub postgres: Postgres,
    pub http: Http,
    pub ingest: Ingest,
    pub genesys: Genesys,
    pub dial: Dial,
    pub events: Events,
    /// `None` is off.
    pub enrichment: Option<Enrichment>,
    pub lag: Lag,
    pub rollback: Rollback,
    pub route: Route,
    pub influx: Option<Influx>,
    pub alerts: Alerts,
    pub compliance: Compliance,
    /// Every key with its value for people, secrets hidden.
    pub printed: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Kafka {
    pub brokers: String,
    pub topic_prefix: String,
    /// Partitions of topics we create.
    pub partitions: i32,
    /// `None` leaves it to the brokers.
    pub replication_factor: Option<i32>,
    /// Worker threads of each stage.
    pub workers: usize,
    /// librdkafka properties, by their own names.
    pub properties: BTreeMap<String, SecretString>,
}

#[derive(Debug)]
pub struct Postgres {
    pub url: SecretString,
    pub max_connections: u32,
}

#[derive(Debug)]
pub struct Http {
    pub listen: SocketAddr,
    pub api_keys: Vec<ApiKey>,
}

/// Limits of `POST /v1/events`.
#[derive(Debug)]
pub struct Ingest {
    pub max_body_bytes: usize,
    /// In one request.
    pub max_events: usize,
    /// At once.
    pub max_requests: usize,
    /// `None` is no limit.
    pub events_per_second: Option<u32>,
    pub read_timeout: Duration,
    pub delivery_timeout: Duration,
}

/// A key that opens part of the HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub name: String,
    pub role: String,
    /// SHA-256 of the key, 64 hexadecimal digits. The key itself is nowhere.
    pub sha256: String,
}

/// Which form of the platform's interface is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Seed,
    Platform,
}

#[derive(Debug)]
pub struct Genesys {
    pub dialect: Dialect,
    /// Changes of campaigns send the whole campaign with its version.
    pub put_campaigns: bool,
    pub base_url: String,
    pub login_url: Option<String>,
    pub client_id: String,
    pub client_secret: SecretString,
    pub requests_per_minute: u32,
    /// Length of the platform's budget window; shorter only for a simulator run fast.
    pub budget_window: Duration,
    pub organization_id: Option<String>,
    pub region: Option<String>,
}

/// How conversation events are counted.
#[derive(Debug)]
pub struct Events {
    /// Length of a minute of event time; shorter only for a simulator run fast.
    pub window: Duration,
    /// How far behind the newest event of its partition an event may be and still count.
    pub lateness: Duration,
}

#[derive(Debug)]
pub struct Dial {
    /// `None` is off.
    pub mode: Option<Mode>,
    /// Time between two observations of a campaign.
    pub interval: Duration,
    pub policy: DialPolicy,
    /// Decides beside it; nobody acts on that.
    pub shadow_policy: Option<DialPolicy>,
    /// Shares of live answers abandoned: on average, and never.
    pub goal: f64,
    pub cap: f64,
    /// Before it was measured.
    pub handle_time: Duration,
    /// The campaigns' local time minus UTC.
    pub utc_offset_minutes: i32,
    /// Answer rate the policy `proportional` aims at.
    pub target: f64,
    /// Calls per agent, where campaigns have no limits of their own.
    pub min_rate: f64,
    pub max_rate: f64,
    pub campaigns: Vec<String>,
}

/// How long conversations wait for this and that; see the keys.
#[derive(Debug)]
pub struct Enrichment {
    pub quiet: Duration,
    pub settle: Duration,
    pub patience: Duration,
    pub retention: Duration,
}

/// How weighted distribution answers.
#[derive(Debug)]
pub struct Route {
    /// `None` is off.
    pub mode: Option<Mode>,
    /// Whether publications go to the platform as well.
    pub platform_publish: bool,
    /// How long a request waits for the counters.
    pub patience: Duration,
    pub breaker_pause: Duration,
    /// Connections for the counters alone.
    pub connections: u32,
    /// How long answers are kept.
    pub retention: Duration,
    /// Folder for answers that cannot be recorded at once.
    pub journal: Option<String>,
    pub availability_interval: Duration,
    /// Availability older than this is ignored.
    pub availability_limit: Duration,
    pub queues: Vec<String>,
}

/// What of consumer groups is watched, and where the lines are drawn.
#[derive(Debug)]
pub struct Lag {
    /// `None` is off.
    pub mode: Option<Mode>,
    /// Time between two polls of a cluster.
    pub interval: Duration,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub required: Vec<String>,
    /// Clusters beside trunkline's own.
    pub clusters: Vec<WatchedCluster>,
    pub still_after: Duration,
    pub error_age: Duration,
    pub warning_age: Duration,
    pub trend_age: Duration,
    pub trend_window: Duration,
    pub history: Duration,
    pub cooldown: Duration,
    pub catch_up: Duration,
    /// Groups that the platform's analytics are asked about; empty: none.
    pub analytics_groups: Vec<String>,
    pub analytics_interval: Duration,
    /// At most 24 h.
    pub analytics_window: Duration,
    pub analytics_lag: Duration,
    pub analytics_latency: Duration,
}

/// Another cluster whose consumer groups are watched.
#[derive(Clone, Debug)]
pub struct WatchedCluster {
    /// Stands before the names of its groups.
    pub name: String,
    pub brokers: String,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    pub required: Vec<String>,
    /// librdkafka properties, by their own names.
    pub properties: BTreeMap<String, SecretString>,
}

/// The rollback guard; see the keys.
#[derive(Debug)]
pub struct Rollback {
    /// `None` is off.
    pub mode: Option<Mode>,
    /// `attributed` or `consecutive`.
    pub policy: String,
    /// `consecutive` or `alert`.
    pub without_baseline: String,
    pub threshold: f64,
    pub armed_minutes: u32,
    pub cooldown_minutes: u32,
    pub verify_minutes: u32,
    /// Minutes are polled unless they come from events.
    pub polled: bool,
    pub polled_flows: Vec<String>,
    /// Polled errors are failed outcomes, not bad exits.
    pub outcome_errors: bool,
    /// How long after its end a polled minute is measured.
    pub settling: Duration,
    pub flows: Vec<String>,
    pub interval: Duration,
}

#[derive(Debug)]
pub struct Alerts {
    pub webhooks: Vec<Webhook>,
    /// Whether receivers may be on this machine or in private networks, and speak plain http.
    pub private_receivers: bool,
    pub give_up_after: Duration,
}

#[derive(Debug)]
pub struct Influx {
    pub url: String,
    pub org: String,
    pub bucket: String,
    pub token: SecretString,
}

/// How campaigns are counted for an auditor.
#[derive(Debug)]
pub struct Compliance {
    pub is_on: bool,
    /// Time between two looks at open windows.
    pub interval: Duration,
    /// A window is stated as known so long after its end.
    pub settle: Duration,
    /// Whether calls are looked up again and their windows restated.
    pub restate: bool,
    pub retention: Duration,
    pub rules: Rules,
    pub warning: WarningRule,
    pub campaigns: Campaigns,
    /// Call attempts a month that are paid for already.
    pub attempts_per_month: Option<u64>,
    /// Ed25519, PKCS#8 as PEM.
    pub signing_key: Option<SecretString>,
}

/// One thing that is wrong: which key, what it says, what it may say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub key: String,
    /// The value found; never that of a secret.
    pub value: Option<String>,
    pub allowed: String,
    /// Where it was found.
    pub origin: String,
}

impl Problem {
    /// Whether it is about this key, or something inside its value.
    fn is_about(&self, key: &str) -> bool {
        self.key.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('['))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        write!(f, " ({}): {}", self.origin, self.allowed)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Config {
    /// The example file: every key with its help and default.
    pub fn example() -> String {
        keys::example()
    }
}
