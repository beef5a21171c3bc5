//! One decision from its record to its outcome.
//!
//! Nothing is sent without an intent on record. An attempt whose effect is not
//! known (no reply, a 5xx, a crash) is in *doubt*, and nothing else is sent before
//! the platform was read back: its entity tag has moved and the rate is ours, then
//! it was applied; the tag has not moved, then it was not, and only the very same
//! conditional request may be sent again, so that at most one of the two can have
//! an effect; anything else means that another writer came in between, and since
//! ours may have had its effect before, the decision ends.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::platform::{Ledger, LedgerError, Platform};
use super::verdict::{Verdict, verdict};
use super::{Actuator, Redecision};
use crate::genesys::{CallError, CallErrorKind, Campaign, Priority, Scope};
use crate::metrics;
use crate::model::Timestamp;
use crate::model::campaign::{CampaignWindow, DialParameters};
use crate::model::outcome::{Effect, Outcome, OutcomeStatus, ReceivedResponse, SentRequest};
use crate::postgres::intents::{Claim, Intent, Settlement};
use crate::postgres::leases::Lease;
use crate::runtime::decided;

/// A decision as it was read.
pub type Read<'a> = decided::Read<'a, CampaignWindow<'a>, DialParameters>;

/// Why a decision has no outcome now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// The process stops, or the partition goes. Whoever reads it next goes on.
    Stopped,
    /// Somebody else holds the partition's lease.
    LeaseLost,
}

/// Binary fractions come this close to the hundredth they stand for.
const HUNDREDTH_SLACK: f64 = 1e-6;

/// Outcomes that need neither ledger nor platform: the loop is in shadow, or
/// there is nothing to change.
pub fn end_at_once(decision: &Read<'_>, now: Timestamp) -> Option<Outcome> {
    use crate::model::decision::{Action, Mode};
    let (status, reason) = match (decision.mode, decision.action) {
        (Mode::Shadow, _) => (OutcomeStatus::Shadowed, "shadow_mode"),
        (Mode::Live, Action::Hold) => (OutcomeStatus::Unchanged, &*decision.reason),
        (Mode::Live, Action::SetDialRate) => return None,
        (Mode::Live, _) => (OutcomeStatus::Failed, "not_a_dial_action"),
    };
    Some(Outcome::of(decision, status, reason.to_owned(), now))
}

/// An attempt that was, or may have been, sent.
#[derive(Clone, Debug)]
struct Attempt {
    request: SentRequest,
    parameters: DialParameters,
    at: Timestamp,
}

/// One decision being carried out.
pub struct Carrying<'a, P, L> {
    actuator: &'a Actuator<P, L>,
    decision: &'a Read<'a>,
    lease: Lease,
    superseded: CancellationToken,
    stop: CancellationToken,
    /// Intents on record.
    claims: u32,
    /// Requests that were, or may have been, sent.
    attempts: u32,
    conflicts: u32,
    /// Failures in a row, for the pauses between them.
    failures: u32,
    /// The last attempt and its reply.
    last: Option<Attempt>,
    response: Option<ReceivedResponse>,
    /// What went wrong last, for the reason of an end that is not its own.
    last_error: Option<String>,
    /// The attempt whose effect is not known.
    doubt: Option<Attempt>,
}

/// Where a step leads.
enum Next {
    Again,
    /// After a pause; a newer decision, the expiry, or a stop ends it early.
    Pause(Instant),
    End(OutcomeStatus, String),
}

impl<'a, P: Platform, L: Ledger> Carrying<'a, P, L> {
    pub fn new(
        actuator: &'a Actuator<P, L>,
        decision: &'a Read<'a>,
        lease: Lease,
        superseded: CancellationToken,
        stop: CancellationToken,
    ) -> Self {
        Self {
            actuator,
            decision,
            lease,
            superseded,
            stop,
            claims: 0,
            attempts: 0,
            conflicts: 0,
            failures: 0,
            last: None,
            response: None,
            last_error: None,
            doubt: None,
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
            if self.stop.is_cancelled() {
                return Err(Interrupted::Stopped);
            }
            match self.step().await? {
                Next::Again => {}
                Next::Pause(until) => self.pause(until).await?,
                Next::End(status, reason) => return self.settle(status, reason).await,
            }
        }
    }

