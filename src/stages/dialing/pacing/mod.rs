//! Policy `pacing`: the greatest rate at which the calls that nobody will be free for stay
//! within a budget of abandoned calls. `docs/dial.md` has the formulas and their sources.

mod belief;
mod budget;
pub mod overflow;
mod polls;

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::chain::{Chain, Limit};
use crate::model::dial_rate::Limits;
use belief::Belief;
use budget::Budget;
use overflow::expected_excess;

pub const NAME: &str = "pacing";
pub const VERSION: u32 = 3;

/// Polls that the idle counts are taken from, and how old they may be.
const POLLS: usize = 40;
const POLLS_MS: i64 = 600_000;
/// Rates are tried in steps of this.
const GRID: f64 = 0.25;
/// Rates tried at most; where a campaign's limits are further apart than that, its greatest rate
/// comes next.
const MOST_STEPS: f64 = 400.0;
/// A rate rises by no more than this factor a tick; it falls at once.
const RISE: f64 = 1.25;
/// Mean ring time of a call that is answered, seconds.
const RING_SECONDS: f64 = 12.0;
/// Calls that the configured handle time counts for beside the measured ones.
const HANDLE_PRIOR_CALLS: f64 = 10.0;
const HANDLE_HALF_LIFE: f64 = 3_600.0;
/// Time between two windows that is believed; longer gaps tell no more.
const LONGEST_TICK_SECONDS: f64 = 3_600.0;

/// The rule's parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pacing {
    /// Share of live answers that may be abandoned on average, 0–1.
    pub goal: f64,
    /// Share that must not be passed, 0–1.
    pub cap: f64,
    /// Mean handle time before it was measured, seconds.
    pub handle_seconds: f64,
    /// The campaign's local time minus UTC: its days begin there.
    pub day_offset_minutes: i32,
    /// Seconds of the platform's time in one of ours: 1, but for a simulator that runs faster.
    pub time_scale: f64,
}

impl Default for Pacing {
    fn default() -> Self {
        Self { goal: 0.02, cap: 0.03, handle_seconds: 180.0, day_offset_minutes: 0, time_scale: 1.0 }
    }
}

/// One window as the rule needs it. Counts are those since the window before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    pub at: Timestamp,
    /// Calls placed.
    pub attempts: u64,
    /// Calls answered by a person.
    pub answers: u64,
    /// Answers nobody was free for in time.
    pub abandoned: u64,
    pub agents_idle: u32,
    pub agents_busy: u32,
    /// Share of calls answered so far: the history, where nothing else is known.
    pub answer_rate: f64,
    /// Lines per idle agent now.
    pub dial_rate: f64,
    pub limits: Limits,
}

/// When, idle, busy.
type Poll = (i64, u32, u32);

/// What is kept per campaign. The rule's answers hang on it and on the observation alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Milliseconds since 1970 of the newest observation, on the platform's clock as all times here.
    at: Option<i64>,
    belief: Option<Belief>,
    budget: Budget,
    /// Oldest first.
    #[serde(with = "polls")]
    polls: ArrayVec<Poll, POLLS>,
    /// Discounted seconds agents were busy, and calls delivered in them.
    handled: (f64, f64),
}

impl Pacing {
    /// Takes an observation in and answers with the rate, in lines per idle agent, and how it
    /// came to be: the rule's answer, then budget, brake and slew. Where no call was placed
    /// the answer is the rate as it is: nothing was learned.
    pub fn decide(&self, state: &mut State, seen: &Observation) -> Chain {
        self.take_in(state, seen);
        self.answer(state, seen)
    }

    /// What an observation tells, kept for the answers to come.
    pub fn take_in(&self, state: &mut State, seen: &Observation) {
        let at = self.on_platforms_clock(seen.at);
        let passed = state.at.map_or(0.0, |before| (at - before) as f64 / 1_000.0);
        state.at = Some(at);
        state.take_in(self, seen, at, passed.clamp(0.0, LONGEST_TICK_SECONDS));
    }

    /// The answer by what was taken in.
    pub fn answer(&self, state: &State, seen: &Observation) -> Chain {
        let belief = state.belief.unwrap_or_else(|| Belief::from_history(seen.answer_rate));
        let allowance = state.budget.allowance(self.goal, self.cap);
        let mut chain = if seen.attempts == 0 {
            Chain::new(seen.dial_rate)
        } else {
            let greatest = self.greatest_within(state, belief.upper(), [self.cap, allowance], seen.limits);
            let mut chain = Chain::new(greatest[0]);
            chain.at_most(Limit::Budget, greatest[1]);
            chain
        };
        let brake = if state.budget.is_spent(self.cap) { seen.limits.min } else { f64::INFINITY };
        chain.at_most(Limit::Brake, brake);
        chain.at_most(Limit::Slew, RISE * seen.dial_rate.max(seen.limits.min));
        chain
    }

    fn on_platforms_clock(&self, at: Timestamp) -> i64 {
        (at.as_millis() as f64 * self.time_scale) as i64
    }

