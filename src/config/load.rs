//! From file and environment to a checked [`Config`].

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml::Value as Toml;

use super::keys::{self, KEYS, Key, environment_name};
use super::kind::{Kind, Value};
use super::{
    Alerts, Config, Dial, Enrichment, Events, Genesys, Http, Influx, Ingest, Kafka, Lag, Postgres, Problem,
    Problems, Rollback, Route, Webhook,
};
use crate::model::decision::Mode;

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `None`: `trunkline.toml` in the working directory, if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables; all but `TRUNKLINE_<SECTION>__<FIELD>` are ignored.
    pub environment: HashMap<String, String>,
}

impl Source {
    pub fn process(file: Option<PathBuf>) -> Self {
        // A variable that is not UTF-8 cannot be one of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment }
    }
}

/// librdkafka properties on which exactly-once or our names depend.
const OURS: &[&str] = &[
    "bootstrap.servers",
    "client.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "group.protocol",
    "isolation.level",
    "partition.assignment.strategy",
    "transactional.id",
];

/// What a command works with. What it does not need may be missing and is empty then;
/// what is there is checked all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Everything,
    Postgres,
    Kafka,
}

/// Reads and checks everything.
///
/// # Errors
/// All problems at once: unknown keys, impossible values, values that do not fit together.
pub fn load(source: &Source, needs: Needs) -> Result<Config, Problems> {
    let mut reader =
        Reader { needs, values: HashMap::new(), properties: BTreeMap::new(), problems: Vec::new() };
    if let Some((path, table)) = reader.parse_file(source.file.as_deref()) {
        reader.take_table(&path, String::new(), &table);
    }
    reader.take_environment(&source.environment);
    let config = reader.build();
    if reader.problems.is_empty() {
        Ok(config.expect("no problem, so a configuration"))
    } else {
        Err(Problems(reader.problems))
    }
}

