//! Availability and weights as topics have them, from memory.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::context::View;
use crate::clock;
use crate::kafka::global_table::GlobalTable;
use crate::model::Timestamp;
use crate::model::settings::{ROUTE, RouteWeights, Setting};

/// What routing keeps of `model::routing::QueueAvailability`.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenAvailability {
    availability: f64,
    observed_at: Timestamp,
}

/// What other parts and the platform say.
pub struct Topics {
    pub availability: GlobalTable<SeenAvailability>,
    pub settings: GlobalTable<Setting<'static>>,
    /// What was observed longer ago than this says nothing any more.
    pub limit: Duration,
}

impl View for Topics {
    fn is_available(&self, destination_id: &str) -> bool {
        self.availability.get(destination_id).is_none_or(|seen| {
            let is_stale = clock::now() > seen.observed_at.plus(self.limit);
            is_stale || seen.availability > 0.0
        })
    }

    fn weights(&self, configuration_id: &str) -> Option<(i64, BTreeMap<String, f64>)> {
        let setting = self.settings.get(&format!("{ROUTE}{configuration_id}"))?;
        if setting.value.is_null() {
            return None;
        }
        match RouteWeights::deserialize(&setting.value) {
            Ok(RouteWeights { weights }) => {
                Some((i64::try_from(setting.revision).unwrap_or(i64::MAX), weights))
            }
            Err(error) => {
                tracing::warn!(configuration_id, %error, "weights set at run time cannot be read");
                None
            }
        }
    }
}
