//! Further organisations of the platform as they stand in the configuration.

use std::path::PathBuf;

use secrecy::SecretString;
use toml::Value as Toml;

use super::Source;
use super::choice::Dialect;
use super::environment_name;
use super::item::Item;
use super::keys::{Key, genesys};
use super::reader::DEFAULT_FILE;
use super::setting::Setting;
use crate::model::organization::is_name;
use crate::model::region::{self, Region};

/// One organisation beside that of `[genesys]`; what it leaves out is as if nobody had given it there.
#[derive(Clone, Debug)]
pub struct Organization {
    /// Stands before the ids of its objects.
    pub name: String,
    pub dialect: Dialect,
    pub base_url: String,
    pub login_url: Option<String>,
    pub client_id: String,
    pub client_secret: SecretString,
    /// Where the secret was read, and is read again.
    pub client_secret_file: Option<PathBuf>,
    pub requests_per_minute: u32,
    pub calls_per_month: Option<u64>,
    pub price_per_call: Option<f64>,
    pub organization_id: Option<String>,
    pub region: Option<String>,
    /// The file that the entry stands in; `None` where that does not change.
    configuration: Option<PathBuf>,
}

impl Organization {
    /// Says where the configuration came from.
    pub(super) fn stands_in(&mut self, source: &Source) {
        let variable = environment_name(genesys::organizations.name);
        let of_environment = [variable.clone(), format!("{variable}_FILE")];
        let is_fixed = of_environment.iter().any(|name| source.environment.contains_key(name));
        let file = || source.file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        self.configuration = (!is_fixed).then(file);
    }

    /// Whether its OAuth client stands where it may be changed.
    pub fn may_change(&self) -> bool {
        self.configuration.is_some() || self.client_secret_file.is_some()
    }

    /// The OAuth client as it stands there now.
    ///
    /// # Errors
    /// What cannot be read; never a value or a path.
    pub fn read_again(&self) -> Result<(String, SecretString), String> {
        let unreadable =
            |what: &str| format!("genesys.organizations {}: its {what} cannot be read again", self.name);
        let (mut id, mut secret) = (self.client_id.clone(), self.client_secret.clone());
        if let Some(file) = &self.configuration {
            let text = std::fs::read_to_string(file).ok();
            let table: Option<toml::Table> = text.and_then(|text| text.parse().ok());
            let entry = table.as_ref().and_then(|table| self.entry_in(table));
            let entry = entry.ok_or_else(|| unreadable("entry in the configuration"))?;
            let text = |field: &str| entry.get(field).and_then(Toml::as_str);
            id = text("client_id").ok_or_else(|| unreadable("client_id"))?.trim().to_owned();
            secret = text("client_secret").and_then(not_empty).unwrap_or(secret);
        }
        if let Some(file) = &self.client_secret_file {
            let text = std::fs::read_to_string(file).ok();
            secret = text.as_deref().and_then(not_empty).ok_or_else(|| unreadable("client_secret_file"))?;
        }
        Ok((id, secret))
    }

    fn entry_in<'t>(&self, table: &'t toml::Table) -> Option<&'t toml::Table> {
        let entries = table.get("genesys")?.get("organizations")?.as_array()?;
        let entries = entries.iter().filter_map(Toml::as_table);
        entries.into_iter().find(|entry| entry.get("name").and_then(Toml::as_str) == Some(&self.name))
    }
}

/// What is allowed, for people.
pub(super) const ALLOWED: &str = "a list of { name, client_id, client_secret or client_secret_file, base_url or region, \
     dialect, login_url, requests_per_minute, calls_per_month, price_per_call, organization_id }: names all different, of \
     1 to 32 small letters, digits and -, beginning with a letter; client_secret_file names a file that holds the secret; \
     everything else as in [genesys]";

