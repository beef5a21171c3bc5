//! Messages for topics that leave with the transaction that wrote them: appended
//! beside the rows they tell of, published by the role `outbox` in the order of
//! their ids, each exactly once.

use std::borrow::Cow;
use std::time::Duration;

use sqlx::PgConnection;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::headers::{from_json, to_json};
use super::leases::Lease;
use super::{Database, Error};

/// A message to be published.
#[derive(Clone, Debug)]
pub struct Message<'a> {
    /// The topic's name without the installation's prefix.
    pub topic: &'a str,
    pub key: Option<&'a [u8]>,
    /// At most 16 MiB with the key, and what the topic allows.
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
    /// Whether the topic's own headers (`content-type`, `trunkline-schema`) are added
    /// when it is published. Not for records that are to leave as they came.
    pub described: bool,
    /// A second message with the same key is not appended, within
    /// [`KEYS_KEPT`] at least.
    pub dedupe_key: Option<&'a str>,
}

/// How long dedupe keys are remembered.
pub const KEYS_KEPT: Duration = Duration::from_secs(30 * 86_400);

impl<'a> Message<'a> {
    /// A message of ours, with the topic's own headers.
    pub fn new(topic: &'a str, key: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            topic,
            key: Some(key),
            value: Some(value),
            headers: Vec::new(),
            described: true,
            dedupe_key: None,
        }
    }

    /// Adds a header, `traceparent` for one.
    #[must_use]
    pub fn with_header(mut self, name: &'a str, value: &'a [u8]) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Makes it part of the trace that this `traceparent` names, unless it is empty.
    #[must_use]
    pub fn of_trace(self, traceparent: &'a [u8]) -> Self {
        if traceparent.is_empty() { self } else { self.with_header("traceparent", traceparent) }
    }

    /// See [`dedupe_key`](Self::dedupe_key).
    #[must_use]
    pub fn once(mut self, dedupe_key: &'a str) -> Self {
        self.dedupe_key = Some(dedupe_key);
        self
    }

    fn headers_as_json(&self) -> String {
        to_json(self.headers.iter().map(|(name, value)| (name.as_ref(), value.as_ref())))
    }
}

/// Appends one message in the caller's transaction. `false` when its dedupe key is
/// known already.
///
/// # Errors
/// When the row is not taken; the transaction cannot go on then.
pub async fn append(transaction: &mut PgConnection, message: &Message<'_>) -> Result<bool, sqlx::Error> {
    Ok(append_all(transaction, std::slice::from_ref(message)).await? == 1)
}

/// Appends messages in the caller's transaction with one statement; they leave in
/// this order. Returns how many were new: of those with the same dedupe key the first.
///
/// # Errors
/// As [`append`].
pub async fn append_all(
    transaction: &mut PgConnection,
    messages: &[Message<'_>],
) -> Result<u64, sqlx::Error> {
    const APPEND: &str = "WITH given AS (
            SELECT *, row_number() OVER (PARTITION BY dedupe_key ORDER BY nth) AS time
            FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::text[], $5::bool[], $6::text[])
                 WITH ORDINALITY AS g(topic, key, value, headers, described, dedupe_key, nth)
        ), fresh AS (
            INSERT INTO trunkline.outbox_keys (dedupe_key)
            SELECT dedupe_key FROM given WHERE dedupe_key IS NOT NULL AND time = 1 ORDER BY dedupe_key
            ON CONFLICT (dedupe_key) DO NOTHING
            RETURNING dedupe_key
        )
        INSERT INTO trunkline.outbox (topic, key, value, headers, described)
        SELECT topic, key, value, headers::jsonb, described
        FROM given
        WHERE dedupe_key IS NULL OR (time = 1 AND dedupe_key IN (SELECT dedupe_key FROM fresh))
        ORDER BY nth";
    if messages.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query(APPEND)
        .bind(messages.iter().map(|message| message.topic).collect::<Vec<_>>())
        .bind(messages.iter().map(|message| message.key).collect::<Vec<_>>())
        .bind(messages.iter().map(|message| message.value).collect::<Vec<_>>())
        .bind(messages.iter().map(Message::headers_as_json).collect::<Vec<_>>())
        .bind(messages.iter().map(|message| message.described).collect::<Vec<_>>())
        .bind(messages.iter().map(|message| message.dedupe_key).collect::<Vec<_>>())
        .execute(transaction)
        .await?;
    Ok(done.rows_affected())
}

/// A message waiting to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub id: i64,
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub described: bool,
}