    async fn step(&mut self) -> Result<Next, Interrupted> {
        if self.doubt.is_none()
            && let Some(end) = self.too_late()
        {
            return Ok(end);
        }
        let campaign = match self.read().await {
            Ok(campaign) => campaign,
            Err(error) => {
                let limit = self.decision.expires_at.plus(self.actuator.settings.settling_limit);
                if self.doubt.is_some() && self.actuator.now() >= limit {
                    let reason = format!("effect_unknown: could not be read back: {}", error.reason);
                    return Ok(Next::End(OutcomeStatus::Failed, reason));
                }
                return self.after_error(&error);
            }
        };
        let parameters = match self.doubt.clone() {
            Some(doubt) => match self.resolve(&doubt, &campaign) {
                Some(end) => return Ok(end),
                None => doubt.parameters,
            },
            None => match self.decide(&campaign) {
                Ok(parameters) => parameters,
                Err(end) => return Ok(end),
            },
        };
        self.attempt(&campaign, parameters).await
    }

    /// What is on record from before: a settlement ends it, intents leave a doubt.
    async fn recall(&mut self) -> Result<Option<Outcome>, Interrupted> {
        let id = self.decision.decision_id;
        let mut tries = 0;
        let history = loop {
            match self.until_stop(self.actuator.ledger.history(id)).await? {
                Ok(history) => break history,
                Err(error) => self.wait_for_ledger(&error, &mut tries).await?,
            }
        };
        if let Some(settled) = history.settlement {
            return Ok(Some(settled));
        }
        self.claims = history.intents.last().map_or(0, |last| last.intent.attempt);
        self.attempts = u32::try_from(history.intents.len()).unwrap_or(u32::MAX);
        if let Some(last) = history.intents.into_iter().last() {
            let attempt = Attempt {
                request: last.intent.request,
                parameters: last.intent.parameters,
                at: last.claimed_at,
            };
            self.last = Some(attempt.clone());
            self.doubt = Some(attempt);
        }
        Ok(None)
    }

    /// The end of a decision that may not be sent any more. Not asked while
    /// something is in doubt: that is settled first, however late it is.
    fn too_late(&self) -> Option<Next> {
        if self.superseded.is_cancelled() {
            let reason = self.naming_last_error("a newer decision for this campaign has arrived");
            return Some(Next::End(OutcomeStatus::Superseded, reason));
        }
        if self.actuator.now() >= self.decision.expires_at {
            let reason = self.naming_last_error("older than its expiry");
            return Some(Next::End(OutcomeStatus::Expired, reason));
        }
        if self.claims >= self.actuator.settings.attempts_limit {
            let reason = format!("attempts_exhausted: {}", self.last_error.as_deref().unwrap_or("no error"));
            return Some(Next::End(OutcomeStatus::Failed, reason));
        }
        None
    }

    fn naming_last_error(&self, what: &str) -> String {
        match &self.last_error {
            Some(error) => format!("{what}: {error}"),
            None => what.to_owned(),
        }
    }

    /// What the platform, read back, says about an attempt in doubt. `None`: not
    /// applied, and the same request may be sent again.
    fn resolve(&mut self, doubt: &Attempt, campaign: &Campaign) -> Option<Next> {
        let count = |result| metrics::ACTUATOR_READ_BACKS.counter(&[result]).increment(1);
        if Some(&campaign.revision) == doubt.request.if_match.as_ref() {
            count("not_applied");
            // It cannot be told from one that is still on its way: only the same
            // request is sent again, and an end waits until it would have arrived.
            let end = self.too_late()?;
            let arrived = doubt.at.plus(self.actuator.settings.in_flight_time);
            let left = u64::try_from(arrived.millis_since(self.actuator.now())).unwrap_or(0);
            let arriving = Duration::from_millis(left).min(self.actuator.settings.in_flight_time);
            return Some(if left == 0 { end } else { Next::Pause(Instant::now() + arriving) });
        }
        if same_rate(campaign.dial_rate, doubt.parameters.dial_rate) {
            count("applied");
            return Some(Next::End(OutcomeStatus::Applied, "confirmed_by_reading_back".to_owned()));
        }
        count("overwritten");
        let reason = format!(
            "effect_unknown: another writer set the rate to {:.2} before {:.2} was confirmed",
            campaign.dial_rate, doubt.parameters.dial_rate
        );
        Some(Next::End(OutcomeStatus::Conflicted, reason))
    }

    /// The decision taken again on what was just read; the limits always win.
    fn decide(&self, campaign: &Campaign) -> Result<DialParameters, Next> {
        let least = (campaign.min_dial_rate * 100.0 - HUNDREDTH_SLACK).ceil();
        let greatest = (campaign.max_dial_rate * 100.0 + HUNDREDTH_SLACK).floor();
        if least > greatest {
            let reason = format!(
                "limits_contradict: the least rate {} is over the greatest {}",
                campaign.min_dial_rate, campaign.max_dial_rate
            );
            return Err(Next::End(OutcomeStatus::Failed, reason));
        }
        let wanted = match (self.actuator.settings.redecide)(self.decision, campaign) {
            Redecision::Set(rate) => rate,
            Redecision::Hold(reason) => return Err(Next::End(OutcomeStatus::Unchanged, reason)),
        };
        let dial_rate = (wanted * 100.0).round().clamp(least, greatest) / 100.0;
        if !dial_rate.is_finite() {
            return Err(Next::End(OutcomeStatus::Failed, format!("not_a_rate: {wanted}")));
        }
        if same_rate(dial_rate, campaign.dial_rate) {
            return Err(Next::End(OutcomeStatus::Unchanged, "already_at_rate".to_owned()));
        }
        Ok(DialParameters { previous_dial_rate: campaign.dial_rate, dial_rate })
    }

