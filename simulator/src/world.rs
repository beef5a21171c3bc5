//! All campaigns of the simulated organisation, stepped together in seconds.
//!
//! Pure: the same seed, scenario and moments of change give the same world.

use std::collections::BTreeMap;

use crate::dialer::{CallCounts, Dialer, SettledCall, Snapshot};
use crate::scenario::Scenario;

#[derive(Clone, Debug)]
pub struct World {
    now: u64,
    dialers: BTreeMap<String, Dialer>,
}

impl World {
    /// Second 0: nobody has logged in, nothing rings.
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let dialers = scenario
            .campaigns
            .iter()
            .map(|campaign| (campaign.id.clone(), Dialer::new(campaign.clone(), seed)))
            .collect();
        Self { now: 0, dialers }
    }

    /// Simulated seconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn step(&mut self) {
        self.now += 1;
        self.dialers.values_mut().for_each(|dialer| dialer.step(self.now));
    }

    /// Answered calls settled in the last second, with their campaigns.
    pub fn settled_calls(&self) -> impl Iterator<Item = (&str, SettledCall)> {
        self.dialers.iter().flat_map(|(id, dialer)| dialer.settled().iter().map(|call| (id.as_str(), *call)))
    }

    /// What each campaign has counted since the world began.
    pub fn call_counts(&self) -> impl Iterator<Item = (&str, CallCounts)> {
        self.dialers.iter().map(|(id, dialer)| (id.as_str(), dialer.calls()))
    }

    /// Nothing happens for a campaign that does not exist.
    pub fn set_dial_rate(&mut self, campaign_id: &str, lines_per_idle_agent: f64) {
        if let Some(dialer) = self.dialers.get_mut(campaign_id) {
            dialer.set_dial_rate(lines_per_idle_agent);
        }
    }

    /// The campaign's agents and calls go with it.
    pub fn remove(&mut self, campaign_id: &str) {
        self.dialers.remove(campaign_id);
    }

    pub fn snapshot(&self, campaign_id: &str) -> Option<Snapshot> {
        self.dialers.get(campaign_id).map(Dialer::snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(scenario: &Scenario, seed: u64, seconds: u64) -> Vec<(String, Snapshot)> {
        let mut world = World::new(scenario, seed);
        for _ in 0..seconds {
            world.step();
            if world.now() == 1_000 {
                world.set_dial_rate(&scenario.campaigns[0].id, 3.25);
            }
        }
        let snapshot = |id: &String| (id.clone(), world.snapshot(id).unwrap());
        world.dialers.keys().map(snapshot).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_world() {
        let scenario = Scenario::default();
        assert_eq!(live(&scenario, 42, 4_000), live(&scenario, 42, 4_000));
        assert_ne!(live(&scenario, 42, 4_000), live(&scenario, 43, 4_000));
    }

    #[test]
    fn a_campaign_more_leaves_the_others_as_they_were() {
        let all = Scenario::default();
        let fewer = Scenario::of_campaigns(all.campaigns[..3].to_vec());
        let with_all = live(&all, 42, 3_000);
        for campaign in live(&fewer, 42, 3_000) {
            assert!(with_all.contains(&campaign), "{campaign:?}");
        }
    }

    #[test]
    fn every_campaign_of_the_built_in_scenario_is_alive() {
        for (id, snapshot) in live(&Scenario::default(), 1, 7_200) {
            assert!(snapshot.calls.delivered > 50, "{id}: {snapshot:?}");
            assert!(snapshot.calls.handled > 0 && snapshot.agents.away < snapshot.agents.total(), "{id}");
        }
    }
}
