//! What the stages of canaries look up beside their records, from a table that every instance holds
//! whole.

use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::kafka::global_table::GlobalTable;
use crate::kafka::settings::KafkaSettings;
use crate::model::decision::Loop;
use crate::model::delivery::{Arm, CANARY, CanaryOrder, CanaryRequest};
use crate::model::pause::Extent;
use crate::model::settings::{MAINTENANCE, MaintenanceWindow, Setting};
use crate::stages::canary_minutes::{self, Part};
use crate::stages::delivery;
use crate::topics;

/// Settings known at most.
const ENTRIES_LIMIT: usize = 100_000;

/// Settings; clones share them.
#[derive(Clone, Debug)]
pub(super) struct CanaryTables(GlobalTable<Setting<'static>>);

impl CanaryTables {
    /// Starts reading. Registers `<role>.settings` with `health`.
    pub(super) fn open(
        role: &str,
        kafka: &KafkaSettings,
        health: &Health,
        shutdown: &CancellationToken,
    ) -> Self {
        let part = health.part(&format!("{role}.settings"));
        Self(GlobalTable::open(kafka, &topics::SETTINGS, ENTRIES_LIMIT, part, shutdown))
    }

    /// Waits until all is read. `false` when the shutdown came first.
    pub(super) async fn caught_up(&self) -> bool {
        self.0.caught_up().await
    }
}

impl canary_minutes::Lookup for CanaryTables {
    fn parts(&self, flow_id: &str) -> Vec<Part> {
        let part = |(scope, setting): (&_, &_)| {
            let (scope, setting): (&str, &Setting<'_>) = (scope, setting);
            let configuration_id = scope.strip_prefix(CANARY)?.to_owned();
            let order: CanaryOrder = serde_json::from_value(setting.value.clone()).ok()?;
            let arm = match flow_id {
                _ if order.request != CanaryRequest::Start => return None,
                id if id == order.control_id => Arm::Control,
                id if id == order.candidate_id => Arm::Candidate,
                _ => return None,
            };
            Some(Part { configuration_id, canary_id: order.canary_id, arm })
        };
        self.0.entries().iter().filter_map(|(scope, setting)| part((&**scope, &**setting))).collect()
    }
}

impl delivery::Lookup for CanaryTables {
    fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        let entries = self.0.entries();
        let read = |setting: &Setting<'_>| serde_json::from_value(setting.value.clone()).ok();
        entries
            .iter()
            .filter(|(scope, setting)| scope.starts_with(MAINTENANCE) && !setting.value.is_null())
            .filter_map(|(scope, setting)| Some((scope.to_string(), read(setting)?)))
            .collect()
    }

    fn pauses(&self) -> Vec<String> {
        let scopes = [Extent::All, Extent::One(Loop::Delivery)].map(Extent::scope);
        let is_set = |scope: &String| self.0.get(scope).is_some_and(|setting| !setting.value.is_null());
        scopes.into_iter().filter(is_set).collect()
    }

    fn settings_revision(&self) -> u64 {
        self.0.entries().values().map(|setting| setting.revision).max().unwrap_or(0)
    }
}
