//! One rollback from its record to its outcome.
//!
//! Nothing is sent without an intent on record. After a request was, or may have been, sent
//! (a reply, no reply, a crash) the flow is read back until it has the target; while it
//! still has the bad version, the same request is sent again only once the former one can no
//! longer be on its way, and never after the platform has accepted it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::lease::{ANSWER_WITHIN, Held};
use super::{RollbackActuator, target};
use crate::genesys::{CallError, CallErrorKind as Kind, Client, PlatformVersion, Priority, Reply, Scope};
use crate::metrics;
use crate::model::Timestamp;
use crate::model::decision::{Action, Mode};
use crate::model::outcome::{Effect, Outcome, OutcomeStatus, ReceivedResponse, SentRequest};
use crate::model::rollback::{RollbackInputs, RollbackParameters, VersionChange};
use crate::postgres;
use crate::postgres::intents::{Claim, Intent, Settlement};
use crate::postgres::rollbacks::RollbackClaim;
use crate::runtime::decided;

/// A decision as it was read.
pub type Read<'a> = decided::Read<'a, RollbackInputs, RollbackParameters>;

/// Why a decision has no outcome now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The process stops, or the partition goes. Whoever reads it next goes on.
    Stopped,
    /// Somebody else holds the lease.
    LeaseLost,
}

/// Outcomes that need neither ledger nor platform.
pub fn end_at_once(decision: &Read<'_>, now: Timestamp) -> Option<Outcome> {
    let (status, reason) = match (decision.mode, decision.action) {
        (Mode::Shadow, _) => (OutcomeStatus::Shadowed, "shadow_mode"),
        (Mode::Live, Action::Rollback) => return None,
        (Mode::Live, Action::Hold | Action::Alert) => (OutcomeStatus::Unchanged, &*decision.reason),
        (Mode::Live, _) => (OutcomeStatus::Failed, "not_a_rollback_action"),
    };
    Some(Outcome::of(decision, status, reason.to_owned(), now))
}

/// A request that was, or may have been, sent.
#[derive(Clone, Debug)]
struct Attempt {
    request: SentRequest,
    change: VersionChange,
    at: Timestamp,
}

/// One rollback being carried out.
pub struct Carrying<'a> {
    actuator: &'a RollbackActuator,
    decision: &'a Read<'a>,
    held: &'a Held,
    stop: CancellationToken,
    /// Intents on record.
    claims: u32,
    /// Requests that were, or may have been, sent.
    attempts: u32,
    /// Failures in a row, for the pauses between them.
    failures: u32,
    /// Versions the platform refused to activate.
    refused: Vec<String>,
    last: Option<Attempt>,
    response: Option<ReceivedResponse>,
    last_error: Option<String>,
    /// The attempt whose effect is not confirmed.
    open: Option<Attempt>,
    /// The platform has accepted it.
    accepted: bool,
}

/// Where a step leads.
enum Next {
    Again,
    Pause(Instant),
    End(OutcomeStatus, String),
}

impl<'a> Carrying<'a> {
    pub fn new(
        actuator: &'a RollbackActuator,
        decision: &'a Read<'a>,
        held: &'a Held,
        stop: CancellationToken,
    ) -> Self {
        Self {
            actuator,
            decision,
            held,
            stop,
            claims: 0,
            attempts: 0,
            failures: 0,
            refused: Vec::new(),
            last: None,
            response: None,
            last_error: None,
            open: None,
            accepted: false,
        }
    }

    /// Carries the decision out.
    ///
    /// # Errors
    /// When it has no outcome yet; what was done so far is on record.
    pub async fn run(mut self) -> Result<Outcome, Interrupted> {
        if let Some(settled) = self.recall().await? {
            return Ok(settled);
        }
        loop {
            match self.step().await? {
                Next::Again => {}
                Next::Pause(until) => self.pause(until).await?,
                Next::End(status, reason) => return self.settle(status, reason).await,
            }
        }
    }

