//! Who else changes what we change.

use super::client::{Client, Scope};
use super::dialect::Spoken;
use super::error::CallError;

/// What may be changed by others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Campaign,
    Flow,
}

impl Client {
    /// Who but us has changed it last, where the platform tells.
    pub async fn ask_last_writer(
        &self,
        what: Changed,
        id: &str,
        scope: &Scope,
    ) -> Result<Option<String>, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        match &inner.spoken {
            Spoken::Seed => Ok(None),
            Spoken::Platform(platform) => platform.last_writer(inner, what, id, scope).await,
        }
    }

    /// The same; not to be told is no error.
    pub async fn last_writer(&self, what: Changed, id: &str, scope: &Scope) -> Option<String> {
        self.ask_last_writer(what, id, scope).await.unwrap_or_else(|error| {
            tracing::debug!(id, %error, "who else has changed it is not known");
            None
        })
    }
}
