//! The configuration: a file, overridden by the environment. Read and checked as a
//! whole, so that every problem is told at once.

mod campaign;
mod choice;
mod compliance;
mod item;
mod keys;
mod kind;
mod load;
mod organization;
mod property;
mod reader;
mod rotation;
mod setting;
mod webhook;

use std::collections::BTreeMap;
use std::fmt;

use secrecy::SecretString;

pub use campaign::CampaignEntry;
pub use choice::{CampaignChange, Dialect, ErrorMeasure, RollbackPolicy, Switch, WithoutBaseline};
pub use keys::{Compliance, Config, Genesys, KEYS, Key};
pub use kind::Kind;
pub use load::{Needs, Source, load};
pub use organization::Organization;
pub use rotation::CredentialFiles;
pub use webhook::Webhook;

/// `TRUNKLINE_<SECTION>__<FIELD>`.
pub fn environment_name(key: &str) -> String {
    format!("TRUNKLINE_{}", key.replacen('.', "__", 1).replace('.', "_").to_uppercase())
}

/// A key that opens part of the HTTP interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    pub name: String,
    pub role: String,
    /// SHA-256 of the key, 64 hexadecimal digits. The key itself is nowhere.
    pub sha256: String,
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
    /// Stands before every topic, consumer group and transactional id; empty where none is given.
    pub fn topic_prefix(&self) -> &str {
        self.kafka.topic_prefix.as_deref().unwrap_or_default()
    }

    /// The example file: every key with its help and default.
    pub fn example() -> String {
        keys::example()
    }
}
