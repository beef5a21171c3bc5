//! Puts a draft in force, here and, where configured, on the platform.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::service::Service;
use super::weights::{Plan, Unusable, with_weights};
use crate::genesys::{Client, Priority, Scope};
use crate::model::decision::{Loop, Mode};
use crate::model::outcome::SentRequest;
use crate::model::routing::{PlatformPublication, RouteConfiguration, RoutePublication};
use crate::postgres::routing::Published;
use crate::postgres::{Database, Error};

/// How long the platform is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a configuration was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("nothing was saved under {0}; PUT a draft first")]
    Unknown(String),
    #[error("there are as many configurations as there can be; none more is put in force")]
    TooMany,
    #[error("canary {0} has this configuration; abort it, or wait for its end, then publish")]
    UnderCanary(String),
    #[error("routing is {0}; nothing is published until `trunkline resume`")]
    Paused(String),
    #[error("the draft cannot be used: {0}")]
    Unusable(Unusable),
    #[error(transparent)]
    Database(#[from] Error),
}

/// Why weights cannot be set at run time.
#[derive(Debug, thiserror::Error)]
pub enum WeightsRefused {
    #[error("the configuration cannot be decided by with these weights: {0}")]
    Unusable(Unusable),
    #[error(transparent)]
    Database(#[from] Error),
}

/// Whether a configuration can be decided by with weights that are to be set at run time: the
/// one in force, else its draft. One that is not known takes any: they wait for it.
///
/// # Errors
/// See [`WeightsRefused`].
pub async fn check_weights(
    database: &Database,
    configuration_id: &str,
    weights: &BTreeMap<String, f64>,
) -> Result<(), WeightsRefused> {
    let saved = database.route(configuration_id).await?;
    let known = saved.in_force.map(|(_, definition)| definition).or(saved.draft);
    known.map_or(Ok(()), |known| {
        Plan::of(&with_weights(&known, weights)).map(drop).map_err(WeightsRefused::Unusable)
    })
}

/// Publishes. Clones share everything.
#[derive(Clone)]
pub struct Publisher {
    database: Database,
    /// `None`: the platform is not to be asked.
    platform: Option<Client>,
    mode: Mode,
    /// Knows at once what is put in force here.
    service: Option<Service>,
    shutdown: CancellationToken,
}

impl Publisher {
    pub fn new(
        database: Database,
        platform: Option<Client>,
        mode: Mode,
        shutdown: CancellationToken,
    ) -> Self {
        Self { database, platform, mode, service: None, shutdown }
    }

    /// What is put in force is decided by in this service at once, without asking for it.
    #[must_use]
    pub fn telling(self, service: Service) -> Self {
        Self { service: Some(service), ..self }
    }

    /// Puts the draft in force between two decisions, for all instances at once. Without a
    /// draft only the platform is asked again about what is in force.
    ///
    /// # Errors
    /// See [`PublishError`]. What the platform says is no error: the revision is in force.
    pub async fn publish(&self, id: &str, who: &str) -> Result<RoutePublication, PublishError> {
        if let Some(pause) = self.database.pauses().await?.stopping(Loop::Route) {
            return Err(PublishError::Paused(pause.told()));
        }
        if let Some(draft) = self.database.route(id).await?.draft {
            Plan::of(&draft).map_err(PublishError::Unusable)?;
        }
        let (revision, definition) = match self.database.publish_route(id, who).await? {
            Published::InForce(in_force) => {
                let (revision, definition) = (in_force.counter.revision, in_force.definition.clone());
                if let Some(service) = &self.service {
                    service.put_in_force(*in_force);
                }
                (revision, definition)
            }
            Published::NoDraft(revision, definition) => (revision, definition),
            Published::Unknown => return Err(PublishError::Unknown(id.to_owned())),
            Published::TooMany => return Err(PublishError::TooMany),
            Published::UnderCanary(canary) => return Err(PublishError::UnderCanary(canary)),
        };
        let (platform, reason) = self.ask_platform(revision, &definition).await;
        if let Some(reason) = &reason {
            tracing::warn!(configuration = id, revision, reason, "the platform has not published it");
        }
        let revision = revision.unsigned_abs();
        Ok(RoutePublication { configuration_id: id.to_owned(), revision, platform, reason })
    }

    async fn ask_platform(
        &self,
        revision: i64,
        definition: &RouteConfiguration,
    ) -> (PlatformPublication, Option<String>) {
        let Some(client) = &self.platform else {
            return (PlatformPublication::NotConfigured, None);
        };
        if self.mode == Mode::Shadow {
            return (PlatformPublication::Shadowed, None);
        }
        let request = Client::prepare_route_publication(definition);
        // Without the record of the intent nothing is sent.
        if let Err(error) = self.note(definition, revision, "intent", &request).await {
            return (PlatformPublication::Failed, Some(error.to_string()));
        }
        let scope = Scope {
            priority: Priority::Read,
            deadline: Instant::now() + PATIENCE,
            cancelled: self.shutdown.clone(),
            withdrawn: CancellationToken::new(),
            waited_ms: Arc::default(),
        };
        let (step, response, result) =
            match client.send_route_publication(&request, &definition.id, &scope).await {
                Ok(reply) => ("applied", reply.response, (PlatformPublication::Applied, None)),
                Err(error) => ("failed", *error.response, (PlatformPublication::Failed, Some(error.reason))),
            };
        let content = json!({ "response": response });
        let noted = self.database.note_route_publication(&definition.id, revision, step, &content).await;
        if let Err(error) = noted {
            tracing::error!(%error, configuration = definition.id, step, "what the platform said is not recorded");
        }
        result
    }

    async fn note(
        &self,
        definition: &RouteConfiguration,
        revision: i64,
        step: &str,
        request: &SentRequest,
    ) -> Result<(), Error> {
        let content = json!({ "request": request });
        self.database.note_route_publication(&definition.id, revision, step, &content).await
    }
}
