//! Intents before a change outside, settlements after it.
//!
//! Both are written on the condition that the writer's lease is still its own.
//! The condition is part of the INSERT and locks the lease's row until it is
//! committed: whoever takes the lease afterwards sees every row written under it.
//! Whether the change may still be made is asked in the same statement, by this
//! database's clock: a process whose own clock is wrong does nothing too late.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::Row;
use sqlx::types::Json;

use super::leases::Lease;
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::campaign::DialParameters;
use crate::model::decision::{DecisionId, Loop};
use crate::model::outcome::{Outcome, SentRequest};
use crate::model::pause::{self, Extent};

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
    /// Token of the lease it was claimed under.
    pub token: i64,
    pub claimed_at: Timestamp,
}

/// What is known about a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct History<P = DialParameters> {
    /// In the order of their attempts.
    pub intents: Vec<Claimed<P>>,
    pub settlement: Option<Outcome>,
    /// The database's time.
    pub now: Timestamp,
}

/// What a claim asks besides the lease.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Terms<'a> {
    /// While it is paused nothing is claimed.
    pub of: Loop,
    /// From then on nothing is claimed.
    pub expires_at: Timestamp,
    /// The lease was taken or renewed within this time.
    pub renewed_within: Option<Duration>,
    /// Where the change is of a flow's version.
    pub flow: Option<FlowTerms<'a>>,
}

/// What a claim asks about a flow: no maintenance window is open for it, the version was
/// not taken back before, and no other rollback locks the flow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowTerms<'a> {
    pub flow_id: &'a str,
    /// The version that is to be in force.
    pub version: &'a str,
    /// When the facts behind the decision were observed. A rollback locks the flow from that
    /// moment of its own decision on, for the deciding stage and here alike.
    pub event_time: Timestamp,
    pub lockout: Duration,
}

/// A confirmed change of a flow's version, to be remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowChange<'a> {
    pub flow_id: &'a str,
    pub bad_version: &'a str,
    pub version: &'a str,
    /// As in [`FlowTerms`].
    pub event_time: Timestamp,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    Granted,
    /// Somebody else has the lease.
    LeaseLost,
    /// This attempt is on record already: look at the [`History`].
    Taken,
    /// The decision is too old.
    Expired,
    /// People have paused the loop: as an outcome says it.
    Paused(String),
    /// A maintenance window is open: its scope.
    Maintenance(String),
    /// The flow was rolled back not long ago; decisions on facts from before this are refused.
    LockedOut(Timestamp),
    /// The version was taken back before.
    TakenBack,
}

/// The answer to a settlement.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// This is how the decision ended: as given, or as settled before.
    Stands(Box<Outcome>),
    /// Somebody else has the lease, and nothing is settled yet.
    LeaseLost,
}

