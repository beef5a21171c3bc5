//! What is on record of a decision: looked up at the beginning and after every doubt about it,
//! settled at the end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Attempt, DatabaseClock, Doubt, Execution, Interrupted, Next, end};
use crate::backoff::Backoff;
use crate::model::outcome::{Outcome, OutcomeStatus};
use crate::postgres::intents::Settlement;
use crate::sinks::actuation::ledger::{Ledger, LedgerError};
use crate::sinks::actuation::{Change, Point};

/// Pauses while the ledger does not answer.
const LEDGER_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_600));
/// How long after a stop a settlement may take: the next start would find the same by reading
/// back, which takes longer.
const LAST_SETTLEMENT: Duration = Duration::from_millis(500);

impl<C: Change, L: Ledger> Execution<'_, '_, C, L> {
    /// What is on record from before: a settlement ends it, an intent leaves a doubt, unless
    /// it is the `unsent` one of this very execution.
    pub(super) async fn recall(&mut self, unsent: Option<u32>) -> Result<Option<Outcome>, Interrupted> {
        let (id, mut pauses) = (self.decision.decision_id, Backoff::new(LEDGER_PAUSES));
        let (asked_at, history) = loop {
            let asked_at = Instant::now();
            match self.until_stop(self.actuation.ledger.history::<C::Plan>(id)).await? {
                Ok(history) => break (asked_at, history),
                Err(error) => self.wait_for_ledger(&error, &mut pauses).await?,
            }
        };
        self.clock = DatabaseClock { asked_at, told: history.now };
        if unsent.is_none() {
            self.waits.for_its_turn(self.decision.decided_at, history.now);
        }
        if let Some(settled) = history.settlement {
            return Ok(Some(settled));
        }
        let before = self.claims;
        self.claims = history.intents.last().map_or(0, |last| last.intent.attempt);
        let own = |attempt: u32, token: i64| Some(attempt) == unsent && token == self.tenure.lease.token;
        let settings = &self.actuation.settings;
        let found = history.intents.into_iter().filter(|it| it.intent.attempt > before);
        let found: Vec<_> = found
            .filter(|it| !own(it.intent.attempt, it.token))
            .map(|it| {
                let age = history.now.millis_since(it.claimed_at);
                let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
                let longest = settings.claim_lifetime + settings.in_flight_time;
                Attempt {
                    request: it.intent.request,
                    plan: it.intent.parameters,
                    operation: None,
                    at: it.claimed_at,
                    under_way_until: asked_at + longest.saturating_sub(age),
                }
            })
            .collect();
        self.attempts = self.attempts.saturating_add(u32::try_from(found.len()).unwrap_or(u32::MAX));
        for attempt in found {
            // Nothing was sent after one that could still be under way.
            self.over.extend(self.doubt.take().map(|doubt| doubt.attempt));
            self.last = Some(attempt.clone());
            self.doubt = Some(Doubt { attempt, accepted: false });
        }
        Ok(None)
    }

    /// It is not known whether the intent stands. Nothing was sent for it, by us.
    pub(super) async fn recall_again(&mut self, unsent: u32, why: &str) -> Result<Next, Interrupted> {
        self.last_error = Some(why.to_owned());
        let until = self.pauses.until();
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.stop.cancelled() => return Err(self.interrupted()),
        }
        Ok(match self.recall(Some(unsent)).await? {
            Some(settled) => end(settled.status, settled.reason),
            None => Next::Again,
        })
    }

    pub(super) async fn settle(
        &mut self,
        status: OutcomeStatus,
        reason: String,
    ) -> Result<Outcome, Interrupted> {
        let mut outcome = Outcome::of(self.decision, status, reason, self.clock.now());
        outcome.attempts = self.attempts;
        outcome.not_before = self.not_before;
        outcome.waited = Some(self.waits.told());
        let applied = self.last.as_ref().filter(|_| status == OutcomeStatus::Applied);
        outcome.effect = applied.map(|last| C::effect(last.plan.clone()));
        if let Some(last) = &self.last {
            outcome.request = Some(last.request.clone());
            outcome.requested_at = Some(last.at);
        }
        outcome.response = self.response.clone();
        without_nul(&mut outcome);
        let change = applied.and_then(|last| self.actuation.change.remembered(self.decision, &last.plan));
        let mut pauses = Backoff::new(LEDGER_PAUSES);
        loop {
            let settled = tokio::select! {
                settled = self.actuation.ledger.settle(&outcome, change.as_ref(), &self.tenure.lease) => settled,
                () = stopped_for(&self.stop, LAST_SETTLEMENT) => return Err(self.interrupted()),
            };
            match settled {
                Ok(Settlement::Stands(outcome)) => {
                    self.actuation.change.settled(&outcome);
                    C::reached(Point::Settled);
                    return Ok(*outcome);
                }
                Ok(Settlement::LeaseLost) => return Err(Interrupted::LeaseLost),
                Err(error) if error.about_data && outcome.response.is_some() => {
                    tracing::error!(error = error.reason, "a reply cannot be recorded; settling without it");
                    outcome.response = None;
                }
                Err(error) => self.wait_for_ledger(&error, &mut pauses).await?,
            }
        }
    }

    async fn wait_for_ledger(&self, error: &LedgerError, pauses: &mut Backoff) -> Result<(), Interrupted> {
        if pauses.is_fresh() {
            tracing::warn!(
                decision = %self.decision.decision_id, error = error.reason,
                "nothing is sent while the ledger does not answer"
            );
        }
        if pauses.wait(&self.stop).await { Ok(()) } else { Err(self.interrupted()) }
    }
}

/// Resolves `grace` after the stop.
async fn stopped_for(stop: &CancellationToken, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// Postgres keeps no U+0000 in texts; the platform's replies may hold one.
fn without_nul(outcome: &mut Outcome) {
    let clean = |text: &mut String| {
        if text.contains('\0') {
            *text = text.replace('\0', "\u{fffd}");
        }
    };
    clean(&mut outcome.reason);
    if let Some(response) = &mut outcome.response {
        [&mut response.body, &mut response.error, &mut response.correlation_id]
            .into_iter()
            .flatten()
            .for_each(clean);
    }
}