    /// Claims, sends, and judges what came of it.
    async fn attempt(
        &mut self,
        campaign: &Campaign,
        parameters: DialParameters,
    ) -> Result<Next, Interrupted> {
        let id = &*self.decision.key;
        let request = self.actuator.platform.prepare(id, parameters.dial_rate, &campaign.revision);
        let intent = Intent {
            decision_id: self.decision.decision_id,
            attempt: self.claims + 1,
            request: request.clone(),
            parameters,
        };
        match self.until_stop(self.actuator.ledger.claim(&intent, &self.lease)).await? {
            Ok(Claim::Granted) => self.claims += 1,
            Ok(Claim::LeaseLost) => return Err(Interrupted::LeaseLost),
            // It is not known whether it stands: nothing was sent for it, yet it
            // counts as if it might have been.
            Ok(Claim::Taken) => return self.recall_again("this attempt is on record already").await,
            Err(error) => return self.recall_again(&error.reason).await,
        }
        fail::fail_point!("actuator-after-claim", |_| std::process::abort());
        let sendable = Instant::now() + self.actuator.settings.claim_lifetime;
        if self.superseded.is_cancelled() || self.actuator.now() >= self.decision.expires_at {
            return Ok(Next::Again);
        }
        let attempt = Attempt { request, parameters, at: self.actuator.now() };
        let scope = Scope { deadline: sendable.min(self.deadline()), ..self.scope(&parameters) };
        let result = self.actuator.platform.send(&attempt.request, id, &scope).await;
        fail::fail_point!("actuator-after-call", |_| std::process::abort());
        self.judge(attempt, result)
    }

    fn judge(
        &mut self,
        attempt: Attempt,
        result: Result<crate::genesys::Reply, CallError>,
    ) -> Result<Next, Interrupted> {
        let name = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        metrics::ACTUATOR_ATTEMPTS.counter(&[name]).increment(1);
        let sent = match &result {
            Ok(_) => true,
            Err(error) => !matches!(
                error.kind,
                CallErrorKind::NotSent
                    | CallErrorKind::DeadlinePassed
                    | CallErrorKind::Cancelled
                    | CallErrorKind::Paused { .. }
            ),
        };
        if sent {
            self.attempts += 1;
            self.last = Some(attempt.clone());
            self.response = None;
        }
        let error = match result {
            Ok(reply) => {
                self.response = Some(reply.response);
                self.doubt = None;
                return Ok(Next::End(OutcomeStatus::Applied, "confirmed".to_owned()));
            }
            Err(error) => error,
        };
        if sent {
            self.response = Some((*error.response).clone());
        }
        if error.effect_is_unknown() {
            tracing::warn!(
                decision = %self.decision.decision_id, campaign = %self.decision.key, reason = error.reason,
                "the effect is not known; reading the platform back"
            );
            self.last_error = Some(error.reason.clone());
            self.doubt = Some(attempt);
            // Read back at once the first time; it is most often a lost reply.
            let pause = (self.failures > 0).then(|| self.backoff());
            self.failures += 1;
            return Ok(pause.map_or(Next::Again, Next::Pause));
        }
        self.after_error(&error)
    }

    fn after_error(&mut self, error: &CallError) -> Result<Next, Interrupted> {
        self.last_error = Some(error.reason.clone());
        match verdict(error) {
            Verdict::Stop => Err(Interrupted::Stopped),
            Verdict::WaitUntil(until) => Ok(Next::Pause(until)),
            Verdict::Retry => {
                self.failures += 1;
                Ok(Next::Pause(self.backoff()))
            }
            Verdict::Fail(code) => {
                let doubt =
                    if self.doubt.is_some() { " (the effect of an attempt is not known)" } else { "" };
                Ok(Next::End(OutcomeStatus::Failed, format!("{code}: {}{doubt}", error.reason)))
            }
            Verdict::Conflict => {
                self.conflicts += 1;
                if self.conflicts >= self.actuator.settings.conflicts_limit && self.doubt.is_none() {
                    let reason = format!("conflict {} times in a row: {}", self.conflicts, error.reason);
                    return Ok(Next::End(OutcomeStatus::Conflicted, reason));
                }
                // Once is somebody's own change; when it repeats, give way.
                self.failures = self.conflicts - 1;
                Ok(if self.failures == 0 { Next::Again } else { Next::Pause(self.backoff()) })
            }
        }
    }

