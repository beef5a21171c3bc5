//! Receivers of alerts as they stand in the configuration.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::item::Item;

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
pub(super) const ALLOWED: &str = "a list of { name, url, secrets, incident_types }: names all different, url https and \
     without user and password, secrets one to four texts of whsec_ and 24 to 64 bytes in base64, incident_types a \
     list or left out for all";

const MOST_SECRETS: usize = 4;

/// One of a list; `None` after telling what is not allowed.
pub(super) fn read(item: &mut Item<'_>) -> Option<Webhook> {
    // A label of metrics and part of a header.
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name = item.text("name", "1 to 64 letters, digits, -, _ and .", |name| {
        (1..=64).contains(&name.len()) && name.chars().all(plain)
    });
    let url = item.text("url", "an absolute https URL without user and password", |url| {
        url.parse::<reqwest::Url>().is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
        })
    });
    let secrets = item.texts("secrets");
    if !(1..=MOST_SECRETS).contains(&secrets.len()) || !secrets.iter().all(|secret| is_secret(secret)) {
        let allowed = "one to four texts of whsec_ and 24 to 64 bytes in base64; make one with: \
             echo whsec_$(openssl rand -base64 32)";
        item.fault("secrets", allowed);
        return None;
    }
    let incident_types = item.texts("incident_types").into_iter().map(str::to_owned).collect();
    Some(Webhook {
        name: name?.into(),
        url: url?.into(),
        secrets: secrets.into_iter().map(SecretString::from).collect(),
        incident_types,
    })
}

fn is_secret(text: &str) -> bool {
    let key = text.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    key.is_some_and(|key| (24..=64).contains(&key.len()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::super::item::{Fault, list};
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn read_text(text: &str) -> Result<Vec<Webhook>, Vec<Fault>> {
        let table: toml::Table = format!("webhooks = {text}").parse().unwrap();
        list(table["webhooks"].as_array().unwrap(), read, |webhook| &webhook.name)
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
        for (from, to, place) in [
            ("\"b\"", "\"ops\"", "[2].name"),
            ("\"b\"", "\"b c\"", "[2].name"),
            ("https://y", "ftp://y", "[2].url"),
            ("https://y", "https://user:canary@y", "[2].url"),
            ("https://y", "https://:canary@y", "[2].url"),
            (SECRET, "whsec_c2hvcnQ=", "[1].secrets"),
            (SECRET, "canary", "[1].secrets"),
            ("incident_types", "incident_typ", "[2].incident_typ"),
        ] {
            let faults = read_text(&good.replace(from, to)).unwrap_err();
            assert_eq!(faults[0].place, place, "{from} as {to}");
            assert!(!format!("{faults:?}").contains("canary"), "{faults:?}");
        }
    }
}
