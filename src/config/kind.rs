//! What values a key may have, and how they are read from TOML or text.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::SecretString;
use toml::Value as Toml;

use super::campaign::{self, CampaignEntry};
use super::item::{self, Fault, Item};
use super::organization::{self, Organization};
use super::webhook::{self, Webhook};
use super::{ApiKey, WatchedCluster, property};
use crate::model::Timestamp;
use crate::model::compliance::Calendar;

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
    /// An absolute URL of one of these schemes, without credentials: it is shown in messages.
    Url(&'static [&'static str]),
    /// A secret that is a Postgres URL.
    PostgresUrl,
    /// IP address and port.
    Address,
    /// `host:port`, comma-separated.
    Brokers,
    List,
    ApiKeys,
    Webhooks,
    Clusters,
    Campaigns,
    Organizations,
    /// A name of the IANA database.
    TimeZone,
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
    Campaigns(Vec<CampaignEntry>),
    Organizations(Vec<Organization>),
}

/// Roles of API keys, weakest first.
pub(super) const ROLES: &[&str] = &["read", "publish", "decide", "operate"];

/// Parameters of a Postgres URL. Others are refused: an unencoded `?` in a password would
/// make parameters of the rest of it.
const POSTGRES_PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

impl Kind {
    /// Whether a value is a list.
    pub(super) fn is_list(self) -> bool {
        self.is_list_of_tables() || matches!(self, Kind::List)
    }

    fn is_list_of_tables(self) -> bool {
        use Kind::{ApiKeys, Campaigns, Clusters, Organizations, Webhooks};
        matches!(self, ApiKeys | Clusters | Webhooks | Campaigns | Organizations)
    }

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
            Kind::Url(schemes) => format!(
                "an absolute URL that begins with {}, without user, password, query and fragment",
                schemes.join(" or ")
            ),
            Kind::PostgresUrl => format!(
                "postgres://USER:PASSWORD@HOST:PORT/DATABASE, what is special in user and password percent-encoded \
                 (@ as %40, : as %3A, / as %2F, ? as %3F, # as %23, % as %25); parameters: {}",
                POSTGRES_PARAMETERS.join(", ")
            ),
            Kind::Address => "an IP address and port such as 127.0.0.1:8080".into(),
            Kind::Brokers => "host:port, several separated by commas".into(),
            Kind::List => "a list of different texts, none empty".into(),
            Kind::Clusters => {
                "a list of { name, brokers, include, exclude, required, properties }: name and \
                brokers must be given, names differ and hold no colon, properties are librdkafka's"
                    .into()
            }
            Kind::Webhooks => webhook::ALLOWED.into(),
            Kind::Campaigns => campaign::ALLOWED.into(),
            Kind::Organizations => organization::ALLOWED.into(),
            Kind::TimeZone => "a time zone of the IANA database, such as Europe/London".into(),
            Kind::ApiKeys => format!(
                "a list of {{ name, role, sha256 }}: role one of {}, sha256 of the key as 64 hexadecimal digits",
                ROLES.join(", ")
            ),
        }
    }

    /// A value that was refused, where it can be shown: what may be a secret, or holds one,
    /// never is.
    pub fn shown(self, value: &Toml) -> Option<String> {
        const LONGEST: usize = 120;
        let shown = match self {
            Kind::Secret
            | Kind::PostgresUrl
            | Kind::Text
            | Kind::ApiKeys
            | Kind::Clusters
            | Kind::Campaigns
            | Kind::Organizations
            | Kind::Webhooks => return None,
            // A user and password, or a token as a parameter.
            Kind::Url(_) | Kind::Brokers => value.as_str().filter(|text| !text.contains(['@', '?', '#']))?,
            Kind::OneOf(_)
            | Kind::Integer { .. }
            | Kind::Number { .. }
            | Kind::Duration { .. }
            | Kind::Address
            | Kind::TimeZone
            | Kind::List => "",
        };
        let shown = if shown.is_empty() { value.to_string() } else { format!("\"{shown}\"") };
        (shown.len() <= LONGEST).then_some(shown)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(self, value: &Toml) -> Result<Value, Vec<Fault>> {
        let itself = || vec![Fault { place: String::new(), allowed: format!("must be {}", self.allowed()) }];
        match (self, value) {
            (Kind::ApiKeys, Toml::Array(items)) => {
                item::list(items, api_key, |key| &key.name).map(Value::ApiKeys)
            }
            (Kind::Clusters, Toml::Array(items)) => {
                item::list(items, cluster, |cluster| &cluster.name).map(Value::Clusters)
            }
            (Kind::Webhooks, Toml::Array(items)) => {
                item::list(items, webhook::read, |webhook| &webhook.name).map(Value::Webhooks)
            }
            (Kind::Campaigns, Toml::Array(items)) => {
                item::list(items, campaign::read, |entry| &entry.id).map(Value::Campaigns)
            }
            (Kind::Organizations, Toml::Array(items)) => {
                item::list(items, organization::read, |entry| &entry.name).map(Value::Organizations)
            }
            (kind, Toml::String(text)) if kind.is_list_of_tables() => {
                // In the environment: the same list as a TOML array.
                let table: Option<toml::Table> = format!("keys = {}", text.trim()).parse().ok();
                match table.as_ref().and_then(|table| table.get("keys")).filter(|keys| keys.is_array()) {
                    Some(list) => self.read(list),
                    None => Err(itself()),
                }
            }
            (Kind::List, Toml::Array(items)) => {
                let texts: Option<_> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                texts.and_then(list).ok_or_else(itself)
            }
            (_, Toml::String(text)) => self.read_text(text).ok_or_else(itself),
            (Kind::Integer { .. } | Kind::Number { .. }, Toml::Integer(number)) => {
                self.read_text(&number.to_string()).ok_or_else(itself)
            }
            (Kind::Number { .. }, Toml::Float(number)) => {
                self.read_text(&number.to_string()).ok_or_else(itself)
            }
            _ => Err(itself()),
        }
    }

    /// Reads what is one text; `None` when it is not allowed, or more than a text.
    pub(super) fn read_text(self, text: &str) -> Option<Value> {
        let text = text.trim();
        match self {
            Kind::Text => (!text.is_empty()).then(|| Value::Text(text.into())),
            Kind::Secret => (!text.is_empty()).then(|| Value::Secret(text.into())),
            Kind::PostgresUrl => is_postgres_url(text).then(|| Value::Secret(text.into())),
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
                let good = schemes.iter().any(|scheme| text.starts_with(scheme))
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
                    && url.query().is_none()
                    && url.fragment().is_none();
                good.then(|| Value::Text(text.trim_end_matches('/').into()))
            }
            Kind::Address => text.parse().ok().map(Value::Address),
            Kind::Brokers => text.split(',').all(is_broker).then(|| Value::Text(text.into())),
            Kind::List => list(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
            ),
            Kind::TimeZone => {
                let known = Calendar::new(text, Timestamp::default()).is_ok();
                known.then(|| Value::Text(text.into()))
            }
            Kind::ApiKeys | Kind::Clusters | Kind::Webhooks | Kind::Campaigns | Kind::Organizations => None,
        }
    }
}