    async fn recall_again(&mut self, why: &str) -> Result<Next, Interrupted> {
        self.last_error = Some(why.to_owned());
        self.failures += 1;
        let until = self.backoff();
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.stop.cancelled() => return Err(Interrupted::Stopped),
        }
        match self.recall().await? {
            Some(settled) => Ok(Next::End(settled.status, settled.reason)),
            None => Ok(Next::Again),
        }
    }

    async fn read(&self) -> Result<Campaign, CallError> {
        let scope = self.scope(&self.decision.parameters);
        self.actuator.platform.campaign(&self.decision.key, &scope).await
    }

    fn scope(&self, parameters: &DialParameters) -> Scope {
        let size = (parameters.dial_rate - parameters.previous_dial_rate).abs() * 100.0;
        Scope {
            priority: Priority::DialChange { size_hundredths: size.round().min(f64::from(u32::MAX)) as u32 },
            deadline: self.deadline(),
            cancelled: self.stop.clone(),
        }
    }

    /// The decision's end; for settling a doubt after it, a little later than now.
    fn deadline(&self) -> Instant {
        let left = self.decision.expires_at.millis_since(self.actuator.now());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        let settling =
            if self.doubt.is_some() { self.actuator.settings.settling_time } else { Duration::ZERO };
        // Far-away expiries must not overflow the clock.
        Instant::now() + left.max(settling).min(Duration::from_secs(86_400))
    }

    /// Doubling from 100 ms to 5 s, plus up to half of it.
    fn backoff(&self) -> Instant {
        let base = 100u64.saturating_mul(1 << self.failures.saturating_sub(1).min(6)).min(5_000);
        let jitter = rand::random_range(0..=base / 2);
        Instant::now() + Duration::from_millis(base + jitter)
    }

    async fn pause(&self, until: Instant) -> Result<(), Interrupted> {
        // What is in doubt must be read back: neither age nor a newer decision
        // shortens the wait, or nothing would be left to wait for.
        let free = self.doubt.is_none();
        tokio::select! {
            () = sleep_until(until) => Ok(()),
            () = sleep_until(self.deadline()), if free => Ok(()),
            () = self.superseded.cancelled(), if free => Ok(()),
            () = self.stop.cancelled() => Err(Interrupted::Stopped),
        }
    }

    async fn settle(&mut self, status: OutcomeStatus, reason: String) -> Result<Outcome, Interrupted> {
        let mut outcome = Outcome::of(self.decision, status, reason, self.actuator.now());
        outcome.attempts = self.attempts;
        if let Some(last) = &self.last {
            outcome.request = Some(last.request.clone());
            outcome.requested_at = Some(last.at);
            outcome.effect = (status == OutcomeStatus::Applied).then_some(Effect::DialRate(last.parameters));
        }
        outcome.response = self.response.clone();
        without_nul(&mut outcome);
        let mut tries = 0;
        loop {
            // A stop lets a settlement through that the ledger takes quickly: the
            // next start would find the same by reading back.
            let settled = tokio::select! {
                settled = self.actuator.ledger.settle(&outcome, &self.lease) => settled,
                () = stopped_for(&self.stop, Duration::from_millis(500)) => return Err(Interrupted::Stopped),
            };
            match settled {
                Ok(Settlement::Stands(outcome)) => {
                    fail::fail_point!("actuator-after-settlement", |_| std::process::abort());
                    return Ok(*outcome);
                }
                Ok(Settlement::LeaseLost) => return Err(Interrupted::LeaseLost),
                Err(error) if error.about_data && outcome.response.is_some() => {
                    tracing::error!(error = error.reason, "a reply cannot be recorded; settling without it");
                    outcome.response = None;
                }
                Err(error) => self.wait_for_ledger(&error, &mut tries).await?,
            }
        }
    }

    async fn wait_for_ledger(&self, error: &LedgerError, tries: &mut u32) -> Result<(), Interrupted> {
        if *tries == 0 {
            tracing::warn!(
                decision = %self.decision.decision_id, error = error.reason,
                "nothing is sent while the ledger does not answer"
            );
        }
        let pause = Duration::from_millis(100 << (*tries).min(4));
        *tries += 1;
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stop.cancelled() => Err(Interrupted::Stopped),
        }
    }

    async fn until_stop<T>(&self, answer: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            answer = answer => Ok(answer),
            () = self.stop.cancelled() => Err(Interrupted::Stopped),
        }
    }
}

/// Resolves `grace` after the stop.
async fn stopped_for(stop: &CancellationToken, grace: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(grace).await;
}

/// Equal in hundredths.
fn same_rate(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.005
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
