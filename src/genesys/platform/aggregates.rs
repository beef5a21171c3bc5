//! What all aggregate queries of analytics have in common: filters and replies.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::Timestamp;

/// Groups of one reply at most; larger answers are nonsense.
const GROUP_LIMIT: usize = 100_000;
/// No count is more.
const COUNT_LIMIT: f64 = 1e15;

/// One group of a reply in one interval.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// Dimension and value; dimensions that nobody asked for may be among them.
    pub group: BTreeMap<String, String>,
    /// Metric and count as told; a metric that did not occur is not named.
    counts: BTreeMap<String, f64>,
}

impl Row {
    /// # Errors
    /// For a figure that can be no count: of this row alone, others may make sense.
    pub(super) fn count(&self, metric: &str) -> Result<u64, String> {
        let count = self.counts.get(metric).copied().unwrap_or(0.0);
        if !(0.0..=COUNT_LIMIT).contains(&count) {
            return Err(format!("{metric} is {count}; counts are from 0 to {COUNT_LIMIT:e}"));
        }
        Ok(count.round() as u64)
    }

    pub(super) fn of(&self, dimension: &str) -> Option<&str> {
        self.group.get(dimension).map(String::as_str)
    }
}

/// `start/end`, as analytics want it.
pub(super) fn interval(from: Timestamp, until: Timestamp) -> String {
    format!("{from}/{until}")
}

/// Lets through what has one of `values` in `dimension`.
pub(super) fn any_of<'v>(dimension: &str, values: impl IntoIterator<Item = &'v str>) -> Value {
    let predicates: Vec<Value> =
        values.into_iter().map(|value| json!({ "dimension": dimension, "value": value })).collect();
    json!({ "type": "or", "predicates": predicates })
}

/// What analytics answer: groups of dimensions `G`, each with data `D`.
#[derive(Deserialize)]
pub(super) struct Reply<G: Default, D> {
    #[serde(default = "Vec::new")]
    pub results: Vec<Group<G, D>>,
}

#[derive(Deserialize)]
pub(super) struct Group<G: Default, D> {
    #[serde(default)]
    pub group: G,
    #[serde(default = "Vec::new")]
    pub data: Vec<D>,
}

/// Reads a reply. The error says what makes no sense.
pub(super) fn read(body: &[u8]) -> Result<Vec<Row>, String> {
    #[derive(Deserialize)]
    struct Data {
        #[serde(default)]
        metrics: Vec<Metric>,
    }
    #[derive(Deserialize)]
    struct Metric {
        metric: String,
        stats: Option<Stats>,
    }
    #[derive(Deserialize)]
    struct Stats {
        count: Option<f64>,
    }
    let reply: Reply<BTreeMap<String, Value>, Data> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if reply.results.len() > GROUP_LIMIT {
        return Err(format!("it has {} groups; {GROUP_LIMIT} are possible", reply.results.len()));
    }
    let mut rows = Vec::new();
    for Group { group, data } in reply.results {
        let group: BTreeMap<String, String> =
            group.into_iter().filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect();
        for data in data {
            let mut counts = BTreeMap::new();
            for Metric { metric, stats } in data.metrics {
                let Some(count) = stats.and_then(|stats| stats.count) else { continue };
                if counts.insert(metric.clone(), count).is_some() {
                    return Err(format!("{metric} is told twice of one interval"));
                }
            }
            rows.push(Row { group: group.clone(), counts });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_occur_is_not_there_and_counts_as_none() {
        let rows = read(include_bytes!("fixtures/campaign_counters.json")).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].of("outboundCampaignId"), Some("7b1b6a2e-1c0e-4d43-9b0e-0f6b9a1f2c01"));
        assert_eq!(rows[0].of("mediaType"), Some("voice"), "asked or not");
        let counts = ["nOutboundAbandoned", "nOutboundError"].map(|metric| rows[0].count(metric));
        assert_eq!(counts, [Ok(7), Ok(0)]);
        for empty in
            [r#"{"results":[]}"#, "{}", r#"{"results":[{}]}"#, r#"{"results":[{"group":{},"data":[]}]}"#]
        {
            assert_eq!(read(empty.as_bytes()), Ok(vec![]), "{empty}");
        }
    }

    #[test]
    fn what_cannot_be_true_is_refused() {
        let body = |count: &str| {
            format!(
                r#"{{"results":[{{"data":[{{"metrics":[{{"metric":"nFlow","stats":{{"count":{count}}}}}]}}]}}]}}"#
            )
        };
        let count = |count: &str| read(body(count).as_bytes()).and_then(|rows| rows[0].count("nFlow"));
        assert_eq!(count("3.0"), Ok(3));
        for wrong in ["-1", "1e300", "\"3\""] {
            assert!(count(wrong).is_err(), "{wrong}");
        }
        assert!(read(b"<html>").is_err());
    }
}
