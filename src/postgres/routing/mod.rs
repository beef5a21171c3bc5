//! The counters behind weighted distribution: one row per configuration, one row per
//! answer, and the configurations themselves.
//!
//! A block of answers and the counters they change are one transaction, so the sequence
//! has no holes and its order is the order of commits, whoever crashes when.

mod configurations;
mod record;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{Executor, Postgres, Row as _, Transaction};

use super::{Database, Error, Settings};
use crate::model::Timestamp;
use crate::model::delivery::CanaryOverlay;
use crate::model::routing::{RouteConfiguration, RouteReason, RouteSource};

pub use configurations::{Published, RevisionEntry, Saved};
pub use record::{Recordable, RecordedAnswer, RecordedTurn};

/// Deficit in parts of an interaction and number of decisions, by destination.
pub type Groups = BTreeMap<String, (i64, i64)>;

/// How everybody stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Parts of an interaction that deficits are counted in.
    pub unit: i64,
    pub groups: Groups,
}

/// The row that all instances count in, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Stands for the configuration's id in the larger tables.
    pub configuration: i32,
    pub revision: i64,
    pub turn: i64,
    pub decisions: i64,
    pub counts: Counts,
    /// What stands over the configuration's rules.
    pub canary: Option<CanaryOverlay>,
}

/// A counter with the configuration in force.
#[derive(Clone, Debug)]
pub struct InForce {
    pub counter: Counter,
    pub definition: RouteConfiguration,
}

/// An answer that is to become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAnswer {
    pub conversation_id: Arc<str>,
    pub destination_id: Arc<str>,
    pub revision: i64,
    pub source: RouteSource,
    pub reason: RouteReason,
    pub decided_at: Timestamp,
    /// The trace of whoever asked, where there is one.
    pub traceparent: Option<Arc<str>>,
}

/// A block of answers with the counter as it is to be afterwards.
#[derive(Clone, Debug)]
pub struct Block {
    pub answers: Vec<NewAnswer>,
    pub settings_revision: i64,
    /// Destination, share and deficit before the first answer, in the unit of `counts`.
    pub taken_from: Vec<(String, i64, i64)>,
    /// How everybody stands after the last answer.
    pub counts: Counts,
    /// Conversations of these answers whose earlier answer, in [`LockedTurn::known`], counts no
    /// longer.
    pub superseded: Vec<Arc<str>>,
}

/// An answer given before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAnswer {
    pub conversation_id: String,
    pub destination_id: String,
    pub revision: i64,
    pub sequence: i64,
    pub source: String,
    pub decided_at: Timestamp,
}

/// How patient the connections are that answers wait for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and for a statement.
    pub statement: Duration,
    /// A process that stops in the middle of a transaction blocks the others this long.
    pub idle_in_transaction: Duration,
}

/// The counters, on connections of their own: nobody else's work stands before them.
#[derive(Clone, Debug)]
pub struct RouteCounters {
    database: Database,
}

/// A block may be written with this turn's row locked against all others.
pub struct LockedTurn {
    transaction: Transaction<'static, Postgres>,
    target: Database,
    pub counter: Counter,
    /// The configuration, where its revision is not the one already known.
    pub definition: Option<RouteConfiguration>,
    pub known: Vec<KnownAnswer>,
}

// Conversations are looked up one by one: with `= ANY` and the statistics of a table that was
// empty a moment ago, the planner reads all rows of the configuration instead.
const WRITE: &str = "WITH moved AS (
        UPDATE trunkline.route_counters
        SET turn = turn + 1, decisions = decisions + $3, groups = $4, unit = $14
        WHERE configuration = $1 AND turn = $2
          AND ($13 OR NOT EXISTS (SELECT FROM unnest($7::text[]) AS asked(id), LATERAL (
                SELECT FROM trunkline.route_answers AS a
                WHERE a.configuration = $1 AND a.conversation_id = asked.id LIMIT 1) AS known))
        RETURNING decisions - $3 AS before, revision
    ), taken AS (
        INSERT INTO trunkline.route_turns (configuration, first_sequence, revision, settings_revision, groups, unit)
        SELECT $1, before + 1, revision, $5, $6, $14 FROM moved
    )
    INSERT INTO trunkline.route_answers
        (configuration, conversation_id, sequence, destination_id, revision, source, reason, decided_at_ms, traceparent)
    SELECT $1, a.conversation_id, moved.before + a.number, a.destination_id, a.revision, a.source, a.reason,
           a.decided_at_ms, a.traceparent
    FROM moved, unnest($7::text[], $8::text[], $9::bigint[], $10::text[], $11::text[], $12::bigint[], $15::text[])
         WITH ORDINALITY AS a(conversation_id, destination_id, revision, source, reason, decided_at_ms, traceparent,
                              number)";