    async fn step(&mut self) -> Result<Next, Interrupted> {
        if self.open.is_none()
            && let Some(end) = self.too_late()
        {
            return Ok(end);
        }
        let scope = self.scope(self.deadline());
        let versions = match self.actuator.platform.flow_versions(&self.decision.key, &scope).await {
            Ok(versions) => versions,
            Err(error) => return self.after_read_error(&error),
        };
        self.failures = 0;
        let active = versions.iter().find(|version| version.is_active());
        if let Some(open) = self.open.clone() {
            return self.resolve(&open, active);
        }
        let bad = &self.decision.parameters.flow_version;
        let Some(active) = active else {
            return Ok(Next::End(
                OutcomeStatus::Failed,
                "no_active_version: nothing to go back from".to_owned(),
            ));
        };
        if !bad.is_empty() && active.id != *bad {
            let reason = format!("version_not_active: {} is in force, not {bad}", active.id);
            return Ok(Next::End(OutcomeStatus::Unchanged, reason));
        }
        let mut unfit = match self.ask(self.actuator.ledger.bad_versions(&self.decision.key)).await? {
            Ok(unfit) => unfit,
            Err(error) => return Ok(self.after_ledger_error(error)),
        };
        unfit.extend(self.refused.iter().cloned());
        let Some(target) = target::choose(&versions, &unfit) else {
            let reason = "no_eligible_version: no published version is left that is not marked bad";
            return Ok(Next::End(OutcomeStatus::Failed, reason.to_owned()));
        };
        let change = VersionChange {
            previous_version: active.id.clone(),
            version: target.id.clone(),
            error_rate: self.decision.parameters.error_rate,
            threshold: self.decision.parameters.threshold,
        };
        self.attempt(change).await
    }

    /// What is on record from before: a settlement ends it, an intent leaves an effect open.
    async fn recall(&mut self) -> Result<Option<Outcome>, Interrupted> {
        let id = self.decision.decision_id;
        let history = loop {
            match self.ask(self.actuator.ledger.history::<VersionChange>(id)).await? {
                Ok(history) => break history,
                Err(error) => {
                    let Next::Pause(until) = self.after_ledger_error(error) else { continue };
                    self.pause(until).await?;
                }
            }
        };
        if let Some(settled) = history.settlement {
            return Ok(Some(settled));
        }
        self.claims = history.intents.last().map_or(0, |last| last.intent.attempt);
        self.attempts = u32::try_from(history.intents.len()).unwrap_or(u32::MAX);
        if let Some(last) = history.intents.into_iter().last() {
            let attempt =
                Attempt { request: last.intent.request, change: last.intent.parameters, at: last.claimed_at };
            self.last = Some(attempt.clone());
            self.open = Some(attempt);
        }
        Ok(None)
    }

    fn too_late(&self) -> Option<Next> {
        let error = self.last_error.as_deref().unwrap_or("no error");
        if self.actuator.now() >= self.decision.expires_at {
            let reason = format!("older than its expiry: {error}");
            return Some(Next::End(OutcomeStatus::Expired, reason));
        }
        (self.claims >= self.actuator.settings.attempts_limit)
            .then(|| Next::End(OutcomeStatus::Failed, format!("attempts_exhausted: {error}")))
    }

    /// What the flow, read back, says about an attempt.
    fn resolve(&mut self, open: &Attempt, active: Option<&PlatformVersion>) -> Result<Next, Interrupted> {
        let count = |result| metrics::ROLLBACK_READ_BACKS.counter(&[result]).increment(1);
        let active = active.map(|version| version.id.as_str());
        if active == Some(open.change.version.as_str()) {
            count("applied");
            return Ok(Next::End(OutcomeStatus::Applied, "confirmed_by_reading_back".to_owned()));
        }
        if active != Some(open.change.previous_version.as_str()) {
            count("overwritten");
            let reason = format!(
                "effect_unknown: {} is in force, neither {} nor {}",
                active.unwrap_or("no version"),
                open.change.previous_version,
                open.change.version
            );
            return Ok(Next::End(OutcomeStatus::Conflicted, reason));
        }
        count("not_applied");
        if self.accepted {
            if self.may_give_up() {
                let reason = "not_confirmed: accepted, and the former version is still in force".to_owned();
                return Ok(Next::End(OutcomeStatus::Failed, reason));
            }
            self.failures += 1;
            return Ok(Next::Pause(self.backoff()));
        }
        let arrived = open.at.plus(self.actuator.settings.in_flight_time);
        let left = u64::try_from(arrived.millis_since(self.actuator.now())).unwrap_or(0);
        if left > 0 {
            let most = self.actuator.settings.in_flight_time;
            return Ok(Next::Pause(Instant::now() + Duration::from_millis(left).min(most)));
        }
        // It had no effect, and will have none.
        self.open = None;
        Ok(Next::Again)
    }

