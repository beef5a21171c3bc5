//! What is known around a decision besides its record: the numbers of its rule, and what people
//! call the things it is about.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::config::Config;
use crate::genesys::{self, BucketShape, Client, InProcessPermits, Priority, Scope};
use crate::health::Health;
use crate::model::Timestamp;
use crate::model::decision::Policy;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN, DialPolicy};
use crate::postgres::Database;
use crate::postgres::ledger::LedgerEntry;
use crate::stages::dialing::in_force;
use crate::stages::lag::rules;
use crate::stages::rollback::rule;
use crate::topology::settings;

/// Changes of a setting that are looked through.
const SETTINGS_LIMIT: u32 = 10_000;
/// The longest that the platform is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Known {
    pub now: Timestamp,
    /// The numbers of the rule, where the configuration here has those that the decision was taken
    /// under: their digest is the same.
    pub rule: Option<Value>,
    /// By id.
    pub names: BTreeMap<String, String>,
}

impl Known {
    /// What is not known or cannot be asked now is left out.
    pub async fn of(entry: &LedgerEntry, config: &Config, database: &Database) -> Self {
        let names = match (&entry.name, entry.r#loop.as_str()) {
            (None, "dial") => campaign_name(&entry.key, config).await,
            (name, _) => name.clone(),
        };
        let names = names.map(|name| (entry.key.clone(), name)).into_iter().collect();
        let rule = match entry.r#loop.as_str() {
            "dial" => dial_rule(entry, config, database).await,
            _ => rule_of(entry, config),
        };
        Self { now: clock::now(), rule, names }
    }

    /// The name with the id, or the id alone.
    pub fn called(&self, id: &str) -> String {
        self.names.get(id).map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"))
    }
}

fn rule_of(entry: &LedgerEntry, config: &Config) -> Option<Value> {
    match entry.r#loop.as_str() {
        "rollback" => {
            let rule = settings::rollback_rule(config);
            same(entry, rule.policy.name(), rule::VERSION, &rule)
        }
        "lag" => same(entry, rules::NAME, rules::VERSION, &settings::lag_thresholds(config)),
        _ => None,
    }
}

/// The configuration's numbers with what was set at run time up to the revision that the decision
/// was taken under.
async fn dial_rule(entry: &LedgerEntry, config: &Config, database: &Database) -> Option<Value> {
    let policy = DialPolicy::named(&entry.policy.name)?;
    let revision = u64::try_from(entry.settings_revision).unwrap_or(0);
    let then = async |scope: &str| match revision {
        0 => None,
        revision => {
            let history = database.settings_history(Some(scope), SETTINGS_LIMIT).await.ok()?;
            history.into_iter().find(|setting| setting.revision <= revision)
        }
    };
    let (own, general) = (then(&format!("{DIAL_CAMPAIGN}{}", entry.key)).await, then(DIAL).await);
    let set = in_force([own.as_ref(), general.as_ref()]);
    let rules = settings::dial_rules(config).with(&set.settings);
    (rules.named(policy, config.dial.interval) == entry.policy).then(|| rules.numbers(policy))
}

fn same(entry: &LedgerEntry, name: &'static str, version: u32, numbers: &impl Serialize) -> Option<Value> {
    let is_same = Policy::new(name, version, numbers) == entry.policy;
    is_same.then(|| serde_json::to_value(numbers).ok()).flatten()
}

/// Asked of the platform where no poller has told it, where the configuration says how.
async fn campaign_name(id: &str, config: &Config) -> Option<String> {
    if config.genesys.base_url.is_empty() || config.genesys.client_id.is_empty() {
        return None;
    }
    let client = |platform: &genesys::Settings| {
        let shape = BucketShape::new(platform.requests_per_minute, platform.budget_window);
        Client::new(platform, Arc::new(InProcessPermits::new(shape)), &Health::default()).ok()
    };
    let name = config.genesys.organization_of(id);
    let others = settings::further_organizations(config).into_iter();
    let others = others.filter(|other| name.is_some() && other.organization.name.as_deref() == name);
    let client = client(&settings::genesys(config))?.serving(others.filter_map(|other| client(&other)));
    let scope = Scope {
        priority: Priority::Read,
        deadline: tokio::time::Instant::now() + PATIENCE,
        cancelled: CancellationToken::new(),
        withdrawn: CancellationToken::new(),
        waited_ms: Arc::default(),
    };
    let campaign = tokio::time::timeout(PATIENCE, client.campaign(id, &scope)).await.ok()?.ok()?;
    campaign.name
}
