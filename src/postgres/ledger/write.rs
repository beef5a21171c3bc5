//! Writing: rows and the position they were read from go into one transaction, so
//! that neither redelivery nor a writer that was thought dead makes a second row.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::{Connection, PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::super::dead_letters::LoggedDeadLetter;
use super::super::error::{is_about_data, refusal};
use super::super::{Database, Error};
use crate::model::Timestamp;

/// A decision as its topic has it, split into columns. Words stay text, so that a
/// decision of a newer trunkline is kept as well.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedDecision<'a> {
    pub decision_id: Uuid,
    pub sequence: i64,
    #[serde(borrow)]
    pub r#loop: Cow<'a, str>,
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    #[serde(borrow)]
    pub mode: Cow<'a, str>,
    pub decided_at: Timestamp,
    pub event_time: Timestamp,
    #[serde(borrow)]
    pub action: Cow<'a, str>,
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    #[serde(borrow)]
    pub parameters: &'a RawValue,
    #[serde(borrow)]
    pub inputs: &'a RawValue,
    #[serde(borrow)]
    pub policy: LoggedPolicy<'a>,
    pub settings_revision: i64,
    #[serde(borrow)]
    pub cause_ids: &'a RawValue,
    pub expires_at: Timestamp,
}

/// Under which rule.
#[derive(Clone, Debug, Deserialize)]
pub struct LoggedPolicy<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    pub version: u32,
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
}

/// An outcome as its topic has it, split into columns.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedOutcome<'a> {
    pub decision_id: Uuid,
    #[serde(borrow)]
    pub r#loop: Cow<'a, str>,
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    pub sequence: i64,
    #[serde(borrow)]
    pub status: Cow<'a, str>,
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    pub attempts: i64,
    #[serde(borrow, default)]
    pub request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub response: Option<&'a RawValue>,
    #[serde(default)]
    pub requested_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    #[serde(borrow, default)]
    pub effect: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub waited: Option<&'a RawValue>,
}

/// A value with its place in Kafka.
#[derive(Clone, Debug)]
pub struct Logged<'a, T> {
    /// The topic's full name on the brokers.
    pub topic: &'a str,
    /// Which topic of that name, where the brokers tell.
    pub topic_id: Option<Uuid>,
    pub partition: i32,
    pub offset: i64,
    pub value: T,
}

/// How far a partition's position moves with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advance {
    pub topic: String,
    pub partition: i32,
    /// What the position must be now; `None` where none was stored yet.
    pub expected: Option<Stored>,
    pub next: Stored,
}

/// A position as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Which topic of its name it is one in; `None` where that was not known.
    pub topic_id: Option<Uuid>,
    /// Offset of the next record to read.
    pub next_offset: i64,
}

/// What is written together.
#[derive(Clone, Debug, Default)]
pub struct Batch<'a> {
    pub advances: Vec<Advance>,
    pub decisions: Vec<Logged<'a, LoggedDecision<'a>>>,
    pub outcomes: Vec<Logged<'a, LoggedOutcome<'a>>>,
    pub dead_letters: Vec<Logged<'a, LoggedDeadLetter<'a>>>,
}

/// Rows a batch brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub decisions: u64,
    pub outcomes: u64,
    pub dead_letters: u64,
    /// Rows whose decision was recorded before, from another place in Kafka.
    pub duplicates: u64,
}

/// Why nothing of a batch was written, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Another writer moved a position: read the positions again.
    #[error("another writer has moved on")]
    Moved,
    /// The server refuses some of the values for what they are: find them with
    /// [`Database::refusals`].
    #[error(transparent)]
    Refused(Error),
    /// Everything else. Whether the batch was committed tell the positions.
    #[error(transparent)]
    Unavailable(Error),
}

/// A row the server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    /// The server's own words.
    pub reason: String,
}

impl RecordError {
    pub(in crate::postgres) fn of(database: &Database, error: sqlx::Error) -> Self {
        match is_about_data(&error) {
            true => Self::Refused(database.explain(error)),
            false => Self::Unavailable(database.explain(error)),
        }
    }
}

