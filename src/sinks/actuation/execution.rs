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

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::leases::Tenure;
use super::ledger::{Ledger, LedgerError};
use super::{Actuation, COOLDOWN, Change, End, Found, MAINTENANCE_WINDOW, Point, Read, Refused};
use crate::backoff::Backoff;
use crate::clock;
use crate::genesys::{CallError, CallErrorKind as Kind, Reply, Scope};
use crate::model::Timestamp;
use crate::model::decision::{Action, Mode};
use crate::model::outcome::{Outcome, OutcomeStatus, ReceivedResponse, SentRequest};
use crate::postgres::intents::{Claim, Intent, Settlement, Terms};

/// Pauses between tries of one decision.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Pauses while the ledger does not answer.
const LEDGER_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_600));
/// How long after a stop a settlement may take: the next start would find the same by reading
/// back, which takes longer.
const LAST_SETTLEMENT: Duration = Duration::from_millis(500);
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
}

/// Where a step leads.
enum Next {
    Again,
    /// After a pause; a newer decision, the expiry, or a stop ends it early.
    Pause(Instant),
    End(End),
}

/// What reading back says about an attempt in doubt.
enum Settled {
    /// No effect yet, and the same request may be sent again.
    Repeat,
    /// No effect, and it will have none.
    Over,
    Not(Next),
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
                Next::Pause(until) => self.pause(until).await?,
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

