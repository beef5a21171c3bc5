//! A campaign as a model: the simulator's dialer and agents, fitted to what its decisions record. What
//! another rule would have come to is the model's word, and so is how far it is off where the outcome
//! is known.

use serde::Serialize;
use simulator::{Answering, CallCounts, CampaignScenario, Dialer};

use crate::model::Timestamp;
use crate::model::dial_rate::Limits;
use crate::model::settings::DialPolicy;
use crate::stages::dialing::evidence;
use crate::stages::dialing::judgement::{Answered, Around, judge};
use crate::stages::dialing::pacing::{Observation, State};
use crate::stages::dialing::rules::Rules;
use crate::topics::DialDecision;

/// Answer rates are taken over so many seconds.
const BIN_SECONDS: i64 = 300;
/// Attempts that an answer rate is taken from at least.
const FEW_ATTEMPTS: u64 = 20;
/// Windows further apart than this are no evidence of what went on between them.
const LONGEST_TICK_MS: i64 = 120_000;
/// Windows that a campaign is fitted to, at least and at most.
const FEW_WINDOWS: usize = 20;
const MOST_WINDOWS: usize = 200_000;
/// Longest stretch that is played, seconds.
const LONGEST_SECONDS: i64 = 2 * 86_400;

/// What a campaign came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Came {
    /// Share of the agents' time with a customer, 0–1.
    pub utilisation: f64,
    /// Share of the live answers that were abandoned, 0–1.
    pub abandonment: f64,
    pub attempts: f64,
    pub answers: f64,
}

/// What was observed of one campaign, window by window.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    windows: Vec<Observation>,
}

impl Observed {
    /// What a model takes, in words.
    pub(super) fn needed() -> String {
        let (apart, over) = (LONGEST_TICK_MS / 60_000, 2 * BIN_SECONDS / 60);
        format!("{FEW_WINDOWS} at most {apart} minutes apart, over {over} minutes")
    }

    /// Calls that were placed.
    pub(super) fn attempts(&self) -> u64 {
        self.windows.iter().map(|seen| seen.attempts).sum()
    }

    /// Polls that counted calls.
    pub(super) fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Takes the window of a decision in, where it says anything new. `time_scale`: the platform's
    /// seconds in one of ours.
    pub(super) fn add(&mut self, decision: &DialDecision<'_, Vec<String>>, time_scale: f64) {
        let Some(seen) = evidence::observation(&decision.inputs) else { return };
        let at = Timestamp::from_millis((seen.at.as_millis() as f64 * time_scale) as i64);
        if !decision.cause_ids.is_empty() {
            self.see(Observation { at, ..seen });
        }
    }

    /// Takes a window in, in the platform's time, where it is newer than the last one.
    pub(super) fn see(&mut self, seen: Observation) {
        let is_newer = self.windows.last().is_none_or(|last| last.at < seen.at);
        if is_newer && self.windows.len() < MOST_WINDOWS {
            self.windows.push(seen);
        }
    }

    /// Each window with the seconds since the one before.
    fn ticks(&self) -> impl Iterator<Item = (f64, &Observation)> {
        let pairs = self.windows.windows(2).map(|pair| (pair[1].at.millis_since(pair[0].at), &pair[1]));
        pairs.filter(|(ms, _)| *ms <= LONGEST_TICK_MS).map(|(ms, seen)| (ms as f64 / 1_000.0, seen))
    }

    /// What really came of it, by the polls.
    pub(super) fn came(&self) -> Came {
        let (mut busy, mut present) = (0.0, 0.0);
        let (mut attempts, mut answers, mut abandoned) = (0, 0, 0);
        for (seconds, seen) in self.ticks() {
            busy += f64::from(seen.agents_busy) * seconds;
            present += f64::from(seen.agents_busy + seen.agents_idle) * seconds;
            attempts += seen.attempts;
            answers += seen.answers;
            abandoned += seen.abandoned;
        }
        Came {
            utilisation: if present > 0.0 { busy / present } else { 0.0 },
            abandonment: abandoned as f64 / answers.max(1) as f64,
            attempts: attempts as f64,
            answers: answers as f64,
        }
    }

