//! Conversations between their events and their details. What is to become of one is
//! decided elsewhere; here rows are locked, changed and published in one transaction.

use std::time::Duration;

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Postgres, Row as _, Transaction};

use super::ledger::{Advance, advance};
use super::outbox::{self, Message};
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::organization::OneOf;

/// Where a conversation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be asked about.
    Pending,
    /// Enriched up to its last event.
    Done,
    /// Given up: the platform does not know it.
    NotAvailable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Done => "done",
            State::NotAvailable => "not_available",
        }
    }

    fn of(name: &str) -> Result<Self, sqlx::Error> {
        [State::Pending, State::Done, State::NotAvailable]
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or_else(|| sqlx::Error::Decode(format!("{name:?} is no state of a conversation").into()))
    }
}

/// A conversation's row but for its details.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub conversation_id: String,
    pub summary: Value,
    pub first_event_at: Timestamp,
    pub last_event_at: Timestamp,
    /// Partition and offset of the last event.
    pub position: (i32, i64),
    pub state: State,
    pub attempts: u32,
    pub rounds: i64,
    /// When details came, and up to which event time they were asked for.
    pub enriched: Option<(Timestamp, Timestamp)>,
}

/// How a row is to be from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Change<'a> {
    pub row: Row,
    /// Time until it is asked about; without it as it was.
    pub ask_in: Option<Duration>,
    /// New details; without them the old ones stay.
    pub details: Option<&'a Value>,
}

/// A conversation whose time to be asked about has come.
#[derive(Clone, Debug, PartialEq)]
pub struct DueRow {
    pub conversation_id: String,
    pub first_event_at: Timestamp,
    pub last_event_at: Timestamp,
    pub rounds: i64,
    /// Since when.
    pub waited: Duration,
}

/// What is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// Counted up to a million.
    pub conversations: i64,
    /// How long the one that has been due for longest is due.
    pub oldest: Duration,
}

/// Locks on rows and what is done to them: all of it, once committed, or nothing.
pub struct Enrichment<'d> {
    database: &'d Database,
    transaction: Transaction<'static, Postgres>,
}

const COLUMNS: &str = "conversation_id, summary, partition, \"offset\", state, attempts, rounds, \
     (extract(epoch FROM first_event_at) * 1000)::bigint AS first_event_ms, \
     (extract(epoch FROM last_event_at) * 1000)::bigint AS last_event_ms, \
     (extract(epoch FROM enriched_at) * 1000)::bigint AS enriched_ms, \
     (extract(epoch FROM enriched_up_to) * 1000)::bigint AS up_to_ms";

