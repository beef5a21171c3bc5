//! The dialer of one campaign (`docs/platform.md`): it keeps lines ringing for idle
//! agents and hands answered calls to them, or loses them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use serde::Serialize;

use crate::chance::Chance;
use crate::contacts::Contacts;
use crate::floor::{AgentCounts, Floor};
use crate::scenario::CampaignScenario;

/// An answered call nobody takes within this time is abandoned.
pub(crate) const PATIENCE_SECONDS: u64 = 2;

/// Counted since the world began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CallCounts {
    /// Calls placed.
    pub attempts: u64,
    /// Calls that rang out.
    pub unanswered: u64,
    /// Calls answered by a person.
    pub answers: u64,
    /// Answers no agent was free for in time.
    pub abandoned: u64,
    /// Answers that reached an agent.
    pub delivered: u64,
    /// Delivered calls that have ended.
    pub handled: u64,
}

/// What became of an answered call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettledCall {
    /// An agent took it and will talk so long.
    Delivered { talk_seconds: u64 },
    /// Nobody was free in time.
    Abandoned,
}

/// A campaign at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Lines dialled per idle agent.
    pub dial_rate: f64,
    /// Share of the last attempts that were answered, as the platform reports it.
    pub answer_rate: f64,
    /// Probability of an answer in the world, which the platform does not know.
    pub true_answer_rate: f64,
    pub agents: AgentCounts,
    pub ringing: u64,
    /// Answered calls that wait for an agent.
    pub waiting: u64,
    #[serde(flatten)]
    pub calls: CallCounts,
}

impl Snapshot {
    /// Abandoned ÷ live answers settled so far; 0 before the first.
    pub fn abandonment(&self) -> f64 {
        match self.calls.abandoned + self.calls.delivered {
            0 => 0.0,
            settled => self.calls.abandoned as f64 / settled as f64,
        }
    }
}

/// One campaign's calls and agents. Stepped in seconds; no clock of its own.
#[derive(Clone, Debug)]
pub struct Dialer {
    scenario: CampaignScenario,
    /// Of calls, agents and the answer rate: the same people come to the same world
    /// whatever is dialled.
    calls_chance: Chance,
    floor_chance: Chance,
    drift_chance: Chance,
    floor: Floor,
    contacts: Contacts,
    dial_rate: f64,
    /// When each ringing line is picked up (true) or given up (false).
    ringing: BinaryHeap<Reverse<(u64, bool)>>,
    /// When each waiting caller hangs up, oldest first.
    waiting: VecDeque<u64>,
    calls: CallCounts,
    /// Answered calls settled in the last step.
    settled: Vec<SettledCall>,
    /// Outcomes of the last attempts, newest last, and how many were answers.
    recent: VecDeque<bool>,
    recent_answers: usize,
}

impl Dialer {
    pub fn new(scenario: CampaignScenario, seed: u64) -> Self {
        let mut floor_chance = Chance::new(seed, &format!("{}/floor", scenario.id));
        Self {
            floor: Floor::new(&scenario, &mut floor_chance),
            floor_chance,
            calls_chance: Chance::new(seed, &scenario.id),
            drift_chance: Chance::new(seed, &format!("{}/drift", scenario.id)),
            contacts: Contacts::new(scenario.answering.clone()),
            dial_rate: scenario.dial_rate,
            ringing: BinaryHeap::new(),
            waiting: VecDeque::new(),
            calls: CallCounts::default(),
            settled: Vec::new(),
            recent: VecDeque::new(),
            recent_answers: 0,
            scenario,
        }
    }

    /// Lines per idle agent from now on; calls already ringing ring on.
    pub fn set_dial_rate(&mut self, rate: f64) {
        self.dial_rate = rate;
    }

    /// Lives through the second that ends at `now`. Agents come free before calls
    /// are handed out, and those before new ones are placed.
    pub fn step(&mut self, now: u64) {
        self.settled.clear();
        self.calls.handled += self.floor.step(now, &self.scenario, &mut self.floor_chance);
        self.contacts.step(now, &mut self.drift_chance);
        self.connect_waiting(now);
        self.settle_ringing(now);
        self.place_calls(now);
    }

    pub fn calls(&self) -> CallCounts {
        self.calls
    }