    /// The campaign as a scenario of the simulator. `None` where too little was observed.
    pub(super) fn fit(&self) -> Option<Fitted> {
        let (first, last) = (self.windows.first()?, self.windows.last()?);
        let seconds = last.at.millis_since(first.at) / 1_000;
        if self.ticks().count() < FEW_WINDOWS || seconds < 2 * BIN_SECONDS {
            return None;
        }
        let seconds = seconds.min(LONGEST_SECONDS);
        let (mut busy, mut present, mut time, mut delivered) = (0.0, 0.0, 0.0, 0);
        for (tick, seen) in self.ticks() {
            busy += f64::from(seen.agents_busy) * tick;
            present += f64::from(seen.agents_busy + seen.agents_idle) * tick;
            time += tick;
            delivered += seen.answers.saturating_sub(seen.abandoned);
        }
        let agents = (present / f64::max(time, 1.0)).round().clamp(1.0, 10_000.0) as u32;
        // By Little's law busy seconds per delivered call are the mean handle time.
        let handle = (busy / delivered.max(1) as f64).clamp(5.0, 3_600.0);
        let scenario = CampaignScenario {
            id: "fitted".to_owned(),
            name: "fitted".to_owned(),
            agents,
            dial_rate: first.dial_rate,
            min_dial_rate: last.limits.min,
            max_dial_rate: last.limits.max.max(last.limits.min),
            answering: Answering::Steps { steps: self.answer_rates(first.at, seconds) },
            talk_seconds: handle,
            talk_variation: 0.7,
            wrap_up_seconds: 0.0,
            break_every_seconds: 0.0,
            break_seconds: 0.0,
            shift_seconds: 604_800,
            away_seconds: 0,
            login_spread_seconds: 1,
            ..CampaignScenario::default()
        };
        let interval = (time / self.ticks().count().max(1) as f64).round().clamp(1.0, 120.0) as u64;
        let start = first.at;
        let dialled = self.windows.iter().map(|seen| (seen.at.millis_since(start) / 1_000, seen.dial_rate));
        Some(Fitted { scenario, start, seconds: seconds as u64, interval, dialled: dialled.collect() })
    }

    fn answer_rates(&self, start: Timestamp, seconds: i64) -> Vec<(u64, f64)> {
        let bins = (seconds / BIN_SECONDS + 1) as usize;
        let mut counts = vec![(0u64, 0u64); bins];
        for seen in &self.windows {
            let bin = (seen.at.millis_since(start) / 1_000 / BIN_SECONDS) as usize;
            if let Some(count) = counts.get_mut(bin) {
                *count = (count.0 + seen.attempts, count.1 + seen.answers);
            }
        }
        let rate =
            |(attempts, answers): (u64, u64)| (answers as f64 / attempts.max(1) as f64).clamp(0.01, 0.95);
        let both = |sum: (u64, u64), count: (u64, u64)| (sum.0 + count.0, sum.1 + count.1);
        let total = counts.iter().copied().fold((0, 0), both);
        // Bins with few attempts are taken together with the next ones. Left out they must not be: where
        // agents are few, those with many attempts are those in which few people answered.
        let (mut steps, mut begin, mut pooled) = (Vec::with_capacity(bins), 0, (0, 0));
        for (bin, count) in (0..).zip(counts) {
            pooled = both(pooled, count);
            if pooled.0 >= FEW_ATTEMPTS {
                steps.push((begin * BIN_SECONDS as u64, rate(pooled)));
                (begin, pooled) = (bin + 1, (0, 0));
            }
        }
        if steps.is_empty() {
            steps.push((0, rate(total)));
        }
        steps
    }
}

