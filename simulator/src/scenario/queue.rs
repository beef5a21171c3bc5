//! One queue of a scenario.

use serde::{Deserialize, Serialize};

use super::{Checker, MAX_AGENTS};

/// A queue: its agents, and how many of them are available over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueScenario {
    /// UUID; empty for one derived from the name, the same on every run.
    pub id: String,
    pub name: String,
    /// Members, at most 10 000.
    pub agents: u32,
    /// Share of them that is available: a random walk between reflecting bounds. 0–1.
    pub availability: f64,
    pub min_availability: f64,
    pub max_availability: f64,
    /// Deviation of the change over one minute.
    pub change_per_minute: f64,
}

impl Default for QueueScenario {
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            agents: 20,
            availability: 0.6,
            min_availability: 0.1,
            max_availability: 0.95,
            change_per_minute: 0.03,
        }
    }
}

impl QueueScenario {
    pub(super) fn find_problems(&self, problems: &mut Vec<String>) {
        let mut checker = Checker { kind: "queue", name: &self.name, problems };
        checker.check_name_and_id(&self.id);
        checker.check(self.agents <= MAX_AGENTS, "agents", &self.agents, "0 to 10000");
        checker.check_fraction("max_availability", self.max_availability);
        let lowest = self.min_availability;
        checker.check(
            (0.0..=self.max_availability).contains(&lowest),
            "min_availability",
            &lowest,
            "0 to max_availability",
        );
        let within = (lowest..=self.max_availability).contains(&self.availability);
        checker.check(within, "availability", &self.availability, "min_availability to max_availability");
        checker.check_fraction("change_per_minute", self.change_per_minute);
    }
}
