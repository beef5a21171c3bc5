//! Genesys Cloud's own API: its paths, requests and replies, and what several calls together
//! say of one thing.

mod aggregates;
mod audits;
pub(super) mod campaigns;
mod conversations;
mod details;
pub(super) mod flows;
mod jobs;
pub(super) mod measures;
mod queues;
mod rules;
mod statistics;
mod usage;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::campaigns::{Campaign, CampaignStatistics};
use super::client::{Inner, Scope, read_request};
use super::credentials::Credentials;
use super::details::malformed;
use super::dialect::PlatformSettings;
use super::error::{CallError, CallErrorKind as Kind};
use super::flows::Flow;
use super::organization::{CallsMade, CampaignRule, OutboundSettings};
use super::priority::Priority;
use super::queues::Available;
use super::together::Together;
use super::transport::RawReply;
use super::writers::Changed;
use crate::clock;

use queues::OnQueue;
use statistics::{Counters, Idle};

/// How long a flow that is locked, or on which something runs, is left alone.
const BUSY_PAUSE: Duration = Duration::from_secs(5);
/// How long it is waited for who made a change, and how far back it is looked for.
const AUDIT_PATIENCE: Duration = Duration::from_secs(5);
const AUDIT_SPAN: Duration = Duration::from_secs(4 * 3_600);

/// What a reply about many says of one of them; the error says what cannot be true.
type Told<T> = Result<T, String>;

/// The dialect with what it keeps in mind.
pub(super) struct Platform {
    pub settings: PlatformSettings,
    /// Our own OAuth client.
    credentials: Credentials,
    /// What holds for all campaigns, and when it was read.
    outbound: tokio::sync::Mutex<Option<(Instant, OutboundSettings)>>,
    definitions: Together<Told<Campaign>>,
    idle: Together<Told<Idle>>,
    counters: Together<Told<Counters>>,
    pub on_queue: Together<Told<OnQueue>>,
    campaigns: Mutex<BTreeMap<String, Known>>,
}

/// What is kept in mind of a campaign.
#[derive(Clone, Debug, Default)]
struct Known {
    /// As it was when it was last read.
    campaign: Option<Campaign>,
    read_at: Option<Instant>,
    /// When we may have changed it last.
    changed_at: Option<Instant>,
    counters: Option<Counters>,
}