    /// Answered calls that found an agent, or lost their patience, in the last step.
    pub fn settled(&self) -> &[SettledCall] {
        &self.settled
    }

    /// Hands an answered call to an agent; false if nobody is free.
    fn deliver(&mut self, now: u64) -> bool {
        let taken = self.floor.take_call(now, &self.scenario, &mut self.floor_chance);
        if let Some(talk_seconds) = taken {
            self.calls.delivered += 1;
            self.settled.push(SettledCall::Delivered { talk_seconds });
        }
        taken.is_some()
    }

    fn connect_waiting(&mut self, now: u64) {
        while let Some(&gives_up) = self.waiting.front() {
            if !self.deliver(now) {
                if gives_up > now {
                    return;
                }
                self.calls.abandoned += 1;
                self.settled.push(SettledCall::Abandoned);
            }
            self.waiting.pop_front();
        }
    }

    fn settle_ringing(&mut self, now: u64) {
        while let Some(&Reverse((due, answered))) = self.ringing.peek() {
            if due > now {
                return;
            }
            self.ringing.pop();
            self.remember(answered);
            if !answered {
                self.calls.unanswered += 1;
                continue;
            }
            self.calls.answers += 1;
            if !self.deliver(now) {
                self.waiting.push_back(now + PATIENCE_SECONDS);
            }
        }
    }

    fn place_calls(&mut self, now: u64) {
        for _ in self.ringing.len() as u64..self.lines_allowed() {
            let (answered, rings) = self.contacts.call(&mut self.calls_chance);
            self.ringing.push(Reverse((now + rings, answered)));
            self.calls.attempts += 1;
        }
    }

    /// `floor(r * idle)`; the hair above keeps 0.29 * 100 at 29 in binary floats.
    fn lines_allowed(&self) -> u64 {
        (self.dial_rate * f64::from(self.floor.counts().idle) + 1e-9).floor() as u64
    }

    fn remember(&mut self, answered: bool) {
        if self.recent.len() == self.scenario.answer_rate_attempts {
            self.recent_answers -= usize::from(self.recent.pop_front() == Some(true));
        }
        self.recent.push_back(answered);
        self.recent_answers += usize::from(answered);
    }

    /// Before the first attempt has ended there is nothing to observe: the
    /// campaign's history stands in, which here is the true rate.
    fn observed_answer_rate(&self) -> f64 {
        match (self.contacts.constant(), self.recent.len()) {
            (Some(rate), _) => rate,
            (None, 0) => self.contacts.rate(),
            (None, held) => self.recent_answers as f64 / held as f64,
        }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            dial_rate: self.dial_rate,
            answer_rate: self.observed_answer_rate(),
            true_answer_rate: self.contacts.rate(),
            agents: self.floor.counts(),
            ringing: self.ringing.len() as u64,
            waiting: self.waiting.len() as u64,
            calls: self.calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Answering, Scenario};
    use proptest::prelude::*;

    fn assert_conserved(dialer: &Dialer, agents: u32) {
        let seen = dialer.snapshot();
        assert_eq!(dialer.floor.recount(), seen.agents);
        assert_eq!(seen.agents.total(), agents);
        let calls = seen.calls;
        assert_eq!(calls.attempts, seen.ringing + calls.unanswered + calls.answers);
        assert_eq!(calls.answers, calls.delivered + calls.abandoned + seen.waiting);
        assert_eq!(calls.delivered, calls.handled + u64::from(seen.agents.talking));
    }

