//! Outbound campaigns: dial rate, limits, statistics.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::client::{Client, Reply, Scope, read_request};
use super::dialect::Spoken;
use super::error::CallError;
use super::reply::bounded_header;
use super::transport::RawReply;
use super::{platform, seed};
use crate::model::outcome::SentRequest;

/// A campaign's dialler settings as the platform has them now.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    pub id: String,
    pub name: Option<String>,
    /// Lines dialled per idle agent; finite, not negative.
    pub dial_rate: f64,
    pub min_dial_rate: f64,
    /// Passed on as read, also where it is below `min_dial_rate`.
    pub max_dial_rate: f64,
    /// The entity tag or version, verbatim.
    pub revision: String,
    /// What else the platform dialect needs of it.
    pub definition: Option<Arc<Definition>>,
}

impl Campaign {
    /// The same by another organisation's way to call it.
    fn called(self, id: &str) -> Self {
        if self.id == id { self } else { Self { id: id.to_owned(), ..self } }
    }
}

/// A campaign as the platform's own API defines it.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    pub queue_id: Option<String>,
    /// `on`, `stopping`, `off`, `complete` …
    pub status: Option<String>,
    /// The platform warns where this campaign's ceiling is below the organisation's.
    pub reports_low_rate: bool,
    /// As it was read.
    pub whole: Value,
}

/// A campaign's statistics as the platform counts them.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignStatistics {
    /// Share of attempts answered by a person, 0–1.
    pub answer_rate: f64,
    pub agents_idle: u32,
    pub agents_busy: u32,
    /// Calls handed to an agent since the campaign's counters began.
    pub calls_delivered: u64,
    /// Calls placed since the campaign's counters began, where the platform counts them.
    pub attempts: Option<u64>,
    /// Live answers since the campaign's counters began.
    pub answers: Option<u64>,
    /// Live answers nobody was free for in time.
    pub abandoned: Option<u64>,
    /// How long ago they were read: they may have been read together with others'.
    pub age: Duration,
}

impl Client {
    /// Says which campaigns' statistics will be asked for from here: where the platform can,
    /// they are asked for together.
    pub fn expect_campaigns<'c>(&self, ids: impl IntoIterator<Item = &'c str>) {
        for (client, ids) in self.by_organization(ids) {
            if let Spoken::Platform(platform) = &client.inner.spoken {
                platform.expect_campaigns(ids);
            }
        }
    }

    /// The campaign as it is now.
    pub async fn campaign(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        let (client, own) = self.of(id);
        client.own_campaign(own, scope).await.map(|campaign| campaign.called(id))
    }

    async fn own_campaign(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        match &self.inner.spoken {
            Spoken::Seed => {
                let request = read_request(seed::campaigns::campaign_path(id));
                let read = |reply: &RawReply, body: &[u8]| {
                    seed::campaigns::read_campaign(id, bounded_header(reply, "etag"), body)
                };
                self.inner.read(&self.inner.campaigns, id, &request, scope, read).await
            }
            Spoken::Platform(platform) => platform.campaign(&self.inner, id, scope).await,
        }
    }

    /// The campaign as it is now or, where many are watched, as it was lately:
    /// for watching. Whoever changes it reads it [anew](Self::campaign).
    pub async fn campaign_lately(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        let (client, own) = self.of(id);
        let campaign = match &client.inner.spoken {
            Spoken::Seed => client.own_campaign(own, scope).await,
            Spoken::Platform(platform) => platform.campaign_lately(&client.inner, own, scope).await,
        };
        campaign.map(|campaign| campaign.called(id))
    }

    /// The campaign's statistics as they are now.
    pub async fn campaign_statistics(
        &self,
        id: &str,
        scope: &Scope,
    ) -> Result<CampaignStatistics, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        match &inner.spoken {
            Spoken::Seed => {
                let request = read_request(seed::campaigns::campaign_statistics_path(id));
                let read = |_: &RawReply, body: &[u8]| seed::campaigns::read_campaign_statistics(body);
                inner.read(&inner.statistics, id, &request, scope, read).await
            }
            Spoken::Platform(platform) => platform.campaign_statistics(inner, id, scope).await,
        }
    }

    /// The request that gives the campaign, as it was read, this dial rate. Nothing is sent:
    /// record the request, then [`send_dial_rate`](Self::send_dial_rate) it.
    pub fn prepare_dial_rate(&self, campaign: &Campaign, rate: f64) -> SentRequest {
        let (client, own) = self.of(&campaign.id);
        match &client.inner.spoken {
            Spoken::Seed => seed::campaigns::dial_rate_request(own, rate, &campaign.revision),
            Spoken::Platform(platform) => {
                let campaign = campaign.clone().called(own);
                platform::campaigns::rate_request(&campaign, rate, platform.settings.campaign_change)
            }
        }
    }

    /// Sends a prepared request; makes one attempt at its effect.
    ///
    /// # Errors
    /// [`CallError::effect_is_unknown`] says whether the platform must be read back.
    pub async fn send_dial_rate(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let (Self { inner, .. }, id) = self.of(id);
        let is_ours = match inner.spoken {
            Spoken::Seed => seed::campaigns::is_dial_rate_request(id, request),
            Spoken::Platform(_) => platform::campaigns::is_rate_request(id, request),
        };
        CallError::refuse_unless(is_ours, || format!("change of campaign {id}'s dial rate"))?;
        let sent = inner.write(&inner.campaigns, id, request, scope).await;
        if let Spoken::Platform(platform) = &inner.spoken {
            platform.forget_campaign(id);
        }
        sent
    }

    /// The revision that a prepared request is for: it has no effect on any other. `None` is a
    /// request that takes effect whatever the campaign has become.
    pub fn revision_named_by(request: &SentRequest) -> Option<String> {
        request.if_match.clone().or_else(|| platform::campaigns::version_named_by(request))
    }
}
