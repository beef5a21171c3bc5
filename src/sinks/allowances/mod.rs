//! What a month's allowances are used for: counts the call attempts of campaigns, asks the platform
//! for its own count of calls, and tells people before either is used up. Slowing polls and holding
//! campaigns is the matter of those who do so; they read what is counted here.

mod telling;

use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::positioned::{self, Keeper, NotKept, NotWritten, Positions, Reading, SetAside, Step, Writer};
use crate::clock;
use crate::genesys::{Client, Credentials, Priority, Scope};
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, Offsets, SubscriptionError};
use crate::model::Timestamp;
use crate::model::allowance::{Allowances, Terms};
use crate::postgres::Database;
use crate::postgres::allowances::{Attempts, PlatformCount};
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "allowances",
    kind: Kind::Sink,
    description: "counts what a month's allowances are used for, and tells people before they are used up",
    reads: &[&topics::DIAL_DECISIONS],
    writes: &[],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::POSTGRES, role::PLATFORM],
};

/// What is covered and how often it is looked at.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One for each organisation.
    pub accounts: Vec<Account>,
    pub attempts: Allowances,
    /// Who is told.
    pub receivers: Vec<Told>,
    /// Time between two looks. Default 60 s.
    pub interval: Duration,
    /// Time between two questions for the platform's own count, over all instances. Default 1 h.
    pub reconcile_every: Duration,
}

/// Whose calls are counted, and what is covered of them.
#[derive(Clone, Debug)]
pub struct Account {
    /// A further organisation's name.
    pub organization: Option<String>,
    pub calls: Terms,
    pub credentials: Credentials,
}

/// A receiver of alerts.
#[derive(Clone, Debug)]
pub struct Told {
    pub name: String,
    /// Which it wants; empty: all.
    pub incident_types: Vec<String>,
}

/// Records kept with one transaction at most.
const BATCH_RECORDS: usize = 1_000;
/// Shortest and longest pause before Postgres is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long the platform may take to count.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    settings: Settings,
    kafka: &KafkaSettings,
    database: Database,
    client: Client,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: BATCH_RECORDS,
        retry: RETRY,
        commit_interval: positioned::COMMIT_INTERVAL,
    };
    let sink =
        || Sink { positions: Positions::new(database.clone(), kafka, &ROLE), database: database.clone() };
    let looking = async {
        loop {
            for account in &settings.accounts {
                let mut clients = client.organizations();
                if let Some(client) = clients.find(|it| it.organization().name == account.organization) {
                    reconcile(account, settings.reconcile_every, &database, client, &shutdown).await;
                }
            }
            telling::tell(&settings, &database).await;
            tokio::time::sleep(settings.interval).await;
        }
    };
    tokio::select! {
        result = positioned::run(reading, kafka, health, shutdown.clone(), sink) => result,
        never = looking => never,
    }
}

/// Asks the platform for its own count, where that is due.
async fn reconcile(
    account: &Account,
    every: Duration,
    database: &Database,
    client: &Client,
    stop: &CancellationToken,
) {
    let id = account.credentials.account();
    match database.may_ask_for_usage(&id, every).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => return tracing::debug!(%error, "the platform's count of calls is not asked for"),
    }
    let asked_at = clock::now();
    let scope = Scope {
        priority: Priority::Read,
        deadline: tokio::time::Instant::now() + PATIENCE,
        cancelled: stop.clone(),
        withdrawn: CancellationToken::new(),
        waited_ms: std::sync::Arc::default(),
    };
    let made = match client.calls_this_month(&scope).await {
        Ok(Some(made)) => made,
        Ok(None) => return,
        Err(error) => {
            return tracing::warn!(%error, "the platform does not tell its count of this month's calls");
        }
    };
    let told = PlatformCount { asked_at, own: made.own, others: made.others };
    match database.reconcile_usage(&id, told).await {
        Ok(()) => tracing::info!(
            own = made.own,
            others = made.others,
            "the platform has counted this month's calls"
        ),
        Err(error) => tracing::warn!(%error, "the platform's count of this month's calls is not kept"),
    }
}

struct Sink {
    database: Database,
    positions: Positions,
}

impl Keeper for Sink {
    fn positions(&mut self) -> &mut Positions {
        &mut self.positions
    }

    async fn keep(&mut self, records: &[InboundRecord], set_aside: &[SetAside]) -> Result<Offsets, NotKept> {
        positioned::keep(self, records, set_aside).await
    }
}

impl Writer for Sink {
    async fn write(&mut self, step: &Step<'_>) -> Result<(), NotWritten> {
        let attempts: Vec<Attempts> =
            step.records.iter().filter_map(|record| attempts(record.value.as_deref()?)).collect();
        self.database.count_attempts(self.positions.consumer(), &step.advances, &attempts).await?;
        Ok(())
    }
}

/// What a decision's statistics counted since the ones before. Decisions that say nothing of it, or
/// that nobody can read, count nothing: the audit sets those aside.
fn attempts(value: &[u8]) -> Option<Attempts> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Decision {
        key: String,
        event_time: Timestamp,
        inputs: Inputs,
    }
    #[derive(Deserialize)]
    struct Inputs {
        attempted: Option<u64>,
    }
    let decision: Decision = serde_json::from_slice(value).ok()?;
    let attempted = decision.inputs.attempted?;
    Some(Attempts { campaign_id: decision.key, attempted, observed_at: decision.event_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_count_what_their_statistics_counted() {
        const SET: &str =
            include_str!("../../../schemas/examples/trunkline.dial-decisions.v1/set-dial-rate.json");
        let mut decision: serde_json::Value = serde_json::from_str(SET).unwrap();
        decision["inputs"]["attempted"] = 17.into();
        let counted = attempts(decision.to_string().as_bytes()).unwrap();
        assert_eq!(Some(counted.campaign_id.as_str()), decision["key"].as_str());
        assert_eq!(
            (counted.attempted, Some(counted.observed_at.to_string().as_str())),
            (17, decision["eventTime"].as_str())
        );
        decision["inputs"].as_object_mut().unwrap().remove("attempted");
        assert_eq!(attempts(decision.to_string().as_bytes()), None);
        assert_eq!(attempts(b"{"), None);
    }
}
