//! One decision from its record to its outcome.
//!
//! ```text
//!            ┌──────────── refused, or not sent ────────────┐
//!            ▼                                              │
//! recalled ▶ free ── read, plan ──▶ claimed ── call ────────┤
//!   │        │ ▲                                            ├─ confirmed ─────▶ settled
//!   │        │ └─ former state, and too late to change it ┐ │                      ▲
//!   │        └─ too late, nothing to do ──────────────────┼─┼─────────────────────▶│
//!   │                                                     │ ▼ no word, or accepted │
//!   └─ an intent without an outcome ───────────────────▶ doubt ── read back ──────▶┘
//! ```
//!
//! Nothing is sent without an intent on record. An attempt whose effect is not known (no
//! reply, a 5xx, a crash) is in *doubt*, and only reading back settles it: what it asked for
//! is in force, then it was applied; what was in force before still is, then it had no effect
//! yet. It can have one until it can no longer be on its way; before that nothing else is
//! sent, but for the very same request where it is conditional: at most one of the two has an
//! effect then. Something else is in force: another writer came in between, and since ours
//! may have had its effect before, the decision ends. Should an attempt that was taken for
//! over have its effect after all, that effect is ours: it is looked for in every read.
//!
//! While people have paused the loop nothing new is sent: the claim asks for that as well, and what
//! was claimed and is not on its way yet stays here. What is on its way is seen to its end.
//!
//! How old the decision is goes by the database's clock alone: the claim asks it, and waits
//! are measured from what it said.

mod read_back;
mod record;
mod reply;

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::leases::Tenure;
use super::ledger::Ledger;
use super::waits::Waits;
use super::{Actuation, COOLDOWN, Change, End, MAINTENANCE_WINDOW, Point, Read};
use crate::backoff::Backoff;
use crate::clock;
use crate::genesys::Scope;
use crate::model::Timestamp;
use crate::model::decision::{Action, Mode};
use crate::model::outcome::{Outcome, OutcomeStatus, ReceivedResponse, SentRequest};
use crate::postgres::intents::{Claim, Intent, Terms};

use read_back::Settled;

/// Pauses between tries of one decision.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Expiries further away than this are not told from it: they must not overflow the clock.
const FAR: Duration = Duration::from_secs(86_400);

/// Why a decision has no outcome now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The process stops, or the partition goes. Whoever reads it next goes on.
    Stopped,
    /// Somebody else holds the lease.
    LeaseLost,
}

/// Outcomes that need neither ledger nor platform: the loop is in shadow, or there is
/// nothing to change.
pub(super) fn end_at_once<C: Change>(decision: &Read<'_, C>, now: Timestamp) -> Option<Outcome> {
    let (status, reason) = match (decision.mode, decision.action) {
        (Mode::Shadow, _) => (OutcomeStatus::Shadowed, "shadow_mode"),
        (Mode::Live, action) if action == C::DECLARATION.action => return None,
        (Mode::Live, Action::Hold | Action::Alert) => (OutcomeStatus::Unchanged, &*decision.reason),
        (Mode::Live, _) => (OutcomeStatus::Failed, C::DECLARATION.foreign_action),
    };
    Some(Outcome::of(decision, status, reason.to_owned(), now))
}

/// A request that was, or may have been, sent.
#[derive(Clone, Debug)]
pub struct Attempt<P> {
    pub request: SentRequest,
    pub plan: P,
    /// What the platform began on it, where it said so to us.
    pub operation: Option<String>,
    at: Timestamp,
    /// Until then it may be on its way.
    under_way_until: Instant,
}

/// An attempt whose effect is not known.
#[derive(Clone, Debug)]
struct Doubt<P> {
    attempt: Attempt<P>,
    /// The platform has said yes to it.
    accepted: bool,
}

/// The database's clock, as it was told last.
#[derive(Clone, Copy, Debug)]
struct DatabaseClock {
    asked_at: Instant,
    told: Timestamp,
}

impl DatabaseClock {
    fn now(&self) -> Timestamp {
        self.told.plus(self.asked_at.elapsed())
    }

    fn until(&self, at: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(at.millis_since(self.now())).unwrap_or(0)).min(FAR)
    }
}

