//! The OAuth client whose calls these are: as it was given, and anew where it stands in files
//! that somebody changes while the process runs.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::sleep;

use crate::model::organization::qualified;

/// Id and secret of the client-credentials grant.
#[derive(Clone, Debug, Default)]
pub struct OauthClient {
    pub id: String,
    pub secret: SecretString,
}

impl OauthClient {
    fn is(&self, other: &Self) -> bool {
        self.id == other.id && self.secret.expose_secret() == other.secret.expose_secret()
    }
}

/// Reads the files anew. The error says which cannot be read, never what stands there.
pub type Reread = Arc<dyn Fn() -> Result<OauthClient, String> + Send + Sync>;

/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Ids remembered as our own besides the one in force.
const FORMER_IDS: usize = 8;

/// Clones share what is in force.
#[derive(Clone, Default)]
pub struct Credentials {
    current: Arc<RwLock<Current>>,
    /// Of a further organisation; the first has no name.
    organization: Option<Arc<str>>,
    reread: Option<Reread>,
    look_interval: Duration,
}

#[derive(Default)]
struct Current {
    client: OauthClient,
    /// Rises with every change.
    revision: u64,
    former_ids: Vec<String>,
    /// What was told last about files that cannot be read.
    unreadable: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Credentials {
    /// They stay as they are.
    pub fn fixed(id: impl Into<String>, secret: impl Into<SecretString>) -> Self {
        let client = OauthClient { id: id.into(), secret: secret.into() };
        let current = Current { client, ..Current::default() };
        Self {
            current: Arc::new(RwLock::new(current)),
            organization: None,
            reread: None,
            look_interval: LOOK_INTERVAL,
        }
    }

    /// `client`, until `reread` says something else: asked before each new token, and every 5 s.
    pub fn reread(client: OauthClient, reread: Reread) -> Self {
        Self { reread: Some(reread), ..Self::fixed(client.id, client.secret) }
    }

    /// The same, looked at more often: for tests.
    #[must_use]
    pub fn looked_at_every(self, look_interval: Duration) -> Self {
        Self { look_interval, ..self }
    }

    /// The same, of a further organisation of this name.
    #[must_use]
    pub fn of_organization(self, name: &str) -> Self {
        Self { organization: Some(name.into()), ..self }
    }

    /// What its calls are counted under: its id, with the organisation's name before it where that has
    /// one.
    pub fn account(&self) -> String {
        qualified(self.organization.as_deref(), &self.id()).into_owned()
    }

    /// The id in force.
    pub fn id(&self) -> String {
        self.with(|current| current.client.id.clone())
    }

    /// Whether this id is ours, or was.
    pub(super) fn is_ours(&self, id: &str) -> bool {
        self.with(|current| current.client.id == id || current.former_ids.iter().any(|former| former == id))
    }

    pub(super) fn secret(&self) -> SecretString {
        self.with(|current| current.client.secret.clone())
    }

    /// What is in force, and its revision.
    pub(super) fn in_force(&self) -> (OauthClient, u64) {
        self.with(|current| (current.client.clone(), current.revision))
    }

    pub(super) fn revision(&self) -> u64 {
        self.with(|current| current.revision)
    }

    /// Reads the files anew, where there are any. What cannot be read changes nothing.
    pub(super) async fn look(&self) {
        let Some(reread) = self.reread.clone() else { return };
        // Files may lie on a network.
        match tokio::task::spawn_blocking(move || reread()).await {
            Ok(Ok(client)) => self.put(client),
            Ok(Err(problem)) => self.warn(problem),
            Err(_) => self.warn("the files of the OAuth client cannot be read".to_owned()),
        }
    }

    /// Ends when something else than `revision` is in force.
    pub(super) async fn changed_since(&self, revision: u64) {
        while self.revision() == revision {
            sleep(self.look_interval.max(Duration::from_millis(10))).await;
            self.look().await;
        }
    }

    fn put(&self, client: OauthClient) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.unreadable = None;
        if current.client.is(&client) {
            return;
        }
        let former = std::mem::replace(&mut current.client, client);
        if former.id != current.client.id && !current.former_ids.contains(&former.id) {
            current.former_ids.truncate(FORMER_IDS - 1);
            current.former_ids.insert(0, former.id);
        }
        current.revision += 1;
        tracing::info!("the OAuth client was changed: its new secret is used from the next token on");
    }

    fn warn(&self, problem: String) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.unreadable.as_ref() != Some(&problem) {
            tracing::warn!(problem, "the OAuth client stays as it was");
            current.unreadable = Some(problem);
        }
    }

    fn with<T>(&self, read: impl FnOnce(&Current) -> T) -> T {
        read(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn what_files_say_counts_and_what_cannot_be_read_changes_nothing() {
        let told = Arc::new(Mutex::new(Ok(("a", "one"))));
        let says = told.clone();
        let reread: Reread = Arc::new(move || {
            let said: Result<_, String> = says.lock().unwrap().clone();
            said.map(|(id, secret): (&str, &str)| OauthClient { id: id.into(), secret: secret.into() })
        });
        let client = OauthClient { id: "a".into(), secret: "one".into() };
        let credentials = Credentials::reread(client, reread).looked_at_every(Duration::from_millis(1));
        credentials.look().await;
        assert_eq!(credentials.revision(), 0, "the same");
        *told.lock().unwrap() = Err("gone".to_owned());
        credentials.look().await;
        assert_eq!((credentials.revision(), credentials.id().as_str()), (0, "a"));
        *told.lock().unwrap() = Ok(("b", "two"));
        credentials.changed_since(0).await;
        assert_eq!((credentials.id().as_str(), credentials.secret().expose_secret()), ("b", "two"));
        assert!(credentials.is_ours("a") && credentials.is_ours("b") && !credentials.is_ours("c"));
        let shown = format!("{credentials:?}");
        assert!(shown.contains('b') && !shown.contains("two"), "{shown}");
    }
}
