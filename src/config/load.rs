//! From file and environment to a checked [`Config`].

mod compliance;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use toml::Value as Toml;

use super::item::{Fault, printable};
use super::keys::{self, KEYS, Key, environment_name};
use super::kind::Value;
use super::{
    Alerts, Config, Dial, Dialect, Enrichment, Events, Genesys, Http, Influx, Ingest, Kafka, Lag, Postgres,
    Problem, Problems, Rollback, Route, Webhook, property,
};
use crate::model::decision::Mode;
use crate::model::region::{self, REGIONS, Region};
use crate::model::settings::DialPolicy;

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
        property::walk(&table, "", &mut |key, value| reader.take(key, value, &path));
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
                self.problem("(file)", None, &origin, format!("TOML: {}", syntax_error(&text, &error)));
                None
            }
        }
    }

    fn take(&mut self, name: &str, value: &Toml, origin: &str) {
        if let Some(key) = KEYS.iter().find(|key| key.name == name) {
            match key.kind.read(value) {
                Ok(value) => drop(self.values.insert(key.name, (value, origin.to_owned()))),
                Err(faults) => {
                    for Fault { place, allowed } in faults {
                        let shown = key.kind.shown(value).filter(|_| place.is_empty());
                        self.problem(&format!("{name}{place}"), shown, origin, allowed);
                    }
                }
            }
            return;
        }
        if let Some(property) = name.strip_prefix("kafka.") {
            match property::read(property, value) {
                Ok(text) => drop(self.properties.insert(property.to_owned(), text)),
                Err(allowed) => self.problem(&printable(name), None, origin, allowed),
            }
            return;
        }
        let allowed = match property::nearest(name, KEYS.iter().map(|key| key.name)) {
            Some(near) => format!("no such key; did you mean {near}?"),
            None => "no such key; trunkline.example.toml has all of them".to_owned(),
        };
        self.problem(&printable(name), None, origin, allowed);
    }

    fn take_environment(&mut self, environment: &HashMap<String, String>) {
        let mut ours: Vec<_> = environment
            .iter()
            .filter(|(name, _)| name.strip_prefix("TRUNKLINE_").is_some_and(|rest| rest.contains("__")))
            .collect();
        ours.sort();
        for (name, text) in ours {
            let Some(plain) = name.strip_suffix("_FILE") else {
                self.take(&key_of(name), &Toml::String(text.clone()), name);
                continue;
            };
            let key = key_of(plain);
            if environment.contains_key(plain) {
                let allowed = format!("given twice, as {plain} and as {name}; remove one of them");
                self.problem(&printable(&key), None, "environment", allowed);
                continue;
            }
            match std::fs::read_to_string(text) {
                Ok(content) => self.take(&key, &Toml::String(content), name),
                // Not even the path: who puts the secret itself there would find it in the log.
                Err(error) => {
                    self.problem(
                        &printable(&key),
                        None,
                        name,
                        format!("must name a file that can be read: {error}"),
                    );
                }
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

    fn number(&self, key: &Key) -> f64 {
        match self.value(key) {
            Some(Value::Number(number)) => number,
            other => unreachable!("{} is a number, not {other:?}", key.name),
        }
    }

    fn duration(&self, key: &Key) -> Duration {
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
        if value.is_none() && !self.problems.iter().any(|problem| problem.is_about(key.name)) {
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
        let genesys = self.genesys();
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
            genesys: genesys?,
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
            compliance: self.compliance(),
            printed: self.printed(),
        })
    }

    fn dialect(&self) -> Dialect {
        match self.text(&keys::GENESYS_DIALECT).as_deref() {
            Some("platform") => Dialect::Platform,
            _ => Dialect::Seed,
        }
    }

    fn genesys(&mut self) -> Option<Genesys> {
        let dialect = self.dialect();
        let mut base_url = self.text(&keys::GENESYS_BASE_URL);
        let mut login_url = self.text(&keys::GENESYS_LOGIN_URL);
        if dialect == Dialect::Platform {
            base_url = self.platform_url(base_url);
            login_url = login_url.or_else(|| base_url.as_deref().map(region::login_url_beside));
            self.without_counterpart();
        }
        let base_url = self.required_for(Needs::Everything, base_url, &keys::GENESYS_BASE_URL);
        let (id, secret) = (self.text(&keys::GENESYS_CLIENT_ID), self.secret(&keys::GENESYS_CLIENT_SECRET));
        let client_id = self.required_for(Needs::Everything, id, &keys::GENESYS_CLIENT_ID);
        let client_secret = self.required_for(Needs::Everything, secret, &keys::GENESYS_CLIENT_SECRET);
        Some(Genesys {
            dialect,
            put_campaigns: self.text(&keys::GENESYS_CAMPAIGN_CHANGE).as_deref() == Some("put"),
            base_url: base_url?,
            login_url,
            client_id: client_id?,
            client_secret: client_secret?,
            requests_per_minute: self.integer(&keys::GENESYS_REQUESTS_PER_MINUTE).expect("has a default"),
            budget_window: self.duration(&keys::GENESYS_BUDGET_WINDOW),
            organization_id: self.text(&keys::GENESYS_ORGANIZATION_ID),
            region: self.text(&keys::GENESYS_REGION),
        })
    }

    /// Where Genesys Cloud is: as given, else by its region.
    fn platform_url(&mut self, given: Option<String>) -> Option<String> {
        let Some(name) = self.text(&keys::GENESYS_REGION) else { return given };
        let (named, origin) = (Region::named(&name), self.origin(&keys::GENESYS_REGION));
        let at = given.as_deref().and_then(Region::at);
        let problem = match (&given, named, at) {
            (None, None, _) => {
                let known: Vec<_> = REGIONS.iter().map(|region| region.name).collect();
                Some(format!("one of {}; or give genesys.base_url", known.join(", ")))
            }
            (Some(_), named, Some(at)) if named != Some(at) => Some(format!(
                "genesys.base_url is the API host of {}: remove one of the two, or let them agree",
                at.name
            )),
            _ => None,
        };
        if let Some(allowed) = problem {
            self.problem(keys::GENESYS_REGION.name, Some(name), &origin, allowed);
        }
        given.or_else(|| named.map(Region::api_url))
    }

    /// What only the seed dialect can do.
    fn without_counterpart(&mut self) {
        let asks = matches!(self.value(&keys::LAG_ANALYTICS_GROUPS), Some(Value::List(groups)) if !groups.is_empty());
        let publishes = self.text(&keys::ROUTE_PLATFORM_PUBLISH).as_deref() == Some("yes");
        for (given, key, allowed) in [
            (
                asks,
                &keys::LAG_ANALYTICS_GROUPS,
                "must be empty in the dialect platform, which has no analytics of consumer groups: lag is measured \
                 at the broker (lag.include, lag.clusters)",
            ),
            (
                publishes,
                &keys::ROUTE_PLATFORM_PUBLISH,
                "must be no in the dialect platform, which publishes no routing configurations: changes of queues \
                 and members act there at once",
            ),
        ] {
            if given {
                let origin = self.origin(key);
                self.problem(key.name, None, &origin, allowed);
            }
        }
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
        let campaigns = match self.value(&keys::DIAL_CAMPAIGNS) {
            Some(Value::List(campaigns)) => campaigns,
            _ => Vec::new(),
        };
        let policy = |key| self.text(key).and_then(|name| DialPolicy::named(&name));
        let (goal, cap) = (self.number(&keys::DIAL_GOAL), self.number(&keys::DIAL_CAP));
        let dial = Dial {
            mode,
            interval: self.duration(&keys::DIAL_INTERVAL),
            policy: policy(&keys::DIAL_POLICY).expect("has a default"),
            shadow_policy: policy(&keys::DIAL_SHADOW_POLICY),
            goal,
            cap,
            handle_time: self.duration(&keys::DIAL_HANDLE_TIME),
            utc_offset_minutes: self.integer(&keys::DIAL_UTC_OFFSET_MINUTES).expect("has a default"),
            target: self.number(&keys::DIAL_TARGET),
            min_rate: self.number(&keys::DIAL_MIN_RATE),
            max_rate: self.number(&keys::DIAL_MAX_RATE),
            campaigns,
        };
        if goal > cap {
            let origin = self.origin(&keys::DIAL_GOAL);
            self.problem(
                keys::DIAL_GOAL.name,
                Some(goal.to_string()),
                &origin,
                format!("must be at most dial.cap, {cap}"),
            );
        }
        if dial.min_rate > dial.max_rate {
            let (key, origin) = (&keys::DIAL_MIN_RATE, self.origin(&keys::DIAL_MIN_RATE));
            let allowed = format!("must not be above dial.max_rate, which is {}", dial.max_rate);
            self.problem(key.name, Some(dial.min_rate.to_string()), &origin, allowed);
        }
        dial
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
            outcome_errors: text(&keys::ROLLBACK_ERRORS) == "outcome",
            settling: self.settling(),
            flows: list(&keys::ROLLBACK_FLOWS),
            interval: self.duration(&keys::ROLLBACK_INTERVAL),
        }
    }

    fn settling(&self) -> Duration {
        let minute = self.duration(&keys::EVENTS_WINDOW);
        match self.value(&keys::ROLLBACK_SETTLING) {
            Some(Value::Duration(settling)) => settling,
            _ if self.dialect() == Dialect::Platform => minute * 3,
            _ => minute / 6,
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

/// The key that a variable is about: a declared one, or else a librdkafka property, whose
/// names have dots where variables have underscores.
fn key_of(variable: &str) -> String {
    match KEYS.iter().find(|key| environment_name(key.name) == variable) {
        Some(key) => key.name.to_owned(),
        None => {
            let name = variable.strip_prefix("TRUNKLINE_").unwrap_or(variable).to_lowercase();
            let (section, field) = name.split_once("__").unwrap_or((&name, ""));
            let field = if section == "kafka" { field.replace('_', ".") } else { field.to_owned() };
            format!("{section}.{field}")
        }
    }
}

/// Where the file cannot be read as TOML, and why: without the line itself, on which a secret
/// may stand.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let Some(at) = error.span().and_then(|span| text.get(..span.start)) else {
        return error.message().to_owned();
    };
    let line = at.matches('\n').count() + 1;
    let column = at.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message())
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
