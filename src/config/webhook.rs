//! Receivers of alerts as they stand in the configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use toml::Value as Toml;

/// Where alerts are posted.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub name: String,
    /// Secret as well: what receivers tell their senders by is often part of it.
    pub url: SecretString,
    /// `whsec_` and the key in base64. Every message is signed with each of them, so
    /// that receivers can change from one to the next.
    pub secrets: Vec<SecretString>,
    /// Incident types to be told of; empty is all.
    pub incident_types: Vec<String>,
}

/// What is allowed, for people.
pub(super) const ALLOWED: &str = "a list of { name, url, secrets, incident_types }: names all different, url https, \
     secrets one to four texts of whsec_ and 24 to 64 bytes in base64, incident_types a list or left out for all";

const MOST_SECRETS: usize = 4;

/// All of a list; `None` when one of them is not allowed.
pub(super) fn read(items: &[Toml]) -> Option<Vec<Webhook>> {
    let webhooks: Vec<Webhook> = items.iter().map(webhook).collect::<Option<_>>()?;
    let unique = webhooks
        .iter()
        .enumerate()
        .all(|(index, webhook)| webhooks[..index].iter().all(|other| other.name != webhook.name));
    unique.then_some(webhooks)
}

fn webhook(item: &Toml) -> Option<Webhook> {
    let table = item.as_table()?;
    let known = table.keys().all(|key| ["name", "url", "secrets", "incident_types"].contains(&key.as_str()));
    let name = table.get("name")?.as_str()?;
    // A label of metrics and part of a header.
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let url: reqwest::Url = table.get("url")?.as_str()?.parse().ok()?;
    let secrets = texts(table.get("secrets")?)?;
    let incident_types = table.get("incident_types").map_or(Some(Vec::new()), texts)?;
    let good = known
        && (1..=64).contains(&name.len())
        && name.chars().all(plain)
        && matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && (1..=MOST_SECRETS).contains(&secrets.len())
        && secrets.iter().all(|secret| is_secret(secret));
    good.then(|| Webhook {
        name: name.into(),
        url: String::from(url).into(),
        secrets: secrets.into_iter().map(SecretString::from).collect(),
        incident_types,
    })
}

fn texts(value: &Toml) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|item| item.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
        .collect()
}

fn is_secret(text: &str) -> bool {
    let key = text.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    key.is_some_and(|key| (24..=64).contains(&key.len()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read_text(text: &str) -> Option<Vec<Webhook>> {
        let table: toml::Table = format!("webhooks = {text}").parse().unwrap();
        read(table["webhooks"].as_array().unwrap())
    }

    #[test]
    fn receivers_are_read_and_mistakes_refused() {
        let good = format!(
            r#"[{{ name = "ops", url = "https://x.example/hook", secrets = ["{SECRET}"] }},
                {{ name = "b", url = "https://y.example", secrets = ["{SECRET}"], incident_types = ["A"] }}]"#
        );
        let read = read_text(&good).unwrap();
        assert_eq!((read[0].name.as_str(), read[0].url.expose_secret()), ("ops", "https://x.example/hook"));
        assert_eq!(read[1].incident_types, ["A"]);
        let shown = format!("{read:?}");
        assert!(!shown.contains("MfKQ9r8") && !shown.contains("example"), "{shown}");
        for (from, to) in [
            ("\"b\"", "\"ops\""),
            ("\"b\"", "\"b c\""),
            ("https://y", "ftp://y"),
            ("https://y", "https://user:pass@y"),
            (SECRET, "whsec_c2hvcnQ="),
            (SECRET, "plain"),
            ("incident_types", "incident_typ"),
        ] {
            assert!(read_text(&good.replace(from, to)).is_none(), "{from} as {to}");
        }
    }
}