struct Reader {
    needs: Needs,
    values: HashMap<&'static str, (Value, String)>,
    properties: BTreeMap<String, SecretString>,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, key: &str, value: Option<String>, origin: &str, allowed: impl Into<String>) {
        self.problems.push(Problem {
            key: key.to_owned(),
            value,
            allowed: allowed.into(),
            origin: origin.to_owned(),
        });
    }

    fn parse_file(&mut self, given: Option<&Path>) -> Option<(String, toml::Table)> {
        let path = given.unwrap_or(Path::new("trunkline.toml"));
        let origin = path.display().to_string();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if given.is_none() && error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.problem(
                    "--config",
                    Some(origin.clone()),
                    "command line",
                    format!("a file that can be read: {error}"),
                );
                return None;
            }
        };
        match text.parse::<toml::Table>() {
            Ok(table) => Some((origin, table)),
            Err(error) => {
                let told = error.to_string();
                self.problem(
                    "(file)",
                    None,
                    &origin,
                    format!("TOML: {}", told.trim_end().replace('\n', "\n    ")),
                );
                None
            }
        }
    }

    /// Tables are walked down to a declared key or a librdkafka property.
    fn take_table(&mut self, origin: &str, above: String, table: &toml::Table) {
        for (name, value) in table {
            let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
            match value {
                Toml::Table(below) => self.take_table(origin, key, below),
                value => self.take(&key, value, origin),
            }
        }
    }

    fn take(&mut self, name: &str, value: &Toml, origin: &str) {
        if let Some(key) = KEYS.iter().find(|key| key.name == name) {
            let shown = match key.kind {
                Kind::Secret | Kind::Webhooks => None,
                _ => Some(value.to_string()),
            };
            match key.kind.read(value) {
                Some(value) => drop(self.values.insert(key.name, (value, origin.to_owned()))),
                None => self.problem(name, shown, origin, format!("must be {}", key.kind.allowed())),
            }
            return;
        }
        match name.strip_prefix("kafka.") {
            Some(property) if property.contains('.') => self.take_property(property, value, origin),
            _ => {
                let allowed = match nearest(name) {
                    Some(near) => format!("no such key; did you mean {near}?"),
                    None => "no such key; trunkline.example.toml has all of them".to_owned(),
                };
                self.problem(name, None, origin, allowed);
            }
        }
    }

    fn take_property(&mut self, property: &str, value: &Toml, origin: &str) {
        let name = format!("kafka.{property}");
        if OURS.contains(&property) {
            self.problem(
                &name,
                None,
                origin,
                "set by trunkline itself, exactly-once depends on it; remove it",
            );
            return;
        }
        let text = match value {
            Toml::String(text) => text.clone(),
            Toml::Integer(_) | Toml::Boolean(_) | Toml::Float(_) => value.to_string(),
            _ => return self.problem(&name, None, origin, "must be text, a number or true/false"),
        };
        // librdkafka knows its own properties and ranges best.
        if let Err(error) = rdkafka::ClientConfig::new().set(property, &text).create_native_config() {
            return self.problem(&name, None, origin, format!("a librdkafka property: {error}"));
        }
        self.properties.insert(property.to_owned(), text.into());
    }

    fn take_environment(&mut self, environment: &HashMap<String, String>) {
        let mut ours: Vec<_> = environment
            .iter()
            .filter(|(name, _)| name.strip_prefix("TRUNKLINE_").is_some_and(|rest| rest.contains("__")))
            .collect();
        ours.sort();
        for (name, text) in ours {
            let declared = KEYS.iter().find(|key| environment_name(key.name) == *name);
            let from_file = name
                .strip_suffix("_FILE")
                .and_then(|name| KEYS.iter().find(|key| environment_name(key.name) == name));
            match (declared, from_file) {
                (Some(key), _) => self.take(key.name, &Toml::String(text.clone()), name),
                (None, Some(key)) => match std::fs::read_to_string(text) {
                    Ok(content) => self.take(key.name, &Toml::String(content), name),
                    Err(error) => {
                        self.problem(
                            key.name,
                            Some(text.clone()),
                            name,
                            format!("a file that can be read: {error}"),
                        );
                    }
                },
                (None, None) => match name.strip_prefix("TRUNKLINE_KAFKA__") {
                    Some(property) => {
                        let property = property.to_lowercase().replace('_', ".");
                        self.take_property(&property, &Toml::String(text.clone()), name);
                    }
                    None => {
                        self.problem(name, None, "environment", "no such key; see trunkline.example.toml")
                    }
                },
            }
        }
    }

    fn value(&self, key: &Key) -> Option<Value> {
        match self.values.get(key.name) {
            Some((value, _)) => Some(value.clone()),
            None => key.default.map(|default| key.kind.read_text(default).expect("defaults are possible")),
        }
    }

    fn text(&self, key: &Key) -> Option<String> {
        self.value(key).map(|value| match value {
            Value::Text(text) => text,
            other => unreachable!("{} is text, not {other:?}", key.name),
        })
    }

    fn secret(&self, key: &Key) -> Option<SecretString> {
        self.value(key).map(|value| match value {
            Value::Secret(secret) => secret,
            other => unreachable!("{} is a secret, not {other:?}", key.name),
        })
    }

    fn integer<T: TryFrom<i64>>(&self, key: &Key) -> Option<T> {
        self.value(key).map(|value| match value {
            Value::Integer(number) => T::try_from(number).ok().expect("the range fits the type"),
            other => unreachable!("{} is a whole number, not {other:?}", key.name),
        })
    }

    fn duration(&self, key: &Key) -> std::time::Duration {
        match self.value(key) {
            Some(Value::Duration(duration)) => duration,
            other => unreachable!("{} is a duration, not {other:?}", key.name),
        }
    }

    /// Whether a command that works with `part` of the configuration is being served.
    fn needs(&self, part: Needs) -> bool {
        self.needs == Needs::Everything || self.needs == part
    }

    /// Required of a command that works with `part`, empty for others.
    fn required_for<T: Default>(&mut self, part: Needs, value: Option<T>, key: &Key) -> Option<T> {
        if self.needs(part) { self.required(value, key) } else { Some(value.unwrap_or_default()) }
    }

    fn required<T>(&mut self, value: Option<T>, key: &Key) -> Option<T> {
        if value.is_none() && !self.problems.iter().any(|problem| problem.key == key.name) {
            let allowed = format!("required: {}. {}", key.kind.allowed(), key.help);
            self.problem(key.name, None, &format!("not given; {}", environment_name(key.name)), allowed);
        }
        value
    }

    fn build(&mut self) -> Option<Config> {
        let http = self.http();
        let influx = self.influx();
        let alerts = self.alerts();
        let url = self.required_for(Needs::Postgres, self.secret(&keys::POSTGRES_URL), &keys::POSTGRES_URL);
        let base_url =
            self.required_for(Needs::Everything, self.text(&keys::GENESYS_BASE_URL), &keys::GENESYS_BASE_URL);
        let client_id = self.required_for(
            Needs::Everything,
            self.text(&keys::GENESYS_CLIENT_ID),
            &keys::GENESYS_CLIENT_ID,
        );
        let client_secret = self.required_for(
            Needs::Everything,
            self.secret(&keys::GENESYS_CLIENT_SECRET),
            &keys::GENESYS_CLIENT_SECRET,
        );
        let dial = self.dial();
        Some(Config {
            instance: self.text(&keys::INSTANCE_NAME),
            kafka: Kafka {
                brokers: self.text(&keys::KAFKA_BROKERS).expect("has a default"),
                topic_prefix: self.text(&keys::KAFKA_TOPIC_PREFIX).unwrap_or_default(),
                partitions: self.integer(&keys::KAFKA_PARTITIONS).expect("has a default"),
                replication_factor: self.integer(&keys::KAFKA_REPLICATION_FACTOR),
                workers: self.integer(&keys::KAFKA_WORKERS).expect("has a default"),
                properties: std::mem::take(&mut self.properties),
            },
            postgres: Postgres {
                url: url?,
                max_connections: self.integer(&keys::POSTGRES_MAX_CONNECTIONS).expect("has a default"),
            },
            http,
            ingest: self.ingest(),
            genesys: Genesys {
                base_url: base_url?,
                login_url: self.text(&keys::GENESYS_LOGIN_URL),
                client_id: client_id?,
                client_secret: client_secret?,
                requests_per_minute: self.integer(&keys::GENESYS_REQUESTS_PER_MINUTE).expect("has a default"),
                budget_window: self.duration(&keys::GENESYS_BUDGET_WINDOW),
                organization_id: self.text(&keys::GENESYS_ORGANIZATION_ID),
                region: self.text(&keys::GENESYS_REGION),
            },
            dial,
            events: Events {
                window: self.duration(&keys::EVENTS_WINDOW),
                lateness: self.duration(&keys::EVENTS_LATENESS),
            },
            enrichment: self.enrichment(),
            lag: self.lag(),
            rollback: self.rollback(),
            route: self.route(),
            influx,
            alerts,
            printed: self.printed(),
        })
    }

    fn ingest(&self) -> Ingest {
        Ingest {
            max_body_bytes: self.integer(&keys::INGEST_MAX_BODY_BYTES).expect("has a default"),
            max_events: self.integer(&keys::INGEST_MAX_EVENTS).expect("has a default"),
            max_requests: self.integer(&keys::INGEST_MAX_REQUESTS).expect("has a default"),
            events_per_second: self.integer(&keys::INGEST_EVENTS_PER_SECOND),
            read_timeout: self.duration(&keys::INGEST_READ_TIMEOUT),
            delivery_timeout: self.duration(&keys::INGEST_DELIVERY_TIMEOUT),
        }
    }

    fn http(&mut self) -> Http {
        let Some(Value::Address(listen)) = self.value(&keys::HTTP_LISTEN) else {
            unreachable!("has a default");
        };
        let api_keys = match self.value(&keys::HTTP_API_KEYS) {
            Some(Value::ApiKeys(api_keys)) => api_keys,
            _ => Vec::new(),
        };
        if api_keys.is_empty() && !listen.ip().is_loopback() {
            let origin = self.origin(&keys::HTTP_LISTEN);
            let allowed = "must be a loopback address while http.api_keys is empty";
            self.problem(keys::HTTP_LISTEN.name, Some(listen.to_string()), &origin, allowed);
        }
        Http { listen, api_keys }
    }

    fn dial(&mut self) -> Dial {
        let mode = mode(self.text(&keys::DIAL_MODE).as_deref());
        let Some(Value::Number(target)) = self.value(&keys::DIAL_TARGET) else {
            unreachable!("has a default");
        };
        let campaigns = match self.value(&keys::DIAL_CAMPAIGNS) {
            Some(Value::List(campaigns)) => campaigns,
            _ => Vec::new(),
        };
        Dial { mode, interval: self.duration(&keys::DIAL_INTERVAL), target, campaigns }
    }

    fn enrichment(&self) -> Option<Enrichment> {
        (self.text(&keys::ENRICHMENT_MODE).as_deref() == Some("on")).then(|| Enrichment {
            quiet: self.duration(&keys::ENRICHMENT_QUIET),
            settle: self.duration(&keys::ENRICHMENT_SETTLE),
            patience: self.duration(&keys::ENRICHMENT_PATIENCE),
            retention: self.duration(&keys::ENRICHMENT_RETENTION),
        })
    }

    fn route(&self) -> Route {
        Route {
            mode: mode(self.text(&keys::ROUTE_MODE).as_deref()),
            platform_publish: self.text(&keys::ROUTE_PLATFORM_PUBLISH).as_deref() == Some("yes"),
            patience: self.duration(&keys::ROUTE_PATIENCE),
            breaker_pause: self.duration(&keys::ROUTE_BREAKER_PAUSE),
            connections: self.integer(&keys::ROUTE_CONNECTIONS).expect("has a default"),
            retention: self.duration(&keys::ROUTE_RETENTION),
            journal: self.text(&keys::ROUTE_JOURNAL),
            availability_interval: self.duration(&keys::ROUTE_AVAILABILITY_INTERVAL),
            availability_limit: self.duration(&keys::ROUTE_AVAILABILITY_LIMIT),
            queues: match self.value(&keys::ROUTE_QUEUES) {
                Some(Value::List(queues)) => queues,
                _ => Vec::new(),
            },
        }
    }

    fn lag(&self) -> Lag {
        let list = |key| match self.value(key) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        };
        Lag {
            mode: mode(self.text(&keys::LAG_MODE).as_deref()),
            interval: self.duration(&keys::LAG_INTERVAL),
            include: list(&keys::LAG_INCLUDE),
            exclude: list(&keys::LAG_EXCLUDE),
            required: list(&keys::LAG_REQUIRED),
            clusters: match self.value(&keys::LAG_CLUSTERS) {
                Some(Value::Clusters(clusters)) => clusters,
                _ => Vec::new(),
            },
            still_after: self.duration(&keys::LAG_STILL_AFTER),
            error_age: self.duration(&keys::LAG_ERROR_AGE),
            warning_age: self.duration(&keys::LAG_WARNING_AGE),
            trend_age: self.duration(&keys::LAG_TREND_AGE),
            trend_window: self.duration(&keys::LAG_TREND_WINDOW),
            history: self.duration(&keys::LAG_HISTORY),
            cooldown: self.duration(&keys::LAG_COOLDOWN),
            catch_up: self.duration(&keys::LAG_CATCH_UP),
            analytics_groups: list(&keys::LAG_ANALYTICS_GROUPS),
            analytics_interval: self.duration(&keys::LAG_ANALYTICS_INTERVAL),
            analytics_window: self.duration(&keys::LAG_ANALYTICS_WINDOW),
            analytics_lag: self.duration(&keys::LAG_ANALYTICS_LIMIT),
            analytics_latency: self.duration(&keys::LAG_ANALYTICS_LATENCY),
        }
    }

    fn rollback(&self) -> Rollback {
        let text = |key| self.text(key).expect("has a default");
        let list = |key| match self.value(key) {
            Some(Value::List(ids)) => ids,
            _ => Vec::new(),
        };
        let Some(Value::Number(threshold)) = self.value(&keys::ROLLBACK_THRESHOLD) else {
            unreachable!("has a default");
        };
        Rollback {
            mode: mode(self.text(&keys::ROLLBACK_MODE).as_deref()),
            policy: text(&keys::ROLLBACK_POLICY),
            without_baseline: text(&keys::ROLLBACK_WITHOUT_BASELINE),
            threshold,
            armed_minutes: self.integer(&keys::ROLLBACK_ARMED_MINUTES).expect("has a default"),
            cooldown_minutes: self.integer(&keys::ROLLBACK_COOLDOWN_MINUTES).expect("has a default"),
            verify_minutes: self.integer(&keys::ROLLBACK_VERIFY_MINUTES).expect("has a default"),
            polled: text(&keys::ROLLBACK_SOURCE) == "polled",
            polled_flows: list(&keys::ROLLBACK_POLLED_FLOWS),
            flows: list(&keys::ROLLBACK_FLOWS),
            interval: self.duration(&keys::ROLLBACK_INTERVAL),
        }
    }

    fn alerts(&mut self) -> Alerts {
        let webhooks = match self.value(&keys::ALERTS_WEBHOOKS) {
            Some(Value::Webhooks(webhooks)) => webhooks,
            _ => Vec::new(),
        };
        let private_receivers = self.text(&keys::ALERTS_PRIVATE_RECEIVERS).as_deref() == Some("allow");
        let is_plain = |webhook: &&Webhook| !webhook.url.expose_secret().starts_with("https:");
        for webhook in webhooks.iter().filter(|_| !private_receivers).filter(is_plain) {
            let origin = self.origin(&keys::ALERTS_WEBHOOKS);
            let allowed = format!(
                "the url of receiver {} must be https; plain http needs alerts.private_receivers = \"allow\"",
                webhook.name
            );
            self.problem(keys::ALERTS_WEBHOOKS.name, None, &origin, allowed);
        }
        Alerts { webhooks, private_receivers, give_up_after: self.duration(&keys::ALERTS_GIVE_UP_AFTER) }
    }

    fn influx(&mut self) -> Option<Influx> {
        let given = [&keys::INFLUX_URL, &keys::INFLUX_ORG, &keys::INFLUX_BUCKET, &keys::INFLUX_TOKEN]
            .iter()
            .any(|key| self.values.contains_key(key.name));
        if !given {
            return None;
        }
        let url = self.required(self.text(&keys::INFLUX_URL), &keys::INFLUX_URL);
        let org = self.required(self.text(&keys::INFLUX_ORG), &keys::INFLUX_ORG);
        let bucket = self.required(self.text(&keys::INFLUX_BUCKET), &keys::INFLUX_BUCKET);
        let token = self.required(self.secret(&keys::INFLUX_TOKEN), &keys::INFLUX_TOKEN);
        Some(Influx { url: url?, org: org?, bucket: bucket?, token: token? })
    }

    fn origin(&self, key: &Key) -> String {
        self.values.get(key.name).map_or_else(|| "default".to_owned(), |(_, origin)| origin.clone())
    }

    fn printed(&self) -> Vec<(String, String)> {
        let declared = KEYS.iter().filter_map(|key| Some((key.name.to_owned(), self.value(key)?.printed())));
        let properties = self.properties.keys().map(|name| (format!("kafka.{name}"), "(set)".to_owned()));
        declared.chain(properties).collect()
    }
}