/// One decision being executed.
pub(super) struct Execution<'a, 'd, C: Change, L> {
    actuation: &'a Actuation<C, L>,
    decision: &'a Read<'d, C>,
    tenure: &'a Tenure,
    superseded: CancellationToken,
    stop: CancellationToken,
    clock: DatabaseClock,
    /// The database has said so.
    expired: bool,
    /// The pause that was found in force, as the outcome is to say it.
    paused: Option<String>,
    /// Facts from before this are refused.
    not_before: Option<Timestamp>,
    /// Intents on record.
    claims: u32,
    /// Requests that were, or may have been, sent.
    attempts: u32,
    conflicts: u32,
    pauses: Backoff,
    /// What proved impossible.
    unfit: Vec<C::Plan>,
    /// The last attempt and its reply.
    last: Option<Attempt<C::Plan>>,
    response: Option<ReceivedResponse>,
    /// What went wrong last, for the reason of an end that is not its own.
    last_error: Option<String>,
    doubt: Option<Doubt<C::Plan>>,
    /// Attempts that had no effect as long as they could be on their way.
    over: Vec<Attempt<C::Plan>>,
    waits: Waits,
}

/// Where a step leads.
enum Next {
    Again,
    /// After a pause; a newer decision, the expiry, or a stop ends it early.
    Pause(Instant),
    End(End),
}

fn end(status: OutcomeStatus, reason: impl Into<String>) -> Next {
    Next::End(End(status, reason.into()))
}

impl<'a, 'd, C: Change, L: Ledger> Execution<'a, 'd, C, L> {
    /// `stop` is cancelled when the tenure's lease is lost, too.
    pub(super) fn new(
        actuation: &'a Actuation<C, L>,
        decision: &'a Read<'d, C>,
        tenure: &'a Tenure,
        superseded: CancellationToken,
        stop: CancellationToken,
    ) -> Self {
        Self {
            actuation,
            decision,
            tenure,
            superseded,
            stop,
            clock: DatabaseClock { asked_at: Instant::now(), told: clock::now() },
            expired: false,
            paused: None,
            not_before: None,
            claims: 0,
            attempts: 0,
            conflicts: 0,
            pauses: Backoff::new(PAUSES),
            unfit: Vec::new(),
            last: None,
            response: None,
            last_error: None,
            doubt: None,
            over: Vec::new(),
            waits: Waits::default(),
        }
    }

    /// Executes the decision.
    ///
    /// # Errors
    /// When it has no outcome yet; what was done so far is on record.
    pub(super) async fn run(mut self) -> Result<Outcome, Interrupted> {
        if let Some(settled) = self.recall(None).await? {
            return Ok(settled);
        }
        loop {
            if self.stop.is_cancelled() {
                return Err(self.interrupted());
            }
            match self.step().await? {
                Next::Again => {}
                Next::Pause(until) => {
                    let began = Instant::now();
                    self.pause(until).await?;
                    self.waits.for_a_pause(began.elapsed(), self.last_error.as_deref());
                }
                Next::End(End(status, reason)) => return self.settle(status, reason).await,
            }
        }
    }

    async fn step(&mut self) -> Result<Next, Interrupted> {
        self.look_for_pause();
        if self.doubt.is_none()
            && let Some(too_late) = self.too_late()
        {
            return Ok(Next::End(too_late));
        }
        let scope = self.scope(None, self.deadline());
        let seen = match self.actuation.change.read(&self.decision.key, &scope).await {
            Ok(seen) => seen,
            Err(error) => return self.after_read_error(&error),
        };
        if let Some(doubt) = self.doubt.clone() {
            return match self.read_back(&doubt, &seen) {
                Settled::Repeat => self.attempt(doubt.attempt.request, doubt.attempt.plan).await,
                Settled::Over => {
                    self.over.push(doubt.attempt);
                    self.doubt = None;
                    Ok(Next::Again)
                }
                Settled::Not(next) => Ok(next),
            };
        }
        if let Some(applied) = self.effect_of_an_earlier(&seen) {
            return Ok(applied);
        }
        let planned = self.actuation.change.plan(self.decision, &seen, &self.unfit);
        let plan = match self.actuation.change.review(self.decision, &seen, planned, &scope).await {
            Ok(plan) => plan,
            Err(end) => return Ok(Next::End(end)),
        };
        let request = self.actuation.change.request(self.decision, &seen, &plan);
        self.attempt(request, plan).await
    }

    /// The end of a decision that may not be sent any more. Not asked while something is in
    /// doubt: that is settled first, however late it is.
    fn too_late(&self) -> Option<End> {
        if self.superseded.is_cancelled() {
            let reason = self.naming_last_error("a newer decision for the same key has arrived");
            return Some(End(OutcomeStatus::Superseded, reason));
        }
        if let Some(paused) = &self.paused {
            return Some(End(OutcomeStatus::Shadowed, self.naming_last_error(paused)));
        }
        if self.expired || self.clock.now() >= self.decision.expires_at {
            return Some(End(OutcomeStatus::Expired, self.naming_last_error("older than its expiry")));
        }
        (self.claims >= self.actuation.settings.attempts_limit).then(|| {
            let error = self.last_error.as_deref().unwrap_or("no error");
            End(OutcomeStatus::Failed, format!("attempts_exhausted: {error}"))
        })
    }