    /// Claims, sends, and judges what came of it.
    async fn attempt(&mut self, change: VersionChange) -> Result<Next, Interrupted> {
        let id = &*self.decision.key;
        let request = Client::prepare_activation(id, &change.version, &self.description(&change));
        let intent = Intent {
            decision_id: self.decision.decision_id,
            attempt: self.claims + 1,
            request: request.clone(),
            parameters: change.clone(),
        };
        let settings = &self.actuator.settings;
        let sendable = Instant::now() + settings.claim_lifetime;
        let (fresh, cooldown) = (settings.lease_idle - settings.claim_lifetime, settings.cooldown);
        let claim = self.actuator.ledger.claim_rollback(&intent, id, &self.held.lease, fresh, cooldown);
        match self.ask(claim).await? {
            Ok(RollbackClaim::Answered(Claim::Granted)) => self.claims += 1,
            Ok(RollbackClaim::Answered(Claim::LeaseLost)) => return Err(Interrupted::LeaseLost),
            Ok(RollbackClaim::Maintenance(scope)) => {
                return Ok(Next::End(OutcomeStatus::Unchanged, format!("maintenance_window: {scope}")));
            }
            Ok(RollbackClaim::Cooldown) => {
                let reason = "cooldown: the flow was rolled back not long ago".to_owned();
                return Ok(Next::End(OutcomeStatus::Unchanged, reason));
            }
            // It is not known whether it stands: it counts as if it might have been sent.
            Ok(RollbackClaim::Answered(Claim::Taken)) | Err(_) => {
                self.failures += 1;
                self.pause(self.backoff()).await?;
                return Ok(match self.recall().await? {
                    Some(settled) => Next::End(settled.status, settled.reason),
                    None => Next::Again,
                });
            }
        }
        fail::fail_point!("rollback-after-claim", |_| std::process::abort());
        let attempt = Attempt { request, change, at: self.actuator.now() };
        let scope = self.scope(sendable.min(self.deadline()));
        let result = self.actuator.platform.send_activation(&attempt.request, id, &scope).await;
        fail::fail_point!("rollback-after-call", |_| std::process::abort());
        self.judge(attempt, result)
    }

    fn judge(&mut self, attempt: Attempt, result: Result<Reply, CallError>) -> Result<Next, Interrupted> {
        let name = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        metrics::ROLLBACK_ATTEMPTS.counter(&[name]).increment(1);
        let error = match result {
            Ok(reply) => {
                self.note(&attempt, reply.response);
                (self.open, self.accepted) = (Some(attempt), true);
                return Ok(Next::Again);
            }
            Err(error) => error,
        };
        self.last_error = Some(error.reason.clone());
        self.failures += 1;
        if error.effect_is_unknown() {
            tracing::warn!(
                decision = %self.decision.decision_id, flow = %self.decision.key, reason = error.reason,
                "the effect is not known; reading the flow back"
            );
            self.note(&attempt, *error.response);
            self.open = Some(attempt);
            return Ok(Next::Again);
        }
        match error.kind {
            Kind::Cancelled => Err(self.interrupted()),
            Kind::RateLimited { until } => {
                self.note(&attempt, *error.response);
                Ok(Next::Pause(until))
            }
            Kind::Paused { until: Some(until) } => Ok(Next::Pause(until)),
            Kind::NotSent | Kind::DeadlinePassed | Kind::Paused { until: None } | Kind::Malformed => {
                Ok(Next::Pause(self.backoff()))
            }
            // This version cannot be had; another one may.
            Kind::NotFound | Kind::Conflict => {
                self.refused.push(attempt.change.version.clone());
                self.note(&attempt, *error.response);
                Ok(Next::Again)
            }
            Kind::Unauthorized | Kind::Forbidden | Kind::Rejected => {
                self.note(&attempt, *error.response);
                Ok(Next::End(OutcomeStatus::Failed, format!("{}: {}", error.kind.name(), error.reason)))
            }
            Kind::NoReply | Kind::Server { .. } => unreachable!("their effect is unknown"),
        }
    }

    fn note(&mut self, attempt: &Attempt, response: ReceivedResponse) {
        self.attempts += 1;
        self.last = Some(attempt.clone());
        self.response = Some(response);
    }

    fn after_read_error(&mut self, error: &CallError) -> Result<Next, Interrupted> {
        self.last_error = Some(error.reason.clone());
        if self.open.is_some() && self.may_give_up() {
            let reason = format!("effect_unknown: could not be read back: {}", error.reason);
            return Ok(Next::End(OutcomeStatus::Failed, reason));
        }
        match error.kind {
            Kind::Cancelled => Err(self.interrupted()),
            Kind::RateLimited { until } | Kind::Paused { until: Some(until) } => Ok(Next::Pause(until)),
            Kind::NotFound | Kind::Unauthorized | Kind::Forbidden | Kind::Rejected if self.open.is_none() => {
                Ok(Next::End(OutcomeStatus::Failed, format!("{}: {}", error.kind.name(), error.reason)))
            }
            _ => {
                self.failures += 1;
                Ok(Next::Pause(self.backoff()))
            }
        }
    }

