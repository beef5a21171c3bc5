//! Where it is recorded what is about to be done and what came of it: a narrow interface, so
//! that every path through an execution can be tested without a database.

use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;

use crate::model::decision::DecisionId;
use crate::model::outcome::Outcome;
use crate::postgres::intents::{Claim, FlowChange, History, Intent, Settlement, Terms};
use crate::postgres::leases::Lease;
use crate::postgres::{self, Database};

/// No statement of ours is waited for longer: a connection that is dead without saying so
/// would hold a decision up for minutes. Well within the time a lease lasts unrenewed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// See the methods of [`Database`] with the same names.
pub trait Ledger: Clone + Send + Sync + 'static {
    fn take_lease(&self, name: &str, holder: &str)
    -> impl Future<Output = Result<Lease, LedgerError>> + Send;

    fn take_idle_lease(
        &self,
        name: &str,
        holder: &str,
        idle: Duration,
    ) -> impl Future<Output = Result<Option<Lease>, LedgerError>> + Send;

    fn renew_lease(&self, lease: &Lease) -> impl Future<Output = Result<bool, LedgerError>> + Send;

    fn release_lease(&self, lease: &Lease) -> impl Future<Output = Result<(), LedgerError>> + Send;

    fn history<P: DeserializeOwned + Send + Unpin>(
        &self,
        decision: DecisionId,
    ) -> impl Future<Output = Result<History<P>, LedgerError>> + Send;

    fn claim<P: Serialize + Send + Sync>(
        &self,
        intent: &Intent<P>,
        lease: &Lease,
        terms: &Terms<'_>,
    ) -> impl Future<Output = Result<Claim, LedgerError>> + Send;

    fn settle(
        &self,
        outcome: &Outcome,
        change: Option<&FlowChange<'_>>,
        lease: &Lease,
    ) -> impl Future<Output = Result<Settlement, LedgerError>> + Send;
}

/// The ledger gave no answer; what was to be written may have been.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct LedgerError {
    pub reason: String,
    /// The values themselves were refused: asking again cannot help.
    pub about_data: bool,
}

impl From<postgres::Error> for LedgerError {
    fn from(error: postgres::Error) -> Self {
        Self { about_data: error.is_about_data(), reason: error.to_string() }
    }
}

async fn bounded<T>(
    database: &Database,
    asked: impl Future<Output = Result<T, postgres::Error>> + Send,
) -> Result<T, LedgerError> {
    let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
    Ok(answer.unwrap_or_else(|_| Err(database.gave_no_answer(ANSWER_WITHIN)))?)
}

impl Ledger for Database {
    async fn take_lease(&self, name: &str, holder: &str) -> Result<Lease, LedgerError> {
        bounded(self, Database::take_lease(self, name, holder)).await
    }

    async fn take_idle_lease(
        &self,
        name: &str,
        holder: &str,
        idle: Duration,
    ) -> Result<Option<Lease>, LedgerError> {
        bounded(self, Database::take_idle_lease(self, name, holder, idle)).await
    }

    async fn renew_lease(&self, lease: &Lease) -> Result<bool, LedgerError> {
        bounded(self, Database::renew_lease(self, lease)).await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), LedgerError> {
        bounded(self, Database::release_lease(self, lease)).await
    }

    async fn history<P: DeserializeOwned + Send + Unpin>(
        &self,
        decision: DecisionId,
    ) -> Result<History<P>, LedgerError> {
        bounded(self, Database::history(self, decision)).await
    }

    async fn claim<P: Serialize + Send + Sync>(
        &self,
        intent: &Intent<P>,
        lease: &Lease,
        terms: &Terms<'_>,
    ) -> Result<Claim, LedgerError> {
        let span = tracing::info_span!("claim", attempt = intent.attempt, granted = tracing::field::Empty);
        let claim = bounded(self, Database::claim(self, intent, lease, terms)).instrument(span.clone()).await;
        span.record("granted", matches!(claim, Ok(Claim::Granted)));
        claim
    }

    async fn settle(
        &self,
        outcome: &Outcome,
        change: Option<&FlowChange<'_>>,
        lease: &Lease,
    ) -> Result<Settlement, LedgerError> {
        let span = tracing::info_span!("settle", status = outcome.status.name());
        bounded(self, Database::settle(self, outcome, change, lease)).instrument(span).await
    }
}