impl Platform {
    pub(super) fn new(settings: PlatformSettings, credentials: Credentials) -> Self {
        let fresh = settings.shared_for;
        Self {
            credentials,
            outbound: tokio::sync::Mutex::new(None),
            definitions: Together::asking(campaigns::LISTED, settings.definition_for),
            idle: Together::new(fresh),
            counters: Together::new(fresh),
            on_queue: Together::new(fresh),
            campaigns: Mutex::default(),
            settings,
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.campaigns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expect_campaigns<'c>(&self, ids: impl IntoIterator<Item = &'c str>) {
        let ids: Vec<&str> = ids.into_iter().collect();
        self.definitions.expect(ids.iter().copied());
        self.counters.expect(ids.iter().copied());
        self.idle.expect(ids);
    }

    /// The organisation's settings, read again once they are old.
    pub(super) async fn outbound_settings(
        &self,
        inner: &Inner,
        scope: &Scope,
    ) -> Result<OutboundSettings, CallError> {
        let mut known =
            scope.wait(self.outbound.lock(), || "waiting for the outbound settings".to_owned()).await?;
        if let Some((at, settings)) = &*known
            && at.elapsed() < self.settings.organization_for
        {
            return Ok(settings.clone());
        }
        let request = read_request(campaigns::SETTINGS_PATH.to_owned());
        let read = |_: &RawReply, body: &[u8]| campaigns::read_settings(body);
        let settings = inner.read(&inner.organization, "outbound", &request, scope, read).await?;
        *known = Some((Instant::now(), settings.clone()));
        Ok(settings)
    }

    pub(super) async fn campaign(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<Campaign, CallError> {
        let settings = self.outbound_settings(inner, scope).await?;
        let request = read_request(campaigns::campaign_path(id));
        let read = |_: &RawReply, body: &[u8]| campaigns::read(id, body, &settings, self.settings.pacing);
        let campaign = inner.read(&inner.campaigns, id, &request, scope, read).await?;
        self.note(id, &campaign, Instant::now());
        Ok(campaign)
    }

    fn note(&self, id: &str, campaign: &Campaign, read_at: Instant) {
        let mut known = self.known();
        let known = known.entry(id.to_owned()).or_default();
        (known.campaign, known.read_at) = (Some(campaign.clone()), Some(read_at));
    }

    /// The campaign as it is now or, where many are watched, as a list of them has lately said:
    /// never as it was before we changed it.
    pub(super) async fn campaign_lately(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<Campaign, CallError> {
        if self.definitions.len() <= self.settings.single_campaigns {
            return self.campaign(inner, id, scope).await;
        }
        let told = self.definitions.get(id, scope, |ids, scope| async move {
            let settings = self.outbound_settings(inner, &scope).await?;
            let request = read_request(campaigns::list_path(&ids));
            let read =
                |_: &RawReply, body: &[u8]| campaigns::read_list(body, &settings, self.settings.pacing);
            inner.read(&inner.campaigns, "", &request, &scope, read).await
        });
        let told = told.await?;
        let listed_at = Instant::now() - told.age;
        let known = self.known().get(id).cloned().unwrap_or_default();
        let is_current = |at: Instant| known.changed_at.is_none_or(|changed| at > changed);
        match (sensible("campaign", id, told.value)?, known.campaign, known.read_at) {
            (_, Some(campaign), Some(at)) if at > listed_at && is_current(at) => Ok(campaign),
            (Some(campaign), ..) if is_current(listed_at) => {
                self.note(id, &campaign, listed_at);
                Ok(campaign)
            }
            _ => self.campaign(inner, id, scope).await,
        }
    }

    /// It has been changed, or may have been.
    pub(super) fn forget_campaign(&self, id: &str) {
        self.known().entry(id.to_owned()).or_default().changed_at = Some(Instant::now());
    }

    /// Idle agents, calls and busy agents: what three calls say, two of them for all campaigns.
    pub(super) async fn campaign_statistics(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<CampaignStatistics, CallError> {
        let (idle, counters, on_queue) = tokio::try_join!(
            self.idle_agents(inner, id, scope),
            self.calls(inner, id, scope),
            self.agents_of_campaign(inner, id, scope),
        )?;
        let (now, counters_age) = counters;
        let before = self.known().entry(id.to_owned()).or_default().counters.replace(now);
        let joined = statistics::join(idle.0, now, before, on_queue.0);
        let joined = joined.map_err(|problem| {
            CallError::without_reply(Kind::Malformed, format!("statistics of campaign {id}: {problem}"))
        })?;
        let age = idle.1.max(counters_age).max(on_queue.1);
        Ok(CampaignStatistics { age, ..joined })
    }

    async fn idle_agents(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<(Idle, Duration), CallError> {
        if self.idle.len() > self.settings.single_campaigns {
            let told = self.idle.get(id, scope, |ids, scope| async move {
                let request = statistics::performance_request(&ids);
                let read = |_: &RawReply, body: &[u8]| statistics::read_performance(body);
                inner.read(&inner.statistics, "", &request, &scope, read).await
            });
            let told = told.await?;
            return Ok((sensible("campaign", id, told.value)?.unwrap_or_default(), told.age));
        }
        let request = read_request(statistics::statistics_path(id));
        let read = |_: &RawReply, body: &[u8]| statistics::read_statistics(body);
        let idle = inner.read(&inner.statistics, id, &request, scope, read).await?;
        Ok((idle, Duration::ZERO))
    }

    async fn calls(&self, inner: &Inner, id: &str, scope: &Scope) -> Result<(Counters, Duration), CallError> {
        let told = self.counters.get(id, scope, |ids, scope| async move {
            let request = statistics::counters_request(&ids, clock::now());
            let read = |_: &RawReply, body: &[u8]| statistics::read_counters(body);
            inner.read(&inner.statistics, "", &request, &scope, read).await
        });
        let told = told.await?;
        // A campaign without a call today is not in the answer.
        Ok((sensible("campaign", id, told.value)?.unwrap_or_default(), told.age))
    }

    async fn agents_of_campaign(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<(Option<OnQueue>, Duration), CallError> {
        let known = self.known().get(id).and_then(|known| known.campaign.clone());
        let campaign = match known {
            Some(campaign) => campaign,
            None => self.campaign(inner, id, scope).await?,
        };
        let queue = campaign.definition.and_then(|definition| definition.queue_id.clone());
        let Some(queue) = queue else { return Ok((None, Duration::ZERO)) };
        self.agents_of_queue(inner, &queue, scope).await
    }

    async fn agents_of_queue(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<(Option<OnQueue>, Duration), CallError> {
        let told = self.on_queue.get(id, scope, |ids, scope| async move {
            let request = queues::observations_request(&ids);
            let read = |_: &RawReply, body: &[u8]| queues::read(body);
            inner.read(&inner.queue_availability, "", &request, &scope, read).await
        });
        let told = told.await?;
        Ok((sensible("queue", id, told.value)?, told.age))
    }

    pub(super) async fn queue_availability(
        &self,
        inner: &Inner,
        id: &str,
        scope: &Scope,
    ) -> Result<Available, CallError> {
        let (on_queue, _) = self.agents_of_queue(inner, id, scope).await?;
        on_queue.map(OnQueue::available).ok_or_else(|| {
            let reason = format!("the platform says nothing of the agents of queue {id}");
            CallError::without_reply(Kind::Malformed, reason)
        })
    }

    /// What the flow says of itself and all pages of its versions.
    pub(super) async fn flow(&self, inner: &Inner, id: &str, scope: &Scope) -> Result<Flow, CallError> {
        let endpoints = &inner.flow_versions;
        let request = read_request(flows::flow_path(id));
        let read =
            |_: &RawReply, body: &[u8]| flows::read_flow(id, |client| self.credentials.is_ours(client), body);
        let told = inner.read(endpoints, id, &request, scope, read).await?;
        let mut versions = Vec::new();
        for page in 1.. {
            let request = read_request(flows::versions_path(id, page));
            let read = |_: &RawReply, body: &[u8]| flows::read_versions(page, body);
            let of_page = inner.read(endpoints, id, &request, scope, read).await?;
            versions.extend(of_page.versions);
            if !of_page.goes_on {
                break;
            }
            if page >= flows::PAGE_LIMIT {
                return Err(malformed(&request, &format!("it has more than {} pages", flows::PAGE_LIMIT)));
            }
        }
        flows::flow(told, versions).map_err(|problem| malformed(&request, &problem))
    }

    /// Who but us has changed it last, within the last hours.
    pub(super) async fn last_writer(
        &self,
        inner: &Inner,
        what: Changed,
        id: &str,
        scope: &Scope,
    ) -> Result<Option<String>, CallError> {
        let deadline = scope.deadline.min(Instant::now() + AUDIT_PATIENCE);
        let scope = Scope { priority: Priority::Read, deadline, ..scope.clone() };
        let now = clock::now();
        let request = audits::request(what, id, now.minus(AUDIT_SPAN), now);
        let read = |_: &RawReply, body: &[u8]| audits::read(|client| self.credentials.is_ours(client), body);
        inner.read(&inner.organization, "audit", &request, &scope, read).await
    }

    pub(super) async fn campaign_rules(
        &self,
        inner: &Inner,
        scope: &Scope,
    ) -> Result<Vec<CampaignRule>, CallError> {
        let mut rules = Vec::new();
        for page in 1..=rules::PAGE_LIMIT {
            let request = read_request(rules::path(page));
            let read = |_: &RawReply, body: &[u8]| rules::read(page, body);
            let (told, goes_on) = inner.read(&inner.organization, "rules", &request, scope, read).await?;
            rules.extend(told);
            if !goes_on {
                break;
            }
        }
        Ok(rules)
    }

    pub(super) async fn calls_this_month(
        &self,
        inner: &Inner,
        scope: &Scope,
    ) -> Result<CallsMade, CallError> {
        let now = clock::now();
        let request = usage::request(now.month(), now);
        let read = |_: &RawReply, body: &[u8]| usage::read_begun(body);
        let execution = inner.read(&inner.organization, "usage", &request, scope, read).await?;
        let request = read_request(usage::results_path(&execution));
        loop {
            let read = |_: &RawReply, body: &[u8]| {
                usage::read_results(|client| self.credentials.is_ours(client), body)
            };
            if let Some(calls) = inner.read(&inner.organization, "usage", &request, scope, read).await? {
                return Ok(calls);
            }
            let pause = sleep(self.settings.job_pause);
            scope.wait(pause, || "waiting for the platform's count of calls".to_owned()).await?;
        }
    }
}

/// What was told about one of many, where it can be true.
fn sensible<T>(kind: &str, id: &str, told: Option<Told<T>>) -> Result<Option<T>, CallError> {
    told.transpose().map_err(|problem| {
        CallError::without_reply(Kind::Malformed, format!("what is told of {kind} {id}: {problem}"))
    })
}

/// A conflict at a publish says nothing against the version: somebody has locked the flow, or
/// something runs on it.
pub(super) fn busy(error: CallError) -> CallError {
    match error.kind {
        Kind::Conflict => CallError { kind: Kind::Busy { until: Instant::now() + BUSY_PAUSE }, ..error },
        _ => error,
    }
}
