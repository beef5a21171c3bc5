//! Rollbacks that the platform confirmed.

use sqlx::Row;
use uuid::Uuid;

use super::super::{Database, Error};
use crate::model::Timestamp;
use crate::model::decision::DecisionId;
use crate::model::name::Kind;

/// One rollback.
#[derive(Clone, Debug, PartialEq)]
pub struct RollbackLine {
    pub decision_id: DecisionId,
    pub flow_id: String,
    /// What people call the flow, where that is known.
    pub flow_name: Option<String>,
    pub bad_version: String,
    pub target_version: String,
    pub confirmed_at: Timestamp,
    /// `recovered`, `not_recovered`, or nothing yet.
    pub verification: Option<String>,
}

impl Database {
    /// The newest rollbacks, newest first; of one flow, or of all.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn newest_rollbacks(&self, flow: Option<&str>, limit: i64) -> Result<Vec<RollbackLine>, Error> {
        let sql =
            "SELECT r.decision_id, r.flow_id, r.bad_version, r.target_version, v.status AS verification,
                round(extract(epoch FROM r.confirmed_at) * 1000)::bigint AS confirmed_at_ms
            FROM trunkline.rollbacks r
            LEFT JOIN audit.outcome_log v ON v.decision_id = r.decision_id AND v.verification
            WHERE $1::text IS NULL OR r.flow_id = $1 ORDER BY r.confirmed_at DESC LIMIT $2";
        let explain = |error| self.explain(error);
        let rows = sqlx::query(sql).bind(flow).bind(limit).fetch_all(self.pool()).await.map_err(explain)?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok(RollbackLine {
                decision_id: DecisionId(row.try_get::<Uuid, _>("decision_id")?),
                flow_id: row.try_get("flow_id")?,
                flow_name: None,
                bad_version: row.try_get("bad_version")?,
                target_version: row.try_get("target_version")?,
                confirmed_at: Timestamp::from_millis(row.try_get("confirmed_at_ms")?),
                verification: row.try_get("verification")?,
            })
        };
        let mut lines = rows.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>().map_err(explain)?;
        let names = self.names_of(lines.iter().map(|line| &*line.flow_id)).await;
        for line in &mut lines {
            line.flow_name = names.of(Kind::Flow, &line.flow_id).map(str::to_owned);
        }
        Ok(lines)
    }
}
