//! Decisions as pages list them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::super::ledger::ids_of;
use super::super::{Database, Error};
use crate::model::Timestamp;
use crate::model::decision::DecisionId;
use crate::model::name::Names;

/// Decisions that an [`Activity`] counts at most.
const COUNTED: i64 = 5_000;

/// A decision with its end, in a line.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionLine {
    pub decision_id: DecisionId,
    pub r#loop: String,
    pub key: String,
    pub sequence: i64,
    pub mode: String,
    pub action: String,
    pub reason: String,
    pub parameters: Value,
    pub inputs: Value,
    pub decided_at: Timestamp,
    /// How it ended; `None` while that is open.
    pub status: Option<String>,
    pub outcome_reason: Option<String>,
    /// Of all that it names by id.
    pub names: Arc<Names>,
}

impl DecisionLine {
    /// What people call what it is about, where that is known.
    pub fn name(&self) -> Option<&str> {
        self.names.of_key(&self.r#loop, &self.key)
    }
}

/// What a loop has done lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Activity {
    /// Decisions by how they ended, most frequent first; `open` where that is not known.
    pub statuses: Vec<(String, i64)>,
    /// Of these, decisions to leave things as they are.
    pub held: i64,
    pub decisions: i64,
}

const COLUMNS: &str =
    "d.decision_id, d.loop, d.key, d.sequence, d.mode, d.action, d.reason, d.parameters, d.inputs,
    round(extract(epoch FROM d.decided_at) * 1000)::bigint AS decided_at_ms,
    o.status, o.reason AS outcome_reason";
/// `$1` is the least id that is asked for: a plan has no months before it.
const OUTCOME: &str = "LEFT JOIN audit.outcome_log o
    ON o.decision_id = d.decision_id AND o.decision_id >= $1 AND NOT o.verification";

fn line(row: &PgRow) -> Result<DecisionLine, sqlx::Error> {
    Ok(DecisionLine {
        decision_id: DecisionId(row.try_get::<Uuid, _>("decision_id")?),
        r#loop: row.try_get("loop")?,
        key: row.try_get("key")?,
        sequence: row.try_get("sequence")?,
        mode: row.try_get("mode")?,
        action: row.try_get("action")?,
        reason: row.try_get("reason")?,
        parameters: row.try_get("parameters")?,
        inputs: row.try_get("inputs")?,
        decided_at: Timestamp::from_millis(row.try_get("decided_at_ms")?),
        status: row.try_get("status")?,
        outcome_reason: row.try_get("outcome_reason")?,
        names: Arc::default(),
    })
}

impl Database {
    async fn lines(&self, rows: Result<Vec<PgRow>, sqlx::Error>) -> Result<Vec<DecisionLine>, Error> {
        let read = |rows: Vec<PgRow>| rows.iter().map(line).collect::<Result<Vec<_>, _>>();
        let mut lines = rows.and_then(read).map_err(|error| self.explain(error))?;
        let ids = lines.iter().flat_map(|line| ids_of(&line.key, &line.parameters));
        let names = Arc::new(self.names_of(ids).await);
        for line in &mut lines {
            line.names = names.clone();
        }
        Ok(lines)
    }

    /// The least id that what was observed in the last two days may have, and hardly a month is read but this one.
    pub(super) async fn recent_id(&self) -> Result<Uuid, Error> {
        if let Some(known) = self.recent_id.get(&()) {
            return Ok(known);
        }
        let asked = sqlx::query_scalar("SELECT audit.recent_id()").fetch_one(self.pool()).await;
        let first = asked.map_err(|error| self.explain(error))?;
        self.recent_id.insert((), first);
        Ok(first)
    }

    /// The newest decisions of one loop, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn newest_decisions(&self, of: &str, limit: i64) -> Result<Vec<DecisionLine>, Error> {
        let first = self.recent_id().await?;
        // For routing the index over all decisions is as good: it decides all the time.
        let among = if of == "route" { "" } else { "AND d.loop <> 'route'" };
        let sql = format!(
            "SELECT {COLUMNS} FROM audit.decision_log d {OUTCOME}
             WHERE d.decision_id >= $1 AND d.loop = $2 {among}
             ORDER BY d.decided_at DESC, d.decision_id DESC LIMIT $3"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(first).bind(of).bind(limit);
        let mut lines = self.lines(query.fetch_all(self.pool()).await).await?;
        let missing = limit - lines.len() as i64;
        // Where routing has decided nothing for days, all decisions there are would be looked through.
        if missing > 0 && of != "route" {
            lines.extend(self.older_decisions(of, first, missing).await?);
            lines.sort_by_key(|line| Reverse((line.decided_at, line.decision_id)));
        }
        Ok(lines)
    }