    /// The largest rate on the grid before the first at which more than each allowance of the
    /// answers would find nobody; the greater allowance comes first.
    fn greatest_within(
        &self,
        state: &State,
        answer_rate: f64,
        allowances: [f64; 2],
        limits: Limits,
    ) -> [f64; 2] {
        let free = state.coming_free(self.handle_seconds);
        let mut seen: ArrayVec<(u32, f64), POLLS> = ArrayVec::new();
        for (_, idle, _) in state.polls.iter().filter(|poll| poll.1 > 0) {
            match seen.iter_mut().find(|known| known.0 == *idle) {
                Some(known) => known.1 += 1.0,
                None => seen.push((*idle, 1.0)),
            }
        }
        let lost = |rate: f64| {
            let (mut lost, mut answered) = (0.0, 0.0);
            for (idle, often) in &seen {
                let lines = (rate * f64::from(*idle) + 1e-9).floor();
                lost += often * expected_excess(lines as u64, answer_rate, u64::from(*idle) + free);
                answered += often * lines * answer_rate;
            }
            if answered > 0.0 { lost / answered } else { 0.0 }
        };
        let steps = ((limits.max - limits.min) / GRID + 1e-9).floor().clamp(0.0, MOST_STEPS) as u32;
        let rates = (1..=steps).map(|step| limits.min + f64::from(step) * GRID);
        // The last piece of the way is shorter than a step of the grid.
        let rates = rates.chain((limits.max > limits.min).then_some(limits.max));
        let mut greatest = [limits.min; 2];
        let at_least = lost(limits.min);
        let mut within = allowances.map(|allowance| at_least <= allowance);
        for rate in rates {
            let lost = lost(rate);
            for (nth, allowance) in allowances.into_iter().enumerate() {
                within[nth] &= lost <= allowance;
                if within[nth] {
                    greatest[nth] = rate;
                }
            }
            if !within[0] {
                break;
            }
        }
        greatest
    }
}

impl State {
    /// When agents were counted, idle ones and busy ones.
    pub(super) fn polls(&self) -> &[Poll] {
        &self.polls
    }

    fn take_in(&mut self, rule: &Pacing, seen: &Observation, at: i64, seconds: f64) {
        let belief = self.belief.get_or_insert_with(|| Belief::from_history(seen.answer_rate));
        belief.feed(seconds, seen.answers, seen.attempts);
        let offset = i64::from(rule.day_offset_minutes) * 60_000;
        self.budget.feed(at, offset, seconds, seen.answers, seen.abandoned);
        self.polls.retain(|poll| at - poll.0 < POLLS_MS);
        if self.polls.is_full() {
            self.polls.remove(0);
        }
        self.polls.push((at, seen.agents_idle, seen.agents_busy));
        let kept = (-seconds / HANDLE_HALF_LIFE).exp2();
        let delivered = seen.answers.saturating_sub(seen.abandoned) as f64;
        self.handled = (
            kept * self.handled.0 + f64::from(seen.agents_busy) * seconds,
            kept * self.handled.1 + delivered,
        );
    }