const NAME: &str = "1 to 32 small letters, digits and -, beginning with a letter";
const SECRET: &str = "either client_secret, text that is not empty, or client_secret_file, a file that can be read and holds it";
const PLACE: &str =
    "base_url must be given, unless the dialect is platform and region names one of its regions";

/// One of a list; `None` after telling what is not allowed.
pub(super) fn read(item: &mut Item<'_>) -> Option<Organization> {
    let name = item.text("name", NAME, is_name);
    let dialect = field::<Dialect>(item, "dialect", &genesys::dialect);
    let base_url = field::<Option<String>>(item, "base_url", &genesys::base_url).flatten();
    let login_url = field::<Option<String>>(item, "login_url", &genesys::login_url).flatten();
    let client_id = field::<String>(item, "client_id", &genesys::client_id);
    let secret = secret(item);
    let requests_per_minute = field::<u32>(item, "requests_per_minute", &genesys::requests_per_minute);
    let calls_per_month = field::<Option<u64>>(item, "calls_per_month", &genesys::calls_per_month).flatten();
    let price_per_call = field::<Option<f64>>(item, "price_per_call", &genesys::price_per_call).flatten();
    let organization_id =
        field::<Option<String>>(item, "organization_id", &genesys::organization_id).flatten();
    let region = field::<Option<String>>(item, "region", &genesys::region).flatten();
    let on_platform = dialect == Some(Dialect::Platform);
    let named = region.as_deref().filter(|_| on_platform).and_then(Region::named);
    let Some(base_url) = base_url.or_else(|| named.map(Region::api_url)) else {
        item.fault("base_url", PLACE);
        return None;
    };
    let beside = || on_platform.then(|| region::login_url_beside(&base_url));
    let (client_secret, client_secret_file) = secret?;
    Some(Organization {
        name: name?.to_owned(),
        dialect: dialect?,
        login_url: login_url.or_else(beside),
        base_url,
        client_id: client_id?,
        client_secret,
        client_secret_file,
        requests_per_minute: requests_per_minute?,
        calls_per_month,
        price_per_call,
        organization_id,
        region,
        configuration: None,
    })
}

/// A field that means what a key of `[genesys]` means; `None` after telling what is wrong.
fn field<T: Setting>(item: &mut Item<'_>, field: &'static str, like: &Key) -> Option<T> {
    let value = match item.field(field) {
        Some(given) => like.kind.read(given).ok(),
        None => match like.default.map(|default| like.kind.read_text(default)) {
            Some(default) => default,
            None => {
                let absent = T::absent();
                if absent.is_none() {
                    item.fault(field, format!("must be given: {}", like.kind.allowed()));
                }
                return absent;
            }
        },
    };
    if value.is_none() {
        item.fault(field, format!("must be {}", like.kind.allowed()));
    }
    T::of(value?)
}

fn secret(item: &mut Item<'_>) -> Option<(SecretString, Option<PathBuf>)> {
    let (given, file) = (item.field("client_secret"), item.field("client_secret_file"));
    let read = match (given.map(Toml::as_str), file.map(Toml::as_str)) {
        (Some(Some(text)), None) => not_empty(text).map(|secret| (secret, None)),
        (None, Some(Some(path))) => {
            let path = PathBuf::from(path);
            let text = std::fs::read_to_string(&path).ok();
            text.and_then(|text| not_empty(&text)).map(|secret| (secret, Some(path)))
        }
        _ => None,
    };
    if read.is_none() {
        item.fault("client_secret", SECRET);
    }
    read
}

