//! Rollbacks: who may act, what was about to be sent, and what must be remembered of it.
//!
//! Whether a flow may be rolled back is asked in the statement that records the intent:
//! the lease is ours and fresh, no maintenance window is open, the cooldown is over.

use std::time::Duration;

use sqlx::Row;
use sqlx::types::Json;

use super::intents::{Claim, Intent, Settlement};
use super::leases::Lease;
use super::{Database, Error};
use crate::model::outcome::Outcome;
use crate::model::rollback::VersionChange;

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RollbackClaim {
    /// As for every other change.
    Answered(Claim),
    /// A maintenance window is open: its scope.
    Maintenance(String),
    /// The flow was rolled back not long ago.
    Cooldown,
}

impl Database {
    /// Records an intent to roll `flow_id` back while `lease`, renewed within `fresh`, is
    /// held, no maintenance window is open for the flow, and it was not rolled back by
    /// another decision within `cooldown`.
    ///
    /// # Errors
    /// When no answer came; the intent may have been recorded.
    pub async fn claim_rollback(
        &self,
        intent: &Intent<VersionChange>,
        flow_id: &str,
        lease: &Lease,
        fresh: Duration,
        cooldown: Duration,
    ) -> Result<RollbackClaim, Error> {
        const CLAIM: &str = "WITH held AS (
                SELECT 1 FROM trunkline.leases
                WHERE name = $3 AND token = $4 AND taken_at > now() - $8 * interval '1 second' FOR SHARE
            ), newest AS (
                SELECT DISTINCT ON (scope) scope, value FROM audit.settings_log
                WHERE starts_with(scope, 'maintenance/') ORDER BY scope, revision DESC
            ), open AS (
                SELECT scope FROM newest
                WHERE jsonb_typeof(value) = 'object' AND coalesce(value ->> 'flowId', $7) = $7
                  AND (value ->> 'from')::timestamptz <= now() AND (value ->> 'until')::timestamptz > now()
            ), recent AS (
                SELECT 1 FROM trunkline.rollbacks
                WHERE flow_id = $7 AND decision_id <> $1 AND confirmed_at > now() - $9 * interval '1 second'
            ), written AS (
                INSERT INTO trunkline.intents (decision_id, attempt, lease, token, request, parameters)
                SELECT $1, $2, $3, $4, $5, $6 FROM held
                WHERE NOT EXISTS (SELECT 1 FROM open) AND NOT EXISTS (SELECT 1 FROM recent)
                ON CONFLICT (decision_id, attempt) DO NOTHING
                RETURNING 1
            )
            SELECT (SELECT count(*) FROM held) AS held, (SELECT min(scope) FROM open) AS open,
                   (SELECT count(*) FROM recent) AS recent, (SELECT count(*) FROM written) AS written";
        let row = sqlx::query(CLAIM)
            .bind(intent.decision_id.0)
            .bind(i32::try_from(intent.attempt).unwrap_or(i32::MAX))
            .bind(&lease.name)
            .bind(lease.token)
            .bind(Json(&intent.request))
            .bind(Json(&intent.parameters))
            .bind(flow_id)
            .bind(fresh.as_secs_f64())
            .bind(cooldown.as_secs_f64())
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let (held, recent, written): (i64, i64, i64) =
            (row.get("held"), row.get("recent"), row.get("written"));
        let open: Option<String> = row.get("open");
        Ok(match (held, open, recent, written) {
            (0, ..) => RollbackClaim::Answered(Claim::LeaseLost),
            (_, Some(scope), ..) => RollbackClaim::Maintenance(scope),
            (.., 1.., _) => RollbackClaim::Cooldown,
            (.., 0) => RollbackClaim::Answered(Claim::Taken),
            _ => RollbackClaim::Answered(Claim::Granted),
        })
    }

    /// Records how a rollback ended while `lease` is still held, unless it is settled
    /// already, and with it the confirmed change of `flow_id`, if there was one.
    ///
    /// # Errors
    /// When no answer came; the settlement may have been recorded.
    pub async fn settle_rollback(
        &self,
        outcome: &Outcome,
        confirmed: Option<&VersionChange>,
        lease: &Lease,
    ) -> Result<Settlement, Error> {
        const SETTLE: &str = "WITH held AS (
                SELECT 1 FROM trunkline.leases WHERE name = $2 AND token = $3 FOR SHARE
            ), settled AS (
                INSERT INTO trunkline.settlements (decision_id, outcome)
                SELECT $1, $4 FROM held ON CONFLICT (decision_id) DO NOTHING
                RETURNING decision_id
            ), marked AS (
                INSERT INTO trunkline.rollbacks (decision_id, flow_id, bad_version, target_version)
                SELECT decision_id, $5, $6, $7 FROM settled WHERE $7 IS NOT NULL
                ON CONFLICT (decision_id) DO NOTHING
            )
            SELECT count(*) FROM settled";
        let settled: i64 = sqlx::query_scalar(SETTLE)
            .bind(outcome.decision_id.0)
            .bind(&lease.name)
            .bind(lease.token)
            .bind(Json(outcome))
            .bind(&outcome.key)
            .bind(confirmed.map_or("", |change| change.previous_version.as_str()))
            .bind(confirmed.map(|change| change.version.as_str()))
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        if settled == 1 {
            return Ok(Settlement::Stands(Box::new(outcome.clone())));
        }
        let before = self.settlement(outcome.decision_id).await?;
        Ok(before.map_or(Settlement::LeaseLost, |outcome| Settlement::Stands(Box::new(outcome))))
    }

    /// Versions of the flow that were taken back before.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn bad_versions(&self, flow_id: &str) -> Result<Vec<String>, Error> {
        sqlx::query_scalar("SELECT DISTINCT bad_version FROM trunkline.rollbacks WHERE flow_id = $1")
            .bind(flow_id)
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))
    }
}
