//! From answers to the outbox, and what is forgotten afterwards.

use std::time::Duration;

use sqlx::Row as _;
use sqlx::types::Json;

use super::super::outbox::{self, Message};
use super::super::{Database, Error};
use crate::model::Timestamp;

/// A configuration whose newest answers have not gone to the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recordable {
    pub configuration: i32,
    pub configuration_id: String,
    /// Sequence of the last answer that has.
    pub recorded: i64,
}

/// An answer with the block it came from.
#[derive(Clone, Debug)]
pub struct RecordedAnswer {
    pub sequence: i64,
    pub conversation_id: String,
    pub destination_id: String,
    pub revision: i64,
    pub source: String,
    pub reason: String,
    pub decided_at: Timestamp,
    pub traceparent: Option<String>,
}

/// What a block of answers was taken from.
#[derive(Clone, Debug)]
pub struct RecordedTurn {
    pub first_sequence: i64,
    pub settings_revision: i64,
    /// Parts of an interaction that shares and deficits are counted in.
    pub unit: i64,
    /// Destination, share and deficit before the first answer.
    pub groups: Vec<(String, i64, i64)>,
}

impl Database {
    /// Configurations with answers that have not gone to the outbox.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn recordable_routes(&self) -> Result<Vec<Recordable>, Error> {
        const READ: &str = "SELECT configuration, configuration_id, coalesce(r.sequence, 0) AS recorded
            FROM trunkline.route_counters c LEFT JOIN trunkline.route_records r USING (configuration)
            WHERE c.decisions > coalesce(r.sequence, 0) ORDER BY configuration";
        let rows: Vec<(i32, String, i64)> =
            sqlx::query_as(READ).fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        let entry = |(configuration, configuration_id, recorded)| Recordable {
            configuration,
            configuration_id,
            recorded,
        };
        Ok(rows.into_iter().map(entry).collect())
    }

    /// The answers after `recorded`, `limit` at most, with those before them in the same
    /// block, and the blocks they came from.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn unrecorded_answers(
        &self,
        of: &Recordable,
        limit: i64,
    ) -> Result<(Vec<RecordedAnswer>, Vec<RecordedTurn>), Error> {
        const ANSWERS: &str = "SELECT sequence, conversation_id, destination_id, revision, source, reason,
                decided_at_ms, traceparent
            FROM (SELECT * FROM trunkline.route_answers UNION ALL SELECT * FROM trunkline.route_superseded)
                 AS given
            WHERE configuration = $1 AND sequence <= $2 + $3
              AND sequence >= coalesce((SELECT max(first_sequence) FROM trunkline.route_turns
                                        WHERE configuration = $1 AND first_sequence <= $2 + 1), 1)
            ORDER BY sequence";
        const TURNS: &str =
            "SELECT first_sequence, settings_revision, unit, groups FROM trunkline.route_turns
            WHERE configuration = $1 AND first_sequence <= $3
              AND first_sequence >= (SELECT max(first_sequence) FROM trunkline.route_turns
                                     WHERE configuration = $1 AND first_sequence <= $2 + 1)
            ORDER BY first_sequence";
        let explain = |error| self.explain(error);
        let query = sqlx::query(ANSWERS).bind(of.configuration).bind(of.recorded).bind(limit);
        let rows = query.fetch_all(self.pool()).await.map_err(explain)?;
        let answer = |row: &sqlx::postgres::PgRow| {
            Ok(RecordedAnswer {
                sequence: row.try_get("sequence")?,
                conversation_id: row.try_get("conversation_id")?,
                destination_id: row.try_get("destination_id")?,
                revision: row.try_get("revision")?,
                source: row.try_get("source")?,
                reason: row.try_get("reason")?,
                decided_at: Timestamp::from_millis(row.try_get("decided_at_ms")?),
                traceparent: row.try_get("traceparent")?,
            })
        };
        let answers: Vec<_> = rows.iter().map(answer).collect::<Result<_, _>>().map_err(explain)?;
        let last = answers.last().map_or(of.recorded, |answer| answer.sequence);
        let query = sqlx::query(TURNS).bind(of.configuration).bind(of.recorded).bind(last);
        let rows = query.fetch_all(self.pool()).await.map_err(explain)?;
        let turn = |row: &sqlx::postgres::PgRow| {
            let Json(groups) = row.try_get("groups")?;
            Ok(RecordedTurn {
                first_sequence: row.try_get("first_sequence")?,
                settings_revision: row.try_get("settings_revision")?,
                unit: row.try_get("unit")?,
                groups,
            })
        };
        let turns = rows.iter().map(turn).collect::<Result<_, _>>().map_err(explain)?;
        Ok((answers, turns))
    }

    /// Moves on to `last` and appends the messages, in one transaction. `false` when
    /// somebody else has moved on since `of` was read; then nothing is appended.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    pub async fn record_routes(
        &self,
        of: &Recordable,
        last: i64,
        messages: &[Message<'_>],
    ) -> Result<bool, Error> {
        const MOVE: &str = "INSERT INTO trunkline.route_records AS r (configuration, sequence)
            SELECT $1, $3 WHERE $2 = 0
            ON CONFLICT (configuration) DO UPDATE SET sequence = $3 WHERE r.sequence = $2";
        const MOVE_ON: &str = "UPDATE trunkline.route_records SET sequence = $3
            WHERE configuration = $1 AND sequence = $2";
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let statement = if of.recorded == 0 { MOVE } else { MOVE_ON };
        let moved = sqlx::query(statement).bind(of.configuration).bind(of.recorded).bind(last);
        let moved = moved.execute(&mut *transaction).await.map_err(explain)?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        outbox::append_all(&mut transaction, messages).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(true)
    }

    /// Forgets answers older than `retention` that have gone to the outbox, 5 000 per
    /// configuration at most. Says how many.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn forget_route_answers(&self, retention: Duration) -> Result<u64, Error> {
        const FORGET: &str = "DELETE FROM trunkline.route_answers WHERE (configuration, sequence) IN (
                SELECT a.configuration, a.sequence FROM trunkline.route_records r
                CROSS JOIN LATERAL (
                    SELECT configuration, sequence, decided_at_ms FROM trunkline.route_answers
                    WHERE configuration = r.configuration AND sequence <= r.sequence
                    ORDER BY sequence LIMIT 5000) AS a
                WHERE a.decided_at_ms < (extract(epoch FROM now()) - $1) * 1000)";
        const FORGET_TURNS: &str = "DELETE FROM trunkline.route_turns t USING trunkline.route_records r
            WHERE t.configuration = r.configuration AND t.first_sequence < (
                SELECT max(o.first_sequence) FROM trunkline.route_turns o
                WHERE o.configuration = r.configuration AND o.first_sequence <= r.sequence + 1)";
        const FORGET_SUPERSEDED: &str = "DELETE FROM trunkline.route_superseded s
            USING trunkline.route_records r
            WHERE s.configuration = r.configuration AND s.sequence <= r.sequence";
        let explain = |error| self.explain(error);
        let forget = sqlx::query(FORGET).bind(retention.as_secs_f64());
        let forgotten = forget.execute(self.pool()).await.map_err(explain)?;
        for rest in [FORGET_TURNS, FORGET_SUPERSEDED] {
            sqlx::query(rest).execute(self.pool()).await.map_err(explain)?;
        }
        Ok(forgotten.rows_affected())
    }
}
