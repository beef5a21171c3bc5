//! Queues: how many of their agents are available, as it changes over time.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Serialize;

use crate::chance::Chance;
use crate::reply::Refusal;
use crate::scenario::{QueueScenario, Scenario};

#[derive(Debug)]
struct Queue {
    scenario: QueueScenario,
    chance: Chance,
    /// Share of available agents, 0–1.
    availability: f64,
    /// Stands in its place while it is set.
    pinned: Option<f64>,
}

/// A queue to somebody who may see everything.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueOverview {
    pub id: String,
    pub name: String,
    pub agents: u32,
    /// As the platform tells it.
    pub availability_percentage: f64,
    /// Whether somebody has set it, so that it no longer changes by itself.
    pub pinned: bool,
}

/// All queues of the organisation. Stepped in simulated seconds.
#[derive(Debug)]
pub(crate) struct Queues(BTreeMap<String, Queue>);

impl Queues {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let queues = scenario.queues.iter().map(|queue| {
            let chance = Chance::new(seed, &format!("queue {}", queue.id));
            let availability = queue.availability;
            (queue.id.clone(), Queue { scenario: queue.clone(), chance, availability, pinned: None })
        });
        Self(queues.collect())
    }

    /// Lives through one second.
    pub(crate) fn step(&mut self) {
        for queue in self.0.values_mut() {
            let QueueScenario { min_availability, max_availability, change_per_minute, .. } = queue.scenario;
            let moved = queue.availability + change_per_minute / 60f64.sqrt() * queue.chance.normal();
            let reflected = if moved < min_availability {
                2.0 * min_availability - moved
            } else if moved > max_availability {
                2.0 * max_availability - moved
            } else {
                moved
            };
            queue.availability = reflected.clamp(min_availability, max_availability);
        }
    }

    /// Available agents in percent of all; agents are whole.
    ///
    /// # Errors
    /// 404 for an unknown queue.
    pub(crate) fn percentage(&self, id: &str) -> Result<f64, Refusal> {
        self.0.get(id).map(Queue::percentage).ok_or_else(|| unknown_queue(id))
    }

    /// Sets the percentage until it is let go with none.
    ///
    /// # Errors
    /// 404 for an unknown queue, 400 for no percentage.
    pub(crate) fn pin(&mut self, id: &str, percentage: Option<f64>) -> Result<(), Refusal> {
        if percentage.is_some_and(|percentage| !(0.0..=100.0).contains(&percentage)) {
            let message = "availabilityPercentage must be from 0 to 100, or null";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "invalid.value", message));
        }
        self.0.get_mut(id).ok_or_else(|| unknown_queue(id))?.pinned = percentage;
        Ok(())
    }

    pub(crate) fn overview(&self) -> Vec<QueueOverview> {
        let of = |queue: &Queue| QueueOverview {
            id: queue.scenario.id.clone(),
            name: queue.scenario.name.clone(),
            agents: queue.scenario.agents,
            availability_percentage: queue.percentage(),
            pinned: queue.pinned.is_some(),
        };
        self.0.values().map(of).collect()
    }
}

impl Queue {
    fn percentage(&self) -> f64 {
        let agents = f64::from(self.scenario.agents);
        match self.pinned {
            Some(percentage) => percentage,
            None if agents == 0.0 => 0.0,
            None => (self.availability * agents).round() / agents * 100.0,
        }
    }
}

fn unknown_queue(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not.found", format!("Unable to find a queue with id {id}")).about(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn availability_wanders_within_its_bounds_and_repeats_with_the_seed() {
        let live = |seed| {
            let mut queues = Queues::new(&Scenario::default(), seed);
            let mut seen = Vec::new();
            for _ in 0..3_600 {
                queues.step();
                seen.push(queues.overview()[0].availability_percentage);
            }
            seen
        };
        let seen = live(3);
        assert_eq!(seen, live(3));
        assert_ne!(seen, live(4));
        let (least, most) =
            seen.iter().fold((100.0f64, 0.0f64), |(least, most), it| (least.min(*it), most.max(*it)));
        assert!(least >= 5.0 && most <= 100.0 && most - least > 10.0, "{least} {most}");
    }

    #[test]
    fn a_pinned_queue_stands_still_until_it_is_let_go() {
        let mut queues = Queues::new(&Scenario::default(), 1);
        let id = queues.overview()[0].id.clone();
        let before = queues.percentage(&id).unwrap();
        queues.pin(&id, Some(0.0)).unwrap();
        (0..100).for_each(|_| queues.step());
        assert_eq!(queues.percentage(&id).unwrap(), 0.0);
        queues.pin(&id, None).unwrap();
        assert!(queues.percentage(&id).unwrap() > 0.0 && before > 0.0);
        assert!(queues.pin(&id, Some(101.0)).is_err() && queues.pin("nothing", None).is_err());
    }
}
