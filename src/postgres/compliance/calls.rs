//! Revisions of calls: added where they say something new.

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Postgres, Transaction};

use super::super::ledger::{Advance, RecordError};
use super::super::{Database, Error};
use super::{at, time};
use crate::model::Timestamp;
use crate::model::compliance::{Call, Disposition, MessageHeard, Rules, Tally};

/// Writers of calls wait for each other: a revision is numbered after the last.
const WRITERS: i64 = 0x7472_756e_6b63_616c;

/// A call as it is to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedCall {
    pub call: Call,
    pub rules: Rules,
    /// When the platform gave its details.
    pub looked_up_at: Timestamp,
}

/// One revision of a call, as recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRevision {
    pub revision: u32,
    pub call: Call,
    /// As it was judged then.
    pub disposition: String,
    pub heard: Option<String>,
    pub rules: Rules,
    pub looked_up_at: Timestamp,
    pub recorded_at: Timestamp,
}

impl Database {
    /// Records what of `calls` is new and moves the positions of `consumer`: all of it or
    /// nothing. Of several about one conversation the last counts. Returns the revisions added.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn record_calls(
        &self,
        consumer: &str,
        advances: &[Advance],
        calls: &[RecordedCall],
    ) -> Result<u64, RecordError> {
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.moving(consumer, advances).await?;
        let added = add_revisions(&mut transaction, calls).await.map_err(fail)?;
        transaction.commit().await.map_err(fail)?;
        Ok(added)
    }

    /// Records calls that were looked up again, and up to which the campaign's are.
    ///
    /// # Errors
    /// When the database cannot be asked; nothing is recorded then.
    pub async fn record_calls_again(
        &self,
        campaign_id: &str,
        calls: &[RecordedCall],
        upto: (Timestamp, &str),
    ) -> Result<u64, Error> {
        let explain = |error| self.explain(error);
        let mut transaction: Transaction<'static, Postgres> = self.pool().begin().await.map_err(explain)?;
        let added = add_revisions(&mut transaction, calls).await.map_err(explain)?;
        sqlx::query(
            "UPDATE trunkline.compliance_campaigns
             SET again_upto = to_timestamp($2::bigint::float8 / 1000), again_after_id = $3
             WHERE campaign_id = $1 AND (again_upto, again_after_id) < (to_timestamp($2::bigint::float8 / 1000), $3)",
        )
        .bind(campaign_id)
        .bind(upto.0.as_millis())
        .bind(upto.1)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(added)
    }

    /// Calls behind `after` and before `before`, in the order they are looked up again in.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn calls_to_look_up_again(
        &self,
        campaign_id: &str,
        after: (Timestamp, &str),
        before: Timestamp,
        most: u32,
    ) -> Result<Vec<Call>, Error> {
        let sql = format!(
            "SELECT facts FROM audit.calls
             WHERE campaign_id = $1 AND (counted_at, conversation_id) > ({}, $3) AND counted_at < {}
             ORDER BY counted_at, conversation_id LIMIT $5",
            time(2),
            time(4)
        );
        let rows: Vec<Json<Call>> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(campaign_id)
            .bind(after.0.as_millis())
            .bind(after.1)
            .bind(before.as_millis())
            .bind(i64::from(most))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(rows.into_iter().map(|Json(call)| call).collect())
    }

    /// Counts a campaign's calls from `start` on and before `end`, each by its last revision.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn tally_calls(
        &self,
        campaign_id: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<Tally, Error> {
        let sql = format!(
            "SELECT disposition, heard, queue_abandoned, count(*) FROM audit.calls
             WHERE campaign_id = $1 AND counted_at >= {} AND counted_at < {} GROUP BY 1, 2, 3",
            time(2),
            time(3)
        );
        let rows: Vec<(String, Option<String>, Option<bool>, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(campaign_id)
            .bind(start.as_millis())
            .bind(end.as_millis())
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let mut tally = Tally::default();
        for (disposition, heard, in_queue, calls) in rows {
            let Some(disposition) = Disposition::of_name(&disposition) else {
                let error = format!("{disposition:?} is no disposition this version knows").into();
                return Err(self.explain(sqlx::Error::Decode(error)));
            };
            let heard = heard.as_deref().and_then(MessageHeard::of_name);
            tally.add(u64::try_from(calls).unwrap_or(0), disposition, heard, in_queue);
        }
        Ok(tally)
    }

    /// All revisions of the calls that count, by some revision, from `start` on and before `end`;
    /// `most` at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn call_revisions(
        &self,
        campaign_id: &str,
        start: Timestamp,
        end: Timestamp,
        most: u32,
    ) -> Result<Vec<CallRevision>, Error> {
        type Row = (i32, Json<Call>, String, Option<String>, Json<Rules>, i64, i64);
        let sql = format!(
            "SELECT revision, facts, disposition, heard, rules,
                    (extract(epoch FROM looked_up_at) * 1000)::bigint,
                    floor(extract(epoch FROM recorded_at) * 1000)::bigint
             FROM audit.call_log
             WHERE campaign_id = $1 AND conversation_id IN (
                 SELECT conversation_id FROM audit.call_log
                 WHERE campaign_id = $1 AND counted_at >= {} AND counted_at < {})
             ORDER BY conversation_id, revision LIMIT $4",
            time(2),
            time(3)
        );
        let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
            .bind(campaign_id)
            .bind(start.as_millis())
            .bind(end.as_millis())
            .bind(i64::from(most))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let revision = |(revision, call, disposition, heard, rules, looked_up, recorded): Row| CallRevision {
            revision: u32::try_from(revision).unwrap_or(0),
            call: call.0,
            disposition,
            heard,
            rules: rules.0,
            looked_up_at: at(looked_up),
            recorded_at: at(recorded),
        };
        Ok(rows.into_iter().map(revision).collect())
    }
}

