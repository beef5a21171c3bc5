//! What the dialing stage looks up beside its records, from tables that every instance holds whole.

use super::allowances::UsedUp;
use super::settings_table::SettingsTable;
use crate::health::Health;
use crate::kafka::global_consumer::GlobalConsumer;
use crate::kafka::global_table::GlobalTable;
use crate::kafka::settings::KafkaSettings;
use crate::model::Timestamp;
use crate::model::lag::{LagEvaluation, LagStatus};
use crate::model::settings::{DIAL, DIAL_CAMPAIGN};
use crate::stages::dialing::{InForce, Lookup, in_force};
use crate::stages::{dialing, windowing};
use crate::topics;

/// Consumer groups known at most.
const ENTRIES_LIMIT: usize = 100_000;

/// Settings, and how the groups are that statistics pass on their way to a decision.
#[derive(Clone, Debug)]
pub(super) struct DialTables {
    settings: SettingsTable,
    lag: GlobalTable<LagEvaluation>,
    groups: [String; 2],
    used_up: UsedUp,
}

impl DialTables {
    /// Starts reading. Registers `dialing.lag` with `health`.
    pub(super) fn open(
        settings: SettingsTable,
        kafka: &KafkaSettings,
        global: &GlobalConsumer,
        health: &Health,
    ) -> Self {
        let part = health.part("dialing.lag");
        Self {
            settings,
            lag: GlobalTable::open(global, &topics::LAG_STATUS, ENTRIES_LIMIT, part),
            groups: [&windowing::DECLARATION, &dialing::DECLARATION].map(|stage| kafka.group(stage.name)),
            used_up: UsedUp::default(),
        }
    }

    /// Whose call attempts of the month are used up.
    #[must_use]
    pub(super) fn heeding(self, used_up: UsedUp) -> Self {
        Self { used_up, ..self }
    }

    /// Waits until both are read. `false` when the shutdown came first.
    pub(super) async fn caught_up(&self) -> bool {
        self.settings.0.caught_up().await && self.lag.caught_up().await
    }
}

impl Lookup for DialTables {
    fn settings(&self, campaign_id: &str) -> InForce {
        let own = self.settings.0.get(&format!("{DIAL_CAMPAIGN}{campaign_id}"));
        let general = self.settings.0.get(DIAL);
        in_force([own.as_deref(), general.as_deref()])
    }

    fn lagging(&self, at: Timestamp) -> Vec<String> {
        let lag = self.groups.iter().filter_map(|group| self.lag.get(group));
        lag.filter(|lag| is_in_error(lag, at)).map(|lag| lag.consumer_group.clone()).collect()
    }

    fn attempts_used_up(&self, campaign_id: &str) -> bool {
        self.used_up.has(campaign_id)
    }
}

/// Whether a group is in `ERROR` or worse, by a poll that still counts.
fn is_in_error(lag: &LagEvaluation, at: Timestamp) -> bool {
    lag.status <= LagStatus::Error && at <= lag.valid_until
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_holds_the_rates_while_a_poll_says_that_it_is_in_error() {
        let text =
            std::fs::read_dir("schemas/examples/trunkline.lag-status.v1").unwrap().next().unwrap().unwrap();
        let lag: LagEvaluation = serde_json::from_slice(&std::fs::read(text.path()).unwrap()).unwrap();
        let at = lag.valid_until;
        for (status, expected) in [
            (LagStatus::DataLoss, true),
            (LagStatus::Error, true),
            (LagStatus::Warning, false),
            (LagStatus::Unknown, false),
        ] {
            let lag = LagEvaluation { status, ..lag.clone() };
            assert_eq!(is_in_error(&lag, at), expected, "{status:?}");
            assert!(!is_in_error(&lag, at.plus(std::time::Duration::from_millis(1))));
        }
    }
}