    /// Once a pause was found the decision is not carried out, whether or not it lasts.
    fn look_for_pause(&mut self) {
        if self.paused.is_none() {
            self.paused = self.actuation.pause_of(self.decision.r#loop);
        }
    }

    fn naming_last_error(&self, what: &str) -> String {
        match &self.last_error {
            Some(error) => format!("{what}: {error}"),
            None => what.to_owned(),
        }
    }

    /// Claims, sends, and judges what came of it.
    async fn attempt(&mut self, request: SentRequest, plan: C::Plan) -> Result<Next, Interrupted> {
        let key = &*self.decision.key;
        let attempt = self.claims + 1;
        let intent = Intent {
            decision_id: self.decision.decision_id,
            attempt,
            request: request.clone(),
            parameters: plan.clone(),
        };
        let terms = Terms {
            of: self.decision.r#loop,
            expires_at: self.decision.expires_at,
            renewed_within: self.tenure.renewed_within,
            flow: self.actuation.change.flow_terms(self.decision, &plan),
        };
        let sendable = Instant::now() + self.actuation.settings.claim_lifetime;
        let claim = self.actuation.ledger.claim(&intent, &self.tenure.lease, &terms);
        match self.until_stop(claim).await? {
            Ok(Claim::Granted) => self.claims = attempt,
            Ok(Claim::LeaseLost) => return Err(Interrupted::LeaseLost),
            Ok(Claim::Expired) => {
                self.expired = true;
                return Ok(Next::Again);
            }
            Ok(Claim::Paused(told)) => {
                self.paused = Some(told);
                return Ok(Next::Again);
            }
            Ok(Claim::Maintenance(scope)) => {
                return Ok(end(OutcomeStatus::Unchanged, format!("{MAINTENANCE_WINDOW}: {scope}")));
            }
            Ok(Claim::LockedOut(until)) => {
                self.not_before = Some(until);
                return Ok(end(
                    OutcomeStatus::Unchanged,
                    format!("{COOLDOWN}: rolled back before; until {until}"),
                ));
            }
            Ok(Claim::TakenBack) => {
                self.unfit.push(plan);
                return Ok(Next::Again);
            }
            Ok(Claim::Taken) => return self.recall_again(attempt, "this attempt is on record already").await,
            Err(error) => return self.recall_again(attempt, &error.reason).await,
        }
        C::reached(Point::Claimed);
        self.look_for_pause();
        let late = self.superseded.is_cancelled() || self.clock.now() >= self.decision.expires_at;
        if late || self.paused.is_some() {
            return Ok(Next::Again);
        }
        let attempt =
            Attempt { request, plan, operation: None, at: self.clock.now(), under_way_until: sendable };
        let scope = self.scope(Some(&attempt.plan), sendable.min(self.deadline()));
        let send = self.actuation.change.send(&attempt.request, key, &scope);
        let result = self.actuation.unless_paused(self.decision.r#loop, &scope.withdrawn, send).await;
        C::reached(Point::Called);
        self.judge(attempt, result)
    }

    fn may_give_up(&self) -> bool {
        self.clock.now() >= self.decision.expires_at.plus(self.actuation.settings.settling_limit)
    }

    fn scope(&self, plan: Option<&C::Plan>, deadline: Instant) -> Scope {
        let priority = self.actuation.change.priority(self.decision, plan);
        let withdrawn = CancellationToken::new();
        let waited_ms = self.waits.for_the_budget();
        Scope { priority, deadline, cancelled: self.stop.clone(), withdrawn, waited_ms }
    }

    /// The decision's end; for settling a doubt after it, a little later than now.
    fn deadline(&self) -> Instant {
        let left = self.clock.until(self.decision.expires_at);
        let settling =
            if self.doubt.is_some() { self.actuation.settings.settling_time } else { Duration::ZERO };
        Instant::now() + left.max(settling)
    }

    async fn pause(&self, until: Instant) -> Result<(), Interrupted> {
        // What is in doubt must be read back: neither age nor a newer decision
        // shortens the wait, or nothing would be left to wait for.
        let free = self.doubt.is_none();
        tokio::select! {
            () = sleep_until(until) => Ok(()),
            () = sleep_until(self.deadline()), if free => Ok(()),
            () = self.superseded.cancelled(), if free => Ok(()),
            () = self.stop.cancelled() => Err(self.interrupted()),
        }
    }

    fn interrupted(&self) -> Interrupted {
        if self.tenure.lost.is_cancelled() { Interrupted::LeaseLost } else { Interrupted::Stopped }
    }

    async fn until_stop<T>(&self, answer: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            answer = answer => Ok(answer),
            () = self.stop.cancelled() => Err(self.interrupted()),
        }
    }
}
