//! What is to be done about one conversation. Pure: no clock, no database.

use std::time::Duration;

use super::summary::{Phase, Summary};
use crate::model::Timestamp;
use crate::model::conversation::ConversationEvent;
use crate::postgres::enrichment::State;

/// Waits between the attempts to find a conversation that analytics do not know yet, in
/// 120ths of the patience: after the last one it is given up.
const RETRY_120THS: [u32; 5] = [1, 4, 15, 40, 60];

/// Answers without the conversation before it is given up.
pub const ATTEMPTS: u32 = RETRY_120THS.len() as u32 + 1;

/// An agent's work after the call takes longer than the pauses within one: times the quiet.
/// Asked before it ends, the answer would lack it and be asked for again.
const WRAP_UP_QUIETS: u32 = 5;

/// Talks last for minutes, and an answer from the middle of one has to be asked for again.
/// Times the quiet; only a conversation whose end is never told waits as long.
const INSIDE_QUIETS: u32 = 15;

/// How long things wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits {
    /// After an event of a conversation that goes on.
    pub quiet: Duration,
    /// After an event of a conversation that is over: others may be on their way.
    pub settle: Duration,
    /// From the first answer without a conversation to giving it up.
    pub patience: Duration,
}

impl Waits {
    fn after_event(&self, summary: &Summary) -> Duration {
        match summary.phase() {
            Phase::GoesOn => self.quiet,
            Phase::Inside => self.quiet.saturating_mul(INSIDE_QUIETS),
            Phase::WrappingUp => self.quiet.saturating_mul(WRAP_UP_QUIETS),
            Phase::Over => self.settle,
        }
    }

    /// The wait after the `attempt`-th answer without the conversation.
    fn after_attempt(&self, attempt: u32) -> Duration {
        let index = (attempt.max(1) as usize - 1).min(RETRY_120THS.len() - 1);
        self.patience * RETRY_120THS[index] / 120
    }
}

/// One conversation as it is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Work {
    pub summary: Summary,
    pub state: State,
    /// Answers in a row without the conversation, since its last event.
    pub attempts: u32,
    /// All answers so far: tells an answer that somebody else has dealt with already.
    pub rounds: i64,
    pub enriched: Option<Enriched>,
}

/// When details came, and up to which event time they were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Enriched {
    pub at: Timestamp,
    pub up_to: Timestamp,
}

/// What an event or an answer brings about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// Ask about it after this, instead of whenever it was to be asked about.
    pub ask_in: Option<Duration>,
    /// What others get to see has changed.
    pub publish: bool,
    /// It is given up: a dead letter.
    pub give_up: bool,
}

/// An answer that lacks the conversation, or holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Found { at: Timestamp },
    Missing,
}

impl Work {
    /// A conversation not known before.
    pub(super) fn begin(event: &ConversationEvent<'_>, waits: &Waits) -> (Self, Effect) {
        let summary = Summary::of(event);
        let effect = Effect { ask_in: Some(waits.after_event(&summary)), ..Effect::default() };
        (Self { summary, state: State::Pending, attempts: 0, rounds: 0, enriched: None }, effect)
    }

    /// Takes an event in. Only one that is newer than all before makes the conversation
    /// be asked about again; an older one may still tell something new.
    pub(super) fn hear(&mut self, event: &ConversationEvent<'_>, again: bool, waits: &Waits) -> Effect {
        let before = self.summary.clone();
        self.summary.add(event);
        let newer = event.occurred_at > before.last.at;
        let advanced = self.summary.phase() != before.phase();
        let fresh = self.state == State::Pending && self.attempts == 0;
        // One that was given up is taken up again when it is sent again on purpose.
        let revived = again && self.state == State::NotAvailable;
        if newer || revived {
            self.state = State::Pending;
            self.attempts = 0;
        }
        let ask = newer || revived || (fresh && advanced);
        Effect {
            ask_in: ask.then(|| waits.after_event(&self.summary)),
            // Whoever is asked about again is told of again then.
            publish: self.is_told() && self.summary.facts() != before.facts(),
            give_up: false,
        }
    }

    /// Takes the answer to a question about the events up to `asked_up_to` in. `None` where
    /// another answer has been dealt with since the question's `round`.
    pub(super) fn answered(
        &mut self,
        round: i64,
        asked_up_to: Timestamp,
        answer: Answer,
        waits: &Waits,
    ) -> Option<Effect> {
        if self.state != State::Pending || self.rounds != round {
            return None;
        }
        self.rounds += 1;
        let outdated = self.summary.last.at > asked_up_to;
        let mut effect = Effect::default();
        match answer {
            Answer::Found { at } => {
                self.enriched = Some(Enriched { at, up_to: asked_up_to });
                self.attempts = 0;
                effect.publish = true;
                if !outdated {
                    self.state = State::Done;
                }
            }
            // Newer events came meanwhile: they have its next question set already.
            Answer::Missing if outdated => {}
            Answer::Missing => {
                self.attempts += 1;
                if self.attempts < ATTEMPTS {
                    effect.ask_in = Some(waits.after_attempt(self.attempts));
                } else {
                    self.state = State::NotAvailable;
                    effect.give_up = true;
                    // What newer events said was to be told with the details that never came.
                    effect.publish = self.is_told();
                }
            }
        }
        Some(effect)
    }