/// `None` is off.
fn mode(name: Option<&str>) -> Option<Mode> {
    match name {
        Some("live") => Some(Mode::Live),
        Some("shadow") => Some(Mode::Shadow),
        _ => None,
    }
}

/// The declared key that was probably meant.
fn nearest(name: &str) -> Option<&'static str> {
    KEYS.iter()
        .map(|key| (edit_distance(key.name, name), key.name))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, key)| key)
}

/// Levenshtein's distance.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (line, a) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, b) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.chars().count()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const MINIMUM: &[(&str, &str)] = &[
        ("TRUNKLINE_POSTGRES__URL", "postgres://u:canary-password@localhost/db"),
        ("TRUNKLINE_GENESYS__BASE_URL", "http://127.0.0.1:1"),
        ("TRUNKLINE_GENESYS__CLIENT_ID", "id"),
        ("TRUNKLINE_GENESYS__CLIENT_SECRET", "canary-secret"),
    ];

    fn source(file: &str, environment: &[(&str, &str)]) -> (Source, tempfile::NamedTempFile) {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(file.as_bytes()).unwrap();
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        (Source { file: Some(written.path().to_owned()), environment }, written)
    }

    #[test]
    fn the_example_is_a_configuration_once_the_required_is_given() {
        let (source, _file) = source(&Config::example(), MINIMUM);
        let config = load(&source, Needs::Everything).unwrap();
        assert_eq!(config.dial.mode, Some(Mode::Shadow));
        assert_eq!(config.dial.interval.as_secs(), 30);
        assert_eq!(config.genesys.requests_per_minute, 300);
    }

    #[test]
    fn every_problem_is_told_at_once_with_key_value_and_what_is_allowed() {
        let file = r#"
            [dial]
            mode = "on"
            intervall = "30s"
            target = 1.5
            campaigns = ["a", "a"]
            [kafka]
            brokers = "nowhere"
            group.id = "mine"
            security.protocol = "sideways"
            [http]
            listen = "0.0.0.0:8080"
            [influx]
            url = "http://127.0.0.1:8086"
        "#;
        let (source, _file) = source(file, &[("TRUNKLINE_DIAL__INTERVAL", "1 fortnight")]);
        let problems = load(&source, Needs::Everything).unwrap_err();
        let mut keys: Vec<_> = problems.0.iter().map(|problem| problem.key.as_str()).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "dial.campaigns",
                "dial.interval",
                "dial.intervall",
                "dial.mode",
                "dial.target",
                "genesys.base_url",
                "genesys.client_id",
                "genesys.client_secret",
                "http.listen",
                "influx.bucket",
                "influx.org",
                "influx.token",
                "kafka.brokers",
                "kafka.group.id",
                "kafka.security.protocol",
                "postgres.url",
            ]
        );
        let told = problems.to_string();
        for part in [
            "did you mean dial.interval?",
            "\"on\"",
            "one of shadow, live, off",
            "from 0.01 to 1",
            "1 fortnight",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn the_environment_wins_and_secrets_come_from_files() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        secret.write_all(b"from-a-file\n").unwrap();
        let path = secret.path().to_str().unwrap();
        let mut environment: Vec<_> = MINIMUM[..3].to_vec();
        environment.extend([
            ("TRUNKLINE_GENESYS__CLIENT_SECRET_FILE", path),
            ("TRUNKLINE_DIAL__CAMPAIGNS", "a, b"),
            ("TRUNKLINE_KAFKA__SECURITY_PROTOCOL", "ssl"),
        ]);
        let (source, _file) = source("[dial]\ncampaigns = [\"x\"]\n", &environment);
        let config = load(&source, Needs::Everything).unwrap();
        assert_eq!(config.dial.campaigns, ["a", "b"]);
        assert!(config.kafka.properties.contains_key("security.protocol"));
        assert_eq!(config.genesys.client_secret.expose_secret(), "from-a-file");
    }

    #[test]
    fn a_command_needs_only_what_it_works_with() {
        let (source, _file) = source("[dial]\nmode = \"on\"\n", &MINIMUM[..1]);
        let keys = |needs| -> Vec<String> {
            load(&source, needs).unwrap_err().0.into_iter().map(|problem| problem.key).collect()
        };
        assert_eq!(keys(Needs::Postgres), ["dial.mode"]);
        assert_eq!(keys(Needs::Kafka), ["dial.mode"]);
        assert_eq!(keys(Needs::Everything).len(), 4);
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let (source, _file) = source("kafka.ssl.key.password = \"canary-key\"\n", MINIMUM);
        let config = load(&source, Needs::Everything).unwrap();
        let everything = format!("{config:?} {:?}", config.printed);
        assert!(!everything.contains("canary"), "{everything}");
    }
}
