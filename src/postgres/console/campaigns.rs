//! How campaigns have gone lately, in the few numbers that a list of them shows.

use std::collections::BTreeMap;

use super::super::{Database, Error};
use crate::model::Timestamp;

/// One campaign over its newest decisions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trend {
    /// Lines per idle agent after each of them, oldest first.
    pub rates: Vec<(Timestamp, f64)>,
    pub answered: f64,
    /// Answers of these without an agent.
    pub abandoned: f64,
}

impl Database {
    /// For each of these campaigns how its newest `each` decisions of the last days went.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn trends(&self, campaigns: &[String], each: i64) -> Result<BTreeMap<String, Trend>, Error> {
        let first = self.recent_id().await?;
        // A whole decision is ten times what is shown of it here.
        let sql = "SELECT d.key, round(extract(epoch FROM d.decided_at) * 1000)::bigint,
                coalesce(d.parameters->>'dialRate', d.inputs->>'dialRate')::float8,
                (d.inputs->>'answered')::float8, (d.inputs->>'abandoned')::float8
            FROM unnest($2::text[]) AS k(key) CROSS JOIN LATERAL (
                SELECT key, sequence, decided_at, parameters, inputs FROM audit.decision_log
                WHERE loop = 'dial' AND key = k.key AND decision_id >= $1 ORDER BY sequence DESC LIMIT $3
            ) d ORDER BY d.key, d.sequence";
        type Line = (String, i64, Option<f64>, Option<f64>, Option<f64>);
        let lines = sqlx::query_as(sql).bind(first).bind(campaigns).bind(each).fetch_all(self.pool()).await;
        let lines: Vec<Line> = lines.map_err(|error| self.explain(error))?;
        let mut trends = BTreeMap::<String, Trend>::new();
        for (key, at, rate, answered, abandoned) in lines {
            let trend = trends.entry(key).or_default();
            trend.rates.extend(rate.map(|rate| (Timestamp::from_millis(at), rate)));
            trend.answered += answered.unwrap_or(0.0);
            trend.abandoned += abandoned.unwrap_or(0.0);
        }
        Ok(trends)
    }
}
