//! Intents before a change outside, settlements after it.
//!
//! Both are written on the condition that the writer's lease is still its own.
//! The condition is part of the INSERT and locks the lease's row until it is
//! committed: whoever takes the lease afterwards sees every row written under it.

use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::Row;
use sqlx::types::Json;

use super::leases::Lease;
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::campaign::DialParameters;
use crate::model::decision::DecisionId;
use crate::model::outcome::{Outcome, SentRequest};

/// A request that was about to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent<P = DialParameters> {
    pub decision_id: DecisionId,
    /// Counts the decision's intents from 1.
    pub attempt: u32,
    pub request: SentRequest,
    /// What was in force, and what is asked for.
    pub parameters: P,
}

/// An intent found again.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed<P = DialParameters> {
    pub intent: Intent<P>,
    pub claimed_at: Timestamp,
}

/// What is known about a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct History<P = DialParameters> {
    /// In the order of their attempts.
    pub intents: Vec<Claimed<P>>,
    pub settlement: Option<Outcome>,
}

impl<P> Default for History<P> {
    fn default() -> Self {
        Self { intents: Vec::new(), settlement: None }
    }
}

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    Granted,
    /// Somebody else has the lease.
    LeaseLost,
    /// This attempt is on record already: look at the [`History`].
    Taken,
}

/// The answer to a settlement.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// This is how the decision ended: as given, or as settled before.
    Stands(Box<Outcome>),
    /// Somebody else has the lease, and nothing is settled yet.
    LeaseLost,
}

impl Database {
    /// Records an intent while `lease` is still held.
    ///
    /// # Errors
    /// When no answer came; the intent may have been recorded.
    pub async fn claim(&self, intent: &Intent, lease: &Lease) -> Result<Claim, Error> {
        const CLAIM: &str =
            "WITH held AS (SELECT 1 FROM trunkline.leases WHERE name = $3 AND token = $4 FOR SHARE),
                  written AS (
                      INSERT INTO trunkline.intents (decision_id, attempt, lease, token, request, parameters)
                      SELECT $1, $2, $3, $4, $5, $6 FROM held
                      ON CONFLICT (decision_id, attempt) DO NOTHING
                      RETURNING 1)
             SELECT (SELECT count(*) FROM held) AS held, (SELECT count(*) FROM written) AS written";
        let row = sqlx::query(CLAIM)
            .bind(intent.decision_id.0)
            .bind(i32::try_from(intent.attempt).unwrap_or(i32::MAX))
            .bind(&lease.name)
            .bind(lease.token)
            .bind(Json(&intent.request))
            .bind(Json(&intent.parameters))
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let (held, written): (i64, i64) = (row.get("held"), row.get("written"));
        Ok(match (held, written) {
            (0, _) => Claim::LeaseLost,
            (_, 0) => Claim::Taken,
            _ => Claim::Granted,
        })
    }

    /// Records how a decision ended while `lease` is still held, unless it is
    /// settled already.
    ///
    /// # Errors
    /// When no answer came; the settlement may have been recorded.
    pub async fn settle(&self, outcome: &Outcome, lease: &Lease) -> Result<Settlement, Error> {
        const SETTLE: &str =
            "WITH held AS (SELECT 1 FROM trunkline.leases WHERE name = $2 AND token = $3 FOR SHARE)
             INSERT INTO trunkline.settlements (decision_id, outcome)
             SELECT $1, $4 FROM held
             ON CONFLICT (decision_id) DO NOTHING";
        let written = sqlx::query(SETTLE)
            .bind(outcome.decision_id.0)
            .bind(&lease.name)
            .bind(lease.token)
            .bind(Json(outcome))
            .execute(self.pool())
            .await
            .map_err(|error| self.explain(error))?
            .rows_affected();
        if written == 1 {
            return Ok(Settlement::Stands(Box::new(outcome.clone())));
        }
        let settled = self.settlement(outcome.decision_id).await?;
        Ok(settled.map_or(Settlement::LeaseLost, |outcome| Settlement::Stands(Box::new(outcome))))
    }

    /// What is on record about a decision.
    ///
    /// # Errors
    /// When the database cannot be asked, or what it holds cannot be read.
    pub async fn history<P: DeserializeOwned + Send + Unpin>(
        &self,
        decision_id: DecisionId,
    ) -> Result<History<P>, Error> {
        const INTENTS: &str = "SELECT attempt, request, parameters,
                (extract(epoch FROM claimed_at) * 1000)::bigint AS claimed_at_ms
            FROM trunkline.intents WHERE decision_id = $1 ORDER BY attempt";
        let settlement = self.settlement(decision_id).await?;
        let rows = sqlx::query(INTENTS)
            .bind(decision_id.0)
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let intents = rows
            .into_iter()
            .map(|row| {
                let attempt: i32 = row.try_get("attempt")?;
                let Json(request): Json<SentRequest> = row.try_get("request")?;
                let Json(parameters): Json<P> = row.try_get("parameters")?;
                let claimed_at: i64 = row.try_get("claimed_at_ms")?;
                let attempt = u32::try_from(attempt).unwrap_or(0);
                Ok(Claimed {
                    intent: Intent { decision_id, attempt, request, parameters },
                    claimed_at: Timestamp::from_millis(claimed_at),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| self.explain(error))?;
        Ok(History { intents, settlement })
    }

    pub(super) async fn settlement(&self, decision_id: DecisionId) -> Result<Option<Outcome>, Error> {
        let found: Option<Json<Value>> =
            sqlx::query_scalar("SELECT outcome FROM trunkline.settlements WHERE decision_id = $1")
                .bind(decision_id.0)
                .fetch_optional(self.pool())
                .await
                .map_err(|error| self.explain(error))?;
        found
            .map(|Json(value)| serde_json::from_value(value))
            .transpose()
            .map_err(|error| self.explain(sqlx::Error::Decode(Box::new(error))))
    }
}