/// Parameters: 1 decision, 2 attempt, 3 lease, 4 token, 5 request, 6 parameters, 7 seconds since
/// the renewal, 8 expiry in ms, 9 flow, 10 version, 11 event time in ms, 12 lockout in ms,
/// 13 scopes of the pauses that stop the loop.
const CLAIM: &str = "WITH held AS (
        SELECT 1 FROM trunkline.leases
        WHERE name = $3 AND token = $4
          AND ($7::float8 IS NULL OR taken_at > clock_timestamp() - $7 * interval '1 second') FOR SHARE
    ), moment AS MATERIALIZED (
        SELECT extract(epoch FROM clock_timestamp()) * 1000 >= $8::bigint AS late FROM held
    ), newest AS (
        SELECT DISTINCT ON (scope) scope, value FROM audit.settings_log
        WHERE $9::text IS NOT NULL AND starts_with(scope, 'maintenance/') ORDER BY scope, revision DESC
    ), open AS (
        SELECT scope FROM newest
        WHERE jsonb_typeof(value) = 'object' AND coalesce(value ->> 'flowId', $9) = $9
          AND (value ->> 'from')::timestamptz <= now() AND (value ->> 'until')::timestamptz > now()
    ), stopped AS (
        SELECT who, value ->> 'reason' AS reason FROM (
            SELECT DISTINCT ON (scope) scope, value, who FROM audit.settings_log
            WHERE scope = ANY($13::text[]) ORDER BY scope, revision DESC
        ) AS pauses WHERE jsonb_typeof(value) = 'object' ORDER BY scope DESC LIMIT 1
    ), locked AS (
        SELECT max((extract(epoch FROM coalesce(event_time, confirmed_at)) * 1000)::bigint) + $12::bigint AS until
        FROM trunkline.rollbacks WHERE flow_id = $9 AND decision_id <> $1
    ), taken_back AS (
        SELECT 1 FROM trunkline.rollbacks WHERE flow_id = $9 AND bad_version = $10::text AND decision_id <> $1
    ), written AS (
        INSERT INTO trunkline.intents (decision_id, attempt, lease, token, request, parameters, expires_at)
        SELECT $1, $2, $3, $4, $5, $6, to_timestamp($8::bigint / 1000.0) FROM moment
        WHERE NOT late AND NOT EXISTS (SELECT 1 FROM open) AND NOT EXISTS (SELECT 1 FROM stopped)
          AND NOT EXISTS (SELECT 1 FROM locked WHERE until > $11::bigint)
          AND NOT EXISTS (SELECT 1 FROM taken_back)
        ON CONFLICT (decision_id, attempt) DO NOTHING
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM held) AS held, (SELECT late FROM moment) AS late,
           (SELECT who FROM stopped) AS stopped_by, (SELECT reason FROM stopped) AS stopped_why,
           (SELECT min(scope) FROM open) AS open, (SELECT until FROM locked WHERE until > $11::bigint) AS until,
           (SELECT count(*) FROM taken_back) AS taken_back, (SELECT count(*) FROM written) AS written";

impl Database {
    /// Records an intent while `lease` is still held and the terms hold.
    ///
    /// # Errors
    /// When no answer came; the intent may have been recorded.
    pub async fn claim<P: Serialize + Sync>(
        &self,
        intent: &Intent<P>,
        lease: &Lease,
        terms: &Terms<'_>,
    ) -> Result<Claim, Error> {
        let flow = terms.flow;
        let row = sqlx::query(CLAIM)
            .bind(intent.decision_id.0)
            .bind(i32::try_from(intent.attempt).unwrap_or(i32::MAX))
            .bind(&lease.name)
            .bind(lease.token)
            .bind(Json(&intent.request))
            .bind(serde_json::to_value(&intent.parameters).expect("own values are JSON"))
            .bind(terms.renewed_within.map(|within| within.as_secs_f64()))
            .bind(terms.expires_at.as_millis())
            .bind(flow.map(|flow| flow.flow_id))
            .bind(flow.map(|flow| flow.version))
            .bind(flow.map(|flow| flow.event_time.as_millis()))
            .bind(flow.map(|flow| i64::try_from(flow.lockout.as_millis()).unwrap_or(i64::MAX / 2)))
            .bind([Extent::One(terms.of), Extent::All].map(Extent::scope))
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let (who, why): (Option<String>, Option<String>) = (row.get("stopped_by"), row.get("stopped_why"));
        let paused = who.map(|who| pause::told(&who, why.as_deref().unwrap_or_default()));
        let (held, taken_back, written): (i64, i64, i64) =
            (row.get("held"), row.get("taken_back"), row.get("written"));
        let (late, open, until): (Option<bool>, Option<String>, Option<i64>) =
            (row.get("late"), row.get("open"), row.get("until"));
        Ok(match (paused, open, until) {
            _ if held == 0 => Claim::LeaseLost,
            _ if written > 0 => Claim::Granted,
            _ if late == Some(true) => Claim::Expired,
            (Some(told), ..) => Claim::Paused(told),
            (None, Some(scope), _) => Claim::Maintenance(scope),
            (None, None, Some(until)) => Claim::LockedOut(Timestamp::from_millis(until)),
            (None, None, None) if taken_back > 0 => Claim::TakenBack,
            (None, None, None) => Claim::Taken,
        })
    }