impl sqlx::FromRow<'_, PgRow> for Waiting {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            topic: row.try_get("topic")?,
            key: row.try_get("key")?,
            value: row.try_get("value")?,
            headers: from_json(row.try_get("headers")?)?,
            described: row.try_get("described")?,
        })
    }
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    pub messages: i64,
    /// Age of the oldest, seconds.
    pub oldest_seconds: f64,
}

/// Which outbox this is, and how far its ids have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub id: Uuid,
    /// The last id given out; 0 before the first.
    pub last: i64,
}

impl Database {
    /// Appends messages in a transaction of their own. Returns how many were new.
    ///
    /// # Errors
    /// When the database does not take them; they may be there then.
    pub async fn append_to_outbox(&self, messages: &[Message<'_>]) -> Result<u64, Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let appended = append_all(&mut transaction, messages).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(appended)
    }

    /// Which outbox this is.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn outbox_identity(&self) -> Result<Identity, Error> {
        let (id, last) = sqlx::query_as(
            "SELECT i.id, CASE WHEN s.is_called THEN s.last_value ELSE s.last_value - 1 END
             FROM trunkline.outbox_identity i, trunkline.outbox_id_seq s",
        )
        .fetch_one(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(Identity { id, last })
    }

    /// The messages after `mark` in order: `messages` and `bytes` of values at most,
    /// but one if there is one. Leaves out what an open transaction may still precede.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn outbox_after(&self, mark: i64, messages: i64, bytes: i64) -> Result<Vec<Waiting>, Error> {
        const ANY: &str = "SELECT EXISTS (SELECT FROM trunkline.outbox WHERE id > $1)";
        const READ: &str = "SELECT id, topic, key, value, headers, described FROM (
                SELECT *, sum(coalesce(octet_length(value), 0)) OVER (ORDER BY id)
                          - coalesce(octet_length(value), 0) AS bytes_before
                FROM (SELECT * FROM trunkline.outbox WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3) AS next
            ) AS summed
            WHERE bytes_before < $4 ORDER BY id";
        let explain = |error| self.explain(error);
        let any: bool = sqlx::query_scalar(ANY).bind(mark).fetch_one(self.pool()).await.map_err(explain)?;
        if !any {
            return Ok(Vec::new());
        }
        // Before the rows are looked at, by a statement of its own: what ended in between is seen.
        let settled: i64 = sqlx::query_scalar("SELECT trunkline.outbox_settled()")
            .fetch_one(self.pool())
            .await
            .map_err(explain)?;
        sqlx::query_as(READ)
            .bind(mark)
            .bind(settled)
            .bind(messages)
            .bind(bytes)
            .fetch_all(self.pool())
            .await
            .map_err(explain)
    }

    /// Deletes what is published, up to and with `mark`, while `lease` is still held.
    ///
    /// # Errors
    /// When the database cannot be asked; they may have been deleted.
    pub async fn delete_published(&self, mark: i64, lease: &Lease) -> Result<u64, Error> {
        let deleted = sqlx::query(
            "DELETE FROM trunkline.outbox WHERE id <= $1
               AND EXISTS (SELECT FROM trunkline.leases WHERE name = $2 AND token = $3)",
        )
        .bind(mark)
        .bind(&lease.name)
        .bind(lease.token)
        .execute(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(deleted.rows_affected())
    }

    /// Forgets dedupe keys older than [`KEYS_KEPT`], 10 000 at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn forget_outbox_keys(&self) -> Result<u64, Error> {
        let forgotten = sqlx::query(
            "DELETE FROM trunkline.outbox_keys WHERE dedupe_key IN (
                 SELECT dedupe_key FROM trunkline.outbox_keys
                 WHERE appended_at < now() - $1 * interval '1 second' ORDER BY appended_at LIMIT 10000)",
        )
        .bind(KEYS_KEPT.as_secs_f64())
        .execute(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(forgotten.rows_affected())
    }

    /// How much waits after `mark`; counted up to 100 000.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn outbox_backlog(&self, mark: i64) -> Result<Backlog, Error> {
        let (messages, oldest_seconds) = sqlx::query_as(
            "SELECT count(*), coalesce(extract(epoch FROM now() - min(appended_at)), 0)::float8
             FROM (SELECT appended_at FROM trunkline.outbox WHERE id > $1 ORDER BY id LIMIT 100000) AS w",
        )
        .bind(mark)
        .fetch_one(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(Backlog { messages, oldest_seconds })
    }
}