const KNOWN: &str = "SELECT known.* FROM unnest($2::text[]) AS asked(id), LATERAL (
        SELECT conversation_id, destination_id, revision, sequence, source, decided_at_ms
        FROM trunkline.route_answers
        WHERE configuration = $1 AND conversation_id = asked.id LIMIT 1) AS known";

impl RouteCounters {
    /// Opens connections of its own when they are needed, `connections` at most.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(settings: &Settings, connections: u32, patience: Patience) -> Result<Self, Error> {
        let database = Database::connect(&Settings {
            max_connections: connections,
            acquire_timeout: patience.statement,
            statement_timeout: patience.statement,
            idle_in_transaction_timeout: patience.idle_in_transaction,
            point_lookups: true,
            ..settings.clone()
        })?;
        Ok(Self { database })
    }

    /// Writes a block with one statement if nobody has moved the counter since it was
    /// read and none of the conversations was answered before; else writes nothing and
    /// says `false`.
    ///
    /// # Errors
    /// When the database cannot be asked; the block may have been written.
    pub async fn write(&self, counter: &Counter, block: &Block) -> Result<bool, Error> {
        let written = write(self.database.pool(), counter, block, false).await;
        written.map_err(|error| self.database.explain(error))
    }

    /// Waits for the counter's row, locks it, and looks which conversations were
    /// answered before. `None` where nothing of this id was published.
    ///
    /// # Errors
    /// When the database cannot be asked; nothing was changed.
    pub async fn lock(
        &self,
        configuration_id: &str,
        known_revision: i64,
        conversations: &[Arc<str>],
    ) -> Result<Option<LockedTurn>, Error> {
        let explain = |error| self.database.explain(error);
        let mut transaction = self.database.pool().begin().await.map_err(explain)?;
        const LOCK: &str = "SELECT configuration, revision, turn, decisions, groups, unit, canary
            FROM trunkline.route_counters WHERE configuration_id = $1 FOR UPDATE";
        let row = sqlx::query(LOCK).bind(configuration_id).fetch_optional(&mut *transaction).await;
        let Some(row) = row.map_err(explain)? else {
            return Ok(None);
        };
        let counter = counter(&row).map_err(explain)?;
        let mut definition = None;
        if counter.revision != known_revision {
            const READ: &str = "SELECT definition FROM trunkline.route_revisions
                WHERE configuration_id = $1 AND revision = $2";
            let read = sqlx::query_scalar(READ).bind(configuration_id).bind(counter.revision);
            let Json(found) = read.fetch_one(&mut *transaction).await.map_err(explain)?;
            definition = Some(found);
        }
        let known = if conversations.is_empty() {
            Vec::new()
        } else {
            known(&mut *transaction, counter.configuration, conversations).await.map_err(explain)?
        };
        Ok(Some(LockedTurn { transaction, target: self.database.clone(), counter, definition, known }))
    }

    /// Which of these conversations were answered before, without waiting for anybody's turn.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn known(
        &self,
        configuration: i32,
        conversations: &[Arc<str>],
    ) -> Result<Vec<KnownAnswer>, Error> {
        let explain = |error| self.database.explain(error);
        known(self.database.pool(), configuration, conversations).await.map_err(explain)
    }

    /// What to say of an attempt that was given up after `limit`.
    pub fn no_answer(&self, limit: Duration) -> Error {
        Error::NoAnswer { server: self.database.target.server.clone(), after: limit }
    }

    /// One configuration in force with its counter.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn in_force(&self, configuration_id: &str) -> Result<Option<InForce>, Error> {
        const ONE: &str = "SELECT c.configuration, c.revision, c.turn, c.decisions, c.groups, c.unit, c.canary,
                r.definition
            FROM trunkline.route_counters c JOIN trunkline.route_revisions r USING (configuration_id, revision)
            WHERE c.configuration_id = $1";
        let explain = |error| self.database.explain(error);
        let row = sqlx::query(ONE).bind(configuration_id).fetch_optional(self.database.pool()).await;
        row.map_err(explain)?.map(|row| in_force(&row)).transpose().map_err(explain)
    }

    /// All ids in force with their revisions.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn revisions(&self) -> Result<Vec<(String, i64)>, Error> {
        sqlx::query_as("SELECT configuration_id, revision FROM trunkline.route_counters ORDER BY 1")
            .fetch_all(self.database.pool())
            .await
            .map_err(|error| self.database.explain(error))
    }
}