    /// Agents that come free, on average, while a call rings.
    fn coming_free(&self, usual_handle_seconds: f64) -> u64 {
        // By Little's law busy seconds per delivered call are the mean handle time.
        let handle = (HANDLE_PRIOR_CALLS * usual_handle_seconds + self.handled.0)
            / (HANDLE_PRIOR_CALLS + self.handled.1);
        let busy: f64 = self.polls.iter().map(|poll| f64::from(poll.2)).sum();
        let mean_busy = busy / self.polls.len().max(1) as f64;
        (mean_busy * RING_SECONDS / handle.max(1.0)).floor() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { min: 1.0, max: 10.0 };

    fn seen(tick: i64, attempts: u64, answers: u64, abandoned: u64, idle: u32, rate: f64) -> Observation {
        Observation {
            at: Timestamp::from_millis(1_767_340_800_000 + tick * 30_000),
            attempts,
            answers,
            abandoned,
            agents_idle: idle,
            agents_busy: 20 - idle.min(20),
            answer_rate: 0.25,
            dial_rate: rate,
            limits: LIMITS,
        }
    }

    /// Rates of so many ticks that are all alike.
    fn rates(state: &mut State, ticks: std::ops::Range<i64>, abandoned: u64) -> Vec<f64> {
        let mut rate = 1.0;
        ticks
            .map(|tick| {
                rate = Pacing::default().decide(state, &seen(tick, 20, 5, abandoned, 3, rate)).value();
                rate
            })
            .collect()
    }

    #[test]
    fn polls_are_kept_in_one_row_and_read_as_they_were_kept_before() {
        let mut state = State::default();
        rates(&mut state, 0..3, 0);
        let kept = serde_json::to_value(&state).unwrap();
        let first = 1_767_340_800_000_i64;
        assert_eq!(kept["polls"], serde_json::json!([first, 3, 17, 30_000, 3, 17, 30_000, 3, 17]));
        let before = serde_json::json!([[first, 3, 17], [first + 30_000, 3, 17], [first + 60_000, 3, 17]]);
        let mut kept_before = kept.clone();
        kept_before["polls"] = before;
        for kept in [kept, kept_before] {
            assert_eq!(serde_json::from_value::<State>(kept).unwrap(), state);
        }
        let too_many = serde_json::json!(vec![1; 3 * (POLLS + 1)]);
        assert!(polls::deserialize(too_many).is_err());
    }

    #[test]
    fn it_rises_slowly_and_falls_at_once() {
        let mut state = State::default();
        let risen = rates(&mut state, 0..30, 0);
        assert!(risen.windows(2).all(|two| two[1] <= two[0] * RISE + 1e-9), "{risen:?}");
        assert!(*risen.last().unwrap() > 2.0, "{risen:?}");
        let chain = Pacing::default().decide(&mut state, &seen(30, 20, 5, 4, 3, *risen.last().unwrap()));
        assert_eq!((chain.value(), chain.bound), (1.0, Some(Limit::Brake)), "{chain:?}");
    }

    #[test]
    fn without_a_call_placed_the_rate_stays_unless_too_much_was_lost() {
        let mut state = State::default();
        let risen = *rates(&mut state, 0..30, 0).last().unwrap();
        let chain = Pacing::default().decide(&mut state, &seen(30, 0, 0, 0, 0, risen));
        assert_eq!((chain.raw, chain.value(), chain.bound), (risen, risen, None));
        let chain = Pacing::default().decide(&mut state, &seen(31, 0, 9, 9, 0, risen));
        assert_eq!((chain.value(), chain.bound), (1.0, Some(Limit::Brake)));
    }

    #[test]
    fn what_is_left_of_the_budget_comes_after_the_rules_answer() {
        let mut state = State::default();
        // 2 % lost: at the goal, under the cap.
        for tick in 0..200 {
            Pacing::default().decide(&mut state, &seen(tick, 20, 5, u64::from(tick % 10 == 0), 5, 2.0));
        }
        let chain = Pacing::default().decide(&mut state, &seen(200, 20, 5, 0, 5, 2.75));
        assert_eq!(chain.bound, Some(Limit::Budget), "{chain:?}");
        assert!(chain.value() < chain.raw && chain.value() > 1.0, "{chain:?}");
    }

    #[test]
    fn a_simulator_that_runs_faster_is_judged_by_its_own_clock() {
        let fast = Pacing { time_scale: 30.0, ..Pacing::default() };
        let (mut one, mut other) = (State::default(), State::default());
        for tick in 0..100 {
            let seen = seen(tick, 20, 5, u64::from(tick % 40 == 0), 3, 2.0);
            let sooner = Timestamp::from_millis(seen.at.as_millis() / 30);
            let quick = Observation { at: sooner, ..seen };
            assert_eq!(Pacing::default().decide(&mut one, &seen), fast.decide(&mut other, &quick), "{tick}");
        }
    }

    #[test]
    fn fewer_idle_agents_are_dialled_for_more_carefully() {
        let rate_with = |idle: u32, busy: u32, answers: u64| {
            let mut state = State::default();
            let mut rate = 1.0;
            for tick in 0..40 {
                let seen =
                    Observation { agents_busy: busy, ..seen(tick, 4 * answers, answers, 0, idle, rate) };
                rate = Pacing::default().decide(&mut state, &seen).value();
            }
            rate
        };
        let (few, many) = (rate_with(1, 4, 1), rate_with(20, 60, 12));
        assert!(few < many, "{few} {many}");
    }

    #[test]
    fn the_state_survives_its_serialisation() {
        let mut state = State::default();
        rates(&mut state, 0..50, 0);
        let mut restored: State = serde_json::from_str(&serde_json::to_string(&state).unwrap()).unwrap();
        assert_eq!(restored, state);
        let next = seen(50, 20, 5, 0, 3, 2.0);
        let rule = Pacing::default();
        assert_eq!(rule.decide(&mut restored, &next), rule.decide(&mut state, &next));
    }

    proptest! {
        /// Whatever is observed, the answer is a rate and the raw one within the limits.
        #[test]
        fn any_observations_have_an_answer(
            windows in proptest::collection::vec(
                (0i64..4_000, 0u64..5_000, 0u64..2_000, 0u64..2_000, 0u32..2_000, 0u32..2_000, 0.0f64..20.0), 1..60),
            min in 0.0f64..3.0,
            width in 0.0f64..12.0,
        ) {
            let mut state = State::default();
            for (tick, attempts, answers, abandoned, idle, busy, rate) in windows {
                let limits = Limits { min, max: min + width };
                let seen = Observation { agents_busy: busy, limits, ..seen(tick, attempts, answers, abandoned, idle, rate) };
                let chain = Pacing::default().decide(&mut state, &seen);
                let held = attempts == 0 && chain.raw == rate;
                prop_assert!(held || (chain.raw >= min && chain.raw <= min + width + 1e-9), "{chain:?}");
                prop_assert!(chain.value().is_finite() && chain.value() >= 0.0, "{chain:?}");
            }
        }
    }
}
