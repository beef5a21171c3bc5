//! Where the OAuth client stands, so that it can be read again while the process runs.

use std::path::PathBuf;

use secrecy::SecretString;
use toml::Value as Toml;

use super::environment_name;
use super::keys::{Key, genesys};
use super::kind::Value;
use super::reader::DEFAULT_FILE;
use super::{Source, property};

/// The files that id and secret of the OAuth client stand in.
#[derive(Clone, Debug)]
pub struct CredentialFiles {
    id: Place,
    secret: Place,
}

#[derive(Clone, Debug)]
enum Place {
    /// An environment variable, which does not change.
    Fixed,
    /// A file that holds it and nothing else.
    Text(PathBuf),
    /// The configuration.
    Configuration(PathBuf),
}

impl Place {
    fn of(source: &Source, key: &Key) -> Self {
        let variable = environment_name(key.name);
        let given = |name: &str| source.environment.get(name);
        match (given(&variable), given(&format!("{variable}_FILE"))) {
            (Some(_), _) => Place::Fixed,
            (None, Some(path)) => Place::Text(path.into()),
            (None, None) => Place::Configuration(source.file.clone().unwrap_or_else(|| DEFAULT_FILE.into())),
        }
    }

    /// What stands there now; `None` where it does not change.
    fn read(&self, key: &Key) -> Result<Option<Value>, String> {
        // Neither path nor content: who put the secret in place of a path would find it in the log.
        let unreadable =
            |error: &dyn std::fmt::Display| format!("{} cannot be read again: {error}", key.name);
        let file = |path: &PathBuf| std::fs::read_to_string(path).map_err(|error| unreadable(&error));
        let found = match self {
            Place::Fixed => return Ok(None),
            Place::Text(path) => Some(Toml::String(file(path)?)),
            Place::Configuration(path) => {
                let table: toml::Table =
                    file(path)?.parse().map_err(|_| unreadable(&"the configuration is no TOML"))?;
                let mut found = None;
                property::walk(&table, "", &mut |name, value| {
                    if name == key.name {
                        found = Some(value.clone());
                    }
                });
                found
            }
        };
        let value = found.ok_or_else(|| unreadable(&"it is not there any more"))?;
        key.kind.read(&value).map(Some).map_err(|_| unreadable(&key.kind.allowed()))
    }
}

impl CredentialFiles {
    /// `None` where both are given in ways that do not change.
    pub(super) fn of(source: &Source) -> Option<Self> {
        let place = |key| Place::of(source, key);
        let (id, secret) = (place(&genesys::client_id), place(&genesys::client_secret));
        (!matches!((&id, &secret), (Place::Fixed, Place::Fixed))).then_some(Self { id, secret })
    }

    /// What stands there now, in place of what does not change.
    ///
    /// # Errors
    /// Which of the two cannot be read, and why; never a value or a path.
    pub fn read(&self, id: &str, secret: &SecretString) -> Result<(String, SecretString), String> {
        let id = match self.id.read(&genesys::client_id)? {
            Some(Value::Text(text)) => text,
            _ => id.to_owned(),
        };
        let secret = match self.secret.read(&genesys::client_secret)? {
            Some(Value::Secret(secret)) => secret,
            _ => secret.clone(),
        };
        Ok((id, secret))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn files_are_read_again_in_the_order_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let (file, secret) = (folder.path().join("t.toml"), folder.path().join("secret"));
        std::fs::write(&file, "[genesys]\nclient_id = \"from file\"\nclient_secret = \"never\"\n").unwrap();
        std::fs::write(&secret, "one\n").unwrap();
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let source = |environment: HashMap<_, _>| Source { file: Some(file.clone()), environment };
        let by_file = variable("TRUNKLINE_GENESYS__CLIENT_SECRET_FILE", secret.to_str().unwrap());
        let files = CredentialFiles::of(&source([by_file].into())).unwrap();
        let read = || {
            files
                .read("given", &"given".into())
                .map(|(id, secret)| format!("{id}, {}", secret.expose_secret()))
        };
        assert_eq!(read().unwrap(), "from file, one");
        std::fs::write(&secret, "canary").unwrap();
        assert_eq!(read().unwrap(), "from file, canary");
        std::fs::write(&secret, "\n").unwrap();
        let empty = read().unwrap_err();
        assert!(empty.starts_with("genesys.client_secret"), "{empty}");
        std::fs::remove_file(&secret).unwrap();
        let gone = read().unwrap_err();
        assert!(gone.starts_with("genesys.client_secret") && !gone.contains("secret\""), "{gone}");

        let fixed = [
            variable("TRUNKLINE_GENESYS__CLIENT_ID", "x"),
            variable("TRUNKLINE_GENESYS__CLIENT_SECRET", "y"),
        ];
        assert!(CredentialFiles::of(&source(fixed.into())).is_none());
    }
}
