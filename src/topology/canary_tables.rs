//! What the stages of canaries look up beside their records, from a table that every instance holds
//! whole.

use super::settings_table::SettingsTable;
use crate::model::decision::Loop;
use crate::model::delivery::{Arm, CANARY, CanaryOrder, CanaryRequest};
use crate::model::pause::Extent;
use crate::model::settings::{MaintenanceWindow, Setting};
use crate::stages::canary_minutes::{self, Part};
use crate::stages::delivery;

/// Settings; clones share them.
#[derive(Clone, Debug)]
pub(super) struct CanaryTables(SettingsTable);

impl CanaryTables {
    pub(super) fn new(settings: SettingsTable) -> Self {
        Self(settings)
    }

    /// Waits until all is read. `false` when the shutdown came first.
    pub(super) async fn caught_up(&self) -> bool {
        self.0.0.caught_up().await
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
        self.0.0.entries().iter().filter_map(|(scope, setting)| part((&**scope, &**setting))).collect()
    }
}

impl delivery::Lookup for CanaryTables {
    fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        self.0.windows()
    }

    fn pauses(&self) -> Vec<String> {
        let scopes = [Extent::All, Extent::One(Loop::Delivery)].map(Extent::scope);
        let is_set = |scope: &String| self.0.0.get(scope).is_some_and(|setting| !setting.value.is_null());
        scopes.into_iter().filter(is_set).collect()
    }

    fn settings_revision(&self) -> u64 {
        self.0.revision()
    }
}