    /// What is on record from before: a settlement ends it, an intent leaves a doubt, unless
    /// it is the `unsent` one of this very execution.
    async fn recall(&mut self, unsent: Option<u32>) -> Result<Option<Outcome>, Interrupted> {
        let (id, mut pauses) = (self.decision.decision_id, Backoff::new(LEDGER_PAUSES));
        let (asked_at, history) = loop {
            let asked_at = Instant::now();
            match self.until_stop(self.actuation.ledger.history::<C::Plan>(id)).await? {
                Ok(history) => break (asked_at, history),
                Err(error) => self.wait_for_ledger(&error, &mut pauses).await?,
            }
        };
        self.clock = DatabaseClock { asked_at, told: history.now };
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

    /// What was just read, held against an attempt in doubt.
    fn read_back(&mut self, doubt: &Doubt<C::Plan>, seen: &C::Seen) -> Settled {
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
    fn effect_of_an_earlier(&mut self, seen: &C::Seen) -> Option<Next> {
        let compare = |attempt: &Attempt<C::Plan>| self.actuation.change.compare(attempt, seen);
        let ours = self.over.iter().rev().find(|attempt| compare(attempt) == Found::Ours)?.clone();
        self.last = Some(ours);
        Some(end(OutcomeStatus::Applied, "confirmed_by_reading_back: an earlier attempt took its time"))
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

    fn judge(
        &mut self,
        attempt: Attempt<C::Plan>,
        result: Result<Reply, CallError>,
    ) -> Result<Next, Interrupted> {
        // Whatever was sent was sent before now.
        let latest = Instant::now() + self.actuation.settings.in_flight_time;
        let attempt = Attempt { under_way_until: latest, ..attempt };
        let name = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        C::DECLARATION.attempts.counter(&[name]).increment(1);
        let error = match result {
            Ok(reply) => {
                let attempt = Attempt { operation: reply.operation, ..attempt };
                self.note(&attempt, reply.response);
                if C::DECLARATION.reply_confirms {
                    self.doubt = None;
                    return Ok(end(OutcomeStatus::Applied, "confirmed"));
                }
                self.doubt = Some(Doubt { attempt, accepted: true });
                return Ok(Next::Again);
            }
            Err(error) => error,
        };
        let unsent = matches!(
            error.kind,
            Kind::NotSent | Kind::DeadlinePassed | Kind::Cancelled | Kind::Paused { .. }
        );
        if !unsent {
            self.note(&attempt, (*error.response).clone());
        }
        if error.effect_is_unknown() {
            tracing::warn!(
                decision = %self.decision.decision_id, key = %self.decision.key, reason = error.reason,
                "the effect is not known; reading the platform back"
            );
            self.last_error = Some(error.reason);
            // Read back at once the first time; it is most often a lost reply.
            let first = self.doubt.is_none() && self.over.is_empty();
            self.doubt = Some(Doubt { attempt, accepted: false });
            return Ok(if first { Next::Again } else { Next::Pause(self.pauses.until()) });
        }
        match error.kind {
            Kind::Conflict => Ok(self.after_conflict(attempt.plan, error.reason)),
            Kind::NotFound => {
                Ok(self.refused(C::DECLARATION.not_found, attempt.plan, C::DECLARATION.missing, error.reason))
            }
            _ => self.after_error(&error),
        }
    }

    fn note(&mut self, attempt: &Attempt<C::Plan>, response: ReceivedResponse) {
        self.attempts += 1;
        self.last = Some(attempt.clone());
        self.response = Some(response);
    }

    /// Once is somebody's own change, or an attempt of ours that is still under way; when it
    /// repeats, give way.
    fn after_conflict(&mut self, plan: C::Plan, reason: String) -> Next {
        self.conflicts += 1;
        let limit = self.actuation.settings.conflicts_limit;
        if self.conflicts >= limit && self.doubt.is_none() && self.over.is_empty() {
            let code = format!("conflict {} times in a row", self.conflicts);
            return self.refused(C::DECLARATION.conflicting, plan, &code, reason);
        }
        self.last_error = Some(reason);
        if self.conflicts == 1 { Next::Again } else { Next::Pause(self.pauses.until()) }
    }

    fn refused(&mut self, means: Refused, plan: C::Plan, code: &str, reason: String) -> Next {
        match means {
            Refused::Ends(status) => end(status, format!("{code}: {reason}{}", self.in_doubt())),
            Refused::Unfit => {
                self.unfit.push(plan);
                self.conflicts = 0;
                self.last_error = Some(reason);
                Next::Again
            }
        }
    }

    fn in_doubt(&self) -> &'static str {
        if self.doubt.is_some() { " (the effect of an attempt is not known)" } else { "" }
    }

    fn after_read_error(&mut self, error: &CallError) -> Result<Next, Interrupted> {
        if self.doubt.is_some() {
            if self.may_give_up() {
                let reason = format!("effect_unknown: could not be read back: {}", error.reason);
                return Ok(end(OutcomeStatus::Failed, reason));
            }
            // A refusal may be over before that.
            if matches!(error.kind, Kind::NotFound | Kind::Unauthorized | Kind::Forbidden | Kind::Rejected) {
                self.last_error = Some(error.reason.clone());
                return Ok(Next::Pause(self.pauses.until()));
            }
        }
        self.after_error(error)
    }

    /// After a call that had no effect.
    fn after_error(&mut self, error: &CallError) -> Result<Next, Interrupted> {
        self.last_error = Some(error.reason.clone());
        let code = match error.kind {
            Kind::Cancelled => return Err(self.interrupted()),
            Kind::RateLimited { until } | Kind::Busy { until } | Kind::Paused { until: Some(until) } => {
                return Ok(Next::Pause(until));
            }
            // A deadline of ours that passed is met again at the top of the loop, where
            // the decision's own expiry is looked at.
            Kind::Server { .. }
            | Kind::NoReply
            | Kind::NotSent
            | Kind::Malformed
            | Kind::DeadlinePassed
            | Kind::Conflict
            | Kind::Paused { until: None } => return Ok(Next::Pause(self.pauses.until())),
            Kind::NotFound => C::DECLARATION.missing,
            Kind::Unauthorized | Kind::Forbidden | Kind::Rejected => error.kind.name(),
        };
        Ok(end(OutcomeStatus::Failed, format!("{code}: {}{}", error.reason, self.in_doubt())))
    }

    /// It is not known whether the intent stands. Nothing was sent for it, by us.
    async fn recall_again(&mut self, unsent: u32, why: &str) -> Result<Next, Interrupted> {
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

    fn may_give_up(&self) -> bool {
        self.clock.now() >= self.decision.expires_at.plus(self.actuation.settings.settling_limit)
    }

    fn scope(&self, plan: Option<&C::Plan>, deadline: Instant) -> Scope {
        let priority = self.actuation.change.priority(self.decision, plan);
        let withdrawn = CancellationToken::new();
        Scope { priority, deadline, cancelled: self.stop.clone(), withdrawn }
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

    async fn settle(&mut self, status: OutcomeStatus, reason: String) -> Result<Outcome, Interrupted> {
        let mut outcome = Outcome::of(self.decision, status, reason, self.clock.now());
        outcome.attempts = self.attempts;
        outcome.not_before = self.not_before;
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

    async fn until_stop<T>(&self, answer: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            answer = answer => Ok(answer),
            () = self.stop.cancelled() => Err(self.interrupted()),
        }
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