/// Adds a revision of each call that says another thing than its last one, and the campaigns
/// that are met for the first time.
async fn add_revisions(connection: &mut PgConnection, calls: &[RecordedCall]) -> Result<u64, sqlx::Error> {
    const ADD: &str = "WITH given AS (
            SELECT DISTINCT ON (conversation_id) *
            FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bool[], $7::text[],
                        $8::text[], $9::bigint[]) WITH ORDINALITY
                 AS g(conversation_id, campaign_id, counted_at, disposition, heard, queue_abandoned, facts, rules,
                      looked_up_at, nth)
            ORDER BY conversation_id, nth DESC
        )
        INSERT INTO audit.call_log (conversation_id, revision, campaign_id, counted_at, disposition, heard,
            queue_abandoned, facts, rules, looked_up_at)
        SELECT g.conversation_id, coalesce(last.revision, 0) + 1, g.campaign_id,
               to_timestamp(g.counted_at::float8 / 1000), g.disposition, g.heard, g.queue_abandoned,
               g.facts::jsonb, g.rules::jsonb, to_timestamp(g.looked_up_at::float8 / 1000)
        FROM given g LEFT JOIN LATERAL (
            SELECT revision, facts FROM audit.call_log l WHERE l.conversation_id = g.conversation_id
            ORDER BY revision DESC LIMIT 1
        ) AS last ON true
        WHERE last.facts IS NULL OR last.facts <> g.facts::jsonb";
    const MEET: &str = "INSERT INTO trunkline.compliance_campaigns
            (campaign_id, began_at, known_upto, restated_upto, again_upto)
        SELECT campaign_id, began_at, began_at, began_at, began_at FROM (
            SELECT campaign_id, to_timestamp(min(counted_at)::float8 / 1000) AS began_at
            FROM unnest($1::text[], $2::bigint[]) AS g(campaign_id, counted_at) GROUP BY 1 ORDER BY 1) AS met
        ON CONFLICT DO NOTHING";
    if calls.is_empty() {
        return Ok(0);
    }
    let json = |value: Result<Value, serde_json::Error>| value.expect("own values are JSON").to_string();
    let counted: Vec<i64> = calls.iter().map(|one| one.call.counted_at().as_millis()).collect();
    let campaigns: Vec<&str> = calls.iter().map(|one| one.call.campaign_id.as_str()).collect();
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(WRITERS).execute(&mut *connection).await?;
    let dispositions: Vec<Disposition> = calls.iter().map(|one| one.call.disposition(one.rules)).collect();
    let heard = |(one, disposition): (&RecordedCall, &Disposition)| {
        (*disposition == Disposition::Abandoned).then(|| one.call.heard(one.rules).name())
    };
    let done = sqlx::query(ADD)
        .bind(calls.iter().map(|one| one.call.conversation_id.as_str()).collect::<Vec<_>>())
        .bind(&campaigns)
        .bind(&counted)
        .bind(dispositions.iter().map(|disposition| disposition.name()).collect::<Vec<_>>())
        .bind(calls.iter().zip(&dispositions).map(heard).collect::<Vec<_>>())
        .bind(calls.iter().map(|one| one.call.abandoned_in_queue()).collect::<Vec<_>>())
        .bind(calls.iter().map(|one| json(serde_json::to_value(&one.call))).collect::<Vec<_>>())
        .bind(calls.iter().map(|one| json(serde_json::to_value(one.rules))).collect::<Vec<_>>())
        .bind(calls.iter().map(|one| one.looked_up_at.as_millis()).collect::<Vec<_>>())
        .execute(&mut *connection)
        .await?;
    sqlx::query(MEET).bind(&campaigns).bind(&counted).execute(&mut *connection).await?;
    Ok(done.rows_affected())
}
