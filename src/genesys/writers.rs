//! Who else changes what we change.

use super::client::{Client, Scope};
use super::dialect::Spoken;

/// What may be changed by others too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    Campaign,
    Flow,
}

impl Client {
    /// Who but us has changed it last, where the platform tells; not to be told is no error.
    pub async fn last_writer(&self, what: Changed, id: &str, scope: &Scope) -> Option<String> {
        let Spoken::Platform(platform) = &self.inner.spoken else { return None };
        match platform.last_writer(&self.inner, what, id, scope).await {
            Ok(writer) => writer,
            Err(error) => {
                tracing::debug!(id, %error, "who else has changed it is not known");
                None
            }
        }
    }
}
