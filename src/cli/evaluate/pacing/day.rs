//! One simulated day under one policy.

use serde::Serialize;

use super::policies::{Pacer, Window};
use super::worlds::DAY_SECONDS;
use simulator::{CallCounts, CampaignScenario, Dialer};

const HOURS: usize = (DAY_SECONDS / 3_600) as usize;

/// Answered by a person, and of those abandoned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Answers {
    pub answered: u64,
    pub abandoned: u64,
}

impl Answers {
    fn between(before: CallCounts, after: CallCounts) -> Self {
        Self { answered: after.answers - before.answers, abandoned: after.abandoned - before.abandoned }
    }

    /// Share of the answers that were abandoned, 0–1; 0 without any.
    pub(super) fn abandonment(self) -> f64 {
        self.abandoned as f64 / self.answered.max(1) as f64
    }
}

/// One minute, for pictures and for settling times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Minute {
    pub dial_rate: f64,
    /// Share of the agents' time with a customer, 0–1.
    pub utilisation: f64,
    pub answer_rate: f64,
    pub answers: Answers,
}

/// What a day came to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Day {
    /// Share of the agents' time with a customer, 0–1.
    pub utilisation: f64,
    pub answers: Answers,
    pub attempts: u64,
    pub hours: Vec<Answers>,
    pub minutes: Vec<Minute>,
}

/// Plays a day. Idle agents are seen only at the poll, every `interval` seconds, at a second
/// of the interval that hangs on the seed.
///
/// # Errors
/// Those of a policy that is a program.
pub(super) fn play(
    pacer: &mut dyn Pacer,
    scenario: &CampaignScenario,
    seed: u64,
    interval: u64,
) -> anyhow::Result<Day> {
    let mut dialer = Dialer::new(scenario.clone(), seed);
    pacer.begin(&format!("{}-{seed}", scenario.id));
    let phase = seed % interval;
    let mut polled = dialer.snapshot().calls;
    let (mut minute, mut hour) = (Span::default(), Span::default());
    let mut day = Span::default();
    let mut found = Day {
        utilisation: 0.0,
        answers: Answers::default(),
        attempts: 0,
        hours: Vec::with_capacity(HOURS),
        minutes: Vec::with_capacity(DAY_SECONDS as usize / 60),
    };
    for now in 1..=DAY_SECONDS {
        dialer.step(now);
        let seen = dialer.snapshot();
        let busy = u64::from(seen.agents.talking + seen.agents.wrapping_up);
        for span in [&mut minute, &mut hour, &mut day] {
            span.busy += busy;
            span.present += busy + u64::from(seen.agents.idle);
        }
        if let Some(rate) = pacer.each_second(now, &seen, scenario) {
            dialer.set_dial_rate(rate);
        }
        if now % interval == phase {
            let window = Window::between(polled, &seen, scenario, now, interval);
            polled = seen.calls;
            if let Some(rate) = pacer.decide(&window)? {
                dialer.set_dial_rate(rate.clamp(scenario.min_dial_rate, scenario.max_dial_rate));
            }
        }
        if now.is_multiple_of(60) {
            found.minutes.push(Minute {
                dial_rate: dialer.snapshot().dial_rate,
                utilisation: minute.utilisation(),
                answer_rate: seen.true_answer_rate,
                answers: Answers::between(minute.begin, seen.calls),
            });
            minute = Span { begin: seen.calls, ..Span::default() };
        }
        if now.is_multiple_of(3_600) {
            found.hours.push(Answers::between(hour.begin, seen.calls));
            hour = Span { begin: seen.calls, ..Span::default() };
        }
    }
    let calls = dialer.snapshot().calls;
    found.utilisation = day.utilisation();
    found.answers = Answers::between(day.begin, calls);
    found.attempts = calls.attempts;
    Ok(found)
}

/// Agent seconds of a stretch of time, and the counters at its beginning.
#[derive(Clone, Copy, Default)]
struct Span {
    begin: CallCounts,
    busy: u64,
    present: u64,
}

impl Span {
    fn utilisation(self) -> f64 {
        self.busy as f64 / self.present.max(1) as f64
    }
}