/// `host:port`, where librdkafka also takes `protocol://` before it.
fn is_broker(text: &str) -> bool {
    let text = text.trim();
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    address.rsplit_once(':').is_some_and(|(host, port)| {
        let plain = |letter: char| {
            letter.is_alphanumeric() || matches!(letter, '.' | '-' | '_' | '[' | ']' | ':' | '%')
        };
        !host.is_empty() && host.chars().all(plain) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// Stricter than sqlx: where an unencoded `/`, `?` or `#` ends a password early, the rest of
/// it would become database, parameters or nothing, and stand in messages.
fn is_postgres_url(text: &str) -> bool {
    let Ok(url) = text.parse::<reqwest::Url>() else { return false };
    let database = url.path().strip_prefix('/').unwrap_or(url.path());
    matches!(url.scheme(), "postgres" | "postgresql")
        && url.fragment().is_none()
        && !database.contains(['/', '@', ':'])
        && url.query_pairs().all(|(name, _)| {
            let plain =
                name.replace("ssl-ca", "sslrootcert").replace("ssl-", "ssl").replace("root-cert", "rootcert");
            POSTGRES_PARAMETERS.contains(&&*name)
                || POSTGRES_PARAMETERS.contains(&plain.as_str())
                || (name.starts_with("options[") && name.ends_with(']'))
        })
}

fn list(items: Vec<String>) -> Option<Value> {
    let unique = items.iter().enumerate().all(|(index, item)| !items[..index].contains(item));
    (unique && items.iter().all(|item| !item.trim().is_empty())).then_some(Value::List(items))
}

fn cluster(item: &mut Item<'_>) -> Option<WatchedCluster> {
    let name = item.text("name", "text without : and /, must be given", |name| {
        !name.is_empty() && !name.contains([':', '/'])
    });
    let brokers = item.text("brokers", &format!("{}; must be given", Kind::Brokers.allowed()), |brokers| {
        Kind::Brokers.read_text(brokers).is_some()
    });
    let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
    let (include, exclude, required) = (item.texts("include"), item.texts("exclude"), item.texts("required"));
    let properties = match item.field("properties").map(|given| given.as_table().map(property::read_all)) {
        None => Default::default(),
        Some(Some(Ok(properties))) => properties,
        Some(Some(Err(faults))) => {
            for fault in faults {
                item.fault(&format!("properties.{}", fault.place), fault.allowed);
            }
            return None;
        }
        Some(None) => {
            item.fault("properties", "a table of librdkafka properties");
            return None;
        }
    };
    Some(WatchedCluster {
        name: name?.to_owned(),
        brokers: brokers?.to_owned(),
        include: owned(include),
        exclude: owned(exclude),
        required: owned(required),
        properties,
    })
}

fn api_key(item: &mut Item<'_>) -> Option<ApiKey> {
    let name = item.text("name", "text that is not empty", |name| !name.is_empty());
    let roles = format!("one of {}", ROLES.join(", "));
    let role = item.text("role", &roles, |role| ROLES.contains(&role));
    let digest = "the SHA-256 of the key, 64 hexadecimal digits, as `printf %s KEY | sha256sum` prints them";
    let sha256 = item.text("sha256", digest, |text| {
        text.len() == 64 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    Some(ApiKey { name: name?.into(), role: role?.into(), sha256: sha256?.to_ascii_lowercase() })
}
