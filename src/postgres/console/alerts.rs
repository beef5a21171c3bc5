//! Alerts with what became of their deliveries.

use serde::Deserialize;
use serde_json::Value;
use sqlx::Row;
use sqlx::types::Json;
use uuid::Uuid;

use super::super::{Database, Error};
use crate::model::Timestamp;
use crate::model::decision::DecisionId;

/// One alert.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertLine {
    pub incident_type: String,
    pub r#loop: String,
    pub key: String,
    /// What people call what it is about, where that is known.
    pub name: Option<String>,
    /// The decision it is about.
    pub decision_id: DecisionId,
    pub occurred_at: Timestamp,
    pub body: Value,
    /// Empty where nobody was to be told.
    pub deliveries: Vec<Delivery>,
}

/// How one receiver was told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Delivery {
    pub receiver: String,
    /// `queued`, `delivered` or `given_up`.
    pub status: String,
    pub attempts: i64,
    pub error: Option<String>,
}

impl Database {
    /// The newest alerts, newest first; of one decision, or of all.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn newest_alerts(&self, of: Option<DecisionId>, limit: i64) -> Result<Vec<AlertLine>, Error> {
        let sql = "SELECT a.incident_type, a.loop, a.key, a.decision_id, a.body::jsonb AS body,
                round(extract(epoch FROM a.occurred_at) * 1000)::bigint AS occurred_at_ms,
                (SELECT jsonb_agg(jsonb_build_object('receiver', v.receiver, 'status', v.status,
                            'attempts', v.attempts, 'error', v.last_error) ORDER BY v.receiver)
                 FROM audit.alerts v WHERE v.alert_id = a.alert_id AND v.receiver IS NOT NULL) AS deliveries
            FROM audit.alert_log a WHERE $1::uuid IS NULL OR a.decision_id = $1
            ORDER BY a.occurred_at DESC, a.alert_id LIMIT $2";
        let explain = |error| self.explain(error);
        let rows = sqlx::query(sql).bind(of.map(|id| id.0)).bind(limit).fetch_all(self.pool()).await;
        let read = |row: &sqlx::postgres::PgRow| {
            let deliveries: Option<Json<Vec<Delivery>>> = row.try_get("deliveries")?;
            Ok(AlertLine {
                incident_type: row.try_get("incident_type")?,
                r#loop: row.try_get("loop")?,
                key: row.try_get("key")?,
                name: None,
                decision_id: DecisionId(row.try_get::<Uuid, _>("decision_id")?),
                occurred_at: Timestamp::from_millis(row.try_get("occurred_at_ms")?),
                body: row.try_get("body")?,
                deliveries: deliveries.map(|Json(deliveries)| deliveries).unwrap_or_default(),
            })
        };
        let read = rows.map_err(explain)?.iter().map(read).collect::<Result<Vec<_>, sqlx::Error>>();
        let mut alerts = read.map_err(explain)?;
        let names = self.names_of(alerts.iter().map(|alert| &*alert.key)).await;
        for alert in &mut alerts {
            alert.name = names.of_key(&alert.r#loop, &alert.key).map(str::to_owned);
        }
        Ok(alerts)
    }
}