impl LockedTurn {
    /// Writes a block, none of whose conversations are in [`known`](Self::known) but those it
    /// supersedes, and lets go of the row.
    ///
    /// # Errors
    /// When the database cannot be asked; the block may have been written.
    pub async fn write(mut self, block: &Block) -> Result<(), Error> {
        let explain = |error| self.target.explain(error);
        if !block.superseded.is_empty() {
            // Kept until the audit has been told of them: their sequence must have no holes.
            const SUPERSEDE: &str = "WITH gone AS (
                    DELETE FROM trunkline.route_answers
                    WHERE configuration = $1 AND conversation_id = ANY($2) RETURNING *
                ) INSERT INTO trunkline.route_superseded SELECT * FROM gone";
            let conversations: Vec<&str> = block.superseded.iter().map(|id| &**id).collect();
            let supersede = sqlx::query(SUPERSEDE).bind(self.counter.configuration).bind(conversations);
            supersede.execute(&mut *self.transaction).await.map_err(explain)?;
        }
        if !block.answers.is_empty() {
            let written = write(&mut *self.transaction, &self.counter, block, true).await.map_err(explain)?;
            if !written {
                let protocol = "the locked counter moved all the same".to_owned();
                return Err(explain(sqlx::Error::Protocol(protocol)));
            }
        }
        self.transaction.commit().await.map_err(explain)
    }
}

/// `all_new`: none of the conversations was answered before, as was just looked up under the
/// lock.
async fn write<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    counter: &Counter,
    block: &Block,
    all_new: bool,
) -> Result<bool, sqlx::Error> {
    let answers = || block.answers.iter();
    let done = sqlx::query(WRITE)
        .bind(counter.configuration)
        .bind(counter.turn)
        .bind(block.answers.len() as i64)
        .bind(Json(&block.counts.groups))
        .bind(block.settings_revision)
        .bind(Json(&block.taken_from))
        .bind(answers().map(|answer| &*answer.conversation_id).collect::<Vec<_>>())
        .bind(answers().map(|answer| &*answer.destination_id).collect::<Vec<_>>())
        .bind(answers().map(|answer| answer.revision).collect::<Vec<_>>())
        .bind(answers().map(|answer| answer.source.name()).collect::<Vec<_>>())
        .bind(answers().map(|answer| answer.reason.name()).collect::<Vec<_>>())
        .bind(answers().map(|answer| answer.decided_at.as_millis()).collect::<Vec<_>>())
        .bind(all_new)
        .bind(block.counts.unit)
        .bind(answers().map(|answer| answer.traceparent.as_deref()).collect::<Vec<_>>())
        .execute(executor)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn known<'c>(
    executor: impl Executor<'c, Database = Postgres>,
    configuration: i32,
    conversations: &[Arc<str>],
) -> Result<Vec<KnownAnswer>, sqlx::Error> {
    let conversations: Vec<&str> = conversations.iter().map(|id| &**id).collect();
    let rows = sqlx::query(KNOWN).bind(configuration).bind(conversations).fetch_all(executor).await?;
    rows.iter().map(known_answer).collect()
}

fn counter(row: &PgRow) -> Result<Counter, sqlx::Error> {
    let Json(groups) = row.try_get("groups")?;
    let canary: Option<Json<CanaryOverlay>> = row.try_get("canary")?;
    Ok(Counter {
        configuration: row.try_get("configuration")?,
        revision: row.try_get("revision")?,
        turn: row.try_get("turn")?,
        decisions: row.try_get("decisions")?,
        counts: Counts { unit: row.try_get("unit")?, groups },
        canary: canary.map(|Json(canary)| canary),
    })
}

fn in_force(row: &PgRow) -> Result<InForce, sqlx::Error> {
    let Json(definition) = row.try_get("definition")?;
    Ok(InForce { counter: counter(row)?, definition })
}

fn known_answer(row: &PgRow) -> Result<KnownAnswer, sqlx::Error> {
    Ok(KnownAnswer {
        conversation_id: row.try_get("conversation_id")?,
        destination_id: row.try_get("destination_id")?,
        revision: row.try_get("revision")?,
        sequence: row.try_get("sequence")?,
        source: row.try_get("source")?,
        decided_at: Timestamp::from_millis(row.try_get("decided_at_ms")?),
    })
}
