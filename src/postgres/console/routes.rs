//! How routing configurations have shared out, by their counters.

use sqlx::Row;
use sqlx::types::Json;
use std::collections::BTreeMap;

use super::super::{Database, Error};
use crate::model::routing::RouteConfiguration;

/// One configuration in force.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareLine {
    pub configuration_id: String,
    pub revision: i64,
    /// As it is in force.
    pub definition: RouteConfiguration,
    /// All its decisions.
    pub decisions: i64,
    /// By destination: how far it is behind its due, in interactions, and its decisions.
    pub groups: BTreeMap<String, (f64, i64)>,
}

impl Database {
    /// Counters and definition of each configuration in force, by id.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn route_shares(&self, limit: i64) -> Result<Vec<ShareLine>, Error> {
        let sql = "SELECT c.configuration_id, c.revision, c.decisions, c.groups, c.unit, r.definition
            FROM trunkline.route_counters c JOIN trunkline.route_revisions r USING (configuration_id, revision)
            ORDER BY c.configuration_id LIMIT $1";
        let explain = |error| self.explain(error);
        let rows = sqlx::query(sql).bind(limit).fetch_all(self.pool()).await.map_err(explain)?;
        let read = |row: &sqlx::postgres::PgRow| {
            let Json(groups): Json<BTreeMap<String, (i64, i64)>> = row.try_get("groups")?;
            let Json(definition): Json<RouteConfiguration> = row.try_get("definition")?;
            let unit = row.try_get::<i64, _>("unit")?.max(1) as f64;
            let groups =
                groups.into_iter().map(|(id, (deficit, decisions))| (id, (deficit as f64 / unit, decisions)));
            Ok(ShareLine {
                configuration_id: row.try_get("configuration_id")?,
                revision: row.try_get("revision")?,
                definition,
                decisions: row.try_get("decisions")?,
                groups: groups.collect(),
            })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(explain)
    }
}