    /// The newest decisions of one loop with ids before `first`. Their outcomes are asked for by themselves: to plan
    /// both over all months takes ten times as long, and rare loops mostly have none.
    async fn older_decisions(&self, of: &str, first: Uuid, limit: i64) -> Result<Vec<DecisionLine>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM audit.decision_log d, (SELECT NULL AS status, NULL AS reason) o
             WHERE d.decision_id < $1 AND d.loop = $2 AND d.loop <> 'route'
             ORDER BY d.decided_at DESC, d.decision_id DESC LIMIT $3"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(first).bind(of).bind(limit);
        let mut lines = self.lines(query.fetch_all(self.pool()).await).await?;
        if lines.is_empty() {
            return Ok(lines);
        }
        let ids: Vec<Uuid> = lines.iter().map(|line| line.decision_id.0).collect();
        let sql = "SELECT decision_id, status, reason FROM audit.outcome_log
            WHERE decision_id = ANY($1) AND NOT verification";
        let ends = sqlx::query_as(sql).bind(ids).fetch_all(self.pool()).await;
        let ends: Vec<(Uuid, String, String)> = ends.map_err(|error| self.explain(error))?;
        let mut ends: HashMap<_, _> = ends.into_iter().map(|(id, status, why)| (id, (status, why))).collect();
        for line in &mut lines {
            (line.status, line.outcome_reason) = ends.remove(&line.decision_id.0).unzip();
        }
        Ok(lines)
    }

    /// The newest decision about each key of a loop, by key; keys that nothing was decided about
    /// for a day are left out.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn newest_by_key(&self, of: &str, limit: i64) -> Result<Vec<DecisionLine>, Error> {
        self.newest_of_keys(of, limit, "").await
    }

    /// Of these the decisions that leave things as they are: to hold, or only recorded.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn held_by_key(&self, of: &str, limit: i64) -> Result<Vec<DecisionLine>, Error> {
        self.newest_of_keys(of, limit, "AND (d.action = 'hold' OR o.status = 'shadowed')").await
    }

    /// The newest decision about each of the first `limit` keys, those among them that are `wanted`.
    async fn newest_of_keys(&self, of: &str, limit: i64, wanted: &str) -> Result<Vec<DecisionLine>, Error> {
        let first = self.recent_id().await?;
        // From key to key in the index of sequences: what lies between is not read.
        let sql = format!(
            "WITH RECURSIVE keys AS (
                 (SELECT key FROM audit.decision_log WHERE loop = $2 AND decision_id >= $1 ORDER BY key LIMIT 1)
                 UNION ALL
                 SELECT (SELECT d.key FROM audit.decision_log d
                         WHERE d.loop = $2 AND d.decision_id >= $1 AND d.key > k.key ORDER BY d.key LIMIT 1)
                 FROM keys k WHERE k.key IS NOT NULL
             ), some_keys AS (SELECT key FROM keys WHERE key IS NOT NULL LIMIT $3)
             SELECT {COLUMNS} FROM some_keys k CROSS JOIN LATERAL (
                 SELECT * FROM audit.decision_log
                 WHERE loop = $2 AND decision_id >= $1 AND key = k.key ORDER BY sequence DESC LIMIT 1
             ) d {OUTCOME} WHERE d.decided_at > now() - interval '1 day' {wanted} ORDER BY d.key"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(first).bind(of).bind(limit);
        self.lines(query.fetch_all(self.pool()).await).await
    }

    /// For each of these keys its newest `each` decisions, oldest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn series_of_keys(
        &self,
        of: &str,
        keys: &[String],
        each: i64,
    ) -> Result<Vec<DecisionLine>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM unnest($3::text[]) AS k(key) CROSS JOIN LATERAL (
                 SELECT * FROM audit.decision_log
                 WHERE loop = $2 AND key = k.key AND decision_id >= $1 ORDER BY sequence DESC LIMIT $4
             ) d {OUTCOME} ORDER BY d.key, d.sequence"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(Uuid::nil()).bind(of).bind(keys).bind(each);
        self.lines(query.fetch_all(self.pool()).await).await
    }

    /// What a loop has done in the last ten minutes, by its newest decisions.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn activity(&self, of: &str) -> Result<Activity, Error> {
        let first = self.recent_id().await?;
        let sql = format!(
            "SELECT coalesce(o.status, 'open'), count(*), count(*) FILTER (WHERE d.action = 'hold')
             FROM (SELECT decision_id, action FROM audit.decision_log
                   WHERE decision_id >= $1 AND loop = $2 AND loop <> 'route'
                     AND decided_at > now() - interval '10 minutes'
                   ORDER BY decided_at DESC LIMIT $3) d {OUTCOME}
             GROUP BY 1 ORDER BY 2 DESC, 1"
        );
        let query = sqlx::query_as(AssertSqlSafe(sql)).bind(first).bind(of).bind(COUNTED);
        let rows: Result<Vec<(String, i64, i64)>, _> = query.fetch_all(self.pool()).await;
        let rows = rows.map_err(|error| self.explain(error))?;
        Ok(Activity {
            held: rows.iter().map(|(_, _, held)| held).sum(),
            decisions: rows.iter().map(|(_, count, _)| count).sum(),
            statuses: rows.into_iter().map(|(status, count, _)| (status, count)).collect(),
        })
    }

    /// How far the ledger is: changes whenever something was added to it.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn ledger_version(&self) -> Result<String, Error> {
        let sql = "SELECT coalesce(sum(next_offset), 0)::text || '-' ||
                          (SELECT coalesce(max(revision), 0) FROM audit.settings_log)::text FROM audit.positions";
        sqlx::query_scalar(sql).fetch_one(self.pool()).await.map_err(|error| self.explain(error))
    }
}
