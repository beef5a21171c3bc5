//! One consumer group of a scenario, as the platform's event analytics see it.

use serde::{Deserialize, Serialize};

use super::Checker;

/// Event types one group may have.
const MAX_EVENT_TYPES: usize = 100;

/// A group that consumes the platform's events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerGroupScenario {
    pub name: String,
    pub event_types: Vec<EventTypeScenario>,
}

/// How a group fares with one type of event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventTypeScenario {
    pub name: String,
    /// Events consumed per real minute.
    #[serde(alias = "eventsPerMinute")]
    pub events_per_minute: f64,
    /// Mean processing latency in milliseconds.
    #[serde(alias = "latencyMs")]
    pub latency_ms: f64,
    /// Deviation ÷ mean of the latency from one query to the next; 0 for none.
    #[serde(alias = "latencyVariation")]
    pub latency_variation: f64,
}

impl Default for EventTypeScenario {
    fn default() -> Self {
        Self { name: String::new(), events_per_minute: 60.0, latency_ms: 120.0, latency_variation: 0.0 }
    }
}

impl ConsumerGroupScenario {
    pub(super) fn find_problems(&self, problems: &mut Vec<String>) {
        let mut checker = Checker { kind: "consumer group", name: &self.name, problems };
        let named = |name: &str| !name.is_empty() && name.len() <= 200;
        checker.check(named(&self.name), "name", &self.name, "1 to 200 bytes of text");
        let types: std::collections::BTreeSet<_> = self.event_types.iter().map(|it| &it.name).collect();
        let possible = types.len() == self.event_types.len()
            && types.len() <= MAX_EVENT_TYPES
            && self.event_types.iter().all(|it| {
                named(&it.name)
                    && (0.0..=1e9).contains(&it.events_per_minute)
                    && (0.0..=1e12).contains(&it.latency_ms)
                    && (0.0..=10.0).contains(&it.latency_variation)
            });
        checker.check(
            possible,
            "event_types",
            &self.event_types,
            "at most 100 with different names, events_per_minute 0 to 1e9, latency_ms 0 to 1e12, latency_variation 0 to 10",
        );
    }

    /// All that is impossible about the group.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.find_problems(&mut problems);
        problems
    }
}