/// A campaign that can be played.
#[derive(Clone, Debug)]
pub(super) struct Fitted {
    scenario: CampaignScenario,
    start: Timestamp,
    seconds: u64,
    interval: u64,
    /// From which second on which rate was dialled.
    dialled: Vec<(i64, f64)>,
}

/// Who dials in the model.
#[derive(Clone, Copy, Debug)]
pub(super) enum Dials<'r> {
    /// The rates that were really dialled.
    AsRecorded,
    By(&'r Rules),
}

impl Fitted {
    /// The mean over so many plays with other chance.
    pub(super) fn play(&self, dials: Dials<'_>, plays: u32) -> Came {
        let all = (0..plays.max(1)).map(|seed| self.once(dials, u64::from(seed)));
        let sum = all.fold(Came::default(), |sum, came| Came {
            utilisation: sum.utilisation + came.utilisation,
            abandonment: sum.abandonment + came.abandonment,
            attempts: sum.attempts + came.attempts,
            answers: sum.answers + came.answers,
        });
        let plays = f64::from(plays.max(1));
        Came {
            utilisation: sum.utilisation / plays,
            abandonment: sum.abandonment / plays,
            attempts: sum.attempts / plays,
            answers: sum.answers / plays,
        }
    }

    fn once(&self, dials: Dials<'_>, seed: u64) -> Came {
        let mut dialer = Dialer::new(self.scenario.clone(), seed);
        let mut memory = State::default();
        let (mut polled, mut busy, mut present) = (CallCounts::default(), 0u64, 0u64);
        let mut dialled = self.dialled.iter().peekable();
        for now in 1..=self.seconds {
            dialer.step(now);
            let seen = dialer.snapshot();
            let at_work = u64::from(seen.agents.talking + seen.agents.wrapping_up);
            busy += at_work;
            present += at_work + u64::from(seen.agents.idle);
            match dials {
                Dials::AsRecorded => {
                    while let Some((_, rate)) = dialled.next_if(|(from, _)| *from <= now as i64) {
                        dialer.set_dial_rate(*rate);
                    }
                }
                Dials::By(rules) if now % self.interval == 0 => {
                    let window = Observation {
                        at: self.start.plus(std::time::Duration::from_secs(now)),
                        attempts: seen.calls.attempts - polled.attempts,
                        answers: seen.calls.answers - polled.answers,
                        abandoned: seen.calls.abandoned - polled.abandoned,
                        agents_idle: seen.agents.idle,
                        agents_busy: seen.agents.talking + seen.agents.wrapping_up,
                        answer_rate: seen.answer_rate,
                        dial_rate: seen.dial_rate,
                        limits: Limits { min: self.scenario.min_dial_rate, max: self.scenario.max_dial_rate },
                    };
                    polled = seen.calls;
                    dialer.set_dial_rate(decide(rules, &mut memory, &window));
                }
                Dials::By(_) => {}
            }
        }
        let calls = dialer.calls();
        Came {
            utilisation: busy as f64 / present.max(1) as f64,
            abandonment: calls.abandoned as f64 / calls.answers.max(1) as f64,
            attempts: calls.attempts as f64,
            answers: calls.answers as f64,
        }
    }
}

/// The rate that the rule in force asks for. The model's clock is the platform's.
fn decide(rules: &Rules, memory: &mut State, seen: &Observation) -> f64 {
    let answered = match rules.policy {
        DialPolicy::Pacing => {
            let pacing = crate::stages::dialing::pacing::Pacing { time_scale: 1.0, ..rules.pacing };
            pacing.take_in(memory, seen);
            Answered::by_pacing(&pacing, memory, seen)
        }
        DialPolicy::Proportional => {
            Answered::by_proportional(&rules.proportional, seen.answer_rate, seen.dial_rate, seen.limits)
        }
    };
    judge(answered, seen.dial_rate, seen.limits, Around::default()).chain.value()
}