    /// Whether it was published, and nothing is under way that will publish it again.
    pub(super) fn is_told(&self) -> bool {
        self.enriched.is_some() && self.state != State::Pending
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::summary::tests::event;
    use super::*;

    const WAITS: Waits = Waits {
        quiet: Duration::from_secs(60),
        settle: Duration::from_secs(5),
        patience: Duration::from_secs(7_200),
    };

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn found(work: &mut Work, up_to: i64) -> Option<Effect> {
        work.answered(work.rounds, at(up_to), Answer::Found { at: at(1_000_000) }, &WAITS)
    }

    fn missing(work: &mut Work, up_to: i64) -> Option<Effect> {
        work.answered(work.rounds, at(up_to), Answer::Missing, &WAITS)
    }

    #[test]
    fn a_conversation_that_ended_is_asked_about_sooner() {
        let (mut work, effect) = Work::begin(&event(0, 10, "flow.end"), &WAITS);
        assert_eq!(effect.ask_in, Some(WAITS.quiet));
        let effect = work.hear(&event(1, 20, "customer.end"), false, &WAITS);
        assert_eq!(effect.ask_in, Some(WAITS.settle));
        // Out of order: the end came first, or comes behind an event that is newer than it.
        let (mut work, effect) = Work::begin(&event(1, 20, "customer.end"), &WAITS);
        assert_eq!(effect.ask_in, Some(WAITS.settle));
        assert_eq!(work.hear(&event(0, 10, "customer.start"), false, &WAITS).ask_in, None);
        let (mut work, _) = Work::begin(&event(0, 30, "wrapup"), &WAITS);
        assert_eq!(work.hear(&event(1, 20, "customer.end"), false, &WAITS).ask_in, Some(WAITS.settle));
    }

    #[test]
    fn whoever_is_in_a_flow_in_a_queue_or_with_an_agent_is_let_finish() {
        let (mut work, effect) = Work::begin(&event(0, 10, "flow.start"), &WAITS);
        assert_eq!(effect.ask_in, Some(WAITS.quiet * 15));
        let ask_in = |work: &mut Work, at_ms, kind| work.hear(&event(1, at_ms, kind), false, &WAITS).ask_in;
        assert_eq!(ask_in(&mut work, 20, "flow.end"), Some(WAITS.quiet));
        assert_eq!(ask_in(&mut work, 21, "acd.start"), Some(WAITS.quiet * 15));
        assert_eq!(ask_in(&mut work, 90, "customer.end"), Some(WAITS.settle));
    }

    #[test]
    fn an_agents_work_after_the_call_is_waited_for() {
        let (mut work, _) = Work::begin(&event(0, 10, "user.start"), &WAITS);
        let ask_in = |work: &mut Work, number, at_ms, kind| {
            work.hear(&event(number, at_ms, kind), false, &WAITS).ask_in
        };
        assert_eq!(ask_in(&mut work, 1, 20, "customer.end"), Some(WAITS.quiet * 5));
        assert_eq!(ask_in(&mut work, 2, 30, "acw"), Some(WAITS.settle));
        // That there was an agent is heard late.
        let (mut work, _) = Work::begin(&event(1, 20, "customer.end"), &WAITS);
        assert_eq!(ask_in(&mut work, 0, 10, "user.start"), Some(WAITS.quiet * 5));
    }

    #[test]
    fn duplicates_and_older_events_ask_nothing_but_what_they_tell_is_told() {
        let (mut work, _) = Work::begin(&event(3, 30, "customer.end"), &WAITS);
        assert!(found(&mut work, 30).unwrap().publish);
        assert_eq!(work.state, State::Done);
        assert_eq!(work.hear(&event(3, 30, "customer.end"), false, &WAITS), Effect::default());
        let effect = work.hear(&event(4, 20, "acd.start"), false, &WAITS);
        assert_eq!(effect, Effect { publish: true, ..Effect::default() }, "its queue was not known");
        assert_eq!(work.state, State::Done);
        let effect = work.hear(&event(0, 25, "acd.end"), false, &WAITS);
        assert_eq!(effect, Effect::default(), "it tells nothing new");
    }

    #[test]
    fn a_newer_event_has_it_asked_about_again() {
        let (mut work, _) = Work::begin(&event(3, 30, "customer.end"), &WAITS);
        found(&mut work, 30);
        let effect = work.hear(&event(4, 40, "wrapup"), false, &WAITS);
        assert_eq!(effect, Effect { ask_in: Some(WAITS.settle), ..Effect::default() });
        assert_eq!(work.state, State::Pending);
        assert!(found(&mut work, 40).unwrap().publish);
        assert_eq!(work.state, State::Done);
    }

    #[test]
    fn an_answer_to_an_older_question_is_kept_and_the_newer_one_still_asked() {
        let (mut work, _) = Work::begin(&event(0, 10, "customer.end"), &WAITS);
        work.hear(&event(1, 20, "wrapup"), false, &WAITS);
        let effect = found(&mut work, 10).unwrap();
        assert_eq!(effect, Effect { publish: true, ..Effect::default() });
        assert_eq!((work.state, work.enriched.unwrap().up_to), (State::Pending, at(10)));
        assert_eq!(missing(&mut work, 10), Some(Effect::default()), "the newer question is not touched");
        assert_eq!(work.attempts, 0);
    }

    #[test]
    fn an_answer_that_another_instance_dealt_with_counts_no_more() {
        let (mut work, _) = Work::begin(&event(0, 10, "customer.end"), &WAITS);
        assert!(work.answered(0, at(10), Answer::Missing, &WAITS).is_some());
        assert_eq!(work.answered(0, at(10), Answer::Missing, &WAITS), None);
        assert_eq!(work.attempts, 1);
        found(&mut work, 10);
        assert_eq!(work.answered(2, at(10), Answer::Missing, &WAITS), None, "it is done");
    }

    #[test]
    fn six_attempts_spread_over_two_hours_then_it_is_given_up() {
        let (mut work, _) = Work::begin(&event(0, 10, "customer.end"), &WAITS);
        let mut minutes = Vec::new();
        loop {
            let effect = missing(&mut work, 10).unwrap();
            if effect.give_up {
                assert_eq!((effect.ask_in, effect.publish), (None, false));
                break;
            }
            minutes.push(effect.ask_in.unwrap().as_secs() / 60);
        }
        assert_eq!(minutes, [1, 4, 15, 40, 60]);
        assert_eq!((work.attempts, work.state), (ATTEMPTS, State::NotAvailable));
        assert_eq!(work.hear(&event(0, 10, "customer.end"), false, &WAITS), Effect::default());

        let mut again = work.clone();
        assert_eq!(again.hear(&event(0, 10, "customer.end"), true, &WAITS).ask_in, Some(WAITS.settle));
        assert_eq!((again.state, again.attempts), (State::Pending, 0));
        assert_eq!(work.hear(&event(1, 11, "wrapup"), false, &WAITS).ask_in, Some(WAITS.settle));
        assert_eq!((work.state, work.attempts), (State::Pending, 0));
    }

    #[test]
    fn one_that_was_told_of_before_is_told_of_when_its_newer_events_are_given_up() {
        let (mut work, _) = Work::begin(&event(0, 10, "customer.end"), &WAITS);
        found(&mut work, 10);
        work.hear(&event(4, 20, "wrapup"), false, &WAITS);
        let effects: Vec<_> = (0..ATTEMPTS).map(|_| missing(&mut work, 20).unwrap()).collect();
        assert!(effects[..5].iter().all(|effect| !effect.publish));
        assert_eq!(effects[5], Effect { give_up: true, publish: true, ask_in: None });
    }

    proptest! {
        /// Nothing pending is ever without a time to ask about it, and whatever the order
        /// of events and answers, it ends told of with everything its events said.
        #[test]
        fn nothing_pending_is_forgotten(
            steps in prop::collection::vec((0u8..4, 0u32..16, 0i64..50), 1..60),
        ) {
            let (mut work, first) = Work::begin(&event(0, 10, "acd.start"), &WAITS);
            let mut due = first.ask_in.is_some();
            let mut told = None;
            let mut asked = work.summary.last.at;
            for (step, number, ms) in steps {
                let effect = match step {
                    0 | 1 => work.hear(&event(number, i64::from(number) * 3 + ms % 2, "acd.end"), false, &WAITS),
                    2 => { asked = work.summary.last.at; continue }
                    _ if ms % 3 == 0 => found(&mut work, asked.as_millis()).unwrap_or_default(),
                    _ => missing(&mut work, asked.as_millis()).unwrap_or_default(),
                };
                due |= effect.ask_in.is_some();
                if effect.publish {
                    told = Some(format!("{:?}", work.summary.facts()));
                }
                prop_assert!(work.state != State::Pending || due, "pending and never asked about");
                prop_assert_eq!(effect.give_up, step == 3 && work.state == State::NotAvailable && work.attempts == ATTEMPTS && effect != Effect::default());
                if work.state != State::Pending {
                    due = false;
                }
                if work.state == State::Done {
                    prop_assert_eq!(told.as_ref(), Some(&format!("{:?}", work.summary.facts())));
                }
            }
        }
    }
}
