//! What the actuator needs of the platform, and of the ledger: two narrow
//! interfaces, so that every path through a decision can be played without either.

use std::future::Future;
use std::time::Duration;

use crate::genesys::{CallError, Campaign, Client, Reply, Scope};
use crate::model::decision::DecisionId;
use crate::model::outcome::{Outcome, SentRequest};
use crate::postgres::intents::{Claim, History, Intent, Settlement};
use crate::postgres::leases::Lease;
use crate::postgres::{self, Database};

/// Where dial rates are in force.
pub trait Platform: Send + Sync + 'static {
    /// The campaign as it is now.
    fn campaign(&self, id: &str, scope: &Scope) -> impl Future<Output = Result<Campaign, CallError>> + Send;

    /// The request that gives the campaign this rate if it is still at `revision`.
    fn prepare(&self, id: &str, rate: f64, revision: &str) -> SentRequest;

    /// Sends it; one attempt at its effect.
    fn send(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;
}

impl Platform for Client {
    async fn campaign(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        Client::campaign(self, id, scope).await
    }

    fn prepare(&self, id: &str, rate: f64, revision: &str) -> SentRequest {
        Client::prepare_dial_rate(id, rate, revision)
    }

    async fn send(&self, request: &SentRequest, id: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.send_dial_rate(request, id, scope).await
    }
}

/// Where it is recorded what is about to be done and what came of it.
pub trait Ledger: Send + Sync + 'static {
    fn take_lease(&self, name: &str, holder: &str)
    -> impl Future<Output = Result<Lease, LedgerError>> + Send;

    fn history(&self, decision: DecisionId) -> impl Future<Output = Result<History, LedgerError>> + Send;

    fn claim(
        &self,
        intent: &Intent,
        lease: &Lease,
    ) -> impl Future<Output = Result<Claim, LedgerError>> + Send;

    fn settle(
        &self,
        outcome: &Outcome,
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

/// No statement of ours is waited for longer: a connection that is dead without
/// saying so would hold a decision up for minutes.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

async fn bounded<T>(
    asked: impl Future<Output = Result<T, postgres::Error>> + Send,
) -> Result<T, LedgerError> {
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let reason = format!("Postgres gave no answer within {} s", ANSWER_WITHIN.as_secs());
            Err(LedgerError { reason, about_data: false })
        }
    }
}

impl Ledger for Database {
    async fn take_lease(&self, name: &str, holder: &str) -> Result<Lease, LedgerError> {
        bounded(Database::take_lease(self, name, holder)).await
    }

    async fn history(&self, decision: DecisionId) -> Result<History, LedgerError> {
        bounded(Database::history(self, decision)).await
    }

    async fn claim(&self, intent: &Intent, lease: &Lease) -> Result<Claim, LedgerError> {
        bounded(Database::claim(self, intent, lease)).await
    }

    async fn settle(&self, outcome: &Outcome, lease: &Lease) -> Result<Settlement, LedgerError> {
        bounded(Database::settle(self, outcome, lease)).await
    }
}