impl Database {
    /// Begins a transaction.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn enrichment(&self) -> Result<Enrichment<'_>, Error> {
        let transaction = self.pool().begin().await.map_err(|error| self.explain(error))?;
        Ok(Enrichment { database: self, transaction })
    }

    /// Conversations of an organisation that are due, longest first, without those in `except`.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn due_conversations(
        &self,
        of: &OneOf,
        except: &[String],
        most: usize,
    ) -> Result<Vec<DueRow>, Error> {
        let rows: Vec<(String, i64, i64, i64, f64)> = sqlx::query_as(
            "SELECT conversation_id, (extract(epoch FROM first_event_at) * 1000)::bigint,
                    (extract(epoch FROM last_event_at) * 1000)::bigint, rounds,
                    extract(epoch FROM now() - due_at)::float8
             FROM trunkline.conversations
             WHERE state = 'pending' AND due_at <= now() AND conversation_id <> ALL ($1)
                   AND CASE WHEN $3::text IS NULL THEN split_part(conversation_id, ':', 1) <> ALL ($4)
                            ELSE split_part(conversation_id, ':', 1) = $3 END
             ORDER BY due_at LIMIT $2",
        )
        .bind(except)
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .bind(&of.name)
        .bind(&of.further)
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        let due = |(conversation_id, first, last, rounds, waited): (String, i64, i64, i64, f64)| DueRow {
            conversation_id,
            first_event_at: Timestamp::from_millis(first),
            last_event_at: Timestamp::from_millis(last),
            rounds,
            waited: seconds(waited),
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// How much is pending.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn conversation_backlog(&self) -> Result<Backlog, Error> {
        let (conversations, oldest): (i64, f64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM (
                         SELECT FROM trunkline.conversations WHERE state = 'pending' LIMIT 1000000) AS counted),
                    coalesce((SELECT extract(epoch FROM now() - due_at) FROM trunkline.conversations
                              WHERE state = 'pending' ORDER BY due_at LIMIT 1), 0)::float8",
        )
        .fetch_one(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(Backlog { conversations, oldest: seconds(oldest) })
    }

    /// Deletes the conversations that have been settled for longest, `most` of them, if
    /// that was longer ago than `retention`; those that were published are taken back from
    /// `topic`. Returns how many.
    ///
    /// # Errors
    /// When the database cannot be asked; they may be gone.
    pub async fn prune_conversations(
        &self,
        topic: &str,
        retention: Duration,
        most: u32,
    ) -> Result<u64, Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let deleted: Vec<(String, bool)> = sqlx::query_as(
            "WITH old AS (
                 SELECT conversation_id FROM trunkline.conversations
                 WHERE state <> 'pending' AND settled_at < now() - $1 * interval '1 second'
                 ORDER BY settled_at LIMIT $2 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM trunkline.conversations c USING old
             WHERE c.conversation_id = old.conversation_id
             RETURNING c.conversation_id, c.enriched_at IS NOT NULL",
        )
        .bind(retention.as_secs_f64())
        .bind(i64::from(most))
        .fetch_all(&mut *transaction)
        .await
        .map_err(explain)?;
        let published = deleted.iter().filter(|(_, enriched)| *enriched);
        let tombstones: Vec<Message<'_>> = published
            .map(|(id, _)| Message { value: None, ..Message::new(topic, id.as_bytes(), &[]) })
            .collect();
        outbox::append_all(&mut transaction, &tombstones).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(deleted.len() as u64)
    }
}

impl Enrichment<'_> {
    /// Moves the positions of `consumer`; `false` when another writer has moved one, and
    /// nothing may be committed then.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn advance(&mut self, consumer: &str, advances: &[Advance]) -> Result<bool, Error> {
        advance(&mut self.transaction, consumer, advances).await.map_err(|error| self.database.explain(error))
    }

    /// Locks the rows there are and reads them. Everybody locks in the same order.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn lock(&mut self, ids: &[&str]) -> Result<Vec<Row>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM trunkline.conversations WHERE conversation_id = ANY ($1) \
             ORDER BY conversation_id FOR UPDATE"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(ids)
            .fetch_all(&mut *self.transaction)
            .await
            .map_err(|error| self.database.explain(error))?;
        rows.iter().map(read_row).collect::<Result<_, _>>().map_err(|error| self.database.explain(error))
    }

    /// The details of locked rows that have some.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn details(&mut self, ids: &[&str]) -> Result<Vec<(String, Value)>, Error> {
        let rows: Vec<(String, Json<Value>)> = sqlx::query_as(
            "SELECT conversation_id, details FROM trunkline.conversations
             WHERE conversation_id = ANY ($1) AND details IS NOT NULL",
        )
        .bind(ids)
        .fetch_all(&mut *self.transaction)
        .await
        .map_err(|error| self.database.explain(error))?;
        Ok(rows.into_iter().map(|(id, Json(details))| (id, details)).collect())
    }

    /// Adds rows. `false` when another writer has added one of them meanwhile, and nothing
    /// may be committed then.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn add(&mut self, changes: &[Change<'_>]) -> Result<bool, Error> {
        if changes.is_empty() {
            return Ok(true);
        }
        let done = bound(
            "INSERT INTO trunkline.conversations (conversation_id, summary, first_event_at, last_event_at,
                 partition, \"offset\", state, attempts, rounds, due_at)
             SELECT conversation_id, summary::jsonb, to_timestamp(first_event_at::float8 / 1000),
                 to_timestamp(last_event_at::float8 / 1000), partition, position, state, attempts, rounds,
                 now() + coalesce(ask_in, 0) * interval '1 second'
             FROM given ORDER BY conversation_id
             ON CONFLICT (conversation_id) DO NOTHING",
            changes,
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| self.database.explain(error))?;
        Ok(done.rows_affected() == changes.len() as u64)
    }

    /// Changes locked rows.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn change(&mut self, changes: &[Change<'_>]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        bound(
            "UPDATE trunkline.conversations c SET
                 summary = g.summary::jsonb,
                 first_event_at = to_timestamp(g.first_event_at::float8 / 1000),
                 last_event_at = to_timestamp(g.last_event_at::float8 / 1000),
                 partition = g.partition, \"offset\" = g.position, state = g.state, attempts = g.attempts,
                 rounds = g.rounds,
                 due_at = CASE WHEN g.state <> 'pending' THEN NULL
                               WHEN g.ask_in IS NULL THEN c.due_at
                               ELSE now() + g.ask_in * interval '1 second' END,
                 settled_at = CASE WHEN g.state <> 'pending' THEN now() END,
                 enriched_at = to_timestamp(g.enriched_at::float8 / 1000),
                 enriched_up_to = to_timestamp(g.up_to::float8 / 1000),
                 details = coalesce(g.details::jsonb, c.details)
             FROM given g WHERE c.conversation_id = g.conversation_id",
            changes,
        )
        .execute(&mut *self.transaction)
        .await
        .map_err(|error| self.database.explain(error))?;
        Ok(())
    }

    /// Appends messages to the outbox.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn publish(&mut self, messages: &[Message<'_>]) -> Result<(), Error> {
        let appended = outbox::append_all(&mut self.transaction, messages).await;
        appended.map(|_| ()).map_err(|error| self.database.explain(error))
    }

    /// # Errors
    /// When no answer came; it may have been committed: positions and rounds tell.
    pub async fn commit(self) -> Result<(), Error> {
        self.transaction.commit().await.map_err(|error| self.database.explain(error))
    }
}