impl Database {
    /// Begins a transaction that moves the positions of `consumer`. They come first: a second
    /// writer waits here, then sees that they moved.
    pub(in crate::postgres) async fn moving(
        &self,
        consumer: &str,
        advances: &[Advance],
    ) -> Result<Transaction<'static, Postgres>, RecordError> {
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.pool().begin().await.map_err(fail)?;
        match advance(&mut transaction, consumer, advances).await.map_err(fail)? {
            true => Ok(transaction),
            false => Err(RecordError::Moved),
        }
    }

    /// The stored positions of `consumer`, in the order of `partitions` (topic's full
    /// name, partition); `None` where nothing was ever stored.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn positions(
        &self,
        consumer: &str,
        partitions: &[(String, i32)],
    ) -> Result<Vec<Option<Stored>>, Error> {
        let (topics, numbers): (Vec<&str>, Vec<i32>) =
            partitions.iter().map(|(topic, partition)| (topic.as_str(), *partition)).unzip();
        let rows: Vec<(Option<Uuid>, Option<i64>)> = sqlx::query_as(
            "SELECT p.topic_id, p.next_offset \
             FROM unnest($2::text[], $3::int[]) WITH ORDINALITY AS w(topic, partition, nth) \
             LEFT JOIN audit.positions p \
               ON p.consumer = $1 AND p.topic = w.topic AND p.partition = w.partition \
             ORDER BY w.nth",
        )
        .bind(consumer)
        .bind(topics)
        .bind(numbers)
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        let stored = |(topic_id, next_offset): (Option<Uuid>, Option<i64>)| {
            next_offset.map(|next_offset| Stored { topic_id, next_offset })
        };
        Ok(rows.into_iter().map(stored).collect())
    }

    /// Writes a batch and moves the positions of `consumer`: all of it or nothing.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn record(&self, consumer: &str, batch: &Batch<'_>) -> Result<Written, RecordError> {
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.moving(consumer, &batch.advances).await?;
        let decisions: Vec<_> = batch.decisions.iter().collect();
        let outcomes: Vec<_> = batch.outcomes.iter().collect();
        let dead_letters: Vec<_> = batch.dead_letters.iter().collect();
        let written = Written {
            decisions: LoggedDecision::insert(&mut transaction, &decisions).await.map_err(fail)?,
            outcomes: LoggedOutcome::insert(&mut transaction, &outcomes).await.map_err(fail)?,
            dead_letters: LoggedDeadLetter::insert(&mut transaction, &dead_letters).await.map_err(fail)?,
            duplicates: 0,
        };
        fail::fail_point!("audit-before-commit", |_| std::process::abort());
        transaction.commit().await.map_err(fail)?;
        fail::fail_point!("audit-after-commit", |_| std::process::abort());
        let given = (batch.decisions.len() + batch.outcomes.len() + batch.dead_letters.len()) as u64;
        let new = written.decisions + written.outcomes + written.dead_letters;
        Ok(Written { duplicates: given - new, ..written })
    }

    /// Which rows of a batch the server refuses, found by halving. Writes nothing.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn refusals(&self, batch: &Batch<'_>) -> Result<Vec<Refusal>, Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let mut refusals = Vec::new();
        find_refused(&mut transaction, &batch.decisions, &mut refusals).await.map_err(explain)?;
        find_refused(&mut transaction, &batch.outcomes, &mut refusals).await.map_err(explain)?;
        find_refused(&mut transaction, &batch.dead_letters, &mut refusals).await.map_err(explain)?;
        transaction.rollback().await.map_err(explain)?;
        Ok(refusals)
    }
}

