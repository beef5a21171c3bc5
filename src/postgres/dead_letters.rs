//! Dead letters in the ledger: looked at by people, and sent on their way again.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::headers::{Bytes, from_json, to_json};
use super::ledger::{Insert, Logged};
use super::outbox::{Message, append};
use super::{Database, Error};
use crate::model::Timestamp;

/// A dead letter as its topic has it, split into columns.
#[derive(Clone, Debug)]
pub struct LoggedDeadLetter<'a> {
    pub stage: String,
    pub reason: String,
    /// Where it was read: the topic's full name, partition, offset.
    pub source: Option<(String, i32, i64)>,
    /// Which topic of that name; `None` where its headers do not tell.
    pub source_topic_id: Option<Uuid>,
    pub set_aside_at: Timestamp,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// Its original ones.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

impl Insert for LoggedDeadLetter<'_> {
    async fn insert(connection: &mut PgConnection, rows: &[&Logged<'_, Self>]) -> Result<u64, sqlx::Error> {
        if rows.is_empty() {
            return Ok(0);
        }
        let source = |row: &&Logged<'_, Self>| row.value.source.clone();
        let done = sqlx::query(
            "INSERT INTO audit.dead_letter_log (dead_letter_topic, partition, \"offset\", stage, reason,
                 source_topic, source_partition, source_offset, set_aside_at, key, value, headers,
                 dead_letter_topic_id, source_topic_id)
             SELECT dead_letter_topic, partition, position, stage, reason, source_topic, source_partition,
                 source_offset, to_timestamp(set_aside_at::float8 / 1000), key, value, headers::jsonb,
                 dead_letter_topic_id, source_topic_id
             FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::int[],
                 $8::bigint[], $9::bigint[], $10::bytea[], $11::bytea[], $12::text[], $13::uuid[], $14::uuid[])
                 AS r(dead_letter_topic, partition, position, stage, reason, source_topic, source_partition,
                 source_offset, set_aside_at, key, value, headers, dead_letter_topic_id, source_topic_id)
             ON CONFLICT DO NOTHING",
        )
        .bind(rows.iter().map(|row| row.topic).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.partition).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.offset).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.value.stage.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.value.reason.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| source(row).map(|source| source.0)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| source(row).map(|source| source.1)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| source(row).map(|source| source.2)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.value.set_aside_at.as_millis()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.value.key).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.value.value).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| to_json(row.value.headers.iter().copied())).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.topic_id.unwrap_or_default()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.value.source_topic_id.unwrap_or_default()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Its place on the topic of dead letters, written `partition/offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadLetterId {
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl FromStr for DeadLetterId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (partition, offset) = text.split_once('/')?;
            let id = Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
            (id.partition >= 0 && id.offset >= 0).then_some(id)
        };
        parse().ok_or("an id such as 2/117, from `trunkline dead-letters list`")
    }
}

impl Serialize for DeadLetterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A dead letter without its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    pub id: DeadLetterId,
    /// The topic of dead letters it stands on: one that was made again has the same places anew.
    pub dead_letter_topic_id: Uuid,
    pub stage: String,
    pub reason: String,
    /// Where it was read: the topic's full name. Null where its headers do not tell.
    pub topic: Option<String>,
    /// Which topic of that name it was; all zeros where its headers do not tell.
    pub topic_id: Uuid,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
    pub set_aside_at: Timestamp,
    #[serde(serialize_with = "readable")]
    pub key: Option<Vec<u8>>,
    pub value_bytes: Option<i32>,
    /// When it was sent again, and by whom.
    pub redriven_at: Option<Timestamp>,
    pub redriven_by: Option<String>,
}

/// A dead letter whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    #[serde(flatten)]
    pub summary: Summary,
    #[serde(serialize_with = "readable")]
    pub value: Option<Vec<u8>>,
    #[serde(serialize_with = "readable_pairs")]
    pub headers: Vec<(String, Vec<u8>)>,
}

fn readable<S: serde::Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.as_deref().map(Bytes::of).serialize(serializer)
}

fn readable_pairs<S: serde::Serializer>(
    pairs: &[(String, Vec<u8>)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(pairs.iter().map(|(name, value)| (name, Bytes::of(value))))
}

/// Which dead letters are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Read from this topic: full name.
    pub topic: Option<String>,
    pub stage: Option<String>,
    /// The reason begins with this.
    pub reason: Option<String>,
    /// Set aside at this time or later.
    pub from: Option<Timestamp>,
    /// Set aside before this time.
    pub to: Option<Timestamp>,
    /// Without those that were sent again.
    pub open: bool,
}

/// What became of a wish to send one again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redrive {
    /// It is in the outbox.
    Appended,
    /// It was sent again before, by whom and when.
    Before { who: String, at: Timestamp },
}

/// Header of a record that was sent again: the place of its dead letter.
pub const REDRIVEN_FROM: &str = "trunkline-redriven-from";

const COLUMNS: &str = "d.partition, d.\"offset\", d.stage, d.reason, d.source_topic, d.source_partition,
    d.source_offset, d.source_topic_id, d.dead_letter_topic_id, (extract(epoch FROM d.set_aside_at) * 1000)::bigint AS set_aside_at, d.key,
    octet_length(d.value) AS value_bytes, (extract(epoch FROM r.redriven_at) * 1000)::bigint AS redriven_at,
    r.who AS redriven_by";
/// What was sent again of the record of dead letter `d`, whichever copy of it was named: one of
/// them may not know which topic it was.
const REDRIVE: &str = "LATERAL (SELECT * FROM audit.redrive_log r
    WHERE r.source_topic = d.source_topic AND r.source_partition = d.source_partition
      AND r.source_offset = d.source_offset
      AND (r.source_topic_id = d.source_topic_id
           OR '00000000-0000-0000-0000-000000000000' IN (r.source_topic_id, d.source_topic_id))
    ORDER BY r.redriven_at DESC LIMIT 1) AS r";

impl Database {
    /// At most `limit` dead letters of `topic`, the topic of dead letters with its full
    /// name: newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn dead_letters(
        &self,
        topic: &str,
        filter: &Filter,
        limit: i64,
    ) -> Result<Vec<Summary>, Error> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT ");
        query.push(COLUMNS).push(" FROM audit.dead_letter_log d LEFT JOIN ").push(REDRIVE);
        query.push(" ON true WHERE d.dead_letter_topic = ").push_bind(topic);
        if let Some(source) = &filter.topic {
            query.push(" AND d.source_topic = ").push_bind(source);
        }
        if let Some(stage) = &filter.stage {
            query.push(" AND d.stage = ").push_bind(stage);
        }
        if let Some(reason) = &filter.reason {
            query.push(" AND starts_with(d.reason, ").push_bind(reason).push(")");
        }
        for (comparison, time) in [(">=", filter.from), ("<", filter.to)] {
            if let Some(time) = time {
                query.push(" AND d.set_aside_at ").push(comparison).push(" to_timestamp(");
                query.push_bind(time.as_millis()).push("::bigint::float8 / 1000)");
            }
        }
        if filter.open {
            query.push(" AND r.who IS NULL");
        }
        query
            .push(" ORDER BY d.set_aside_at DESC, d.partition DESC, d.\"offset\" DESC LIMIT ")
            .push_bind(limit);
        let rows = query.build().fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        rows.iter().map(summary).collect::<Result<_, _>>().map_err(|error| self.explain(error))
    }

    /// One dead letter of `topic`; of those with the same place, from before the topic was made
    /// again, the last one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn dead_letter(&self, topic: &str, id: DeadLetterId) -> Result<Option<DeadLetter>, Error> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT d.value, d.headers, ");
        query.push(COLUMNS).push(" FROM audit.dead_letter_log d LEFT JOIN ").push(REDRIVE);
        query.push(" ON true WHERE d.dead_letter_topic = ").push_bind(topic);
        query.push(" AND d.partition = ").push_bind(id.partition);
        query.push(" AND d.\"offset\" = ").push_bind(id.offset);
        query.push(" ORDER BY d.recorded_at DESC LIMIT 1");
        let row = query.build().fetch_optional(self.pool()).await.map_err(|error| self.explain(error))?;
        let whole = |row: &PgRow| {
            Ok(DeadLetter {
                summary: summary(row)?,
                value: row.try_get("value")?,
                headers: from_json(row.try_get("headers")?)?,
            })
        };
        row.as_ref().map(whole).transpose().map_err(|error| self.explain(error))
    }

    /// Puts the record a dead letter of `topic` is a copy of into the outbox, for
    /// `target` (without prefix), and marks it in the same transaction. A record that
    /// was sent again before is left alone.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    ///
    /// # Panics
    /// When the letter does not tell where it was read.
    pub async fn redrive(
        &self,
        topic: &str,
        letter: &DeadLetter,
        target: &str,
        who: &str,
    ) -> Result<Redrive, Error> {
        // Copies of one record may know its topic's id or not: they wait for each other here.
        const ALONE: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7631477))";
        const MARK: &str = "INSERT INTO audit.redrive_log (dead_letter_topic, partition, \"offset\",
                source_topic, source_partition, source_offset, who, source_topic_id, dead_letter_topic_id)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let before = format!(
            "SELECT r.who, (extract(epoch FROM r.redriven_at) * 1000)::bigint
             FROM audit.dead_letter_log d, {REDRIVE}
             WHERE d.dead_letter_topic = $1 AND d.dead_letter_topic_id = $2 AND d.partition = $3
               AND d.\"offset\" = $4"
        );
        let explain = |error| self.explain(error);
        let Summary { id, topic: source, topic_id, partition, offset, .. } = &letter.summary;
        let (Some(source), Some(partition), Some(offset)) = (source, partition, offset) else {
            panic!("dead letter {id} does not tell where it was read");
        };
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let place = format!("{source}/{partition}/{offset}");
        sqlx::query(ALONE).bind(&place).execute(&mut *transaction).await.map_err(explain)?;
        let before: Option<(String, i64)> = sqlx::query_as(sqlx::AssertSqlSafe(before))
            .bind(topic)
            .bind(letter.summary.dead_letter_topic_id)
            .bind(id.partition)
            .bind(id.offset)
            .fetch_optional(&mut *transaction)
            .await
            .map_err(explain)?;
        if let Some((who, at)) = before {
            return Ok(Redrive::Before { who, at: Timestamp::from_millis(at) });
        }
        sqlx::query(MARK)
            .bind(topic)
            .bind(id.partition)
            .bind(id.offset)
            .bind(source)
            .bind(partition)
            .bind(offset)
            .bind(who)
            .bind(topic_id)
            .bind(letter.summary.dead_letter_topic_id)
            .execute(&mut *transaction)
            .await
            .map_err(explain)?;
        let from = format!("{topic}/{id}");
        let once = format!("redrive/{source}/{topic_id}/{partition}/{offset}");
        let mut message = Message {
            topic: target,
            key: letter.summary.key.as_deref(),
            value: letter.value.as_deref(),
            headers: Vec::new(),
            described: false,
            dedupe_key: Some(&once),
        };
        for (name, value) in letter.headers.iter().filter(|(name, _)| name != REDRIVEN_FROM) {
            message = message.with_header(name, value);
        }
        let message = message.with_header(REDRIVEN_FROM, from.as_bytes());
        append(&mut transaction, &message).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(Redrive::Appended)
    }
}

fn summary(row: &PgRow) -> Result<Summary, sqlx::Error> {
    Ok(Summary {
        id: DeadLetterId { partition: row.try_get("partition")?, offset: row.try_get("offset")? },
        dead_letter_topic_id: row.try_get("dead_letter_topic_id")?,
        stage: row.try_get("stage")?,
        reason: row.try_get("reason")?,
        topic: row.try_get("source_topic")?,
        topic_id: row.try_get("source_topic_id")?,
        partition: row.try_get("source_partition")?,
        offset: row.try_get("source_offset")?,
        set_aside_at: Timestamp::from_millis(row.try_get("set_aside_at")?),
        key: row.try_get("key")?,
        value_bytes: row.try_get("value_bytes")?,
        redriven_at: row.try_get::<Option<i64>, _>("redriven_at")?.map(Timestamp::from_millis),
        redriven_by: row.try_get("redriven_by")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let id = DeadLetterId { partition: 2, offset: 117 };
        assert_eq!((id.to_string().as_str(), "2/117".parse()), ("2/117", Ok(id)));
        for wrong in ["", "2", "2/", "/1", "-1/3", "2/-3", "2/3/4", "a/b"] {
            assert!(wrong.parse::<DeadLetterId>().is_err(), "{wrong}");
        }
    }
}
