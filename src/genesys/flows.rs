//! Architect flows: versions, what is in force, interactions and errors.

use super::client::{Client, Reply, Scope, read_request};
use super::dialect::Spoken;
use super::error::CallError;
use super::{platform, seed};
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

/// A flow as the platform has it now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flow {
    /// What people call it, where the platform tells.
    pub name: Option<String>,
    /// In the platform's order.
    pub versions: Vec<PlatformVersion>,
    /// Who keeps others from publishing it, where somebody does.
    pub locked_by: Option<String>,
    /// What was last begun on it, by anybody; finished or not.
    pub operation: Option<Operation>,
}

/// Something that takes its time: a publish.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub id: String,
    pub complete: bool,
    /// `PUBLISH`, `CHECKIN` …
    pub action: String,
    /// Why it failed, where it did.
    pub failure: Option<String>,
}

/// One version of a flow as the platform has it now.
#[derive(Clone, Debug, PartialEq)]
pub struct PlatformVersion {
    pub id: String,
    /// `active`, `published` …, in lower case; empty where the platform does not say.
    pub status: String,
    pub published_at: Option<Timestamp>,
    /// When another version took its place, where it did and the platform tells.
    pub replaced_at: Option<Timestamp>,
}

impl PlatformVersion {
    pub fn is_active(&self) -> bool {
        self.status == "active"
    }

    pub fn is_published(&self) -> bool {
        self.status == "published"
    }
}

/// Interactions and errors of one version within some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Empty where the measure does not tell versions apart.
    pub version: String,
    pub total: u64,
    pub errors: u64,
}

/// What is counted as an error of a flow, where the platform leaves the choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorMeasure {
    /// Interactions that left the flow for an error, of all interactions.
    #[default]
    ExitReason,
    /// Flow outcomes that failed, of all flow outcomes.
    Outcome,
}

impl Client {
    /// The flow as it is now.
    pub async fn flow(&self, id: &str, scope: &Scope) -> Result<Flow, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        match &inner.spoken {
            Spoken::Seed => {
                let request = read_request(seed::flows::versions_path(id));
                let read = |_: &_, body: &[u8]| seed::flows::read_versions(body);
                let versions = inner.read(&inner.flow_versions, id, &request, scope, read).await?;
                Ok(Flow { versions, ..Flow::default() })
            }
            Spoken::Platform(platform) => platform.flow(inner, id, scope).await,
        }
    }

    /// Interactions and errors of the flow between two times, by version; none at all is that
    /// nobody was in the flow.
    pub async fn flow_measures(
        &self,
        id: &str,
        from: Timestamp,
        until: Timestamp,
        scope: &Scope,
    ) -> Result<Vec<Measured>, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        let endpoints = &inner.flow_measures;
        match &inner.spoken {
            Spoken::Seed => {
                let request = seed::flows::measures_request(id, from, until);
                let read = |_: &_, body: &[u8]| seed::flows::read_measures(body);
                Ok(vec![inner.read(endpoints, id, &request, scope, read).await?])
            }
            Spoken::Platform(platform) => {
                let measure = platform.settings.error_measure;
                let request = platform::measures::request(id, from, until, measure);
                let read = |_: &_, body: &[u8]| platform::measures::read(id, body, measure);
                inner.read(endpoints, id, &request, scope, read).await
            }
        }
    }

    /// The request that puts `version` of the flow in force. Nothing is sent: record the
    /// request, then [`send_activation`](Self::send_activation) it.
    pub fn prepare_activation(&self, id: &str, version: &str, description: &str) -> SentRequest {
        let (Self { inner, .. }, id) = self.of(id);
        match inner.spoken {
            Spoken::Seed => seed::flows::activation_request(id, version, description),
            Spoken::Platform(_) => platform::flows::publish_request(id, version),
        }
    }

    /// Sends a prepared request; makes one attempt at its effect.
    ///
    /// # Errors
    /// [`CallError::effect_is_unknown`] says whether the platform must be read back.
    pub async fn send_activation(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        let is_ours = match inner.spoken {
            Spoken::Seed => seed::flows::is_activation_request(id, request),
            Spoken::Platform(_) => platform::flows::is_publish_request(id, request),
        };
        CallError::refuse_unless(is_ours, || format!("activation of a version of flow {id}"))?;
        let sent = inner.write(&inner.flow_activations, id, request, scope).await;
        match &inner.spoken {
            Spoken::Seed => sent,
            Spoken::Platform(_) => sent.map_err(platform::busy),
        }
    }
}