/// Moves every position that is where it is expected; `false` when one is not.
pub(in crate::postgres) async fn advance(
    connection: &mut PgConnection,
    consumer: &str,
    advances: &[Advance],
) -> Result<bool, sqlx::Error> {
    let moved: i64 = sqlx::query_scalar(
        "WITH wanted AS (
             SELECT * FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::uuid[], $7::uuid[])
                 AS w(topic, partition, expected, next, expected_id, next_id)
         ), moved AS (
             UPDATE audit.positions p SET topic_id = w.next_id, next_offset = w.next, moved_at = now()
             FROM wanted w
             WHERE p.consumer = $1 AND p.topic = w.topic AND p.partition = w.partition
               AND p.next_offset = w.expected AND p.topic_id IS NOT DISTINCT FROM w.expected_id
             RETURNING 1
         ), begun AS (
             INSERT INTO audit.positions (consumer, topic, topic_id, partition, next_offset)
             SELECT $1, topic, next_id, partition, next FROM wanted WHERE expected IS NULL
             ON CONFLICT DO NOTHING
             RETURNING 1
         )
         SELECT (SELECT count(*) FROM moved) + (SELECT count(*) FROM begun)",
    )
    .bind(consumer)
    .bind(advances.iter().map(|a| a.topic.as_str()).collect::<Vec<_>>())
    .bind(advances.iter().map(|a| a.partition).collect::<Vec<_>>())
    .bind(advances.iter().map(|a| a.expected.map(|expected| expected.next_offset)).collect::<Vec<_>>())
    .bind(advances.iter().map(|a| a.next.next_offset).collect::<Vec<_>>())
    .bind(advances.iter().map(|a| a.expected.and_then(|expected| expected.topic_id)).collect::<Vec<_>>())
    .bind(advances.iter().map(|a| a.next.topic_id).collect::<Vec<_>>())
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(moved).is_ok_and(|moved| moved == advances.len()))
}