    /// Records how a decision ended while `lease` is still held, unless it is
    /// settled already, and with it the change of a flow's version that was confirmed.
    ///
    /// # Errors
    /// When no answer came; the settlement may have been recorded.
    pub async fn settle(
        &self,
        outcome: &Outcome,
        change: Option<&FlowChange<'_>>,
        lease: &Lease,
    ) -> Result<Settlement, Error> {
        const SETTLE: &str = "WITH held AS (
                SELECT 1 FROM trunkline.leases WHERE name = $2 AND token = $3 FOR SHARE
            ), settled AS (
                INSERT INTO trunkline.settlements (decision_id, outcome)
                SELECT $1, $4 FROM held ON CONFLICT (decision_id) DO NOTHING
                RETURNING decision_id
            ), remembered AS (
                INSERT INTO trunkline.rollbacks (decision_id, flow_id, bad_version, target_version, event_time)
                SELECT decision_id, $5, $6, $7, to_timestamp($8::bigint / 1000.0) FROM settled WHERE $5::text IS NOT NULL
                ON CONFLICT (decision_id) DO NOTHING
            )
            SELECT count(*) FROM settled";
        let settled: i64 = sqlx::query_scalar(SETTLE)
            .bind(outcome.decision_id.0)
            .bind(&lease.name)
            .bind(lease.token)
            .bind(Json(outcome))
            .bind(change.map(|change| change.flow_id))
            .bind(change.map(|change| change.bad_version))
            .bind(change.map(|change| change.version))
            .bind(change.map(|change| change.event_time.as_millis()))
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        if settled == 1 {
            return Ok(Settlement::Stands(Box::new(outcome.clone())));
        }
        let before = self.settlement(outcome.decision_id).await?;
        Ok(before.map_or(Settlement::LeaseLost, |outcome| Settlement::Stands(Box::new(outcome))))
    }

    /// What is on record about a decision.
    ///
    /// # Errors
    /// When the database cannot be asked, or what it holds cannot be read.
    pub async fn history<P: DeserializeOwned + Send + Unpin>(
        &self,
        decision_id: DecisionId,
    ) -> Result<History<P>, Error> {
        const INTENTS: &str = "SELECT attempt, token, request, parameters,
                (extract(epoch FROM claimed_at) * 1000)::bigint AS claimed_at_ms
            FROM trunkline.intents WHERE decision_id = $1 ORDER BY attempt";
        const SETTLED: &str =
            "SELECT (SELECT outcome FROM trunkline.settlements WHERE decision_id = $1) AS outcome,
                (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms";
        let row = sqlx::query(SETTLED)
            .bind(decision_id.0)
            .fetch_one(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let now = Timestamp::from_millis(row.get("now_ms"));
        let settlement = self.outcome(row.get("outcome"))?;
        let rows = sqlx::query(INTENTS)
            .bind(decision_id.0)
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let intents = rows
            .into_iter()
            .map(|row| {
                let attempt: i32 = row.try_get("attempt")?;
                let token: i64 = row.try_get("token")?;
                let Json(request): Json<SentRequest> = row.try_get("request")?;
                let Json(parameters): Json<P> = row.try_get("parameters")?;
                let claimed_at: i64 = row.try_get("claimed_at_ms")?;
                let attempt = u32::try_from(attempt).unwrap_or(0);
                Ok(Claimed {
                    intent: Intent { decision_id, attempt, request, parameters },
                    token,
                    claimed_at: Timestamp::from_millis(claimed_at),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|error| self.explain(error))?;
        Ok(History { intents, settlement, now })
    }

    async fn settlement(&self, decision_id: DecisionId) -> Result<Option<Outcome>, Error> {
        let found = sqlx::query_scalar("SELECT outcome FROM trunkline.settlements WHERE decision_id = $1")
            .bind(decision_id.0)
            .fetch_optional(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        self.outcome(found)
    }

    fn outcome(&self, found: Option<Json<Value>>) -> Result<Option<Outcome>, Error> {
        found
            .map(|Json(value)| serde_json::from_value(value))
            .transpose()
            .map_err(|error| self.explain(sqlx::Error::Decode(Box::new(error))))
    }
}
