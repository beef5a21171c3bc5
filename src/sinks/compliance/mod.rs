//! Counts what campaigns do as an auditor counts it (`docs/compliance.md`).
//!
//! Three parts that know each other through Postgres only. The [intake] records what each call
//! counts as, once its conversation has been looked up. The [evaluation] makes figures: of open
//! windows all the time, of settled ones once as known and once as restated. Before the second
//! statement calls are [looked up again](again): the platform goes over its analytics later. One
//! instance evaluates at a time, the owner of the conversations' partition 0.

mod again;
mod evaluation;
mod intake;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::positioned::{self, Positions, Reading};
use crate::genesys::Client;
use crate::health::Health;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::SubscriptionError;
use crate::model::compliance::{Campaigns, Rules, WarningRule};
use crate::postgres::Database;
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "compliance",
    kind: Kind::Sink,
    description: "records what each call of a campaign counts as and makes an auditor's figures of it",
    reads: &[&topics::CONVERSATIONS],
    writes: &[&topics::COMPLIANCE_WARNINGS],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM, role::POSTGRES],
};

/// Records taken in with one transaction at most.
const BATCH_RECORDS: usize = 500;
/// Shortest and longest pause before something that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How campaigns are counted.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two looks at open windows.
    pub interval: Duration,
    /// A window is stated as known so long after its end: the last calls are looked up then.
    pub settle: Duration,
    /// And as restated so long after it.
    pub restate_after: Duration,
    /// How long records of campaigns are kept.
    pub retention: Duration,
    /// Dial decisions are among these; else they go with their month.
    pub decisions_end: bool,
    pub rules: Rules,
    pub warning: WarningRule,
    pub campaigns: Campaigns,
    /// Campaigns that are counted though no call of theirs is recorded.
    pub watched: Vec<String>,
}

/// Runs until `shutdown`. Without a client nothing is looked up again and nothing restated.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown
/// on `health`.
pub async fn run(
    settings: Settings,
    kafka: &KafkaSettings,
    database: Database,
    client: Option<Client>,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), SubscriptionError> {
    let reading = Reading {
        role: &ROLE,
        batch_records: BATCH_RECORDS,
        retry: RETRY,
        commit_interval: positioned::COMMIT_INTERVAL,
    };
    let evaluates = Arc::new(AtomicBool::new(false));
    let keeper = || {
        let positions = Positions::new(database.clone(), kafka, &ROLE);
        intake::Intake::new(database.clone(), positions, settings.rules, Arc::clone(&evaluates))
    };
    let part = health.part("compliance figures");
    let evaluator =
        evaluation::Evaluator::new(&settings, database.clone(), client, Arc::clone(&evaluates), part);
    tokio::select! {
        result = positioned::run(reading, kafka, health, shutdown.clone(), keeper) => result,
        () = evaluator.run(&shutdown) => Ok(()),
    }
}
