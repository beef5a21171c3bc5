//! librdkafka's properties: it knows its own names and ranges best, but what it says about a
//! wrong one repeats the value, which may be a password.

use std::collections::BTreeMap;

use secrecy::SecretString;
use toml::Value as Toml;

use super::item::{Fault, printable};
use super::keys::KEYS;
use crate::kafka::properties::{self, Refused};

/// Those on which exactly-once or our names depend.
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

/// Those that people write most, to name one that was probably meant.
const USUAL: &[&str] = &[
    "debug",
    "enable.ssl.certificate.verification",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.password",
    "sasl.username",
    "security.protocol",
    "socket.timeout.ms",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.endpoint.identification.algorithm",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "statistics.interval.ms",
];

/// Reads one property.
///
/// # Errors
/// What is allowed, without the value.
pub(super) fn read(name: &str, value: &Toml) -> Result<SecretString, String> {
    if OURS.contains(&name) {
        return Err("set by trunkline itself, exactly-once depends on it; remove it".into());
    }
    let text = match value {
        Toml::String(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
        Toml::Integer(_) | Toml::Boolean(_) | Toml::Float(_) => value.to_string(),
        _ => return Err("must be text, a number or true/false".into()),
    };
    match properties::check(name, &text) {
        Ok(()) => Ok(text.into()),
        Err(Refused::Unknown) => Err(unknown(name)),
        Err(Refused::Value(Some(described))) => {
            // A number is no secret and its range is worth knowing; everything else is taken out.
            let told = if text.parse::<f64>().is_ok() || text.is_empty() {
                described
            } else {
                described.replace(&text, "…")
            };
            Err(format!("librdkafka does not take this value: {told}"))
        }
        Err(Refused::Value(None)) => Err("librdkafka does not take this value".into()),
    }
}

/// A table of properties below a key: written flat (`"sasl.password" = …`) or nested.
pub(super) fn read_all(table: &toml::Table) -> Result<BTreeMap<String, SecretString>, Vec<Fault>> {
    let (mut properties, mut faults) = (BTreeMap::new(), Vec::new());
    walk(table, "", &mut |name, value| match read(name, value) {
        Ok(text) => drop(properties.insert(name.to_owned(), text)),
        Err(allowed) => faults.push(Fault { place: printable(name), allowed }),
    });
    if faults.is_empty() { Ok(properties) } else { Err(faults) }
}

/// Calls `leaf` with every value that is no table, under its dotted name.
pub(super) fn walk(table: &toml::Table, above: &str, leaf: &mut impl FnMut(&str, &Toml)) {
    for (name, value) in table {
        let name = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        match value {
            Toml::Table(below) => walk(below, &name, leaf),
            value => leaf(&name, value),
        }
    }
}

fn unknown(name: &str) -> String {
    let own = KEYS.iter().filter_map(|key| key.name.strip_prefix("kafka."));
    match nearest(name, own.chain(USUAL.iter().copied())) {
        Some(near) => format!("no such key and no librdkafka property; did you mean {near}?"),
        None => {
            "no such key and no librdkafka property; the documentation of librdkafka has all of them".into()
        }
    }
}

/// The name that was probably meant.
pub(super) fn nearest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| (strsim::levenshtein(known, name), known))
        .filter(|(distance, _)| *distance <= 3)
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str, value: &str) -> String {
        read(name, &Toml::String(value.into())).unwrap_err()
    }

    #[test]
    fn what_is_wrong_is_told_without_the_value() {
        assert!(refused("sasl.passwort", "canary").contains("did you mean sasl.password?"));
        assert!(refused("brokerz", "canary").contains("did you mean brokers?"));
        for (name, value) in [
            ("sasl.passwort", "canary"),
            ("security.protocol", "canary"),
            ("debug", "canary"),
            ("socket.timeout.ms", "canary"),
            ("acks", "canary"),
            ("group.id", "canary"),
            ("nothing.like.it", "canary"),
        ] {
            let told = refused(name, value);
            assert!(!told.contains("canary"), "{name}: {told}");
        }
        assert!(refused("socket.timeout.ms", "1").contains("10"), "the range");
    }

    #[test]
    fn a_table_may_be_flat_or_nested() {
        let table: toml::Table =
            "\"sasl.username\" = \"a\"\nsasl.password = \"b\"\ndebug = \"broker\"".parse().unwrap();
        let names: Vec<_> = read_all(&table).unwrap().into_keys().collect();
        assert_eq!(names, ["debug", "sasl.password", "sasl.username"]);
    }
}
