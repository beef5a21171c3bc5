//! What the rollback stage looks up beside its records, from tables that every instance
//! holds whole.

use std::sync::Arc;

use super::settings_table::SettingsTable;
use crate::health::Health;
use crate::kafka::global_consumer::GlobalConsumer;
use crate::kafka::global_table::GlobalTable;
use crate::model::flow::FlowVersions;
use crate::model::outcome::Outcome;
use crate::model::settings::MaintenanceWindow;
use crate::stages::rollback::Lookup;
use crate::topics;

/// Flows known at most.
const ENTRIES_LIMIT: usize = 100_000;

/// Publish timelines, settings and refused rollbacks; clones share them.
#[derive(Clone, Debug)]
pub(super) struct SideTables {
    versions: GlobalTable<FlowVersions<'static>>,
    settings: SettingsTable,
    refusals: GlobalTable<Outcome>,
}

impl SideTables {
    /// Starts reading. Registers `rollback.versions` and `rollback.refusals` with `health`.
    pub(super) fn open(settings: SettingsTable, global: &GlobalConsumer, health: &Health) -> Self {
        let part = |name: &str| health.part(&format!("rollback.{name}"));
        Self {
            versions: GlobalTable::open(global, &topics::FLOW_VERSIONS, ENTRIES_LIMIT, part("versions")),
            settings,
            refusals: GlobalTable::open(global, &topics::ROLLBACK_REFUSALS, ENTRIES_LIMIT, part("refusals")),
        }
    }

    /// Waits until all are read. `false` when the shutdown came first.
    pub(super) async fn caught_up(&self) -> bool {
        self.versions.caught_up().await
            && self.settings.0.caught_up().await
            && self.refusals.caught_up().await
    }
}

impl Lookup for SideTables {
    fn versions(&self, flow_id: &str) -> Option<Arc<FlowVersions<'static>>> {
        self.versions.get(flow_id)
    }

    fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        self.settings.windows()
    }

    fn refusal(&self, flow_id: &str) -> Option<Arc<Outcome>> {
        self.refusals.get(flow_id)
    }

    fn settings_revision(&self) -> u64 {
        self.settings.revision()
    }
}