    fn after_ledger_error(&mut self, error: postgres::Error) -> Next {
        tracing::warn!(
            decision = %self.decision.decision_id, %error,
            "nothing is sent while the ledger does not answer"
        );
        self.last_error = Some(error.to_string());
        self.failures += 1;
        Next::Pause(self.backoff())
    }

    fn may_give_up(&self) -> bool {
        self.actuator.now() >= self.decision.expires_at.plus(self.actuator.settings.settling_limit)
    }

    fn description(&self, change: &VersionChange) -> String {
        format!(
            "rolled back from {} by trunkline: {:.1} % errors, {:.1} % are allowed; decision {}",
            change.previous_version,
            change.error_rate * 100.0,
            change.threshold * 100.0,
            self.decision.decision_id
        )
    }

    fn scope(&self, deadline: Instant) -> Scope {
        Scope { priority: Priority::Rollback, deadline, cancelled: self.stop.clone() }
    }

    /// The decision's end; for settling an open effect after it, a little later than now.
    fn deadline(&self) -> Instant {
        let left = self.decision.expires_at.millis_since(self.actuator.now());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        let settling =
            if self.open.is_some() { self.actuator.settings.settling_time } else { Duration::ZERO };
        Instant::now() + left.max(settling).min(Duration::from_secs(86_400))
    }

    /// Doubling from 100 ms to 5 s, plus up to half of it.
    fn backoff(&self) -> Instant {
        let base = 100u64.saturating_mul(1 << self.failures.saturating_sub(1).min(6)).min(5_000);
        Instant::now() + Duration::from_millis(base + rand::random_range(0..=base / 2))
    }

    async fn pause(&self, until: Instant) -> Result<(), Interrupted> {
        let free = self.open.is_none();
        tokio::select! {
            () = sleep_until(until) => Ok(()),
            () = sleep_until(self.deadline()), if free => Ok(()),
            () = self.stop.cancelled() => Err(self.interrupted()),
        }
    }

    /// `stop` is cancelled when the lease is lost, too.
    fn interrupted(&self) -> Interrupted {
        if self.held.lost.is_cancelled() { Interrupted::LeaseLost } else { Interrupted::Stopped }
    }

    async fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, postgres::Error>>,
    ) -> Result<Result<T, postgres::Error>, Interrupted> {
        tokio::select! {
            answer = timeout(ANSWER_WITHIN, asked) => {
                Ok(answer.unwrap_or_else(|_| Err(self.actuator.ledger.gave_no_answer(ANSWER_WITHIN))))
            }
            () = self.stop.cancelled() => Err(self.interrupted()),
        }
    }

    async fn settle(&mut self, status: OutcomeStatus, reason: String) -> Result<Outcome, Interrupted> {
        let mut outcome = Outcome::of(self.decision, status, without_nul(reason), self.actuator.now());
        outcome.attempts = self.attempts;
        let mut confirmed = None;
        if let Some(last) = &self.last {
            outcome.request = Some(last.request.clone());
            outcome.requested_at = Some(last.at);
            confirmed = (status == OutcomeStatus::Applied).then(|| last.change.clone());
        }
        outcome.effect = confirmed.clone().map(Effect::FlowVersion);
        outcome.response = self.response.take().map(|mut response| {
            response.body = response.body.map(without_nul);
            response.error = response.error.map(without_nul);
            response.correlation_id = response.correlation_id.map(without_nul);
            response
        });
        loop {
            let settling =
                self.actuator.ledger.settle_rollback(&outcome, confirmed.as_ref(), &self.held.lease);
            match self.ask(settling).await? {
                Ok(Settlement::Stands(outcome)) => {
                    fail::fail_point!("rollback-after-settlement", |_| std::process::abort());
                    return Ok(*outcome);
                }
                Ok(Settlement::LeaseLost) => return Err(Interrupted::LeaseLost),
                Err(error) if error.is_about_data() && outcome.response.is_some() => {
                    tracing::error!(%error, "a reply cannot be recorded; settling without it");
                    outcome.response = None;
                }
                Err(error) => {
                    let Next::Pause(until) = self.after_ledger_error(error) else { continue };
                    sleep_until(until).await;
                }
            }
        }
    }
}

/// Postgres keeps no U+0000 in texts; the platform's replies may hold one.
fn without_nul(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}
