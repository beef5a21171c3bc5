//! What is in force, held against the attempts whose effect is not known.

use tokio::time::Instant;

use super::{Attempt, Doubt, Execution, Next, end};
use crate::model::outcome::OutcomeStatus;
use crate::sinks::actuation::ledger::Ledger;
use crate::sinks::actuation::{Change, Found, Refused};

/// What reading back says about an attempt in doubt.
pub(super) enum Settled {
    /// No effect yet, and the same request may be sent again.
    Repeat,
    /// No effect, and it will have none.
    Over,
    Not(Next),
}

impl<C: Change, L: Ledger> Execution<'_, '_, C, L> {
    /// What was just read, held against an attempt in doubt.
    pub(super) fn read_back(&mut self, doubt: &Doubt<C::Plan>, seen: &C::Seen) -> Settled {
        let count = |result| C::DECLARATION.read_backs.counter(&[result]).increment(1);
        match self.actuation.change.compare(&doubt.attempt, seen) {
            Found::Ours => {
                count("applied");
                Settled::Not(end(OutcomeStatus::Applied, "confirmed_by_reading_back"))
            }
            Found::Other(which) => {
                if let Some(applied) = self.effect_of_an_earlier(seen) {
                    count("applied");
                    return Settled::Not(applied);
                }
                count("overwritten");
                Settled::Not(end(OutcomeStatus::Conflicted, format!("effect_unknown: {which}")))
            }
            Found::Failed(why) => {
                count("not_applied");
                self.doubt = None;
                Settled::Not(self.refused(Refused::Unfit, doubt.attempt.plan.clone(), "failed", why))
            }
            found @ (Found::Former | Found::Untold) => {
                count("not_applied");
                self.without_effect(doubt, found == Found::Untold)
            }
        }
    }

    /// An attempt in doubt has had no effect yet, as far as the platform tells.
    fn without_effect(&mut self, doubt: &Doubt<C::Plan>, untold: bool) -> Settled {
        let too_late = self.too_late();
        let under_way = doubt.attempt.under_way_until.saturating_duration_since(Instant::now());
        let conditional = self.actuation.change.is_conditional(&doubt.attempt.request);
        if conditional && !doubt.accepted && too_late.is_none() {
            return Settled::Repeat;
        }
        if !under_way.is_zero() {
            return Settled::Not(Next::Pause(Instant::now() + self.pauses.pause().min(under_way)));
        }
        if untold {
            // Reading back will not tell either: what the reply said is all there is.
            let (status, code) = match doubt.accepted {
                true => (OutcomeStatus::Applied, "confirmed_by_the_reply"),
                false => (OutcomeStatus::Failed, "effect_unknown"),
            };
            let reason = format!("{code}: the platform does not say what is in force");
            return Settled::Not(end(status, reason));
        }
        if doubt.accepted {
            // It said yes: the same again is not asked for.
            return Settled::Not(if self.may_give_up() {
                end(OutcomeStatus::Failed, "not_confirmed: accepted, and what was in force before still is")
            } else {
                Next::Pause(self.pauses.until())
            });
        }
        match too_late {
            Some(too_late) if conditional => Settled::Not(Next::End(too_late)),
            _ => Settled::Over,
        }
    }

    /// What an attempt asked for that was taken for over is in force: it was ours.
    pub(super) fn effect_of_an_earlier(&mut self, seen: &C::Seen) -> Option<Next> {
        let compare = |attempt: &Attempt<C::Plan>| self.actuation.change.compare(attempt, seen);
        let ours = self.over.iter().rev().find(|attempt| compare(attempt) == Found::Ours)?.clone();
        self.last = Some(ours);
        Some(end(OutcomeStatus::Applied, "confirmed_by_reading_back: an earlier attempt took its time"))
    }
}
