//! Windowing and dialing: each alone, or chained where an instance has both.

use std::sync::Arc;

use super::count_table::CountTable;
use super::dial_tables::DialTables;
use super::settings;
use super::start::{Shared, Starting};
use super::starters::{DIAL_OFF, Started, left_out};
use crate::model::decision::Mode;
use crate::model::settings::DialPolicy;
use crate::runtime::{run_chained, run_stage};
use crate::stages::dialing::Dialing;
use crate::stages::windowing::Windowing;
use crate::stages::{dialing, windowing};

impl Starting<'_> {
    /// Alone; beside [`dialing`](Self::dialing) it is started with that.
    pub(super) fn windowing(&mut self) -> Started {
        if self.config.dial.mode.is_none() {
            return left_out(&windowing::ROLE, DIAL_OFF);
        }
        if self.plays(&dialing::ROLE) {
            return Ok(());
        }
        let Shared { kafka, health, stop, .. } = self.shared();
        let (counts, stage) = self.windowing_stage();
        let settings = settings::stage(self.config);
        // Counts that are not read yet would look as if none had come.
        self.task(&windowing::ROLE, async move {
            if counts.caught_up().await {
                run_stage(stage, &kafka, &settings, health.part(windowing::ROLE.name), stop).stopped().await;
            }
            Ok::<_, anyhow::Error>(())
        })
    }

    fn windowing_stage(&self) -> (CountTable, Windowing) {
        let Shared { health, .. } = self.shared();
        let counts = CountTable::open(&self.global, &health);
        let stage = Windowing::new(Arc::new(counts.clone()));
        (counts, stage)
    }

    /// Chained with windowing where this instance has both.
    pub(super) fn dialing(&mut self) -> Started {
        let Some(mode) = self.config.dial.mode else { return left_out(&dialing::ROLE, DIAL_OFF) };
        let Shared { kafka, health, stop, .. } = self.shared();
        let (tables, stage) = self.dialing_stage(mode);
        let before = self.plays(&windowing::ROLE).then(|| self.windowing_stage());
        let settings = settings::stage(self.config);
        // Without knowing what is set nothing is decided.
        self.task(&dialing::ROLE, async move {
            let part = health.part(dialing::ROLE.name);
            let Some((counts, windowing)) = before else {
                if tables.caught_up().await {
                    run_stage(stage, &kafka, &settings, part, stop).stopped().await;
                }
                return Ok::<_, anyhow::Error>(());
            };
            let parts = (health.part(windowing::ROLE.name), part);
            if counts.caught_up().await && tables.caught_up().await {
                run_chained((windowing, stage), &kafka, &settings, parts, stop).stopped().await;
            }
            Ok(())
        })
    }

    fn dialing_stage(&mut self, mode: Mode) -> (DialTables, Dialing) {
        let rules = settings::dial_rules(self.config);
        if rules.policy == DialPolicy::Proportional {
            tracing::warn!(
                "dial.policy is proportional: it has no fixed point and walks to a campaign's greatest rate while \
                 the answer rate is below dial.target; keep maxDialRate tight, or take pacing"
            );
        }
        let Shared { kafka, health, .. } = self.shared();
        let tables = DialTables::open(self.settings_table(), &kafka, &self.global, &health);
        let tables = tables.heeding(self.used_up.clone());
        let stage = Dialing::new(mode, self.config.dial.interval, rules, Arc::new(tables.clone()));
        (tables, stage)
    }
}
