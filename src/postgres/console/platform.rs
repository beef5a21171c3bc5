//! The shared budget of platform calls, as it stands.

use sqlx::Row;

use super::super::{Database, Error};
use crate::model::Timestamp;

/// One OAuth client's budget.
#[derive(Clone, Debug, PartialEq)]
pub struct BudgetLine {
    /// The first digits of the SHA-256 of the client's id.
    pub client: String,
    /// Calls that could be made at once, when it was last refilled.
    pub permits: f64,
    pub refilled_at: Timestamp,
    /// Until when nobody calls, where that lies ahead.
    pub blocked_until: Option<Timestamp>,
    /// 429 replies in a row.
    pub refusals: i32,
}

impl Database {
    /// The budgets of all clients.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn budgets(&self) -> Result<Vec<BudgetLine>, Error> {
        let sql = "SELECT left(encode(client, 'hex'), 8) AS client, tokens, refusals,
                round(extract(epoch FROM refilled_at) * 1000)::bigint AS refilled_at_ms,
                CASE WHEN blocked_until > now()
                     THEN round(extract(epoch FROM blocked_until) * 1000)::bigint END AS blocked_until_ms
            FROM trunkline.platform_budget ORDER BY client LIMIT 100";
        let explain = |error| self.explain(error);
        let rows = sqlx::query(sql).fetch_all(self.pool()).await.map_err(explain)?;
        let read = |row: &sqlx::postgres::PgRow| {
            let blocked: Option<i64> = row.try_get("blocked_until_ms")?;
            Ok(BudgetLine {
                client: row.try_get("client")?,
                permits: row.try_get("tokens")?,
                refilled_at: Timestamp::from_millis(row.try_get("refilled_at_ms")?),
                blocked_until: blocked.map(Timestamp::from_millis),
                refusals: row.try_get("refusals")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(explain)
    }
}