fn not_empty(text: &str) -> Option<SecretString> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::super::item::{Fault, list};
    use super::*;

    fn read_text(text: &str) -> Result<Vec<Organization>, Vec<Fault>> {
        let table: toml::Table = text.parse().unwrap();
        list(table["organizations"].as_array().unwrap(), read, |organization| &organization.name)
    }

    const GOOD: &str = r#"
        [[organizations]]
        name = "emea"
        dialect = "platform"
        region = "eu_west_1"
        client_id = "one"
        client_secret = "canary"
        requests_per_minute = 180
        organization_id = "6d1"
        [[organizations]]
        name = "apac-2"
        base_url = "http://127.0.0.1:8081"
        client_id = "two"
        client_secret = "canary"
    "#;

    #[test]
    fn organisations_are_read_and_mistakes_refused() {
        let read = read_text(GOOD).unwrap();
        let [emea, apac] = &read[..] else { panic!("{read:?}") };
        assert_eq!((emea.name.as_str(), emea.base_url.as_str()), ("emea", "https://api.mypurecloud.ie"));
        assert_eq!(emea.login_url.as_deref(), Some("https://login.mypurecloud.ie"));
        assert_eq!((emea.requests_per_minute, apac.requests_per_minute), (180, 300), "as in [genesys]");
        assert_eq!((apac.dialect, apac.login_url.as_deref()), (Dialect::Seed, None));
        assert!(!format!("{read:?}").contains("canary"));
        for (from, to, place) in [
            ("\"apac-2\"", "\"emea\"", "[2].name"),
            ("\"apac-2\"", "\"a:b\"", "[2].name"),
            ("\"apac-2\"", "\"Apac\"", "[2].name"),
            ("\"eu_west_1\"", "\"eu_west_9\"", "[1].base_url"),
            ("region = \"eu_west_1\"", "", "[1].base_url"),
            ("http://127.0.0.1:8081", "http://user:canary@127.0.0.1", "[2].base_url"),
            ("= 180", "= 0", "[1].requests_per_minute"),
            ("client_id = \"two\"", "", "[2].client_id"),
            ("dialect = \"platform\"", "dialect = \"other\"", "[1].dialect"),
            ("requests_per_minute", "request_per_minute", "[1].request_per_minute"),
            ("\"canary\"\n        requests", "\" \"\n        requests", "[1].client_secret"),
            ("client_secret =", "client_secret_file =", "[1].client_secret"),
        ] {
            let faults = read_text(&GOOD.replacen(from, to, 1)).unwrap_err();
            assert_eq!(faults[0].place, place, "{from} as {to}");
            assert!(!format!("{faults:?}").contains("canary"), "{faults:?}");
        }
    }

    #[test]
    fn an_entry_is_read_again_where_it_stands_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let written = |text: &str| {
            std::fs::write(file.path(), text.replace("[[organizations]]", "[[genesys.organizations]]"))
                .unwrap();
        };
        let mut emea = read_text(GOOD).unwrap().remove(0);
        emea.stands_in(&Source { file: Some(file.path().to_owned()), environment: Default::default() });
        written(&GOOD.replacen("canary", "changed", 1).replacen("\"one\"", "\"three\"", 1));
        let (id, secret) = emea.read_again().unwrap();
        assert_eq!((id.as_str(), secret.expose_secret()), ("three", "changed"));
        written(&GOOD.replacen("emea", "other", 1));
        assert!(emea.may_change() && emea.read_again().unwrap_err().contains("emea"));
        let variable = environment_name(genesys::organizations.name);
        emea.stands_in(&Source { file: None, environment: [(variable, String::new())].into() });
        assert!(!emea.may_change());
    }

    #[test]
    fn a_secret_may_stand_in_a_file_of_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from file\n").unwrap();
        let text = GOOD.replacen(
            "client_secret = \"canary\"",
            &format!("client_secret_file = {:?}", file.path().display().to_string()),
            1,
        );
        let read = read_text(&text).unwrap();
        assert_eq!(read[0].client_secret.expose_secret(), "from file");
        assert_eq!(read[0].client_secret_file.as_deref(), Some(file.path()));
        std::fs::write(file.path(), "changed").unwrap();
        assert_eq!(read[0].read_again().unwrap().1.expose_secret(), "changed");
        std::fs::write(file.path(), "").unwrap();
        assert!(read[0].read_again().unwrap_err().contains("client_secret_file"));
    }
}