/// Something that has a table.
pub(in crate::postgres) trait Insert: Sized {
    /// Inserts rows with one statement and counts those that are new.
    async fn insert(connection: &mut PgConnection, rows: &[&Logged<'_, Self>]) -> Result<u64, sqlx::Error>;
}

impl Insert for LoggedDecision<'_> {
    async fn insert(connection: &mut PgConnection, rows: &[&Logged<'_, Self>]) -> Result<u64, sqlx::Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let done = sqlx::query(
            "INSERT INTO audit.decision_log (decision_id, loop, key, sequence, mode, decided_at, event_time,
                 expires_at, action, reason, parameters, inputs, policy, policy_version, policy_hash,
                 settings_revision, cause_ids, topic, partition, \"offset\", topic_id)
             SELECT decision_id, loop, key, sequence, mode, to_timestamp(decided_at::float8 / 1000),
                 to_timestamp(event_time::float8 / 1000), to_timestamp(expires_at::float8 / 1000), action,
                 reason, parameters::jsonb, inputs::jsonb, policy, policy_version, policy_hash,
                 settings_revision, cause_ids::jsonb, topic, partition, position, topic_id
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::bigint[],
                 $7::bigint[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
                 $14::bigint[], $15::text[], $16::bigint[], $17::text[], $18::text[], $19::int[], $20::bigint[],
                 $21::uuid[])
                 AS r(decision_id, loop, key, sequence, mode, decided_at, event_time, expires_at, action,
                 reason, parameters, inputs, policy, policy_version, policy_hash, settings_revision, cause_ids,
                 topic, partition, position, topic_id)
             ON CONFLICT (decision_id) DO NOTHING",
        )
        .bind(column(rows, |row| row.value.decision_id))
        .bind(column(rows, |row| &*row.value.r#loop))
        .bind(column(rows, |row| &*row.value.key))
        .bind(column(rows, |row| row.value.sequence))
        .bind(column(rows, |row| &*row.value.mode))
        .bind(column(rows, |row| row.value.decided_at.as_millis()))
        .bind(column(rows, |row| row.value.event_time.as_millis()))
        .bind(column(rows, |row| row.value.expires_at.as_millis()))
        .bind(column(rows, |row| &*row.value.action))
        .bind(column(rows, |row| &*row.value.reason))
        .bind(column(rows, |row| row.value.parameters.get()))
        .bind(column(rows, |row| row.value.inputs.get()))
        .bind(column(rows, |row| &*row.value.policy.name))
        .bind(column(rows, |row| i64::from(row.value.policy.version)))
        .bind(column(rows, |row| &*row.value.policy.hash))
        .bind(column(rows, |row| row.value.settings_revision))
        .bind(column(rows, |row| row.value.cause_ids.get()))
        .bind(column(rows, |row| row.topic))
        .bind(column(rows, |row| row.partition))
        .bind(column(rows, |row| row.offset))
        .bind(column(rows, |row| row.topic_id))
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

impl Insert for LoggedOutcome<'_> {
    async fn insert(connection: &mut PgConnection, rows: &[&Logged<'_, Self>]) -> Result<u64, sqlx::Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let done = sqlx::query(
            "INSERT INTO audit.outcome_log (decision_id, loop, key, sequence, status, reason, attempts,
                 http_status, request, response, requested_at, finished_at, effect, topic, partition,
                 \"offset\", topic_id, waited)
             SELECT decision_id, loop, key, sequence, status, reason, attempts,
                 (response::jsonb ->> 'status')::integer, request::jsonb, response::jsonb,
                 to_timestamp(requested_at::float8 / 1000), to_timestamp(finished_at::float8 / 1000),
                 effect::jsonb, topic, partition, position, topic_id, waited::jsonb
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[],
                 $7::bigint[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::text[], $13::text[],
                 $14::int[], $15::bigint[], $16::uuid[], $17::text[])
                 AS r(decision_id, loop, key, sequence, status, reason, attempts, request, response,
                 requested_at, finished_at, effect, topic, partition, position, topic_id, waited)
             ON CONFLICT (decision_id, verification) DO NOTHING",
        )
        .bind(column(rows, |row| row.value.decision_id))
        .bind(column(rows, |row| &*row.value.r#loop))
        .bind(column(rows, |row| &*row.value.key))
        .bind(column(rows, |row| row.value.sequence))
        .bind(column(rows, |row| &*row.value.status))
        .bind(column(rows, |row| &*row.value.reason))
        .bind(column(rows, |row| row.value.attempts))
        .bind(column(rows, |row| row.value.request.map(RawValue::get)))
        .bind(column(rows, |row| row.value.response.map(RawValue::get)))
        .bind(column(rows, |row| row.value.requested_at.map(Timestamp::as_millis)))
        .bind(column(rows, |row| row.value.finished_at.as_millis()))
        .bind(column(rows, |row| row.value.effect.map(RawValue::get)))
        .bind(column(rows, |row| row.topic))
        .bind(column(rows, |row| row.partition))
        .bind(column(rows, |row| row.offset))
        .bind(column(rows, |row| row.topic_id))
        .bind(column(rows, |row| row.value.waited.map(RawValue::get)))
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// One column of many rows, as an array parameter.
fn column<'r, R, C>(rows: &[&'r R], field: impl Fn(&'r R) -> C) -> Vec<C> {
    rows.iter().copied().map(field).collect()
}

/// Halves what is refused until single rows are left. Rows that are accepted stay in
/// the transaction, so that rows that contradict each other are found as well.
async fn find_refused<T: Insert>(
    connection: &mut PgConnection,
    rows: &[Logged<'_, T>],
    refusals: &mut Vec<Refusal>,
) -> Result<(), sqlx::Error> {
    let mut open = vec![rows];
    while let Some(part) = open.pop() {
        let mut attempt = connection.begin().await?;
        let all: Vec<_> = part.iter().collect();
        match T::insert(&mut attempt, &all).await {
            Ok(_) => attempt.commit().await?,
            Err(error) if is_about_data(&error) => {
                attempt.rollback().await?;
                match part {
                    [row] => refusals.push(Refusal {
                        topic: row.topic.to_owned(),
                        partition: row.partition,
                        offset: row.offset,
                        reason: refusal(&error),
                    }),
                    _ => {
                        let (first, second) = part.split_at(part.len() / 2);
                        open.push(second);
                        open.push(first);
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