    fn any_answering() -> impl Strategy<Value = Answering> {
        prop_oneof![
            (0.0..=1.0f64).prop_map(|rate| Answering::Constant { rate }),
            (0.0..=0.5f64, 0.0..=0.5f64, 0.0..=0.2f64).prop_map(|(min, span, per_minute)| {
                Answering::Drifting { start: min + span / 2.0, min, max: min + span, per_minute }
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Nothing appears or disappears, whatever the scenario and however the rate is moved.
        #[test]
        fn agents_and_calls_are_conserved(
            seed: u64,
            agents in 0u32..30,
            answering in any_answering(),
            (talk_seconds, wrap_up_seconds) in (1.0..400.0f64, 0.0..60.0f64),
            (break_every_seconds, break_seconds) in (0.0..900.0f64, 0.0..300.0f64),
            (shift_seconds, away_seconds) in (1u64..2_000, 0u64..200),
            rates in proptest::collection::vec(0.0..12.0f64, 1..8),
        ) {
            let scenario = CampaignScenario {
                agents, answering, talk_seconds, wrap_up_seconds, break_every_seconds, break_seconds,
                shift_seconds, away_seconds, ..Scenario::default().campaigns[0].clone()
            };
            let mut dialer = Dialer::new(scenario, seed);
            for now in 1..=2_400u64 {
                if now % 300 == 0 {
                    dialer.set_dial_rate(rates[(now / 300) as usize % rates.len()]);
                }
                let ringing_before = dialer.ringing.len() as u64;
                dialer.step(now);
                assert_conserved(&dialer, agents);
                // Lines only exceed what is allowed when they rang already.
                prop_assert!(dialer.ringing.len() as u64 <= dialer.lines_allowed().max(ringing_before));
            }
        }
    }

    fn campaign(agents: u32, rate: f64, answer_rate: f64) -> Dialer {
        let scenario = CampaignScenario {
            agents,
            dial_rate: rate,
            answering: Answering::Constant { rate: answer_rate },
            break_every_seconds: 0.0,
            login_spread_seconds: 1,
            ..Scenario::default().campaigns[0].clone()
        };
        Dialer::new(scenario, 11)
    }

    #[test]
    fn lines_follow_the_rate_and_ring_as_long_as_they_should() {
        let mut dialer = campaign(10, 2.5, 0.0);
        for now in 1..=22 {
            dialer.step(now);
            assert_eq!((dialer.ringing.len(), dialer.calls.unanswered), (25, 0), "second {now}");
        }
        dialer.step(23);
        assert_eq!((dialer.calls.unanswered, dialer.calls.attempts), (25, 50));

        let mut dialer = campaign(1, 6.0, 1.0);
        (1..=6).for_each(|now| dialer.step(now));
        assert_eq!(dialer.calls.answers, 0);
        (7..=19).for_each(|now| dialer.step(now));
        assert_eq!(dialer.calls.answers, 6);
    }

    #[test]
    fn a_caller_waits_two_seconds_and_no_longer() {
        let mut dialer = campaign(1, 1.0, 1.0);
        dialer.step(1);
        dialer.ringing = [Reverse((5, true)), Reverse((5, true))].into();
        (2..=6).for_each(|now| dialer.step(now));
        assert_eq!((dialer.calls.delivered, dialer.calls.abandoned, dialer.waiting.len()), (1, 0, 1));
        dialer.step(7);
        assert_eq!((dialer.calls.delivered, dialer.calls.abandoned, dialer.waiting.len()), (1, 1, 0));
    }

    #[test]
    fn more_lines_keep_agents_busier_and_lose_more_calls() {
        let day = |rate| {
            let mut dialer = campaign(20, rate, 0.3);
            (1..=28_000).for_each(|now| dialer.step(now));
            dialer.snapshot()
        };
        let (careful, greedy) = (day(1.0), day(8.0));
        assert!(greedy.calls.delivered > careful.calls.delivered);
        assert!(careful.abandonment() < 0.01, "{}", careful.abandonment());
        assert!(greedy.abandonment() > 0.10, "{}", greedy.abandonment());
    }

    #[test]
    fn a_constant_answer_rate_is_reported_exactly() {
        let mut dialer = campaign(10, 2.0, 0.5);
        for now in 1..=5_000 {
            dialer.step(now);
            assert_eq!(dialer.snapshot().answer_rate, 0.5);
        }
        let share = dialer.calls.answers as f64 / dialer.calls.attempts as f64;
        assert!((share - 0.5).abs() < 0.05, "{share}");
    }

    #[test]
    fn an_observed_rate_is_the_share_of_the_last_attempts() {
        let scenario =
            CampaignScenario { answer_rate_attempts: 4, ..Scenario::default().campaigns[0].clone() };
        let mut dialer = Dialer::new(scenario, 1);
        assert_eq!(dialer.observed_answer_rate(), dialer.contacts.rate());
        for (answered, expected) in
            [(true, 1.0), (false, 0.5), (false, 1.0 / 3.0), (false, 0.25), (false, 0.0), (true, 0.25)]
        {
            dialer.remember(answered);
            assert_eq!(dialer.observed_answer_rate(), expected);
        }
    }
}
