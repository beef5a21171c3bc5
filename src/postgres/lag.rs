//! The newest evaluation of each consumer group.

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::ledger::{Advance, RecordError};
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::lag::{LagEvaluation, LagStatus};

/// Groups not heard of for this long are no longer listed.
const LISTED_FOR: &str = "1 hour";
/// And their rows are removed after this.
const KEPT_FOR: &str = "7 days";

/// How a group is now.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct GroupStatus {
    pub group: String,
    /// `UNKNOWN` where nothing was heard of it for several polls.
    pub status: LagStatus,
    /// Records it has yet to read; null where only analytics are known.
    pub lag: Option<u64>,
    /// How long the head of its longest line has waited.
    pub age_seconds: f64,
    /// What led to the status, worst first, for people.
    pub reasons: Vec<String>,
    pub observed_at: Timestamp,
    /// Consumers that would be right; null where nobody can tell.
    pub replicas: Option<u32>,
    /// The newest evaluation, as on its topic.
    pub evaluation: LagEvaluation,
}

impl GroupStatus {
    fn new(evaluation: LagEvaluation, stale: bool) -> Self {
        let mut reasons: Vec<String> = evaluation
            .reasons
            .iter()
            .map(|reason| match &reason.example {
                Some(example) => format!("{} ({}, {})", reason.rule, reason.count, example),
                None => reason.rule.clone(),
            })
            .collect();
        if stale {
            reasons.insert(0, format!("not_observed_since ({})", evaluation.observed_at));
        }
        Self {
            group: evaluation.consumer_group.clone(),
            status: if stale { LagStatus::Unknown } else { evaluation.status },
            lag: evaluation.lag,
            age_seconds: evaluation.age_seconds,
            reasons,
            observed_at: evaluation.observed_at,
            replicas: evaluation.replicas,
            evaluation,
        }
    }
}

/// The status is known as such even where another clock wrote it.
const COLUMNS: &str = "evaluation::text AS evaluation, valid_until < now() AS stale";

impl Database {
    /// Keeps evaluations that are newer than those held, and moves the positions of `consumer`:
    /// all of it or nothing. Only the last of each group may be given.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn put_lag_status(
        &self,
        consumer: &str,
        advances: &[Advance],
        evaluations: &[&LagEvaluation],
    ) -> Result<(), RecordError> {
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.moving(consumer, advances).await?;
        let texts: Vec<String> = evaluations
            .iter()
            .map(|evaluation| serde_json::to_string(evaluation).expect("own values are JSON"))
            .collect();
        let column = |of: fn(&LagEvaluation) -> i64| -> Vec<i64> {
            evaluations.iter().map(|evaluation| of(evaluation)).collect()
        };
        let groups: Vec<&str> = evaluations.iter().map(|evaluation| &*evaluation.consumer_group).collect();
        let statuses: Vec<&str> = evaluations.iter().map(|evaluation| evaluation.status.name()).collect();
        sqlx::query(
            "INSERT INTO trunkline.lag_status AS held
                 (consumer_group, observed_at, valid_until, status, evaluation)
             SELECT consumer_group, to_timestamp(observed_at::float8 / 1000),
                 to_timestamp(valid_until::float8 / 1000), status, evaluation::jsonb
             FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[])
                 AS r(consumer_group, observed_at, valid_until, status, evaluation)
             ON CONFLICT (consumer_group) DO UPDATE
             SET observed_at = excluded.observed_at, valid_until = excluded.valid_until,
                 status = excluded.status, evaluation = excluded.evaluation
             WHERE excluded.observed_at > held.observed_at",
        )
        .bind(groups)
        .bind(column(|evaluation| evaluation.observed_at.as_millis()))
        .bind(column(|evaluation| evaluation.valid_until.as_millis()))
        .bind(statuses)
        .bind(texts)
        .execute(&mut *transaction)
        .await
        .map_err(fail)?;
        transaction.commit().await.map_err(fail)
    }

    /// Removes groups that nobody has heard of for a week.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn prune_lag_status(&self) -> Result<u64, Error> {
        let done = sqlx::query("DELETE FROM trunkline.lag_status WHERE valid_until < now() - $1::interval")
            .bind(KEPT_FOR)
            .execute(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(done.rows_affected())
    }

    /// Groups by name, those after `after` only.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn lag_statuses(&self, after: Option<&str>, limit: u32) -> Result<Vec<GroupStatus>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM trunkline.lag_status
             WHERE valid_until > now() - $1::interval AND ($2::text IS NULL OR consumer_group > $2)
             ORDER BY consumer_group LIMIT $3"
        )))
        .bind(LISTED_FOR)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        rows.iter().map(|row| self.lag_row(row)).collect()
    }

    /// One group, however long ago it was heard of.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn lag_status(&self, group: &str) -> Result<Option<GroupStatus>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM trunkline.lag_status WHERE consumer_group = $1"
        )))
        .bind(group)
        .fetch_optional(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        row.as_ref().map(|row| self.lag_row(row)).transpose()
    }

    fn lag_row(&self, row: &PgRow) -> Result<GroupStatus, Error> {
        let text: String = row.get("evaluation");
        let evaluation = serde_json::from_str(&text)
            .map_err(|error| self.explain(sqlx::Error::Decode(Box::new(error))))?;
        Ok(GroupStatus::new(evaluation, row.get("stale")))
    }
}
