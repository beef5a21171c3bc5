//! What values a key may have, and how they are read from TOML or text.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use toml::Value as Toml;

use super::webhook::{self, Webhook};
use super::{ApiKey, WatchedCluster};

/// Kinds of values with their ranges.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// Not empty and never printed.
    Secret,
    OneOf(&'static [&'static str]),
    Integer {
        least: i64,
        greatest: i64,
    },
    /// Least and greatest, both allowed.
    Number {
        least: f64,
        greatest: f64,
    },
    Duration {
        least: Duration,
        greatest: Duration,
    },
    /// An absolute URL of one of these schemes.
    Url(&'static [&'static str]),
    /// IP address and port.
    Address,
    /// `host:port`, comma-separated.
    Brokers,
    List,
    ApiKeys,
    Webhooks,
    Clusters,
}

/// A value that was read and is possible by itself.
#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Secret(SecretString),
    Integer(i64),
    Number(f64),
    Duration(Duration),
    Address(SocketAddr),
    List(Vec<String>),
    ApiKeys(Vec<ApiKey>),
    Webhooks(Vec<Webhook>),
    Clusters(Vec<WatchedCluster>),
}

/// Roles of API keys, weakest first.
pub const ROLES: &[&str] = &["read", "publish", "decide", "operate"];

impl Kind {
    /// What is allowed, for people.
    pub fn allowed(self) -> String {
        match self {
            Kind::Text => "text that is not empty".into(),
            Kind::Secret => "text that is not empty; better given as …_FILE than in the file itself".into(),
            Kind::OneOf(choices) => format!("one of {}", choices.join(", ")),
            Kind::Integer { least, greatest } => format!("a whole number from {least} to {greatest}"),
            Kind::Number { least, greatest } => format!("a number from {least} to {greatest}"),
            Kind::Duration { least, greatest } => {
                format!("a duration from {least:?} to {greatest:?}, such as \"30s\" or \"500ms\"")
            }
            Kind::Url(schemes) => format!("an absolute URL that begins with {}", schemes.join(" or ")),
            Kind::Address => "an IP address and port such as 127.0.0.1:8080".into(),
            Kind::Brokers => "host:port, several separated by commas".into(),
            Kind::List => "a list of different texts, none empty".into(),
            Kind::Clusters => {
                "a list of { name, brokers, include, exclude, required, properties }: name and \
                brokers must be given, names differ and hold no colon, properties are librdkafka's"
                    .into()
            }
            Kind::Webhooks => webhook::ALLOWED.into(),
            Kind::ApiKeys => format!(
                "a list of {{ name, role, sha256 }}: role one of {}, sha256 of the key as 64 hexadecimal digits",
                ROLES.join(", ")
            ),
        }
    }

    /// Reads a value; `None` when it is not one of the allowed.
    pub fn read(self, value: &Toml) -> Option<Value> {
        match (self, value) {
            (Kind::List, Toml::Array(items)) => {
                list(items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>()?)
            }
            (Kind::ApiKeys, Toml::Array(items)) => {
                items.iter().map(api_key).collect::<Option<_>>().map(Value::ApiKeys)
            }
            (Kind::Clusters, Toml::Array(items)) => clusters(items),
            (Kind::Webhooks, Toml::Array(items)) => webhook::read(items).map(Value::Webhooks),
            (kind, Toml::String(text)) => kind.read_text(text),
            (Kind::Integer { .. } | Kind::Number { .. }, Toml::Integer(number)) => {
                self.read_text(&number.to_string())
            }
            (Kind::Number { .. }, Toml::Float(number)) => self.read_text(&number.to_string()),
            _ => None,
        }
    }

