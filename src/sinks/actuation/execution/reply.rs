//! What came of a call: where its reply, or its error, leads.

use tokio::time::Instant;

use super::{Attempt, Doubt, Execution, Interrupted, Next, end};
use crate::genesys::{CallError, CallErrorKind as Kind, Reply};
use crate::model::outcome::{OutcomeStatus, ReceivedResponse};
use crate::sinks::actuation::ledger::Ledger;
use crate::sinks::actuation::{Change, Refused};

impl<C: Change, L: Ledger> Execution<'_, '_, C, L> {
    pub(super) fn judge(
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

    pub(super) fn refused(&mut self, means: Refused, plan: C::Plan, code: &str, reason: String) -> Next {
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

    pub(super) fn after_read_error(&mut self, error: &CallError) -> Result<Next, Interrupted> {
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
}
