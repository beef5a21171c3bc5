//! The agents of one campaign: they log in, wait, talk, wrap up, take breaks and go home.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::Serialize;

use crate::chance::Chance;
use crate::scenario::CampaignScenario;

/// How many agents do what. The sum never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentCounts {
    pub idle: u32,
    pub talking: u32,
    pub wrapping_up: u32,
    pub on_break: u32,
    pub away: u32,
}

impl AgentCounts {
    pub fn total(self) -> u32 {
        self.idle + self.talking + self.wrapping_up + self.on_break + self.away
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Activity {
    Away,
    Idle,
    Talking,
    WrappingUp,
    OnBreak,
}

#[derive(Clone, Debug)]
struct Agent {
    activity: Activity,
    /// When the activity ends by itself. A timer that names another second is an old one.
    until: u64,
    shift_ends: u64,
    break_due: u64,
}

/// Times are simulated seconds since the world began.
#[derive(Clone, Debug)]
pub(crate) struct Floor {
    agents: Vec<Agent>,
    timers: BinaryHeap<Reverse<(u64, u32)>>,
    /// Longest idle first: the next call is theirs.
    idle: VecDeque<u32>,
    counts: AgentCounts,
}

impl Floor {
    /// Everybody is away at second 0 and logs in within the scenario's spread.
    pub(crate) fn new(scenario: &CampaignScenario, chance: &mut Chance) -> Self {
        let mut floor = Self {
            agents: Vec::with_capacity(scenario.agents as usize),
            timers: BinaryHeap::new(),
            idle: VecDeque::new(),
            counts: AgentCounts { away: scenario.agents, ..AgentCounts::default() },
        };
        for index in 0..scenario.agents {
            let until = chance.between(1, scenario.login_spread_seconds.max(1));
            floor.agents.push(Agent { activity: Activity::Away, until, shift_ends: 0, break_due: 0 });
            floor.timers.push(Reverse((until, index)));
        }
        floor
    }

    pub(crate) fn counts(&self) -> AgentCounts {
        self.counts
    }

    /// Ends every activity that is due at `now`; returns how many calls ended.
    pub(crate) fn step(&mut self, now: u64, scenario: &CampaignScenario, chance: &mut Chance) -> u64 {
        let mut calls_ended = 0;
        while let Some(&Reverse((due, index))) = self.timers.peek() {
            if due > now {
                break;
            }
            self.timers.pop();
            if self.agents[index as usize].until != due {
                continue;
            }
            match self.agents[index as usize].activity {
                Activity::Away => {
                    let agent = &mut self.agents[index as usize];
                    agent.shift_ends = now + scenario.shift_seconds;
                    if let Some((from, _)) = leaves(index, scenario)
                        && now < from
                    {
                        agent.shift_ends = agent.shift_ends.min(from);
                    }
                    agent.break_due = next_break(now, scenario, chance);
                    self.release(index, now, scenario, chance);
                }
                Activity::Talking => {
                    calls_ended += 1;
                    let length =
                        whole_seconds_or_none(scenario.wrap_up_seconds, |mean| chance.exponential(mean));
                    match length {
                        0 => self.release(index, now, scenario, chance),
                        length => self.set(index, Activity::WrappingUp, now + length),
                    }
                }
                Activity::OnBreak => {
                    self.agents[index as usize].break_due = next_break(now, scenario, chance);
                    self.release(index, now, scenario, chance);
                }
                Activity::WrappingUp | Activity::Idle => self.release(index, now, scenario, chance),
            }
        }
        calls_ended
    }

    /// Gives a call to the agent who has been idle longest and tells how long they will
    /// talk, in seconds; none if nobody is idle.
    pub(crate) fn take_call(
        &mut self,
        now: u64,
        scenario: &CampaignScenario,
        chance: &mut Chance,
    ) -> Option<u64> {
        let &index = self.idle.front()?;
        let length = whole_seconds(chance.lognormal(scenario.talk_seconds, scenario.talk_variation));
        self.set(index, Activity::Talking, now + length);
        Some(length)
    }

    /// An agent with nothing to finish: home, to the break, or ready for a call.
    fn release(&mut self, index: u32, now: u64, scenario: &CampaignScenario, chance: &mut Chance) {
        let agent = &self.agents[index as usize];
        if now >= agent.shift_ends {
            let back = match leaves(index, scenario) {
                Some((from, to)) if (from..to).contains(&now) => to,
                _ => now + scenario.away_seconds.max(1),
            };
            self.set(index, Activity::Away, back);
        } else if now >= agent.break_due {
            let length = whole_seconds_or_none(scenario.break_seconds, |mean| chance.lognormal(mean, 0.3));
            self.set(index, Activity::OnBreak, now + length.max(1));
        } else {
            let until = agent.shift_ends.min(agent.break_due);
            self.set(index, Activity::Idle, until);
        }
    }

    fn set(&mut self, index: u32, activity: Activity, until: u64) {
        let agent = &mut self.agents[index as usize];
        let before = std::mem::replace(&mut agent.activity, activity);
        agent.until = until;
        self.timers.push(Reverse((until, index)));
        if before == Activity::Idle {
            match self.idle.front() {
                Some(front) if *front == index => drop(self.idle.pop_front()),
                _ => self.idle.retain(|idle| *idle != index),
            }
        }
        if activity == Activity::Idle {
            self.idle.push_back(index);
        }
        *self.count_of(before) -= 1;
        *self.count_of(activity) += 1;
    }

    fn count_of(&mut self, activity: Activity) -> &mut u32 {
        match activity {
            Activity::Away => &mut self.counts.away,
            Activity::Idle => &mut self.counts.idle,
            Activity::Talking => &mut self.counts.talking,
            Activity::WrappingUp => &mut self.counts.wrapping_up,
            Activity::OnBreak => &mut self.counts.on_break,
        }
    }

    /// Counted anew from the agents themselves: what the running counts must equal.
    #[cfg(test)]
    pub(crate) fn recount(&self) -> AgentCounts {
        let of = |activity| self.agents.iter().filter(|agent| agent.activity == activity).count() as u32;
        assert_eq!(of(Activity::Idle), self.idle.len() as u32);
        AgentCounts {
            idle: of(Activity::Idle),
            talking: of(Activity::Talking),
            wrapping_up: of(Activity::WrappingUp),
            on_break: of(Activity::OnBreak),
            away: of(Activity::Away),
        }
    }
}

/// When an agent is among those who leave together, and for how long.
fn leaves(index: u32, scenario: &CampaignScenario) -> Option<(u64, u64)> {
    scenario.half_away.filter(|_| index % 2 == 1)
}

fn next_break(now: u64, scenario: &CampaignScenario, chance: &mut Chance) -> u64 {
    match whole_seconds_or_none(scenario.break_every_seconds, |mean| chance.exponential(mean)) {
        0 => u64::MAX,
        length => now + length,
    }
}

/// At least 1 and at most a week: nothing in the world is shorter than its step.
fn whole_seconds(length: f64) -> u64 {
    (length.round() as u64).clamp(1, 604_800)
}

/// 0 when the mean is 0: the thing does not happen in this scenario.
fn whole_seconds_or_none(mean: f64, draw: impl FnOnce(f64) -> f64) -> u64 {
    if mean <= 0.0 { 0 } else { whole_seconds(draw(mean)) }
}