    /// Reads a value from the environment or from a TOML string.
    pub fn read_text(self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self {
            Kind::Text => (!text.is_empty()).then(|| Value::Text(text.into())),
            Kind::Secret => (!text.is_empty()).then(|| Value::Secret(text.into())),
            Kind::OneOf(choices) => choices.contains(&text).then(|| Value::Text(text.into())),
            Kind::Integer { least, greatest } => {
                let number = text.parse().ok()?;
                (least..=greatest).contains(&number).then_some(Value::Integer(number))
            }
            Kind::Number { least, greatest } => {
                let number = text.parse().ok()?;
                (least..=greatest).contains(&number).then_some(Value::Number(number))
            }
            Kind::Duration { least, greatest } => {
                let duration = Duration::try_from(text.parse::<jiff::SignedDuration>().ok()?).ok()?;
                (least..=greatest).contains(&duration).then_some(Value::Duration(duration))
            }
            Kind::Url(schemes) => {
                let url: reqwest::Url = text.parse().ok()?;
                let known = schemes.iter().any(|scheme| text.starts_with(scheme)) && url.has_host();
                known.then(|| Value::Text(text.trim_end_matches('/').into()))
            }
            Kind::Address => text.parse().ok().map(Value::Address),
            Kind::Brokers => {
                let each_is_an_address = text.split(',').all(|broker| {
                    broker.trim().rsplit_once(':').is_some_and(|(host, port)| {
                        !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
                    })
                });
                each_is_an_address.then(|| Value::Text(text.into()))
            }
            Kind::List => list(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            ),
            Kind::ApiKeys | Kind::Clusters | Kind::Webhooks => {
                // In the environment: the same list as a TOML array.
                let table: toml::Table = format!("keys = {text}").parse().ok()?;
                self.read(table.get("keys").filter(|keys| keys.is_array())?)
            }
        }
    }
}

fn list(items: Vec<String>) -> Option<Value> {
    let unique = items.iter().enumerate().all(|(index, item)| !items[..index].contains(item));
    (unique && items.iter().all(|item| !item.trim().is_empty())).then_some(Value::List(items))
}

fn clusters(items: &[Toml]) -> Option<Value> {
    let clusters: Vec<WatchedCluster> = items.iter().map(cluster).collect::<Option<_>>()?;
    let differ = clusters
        .iter()
        .enumerate()
        .all(|(index, one)| clusters[..index].iter().all(|other| other.name != one.name));
    differ.then_some(Value::Clusters(clusters))
}

fn cluster(item: &Toml) -> Option<WatchedCluster> {
    let table = item.as_table()?;
    let known = ["name", "brokers", "include", "exclude", "required", "properties"];
    let texts = |name: &str| match table.get(name) {
        None => Some(Vec::new()),
        Some(given) => match Kind::List.read(given)? {
            Value::List(texts) => Some(texts),
            _ => None,
        },
    };
    let Some(Value::Text(brokers)) = Kind::Brokers.read(table.get("brokers")?) else { return None };
    let name = table.get("name")?.as_str()?;
    let properties = match table.get("properties") {
        None => Default::default(),
        Some(given) => given
            .as_table()?
            .iter()
            .map(|(name, value)| Some((name.clone(), SecretString::from(value.as_str()?))))
            .collect::<Option<_>>()?,
    };
    let is_name = !name.is_empty() && !name.contains([':', '/']);
    (is_name && table.keys().all(|key| known.contains(&key.as_str()))).then_some(WatchedCluster {
        name: name.to_owned(),
        brokers,
        include: texts("include")?,
        exclude: texts("exclude")?,
        required: texts("required")?,
        properties,
    })
}

fn api_key(item: &Toml) -> Option<ApiKey> {
    let table = item.as_table()?;
    let text = |name: &str| table.get(name).and_then(Toml::as_str).filter(|text| !text.is_empty());
    let known = table.keys().all(|key| ["name", "role", "sha256"].contains(&key.as_str()));
    let role = text("role").filter(|role| ROLES.contains(role))?;
    let sha256 = text("sha256")
        .filter(|digest| digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    known.then_some(ApiKey {
        name: text("name")?.into(),
        role: role.into(),
        sha256: sha256.to_ascii_lowercase(),
    })
}

impl Value {
    /// For people; secrets are hidden.
    pub fn printed(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Secret(_) => "(secret)".into(),
            Value::Integer(number) => number.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Duration(duration) => format!("{duration:?}"),
            Value::Address(address) => address.to_string(),
            Value::List(items) => items.join(", "),
            Value::Clusters(clusters) => clusters
                .iter()
                .map(|one| format!("{} ({})", one.name, one.brokers))
                .collect::<Vec<_>>()
                .join(", "),
            Value::Webhooks(webhooks) => {
                webhooks.iter().map(|webhook| webhook.name.as_str()).collect::<Vec<_>>().join(", ")
            }
            Value::ApiKeys(keys) => {
                keys.iter().map(|key| format!("{} ({})", key.name, key.role)).collect::<Vec<_>>().join(", ")
            }
        }
    }
}
