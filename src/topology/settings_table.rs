//! Settings as the stages look them up, from a table that every instance holds whole.

use crate::health::Health;
use crate::kafka::global_consumer::GlobalConsumer;
use crate::kafka::global_table::GlobalTable;
use crate::model::settings::{MAINTENANCE, MaintenanceWindow, Setting};
use crate::topics;

/// Settings known at most.
const ENTRIES_LIMIT: usize = 100_000;

/// Settings; clones share them, so that the roles of a process read them once.
#[derive(Clone, Debug)]
pub(super) struct SettingsTable(pub GlobalTable<Setting<'static>>);

impl SettingsTable {
    /// Starts reading. Registers `settings` with `health`.
    pub(super) fn open(global: &GlobalConsumer, health: &Health) -> Self {
        let part = health.part("settings");
        Self(GlobalTable::open(global, &topics::SETTINGS, ENTRIES_LIMIT, part))
    }

    /// Maintenance windows with their scopes, those of the past among them.
    pub(super) fn windows(&self) -> Vec<(String, MaintenanceWindow)> {
        let entries = self.0.entries();
        let read = |setting: &Setting<'_>| serde_json::from_value(setting.value.clone()).ok();
        entries
            .iter()
            .filter(|(scope, setting)| scope.starts_with(MAINTENANCE) && !setting.value.is_null())
            .filter_map(|(scope, setting)| Some((scope.to_string(), read(setting)?)))
            .collect()
    }

    /// The newest revision; 0 while nothing was ever set.
    pub(super) fn revision(&self) -> u64 {
        self.0.entries().values().map(|setting| setting.revision).max().unwrap_or(0)
    }
}
