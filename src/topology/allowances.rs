//! What every instance heeds of a month's allowances: polls slow down where calls would not last,
//! and campaigns without attempts left are held. Both are read from Postgres, where the sink
//! `allowances` and each call's permit count.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::{self, Config, Webhook};
use crate::genesys;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::allowance::{Allowances, Standing, Terms, poll_stretch};
use crate::postgres::Database;
use crate::postgres::allowances::{AttemptsCounted, CallsCounted};
use crate::sinks::allowances as sink;

/// Time between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// Campaigns looked at.
const MOST_CAMPAIGNS: i64 = 10_000;

/// What is covered in a month, and who is told.
pub(super) fn settings<'s>(
    config: &Config,
    platforms: impl IntoIterator<Item = &'s genesys::Settings>,
) -> sink::Settings {
    let account = |platform: &genesys::Settings| sink::Account {
        organization: platform.organization.name.clone(),
        calls: calls(config, platform),
        credentials: platform.credentials.clone(),
    };
    let told = |webhook: &Webhook| sink::Told {
        name: webhook.name.clone(),
        incident_types: webhook.incident_types.clone(),
    };
    sink::Settings {
        accounts: platforms.into_iter().map(account).collect(),
        attempts: config.compliance.attempts(),
        receivers: config.alerts.webhooks.iter().map(told).collect(),
        interval: Duration::from_secs(60),
        reconcile_every: Duration::from_secs(3_600),
    }
}

/// The calls that a month covers of an organisation.
pub(crate) fn calls(config: &Config, platform: &genesys::Settings) -> Terms {
    let name = platform.organization.name.as_deref();
    let others = &config.genesys.organizations;
    let further = others.iter().find(|other| Some(other.name.as_str()) == name);
    further.map_or_else(|| config.genesys.calls(), config::Organization::calls)
}

/// Campaigns that have made all the attempts they may make in this month. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct UsedUp(Arc<RwLock<BTreeSet<String>>>);

impl UsedUp {
    pub(super) fn has(&self, campaign_id: &str) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(campaign_id)
    }

    fn set(&self, campaigns: BTreeSet<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = campaigns;
    }
}

/// Keeps pace and holds up to date.
pub(super) struct Follower {
    /// What is covered of the calls of each organisation.
    calls: Vec<(Terms, genesys::Settings)>,
    attempts: Allowances,
    pub used_up: UsedUp,
    database: Database,
}

impl Follower {
    pub(super) fn new<'s>(
        config: &Config,
        platforms: impl IntoIterator<Item = &'s genesys::Settings>,
        database: Database,
    ) -> Self {
        let of = |platform: &genesys::Settings| (calls(config, platform), platform.clone());
        Self {
            calls: platforms.into_iter().map(of).collect(),
            attempts: config.compliance.attempts(),
            used_up: UsedUp::default(),
            database,
        }
    }

    /// Runs until `stop`. While Postgres does not answer, what was known last holds.
    pub(super) async fn follow(self, stop: CancellationToken) {
        loop {
            self.look(clock::now()).await;
            tokio::select! {
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn look(&self, now: Timestamp) {
        let limited = self.calls.iter().filter(|(terms, _)| terms.per_month.is_some());
        let mut greatest = 1.0_f64;
        for (terms, platform) in limited {
            match self.database.calls_of_month(&platform.credentials.account()).await {
                Ok(calls) => stretch(platform, *terms, calls, now),
                Err(error) => tracing::debug!(%error, "polls go on as far apart as they came"),
            }
            greatest = greatest.max(platform.pace.stretch());
        }
        metrics::GENESYS_POLL_STRETCH.gauge(&[]).set(greatest);
        if self.attempts.limit_campaigns() {
            match self.database.attempts_of_month(MOST_CAMPAIGNS).await {
                Ok(campaigns) => self.used_up.set(used_up(&self.attempts, campaigns, now)),
                Err(error) => tracing::debug!(%error, "campaigns are held as they were"),
            }
        }
    }
}

fn stretch(platform: &genesys::Settings, terms: Terms, calls: CallsCounted, now: Timestamp) {
    let stretch = poll_stretch(terms.per_month, calls.month_to_date, calls.demand(), now);
    if stretch != platform.pace.stretch() {
        let organization = platform.organization.name.as_deref();
        tracing::info!(
            organization,
            stretch,
            "polls come so many times as far apart: the month's calls are to last"
        );
    }
    platform.pace.set(stretch);
}

fn used_up(allowances: &Allowances, campaigns: Vec<AttemptsCounted>, now: Timestamp) -> BTreeSet<String> {
    let is_used_up = |campaign: &AttemptsCounted| {
        let terms = allowances.of_campaign(&campaign.campaign_id);
        Standing::new(terms, campaign.counted(), now).is_used_up()
    };
    campaigns.into_iter().filter(is_used_up).map(|campaign| campaign.campaign_id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_are_held_by_their_own_allowance() {
        let counted = |id: &str, month_to_date| AttemptsCounted {
            campaign_id: id.to_owned(),
            month_to_date,
            per_second: 0.0,
        };
        let allowances = Allowances {
            all: Terms { per_month: Some(1), price: None },
            campaigns: [("own".to_owned(), 100)].into(),
            every_other: Some(10),
        };
        let held = |campaigns| used_up(&allowances, campaigns, Timestamp::from_millis(1_767_323_045_678));
        let all = held(vec![counted("own", 99), counted("a", 9), counted("b", 10)]);
        assert_eq!(all, ["b".to_owned()].into());
        assert_eq!(held(vec![counted("own", 100)]), ["own".to_owned()].into());
        let unlimited = Allowances { every_other: None, ..allowances.clone() };
        assert!(used_up(&unlimited, vec![counted("b", 1_000)], Timestamp::default()).is_empty());
    }
}