/// A statement over the changes as a table `given`.
fn bound<'q>(
    statement: &str,
    changes: &'q [Change<'_>],
) -> sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments> {
    let column = |millis: &dyn Fn(&Row) -> i64| changes.iter().map(|c| millis(&c.row)).collect::<Vec<_>>();
    let sql = format!(
        "WITH given AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::int[], $6::bigint[],
                 $7::text[], $8::int[], $9::bigint[], $10::float8[], $11::bigint[], $12::bigint[], $13::text[])
                 AS g(conversation_id, summary, first_event_at, last_event_at, partition, position, state,
                      attempts, rounds, ask_in, enriched_at, up_to, details)
         ) {statement}"
    );
    sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(changes.iter().map(|c| c.row.conversation_id.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.row.summary.to_string()).collect::<Vec<_>>())
        .bind(column(&|row| row.first_event_at.as_millis()))
        .bind(column(&|row| row.last_event_at.as_millis()))
        .bind(changes.iter().map(|c| c.row.position.0).collect::<Vec<_>>())
        .bind(column(&|row| row.position.1))
        .bind(changes.iter().map(|c| c.row.state.name()).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| i32::try_from(c.row.attempts).unwrap_or(i32::MAX)).collect::<Vec<_>>())
        .bind(column(&|row| row.rounds))
        .bind(changes.iter().map(|c| c.ask_in.map(|wait| wait.as_secs_f64())).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.row.enriched.map(|(at, _)| at.as_millis())).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.row.enriched.map(|(_, up_to)| up_to.as_millis())).collect::<Vec<_>>())
        .bind(changes.iter().map(|c| c.details.map(Value::to_string)).collect::<Vec<_>>())
}

fn read_row(row: &PgRow) -> Result<Row, sqlx::Error> {
    let Json(summary): Json<Value> = row.try_get("summary")?;
    let time = |name| Ok::<_, sqlx::Error>(Timestamp::from_millis(row.try_get(name)?));
    let maybe = |name| Ok::<_, sqlx::Error>(row.try_get::<Option<i64>, _>(name)?.map(Timestamp::from_millis));
    Ok(Row {
        conversation_id: row.try_get("conversation_id")?,
        summary,
        first_event_at: time("first_event_ms")?,
        last_event_at: time("last_event_ms")?,
        position: (row.try_get("partition")?, row.try_get("offset")?),
        state: State::of(row.try_get("state")?)?,
        attempts: u32::try_from(row.try_get::<i32, _>("attempts")?).unwrap_or(0),
        rounds: row.try_get("rounds")?,
        enriched: maybe("enriched_ms")?.zip(maybe("up_to_ms")?),
    })
}

fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value).unwrap_or_default()
}
