//! The consumer groups the platform's event analytics tell about, and how they tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::chance::Chance;
use crate::scenario::{ConsumerGroupScenario, EventTypeScenario, Scenario};

/// Groups at once.
const MAX_GROUPS: usize = 1_000;

/// How the analytics behave where the seed documents contradict themselves, or go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct EventAnalyticsManners {
    /// Every page but the last carries the same page token, for ever.
    pub repeat_page_token: bool,
    /// The reply's `metrics` are objects, not texts.
    pub metrics_as_objects: bool,
    /// So many rows of each page carry their count as text.
    pub bad_rows: usize,
}

/// One row of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub consumer_group: String,
    pub event_type: String,
    pub event_count: u64,
    pub processing_latency_ms: f64,
}

#[derive(Debug)]
pub(crate) struct ConsumerGroups {
    groups: BTreeMap<String, Vec<EventTypeScenario>>,
    chance: Chance,
    pub manners: EventAnalyticsManners,
}

impl ConsumerGroups {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let groups = scenario.consumer_groups.iter();
        Self {
            groups: groups.map(|group| (group.name.clone(), group.event_types.clone())).collect(),
            chance: Chance::new(seed, "event analytics"),
            manners: EventAnalyticsManners::default(),
        }
    }

    pub(crate) fn all(&self) -> Vec<ConsumerGroupScenario> {
        let of = |(name, types): (&String, &Vec<EventTypeScenario>)| ConsumerGroupScenario {
            name: name.clone(),
            event_types: types.clone(),
        };
        self.groups.iter().map(of).collect()
    }

    /// Puts a group in place of the one of its name.
    ///
    /// # Errors
    /// All that is impossible about it.
    pub(crate) fn set(&mut self, group: ConsumerGroupScenario) -> Result<(), String> {
        let mut problems = group.problems();
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&group.name) {
            problems.push(format!("there are {MAX_GROUPS} groups already"));
        }
        if !problems.is_empty() {
            return Err(problems.join("; "));
        }
        self.groups.insert(group.name, group.event_types);
        Ok(())
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.groups.remove(name).is_some()
    }

    /// A row for each type of event of each group asked for, over a window of real time.
    pub(crate) fn rows(&mut self, asked: impl Fn(&str, &str) -> bool, window_ms: i64) -> Vec<Row> {
        let minutes = window_ms as f64 / 60_000.0;
        let mut rows = Vec::new();
        for (group, types) in &self.groups {
            for kind in types.iter().filter(|kind| asked(group, &kind.name)) {
                let varies = kind.latency_variation > 0.0 && kind.latency_ms > 0.0;
                let latency = match varies {
                    true => self.chance.lognormal(kind.latency_ms, kind.latency_variation),
                    false => kind.latency_ms,
                };
                rows.push(Row {
                    consumer_group: group.clone(),
                    event_type: kind.name.clone(),
                    event_count: (kind.events_per_minute * minutes).round() as u64,
                    processing_latency_ms: (latency * 10.0).round() / 10.0,
                });
            }
        }
        rows
    }
}
