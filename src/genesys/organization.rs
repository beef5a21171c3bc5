//! What holds for a whole organisation, for people who look before they leap. The seed dialect
//! knows nothing of it.

use super::client::{Client, Scope};
use super::dialect::Spoken;
use super::error::CallError;

/// What the organisation has set for all of its campaigns.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundSettings {
    /// Calls per agent that no campaign may exceed.
    pub max_calls_per_agent: f64,
    /// Seconds from the transfer to the queue until a call counts as abandoned.
    pub abandon_seconds: Option<f64>,
    /// What the platform's own abandon rate is divided by: `ALL_CALLS` or
    /// `CALLS_THAT_REACHED_QUEUE`.
    pub abandon_denominator: Option<String>,
}

/// Calls that the platform has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallsMade {
    /// Of our OAuth client.
    pub own: u64,
    /// Of all other clients of the organisation.
    pub others: u64,
}

/// A rule by which the platform changes campaigns by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignRule {
    pub name: String,
    /// Each action with the campaigns it changes.
    pub actions: Vec<(String, Vec<String>)>,
}

impl CampaignRule {
    /// What it does to this campaign.
    pub fn actions_on<'r>(&'r self, campaign: &'r str) -> impl Iterator<Item = &'r str> {
        let of = self.actions.iter().filter(move |(_, campaigns)| campaigns.iter().any(|id| id == campaign));
        of.map(|(kind, _)| kind.as_str())
    }
}

impl Client {
    /// `None` where the dialect knows no such settings.
    pub async fn outbound_settings(&self, scope: &Scope) -> Result<Option<OutboundSettings>, CallError> {
        match &self.inner.spoken {
            Spoken::Seed => Ok(None),
            Spoken::Platform(platform) => platform.outbound_settings(&self.inner, scope).await.map(Some),
        }
    }

    /// Rules that are enabled.
    pub async fn campaign_rules(&self, scope: &Scope) -> Result<Vec<CampaignRule>, CallError> {
        match &self.inner.spoken {
            Spoken::Seed => Ok(Vec::new()),
            Spoken::Platform(platform) => platform.campaign_rules(&self.inner, scope).await,
        }
    }

    /// Calls of the whole organisation in this month (UTC), as the platform counts them.
    pub async fn calls_this_month(&self, scope: &Scope) -> Result<Option<CallsMade>, CallError> {
        match &self.inner.spoken {
            Spoken::Seed => Ok(None),
            Spoken::Platform(platform) => platform.calls_this_month(&self.inner, scope).await.map(Some),
        }
    }
}
