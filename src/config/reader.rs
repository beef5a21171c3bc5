//! Takes values from file and environment, each checked by itself, and hands them out by key.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use secrecy::SecretString;
use toml::Value as Toml;

use super::environment_name;
use super::item::{Fault, printable};
use super::keys::{KEYS, Key};
use super::kind::Value;
use super::setting::Setting;
use super::{Needs, Problem, property};

/// Read where no other file is named.
pub(super) const DEFAULT_FILE: &str = "trunkline.toml";

pub(super) struct Reader {
    needs: Needs,
    /// By key, with where they were found.
    values: HashMap<&'static str, (Value, String)>,
    pub(super) properties: BTreeMap<String, SecretString>,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn new(needs: Needs) -> Self {
        Self { needs, values: HashMap::new(), properties: BTreeMap::new(), problems: Vec::new() }
    }

    fn problem(&mut self, key: &str, value: Option<String>, origin: &str, allowed: impl Into<String>) {
        self.problems.push(Problem {
            key: key.to_owned(),
            value,
            allowed: allowed.into(),
            origin: origin.to_owned(),
        });
    }

    /// Takes what stands in a file; `None`: in `trunkline.toml`, if it is there.
    pub(super) fn take_file(&mut self, given: Option<&Path>) {
        if let Some((path, table)) = self.parse_file(given) {
            property::walk(&table, "", &mut |key, value| self.take(key, value, &path));
        }
    }

    fn parse_file(&mut self, given: Option<&Path>) -> Option<(String, toml::Table)> {
        let path = given.unwrap_or(Path::new(DEFAULT_FILE));
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

    /// Takes what the environment says, over what was taken before.
    pub(super) fn take_environment(&mut self, environment: &HashMap<String, String>) {
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

    /// What a key is that was not given, because another one is as it is.
    pub(super) fn follows(&mut self, key: &'static Key, value: Value) {
        self.values.entry(key.name).or_insert_with(|| (value, "default".to_owned()));
    }

    fn value(&self, key: &Key) -> Option<Value> {
        match self.values.get(key.name) {
            Some((value, _)) => Some(value.clone()),
            None => key.default.map(|default| key.kind.read_text(default).expect("defaults are possible")),
        }
    }

    /// A key as it is so far; `None` where it must be given and is not.
    pub(super) fn known<T: Setting>(&self, key: &Key) -> Option<T> {
        let Some(value) = self.value(key) else { return T::absent() };
        let read = T::of(value);
        assert!(read.is_some(), "{} is declared with a type that cannot hold its kind", key.name);
        read
    }

    /// A key for good: where it must be given and is not, that is told.
    pub(super) fn setting<T: Setting>(&mut self, key: &Key) -> Option<T> {
        let known = self.known(key);
        if known.is_none() && !self.is_needed(key) {
            return T::unneeded();
        }
        if known.is_none() {
            self.missing(key);
        }
        known
    }

    /// Tells that a key must be given, unless something is told of it already.
    pub(super) fn missing(&mut self, key: &Key) {
        if !self.problems.iter().any(|problem| problem.is_about(key.name)) {
            let allowed = format!("required: {}. {}", key.kind.allowed(), key.help);
            self.problem(key.name, None, &format!("not given; {}", environment_name(key.name)), allowed);
        }
    }

    /// Whether the command that is being served works with the section of a key.
    fn is_needed(&self, key: &Key) -> bool {
        let part = match key.name.split('.').next() {
            Some("postgres") => Needs::Postgres,
            Some("kafka") => Needs::Kafka,
            _ => Needs::Everything,
        };
        self.needs == Needs::Everything || self.needs == part
    }

    pub(super) fn is_given(&self, key: &Key) -> bool {
        self.values.contains_key(key.name)
    }

    /// Where the value of a key was found.
    pub(super) fn origin(&self, key: &Key) -> String {
        self.values.get(key.name).map_or_else(|| "default".to_owned(), |(_, origin)| origin.clone())
    }

    /// Tells that a key does not fit another one.
    pub(super) fn misfit(&mut self, key: &Key, value: Option<String>, allowed: impl Into<String>) {
        let origin = self.origin(key);
        self.problem(key.name, value, &origin, allowed);
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
