//! What is decided about canaries, carried out at the counters of routing.

use sqlx::PgConnection;

use super::super::Database;
use super::super::ledger::{Advance, RecordError};
use super::super::outbox::{self, Message};
use super::{Change, DeliveryRead, lock_counter, put, put_overlay, read, send_fact};
use crate::model::Timestamp;
use crate::model::decision::{Action, Decision, Mode};
use crate::model::delivery::{CanaryFact, CanaryState, SettledShare};
use crate::model::outcome::{Outcome, OutcomeStatus};

/// Where outcomes and promotions go. The names are the topics' own.
const OUTCOMES: &str = "trunkline.outcomes.v1";
const PROMOTIONS: &str = "trunkline.promotions.v1";

/// A decision with the trace that its record carries, where it does.
#[derive(Clone, Debug)]
pub struct Delivered<'a> {
    pub decision: DeliveryRead<'a>,
    pub traceparent: Option<&'a [u8]>,
}

impl Database {
    /// Carries decisions out at the counters and moves the positions of `consumer`: all of it or
    /// nothing. Of each decision its outcome leaves with the same transaction.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn apply_deliveries(
        &self,
        consumer: &str,
        advances: &[Advance],
        decisions: &[Delivered<'_>],
        published: &[Outcome],
        now: Timestamp,
    ) -> Result<(), RecordError> {
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.moving(consumer, advances).await?;
        for Delivered { decision, traceparent } in decisions {
            let traceparent = traceparent.unwrap_or_default();
            let Some((status, reason)) =
                apply(&mut transaction, decision, traceparent, now).await.map_err(fail)?
            else {
                continue;
            };
            let outcome = Outcome::of(decision, status, reason, now);
            let bytes = serde_json::to_vec(&outcome).expect("own values are JSON");
            let message = Message::new(OUTCOMES, outcome.key.as_bytes(), &bytes).of_trace(traceparent);
            outbox::append(&mut transaction, &message).await.map_err(fail)?;
            if decision.action == Action::SetShare
                && let OutcomeStatus::Applied | OutcomeStatus::Expired = status
            {
                let is_in_force = status == OutcomeStatus::Applied;
                tell_share(&mut transaction, decision, traceparent, is_in_force, now).await.map_err(fail)?;
            }
        }
        for outcome in published {
            settle_promotion(&mut transaction, outcome).await.map_err(fail)?;
        }
        transaction.commit().await.map_err(fail)
    }
}

/// Carries one decision out. `None` where its outcome is somebody else's to tell.
async fn apply(
    connection: &mut PgConnection,
    decision: &DeliveryRead<'_>,
    traceparent: &[u8],
    now: Timestamp,
) -> Result<Option<(OutcomeStatus, String)>, sqlx::Error> {
    if decision.mode == Mode::Shadow {
        return Ok(Some((OutcomeStatus::Shadowed, "shadow_mode".to_owned())));
    }
    lock_counter(connection, &decision.key).await?;
    let parameters = &decision.parameters;
    if decision.action == Action::Promote {
        return hand_on(connection, decision, traceparent).await.map(|()| None);
    }
    let Some(found) = read(connection, &parameters.canary_id).await? else {
        return Ok(Some((OutcomeStatus::Failed, format!("canary_not_found: {}", parameters.canary_id))));
    };
    let is_under_way = matches!(found.state, CanaryState::Planned | CanaryState::Running);
    if found.state == CanaryState::Aborted && decision.action == Action::Abort {
        return Ok(Some((OutcomeStatus::Applied, "in_force_since_it_was_ordered".to_owned())));
    }
    if !is_under_way {
        return Ok(Some((
            OutcomeStatus::Superseded,
            format!("canary_is_{}: {}", found.state.name(), found.reason),
        )));
    }
    if decision.action == Action::SetShare && now > decision.expires_at {
        return Ok(Some((OutcomeStatus::Expired, "older than its expiry".to_owned())));
    }
    let change = Change {
        state: parameters.state,
        step: parameters.step,
        share: parameters.share,
        reason: &decision.reason,
        told: Some(decision),
    };
    put(connection, &found, &change).await?;
    Ok(Some(match decision.action {
        Action::Hold => (OutcomeStatus::Unchanged, decision.reason.clone().into_owned()),
        _ => (OutcomeStatus::Applied, "in_force_for_the_next_decision".to_owned()),
    }))
}

/// The loop learns what became of its share: only then minutes are evidence of the step.
async fn tell_share(
    connection: &mut PgConnection,
    decision: &DeliveryRead<'_>,
    traceparent: &[u8],
    is_in_force: bool,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let settled = SettledShare {
        configuration_id: decision.key.clone().into_owned(),
        canary_id: decision.parameters.canary_id.clone(),
        share: decision.parameters.share,
        is_in_force,
        when: now,
    };
    send_fact(connection, &decision.key, &CanaryFact::Share(settled), traceparent).await
}

/// A promotion goes on to the role that publishes, under the key of the flow.
async fn hand_on(
    connection: &mut PgConnection,
    decision: &DeliveryRead<'_>,
    traceparent: &[u8],
) -> Result<(), sqlx::Error> {
    let parameters = &decision.parameters;
    const NOTE: &str = "UPDATE trunkline.canaries SET promotion_id = $2, decision_id = $2, changed_at = now()
        WHERE canary_id = $1 AND state = 'promoting'";
    let note = sqlx::query(NOTE).bind(&parameters.canary_id).bind(decision.decision_id.0);
    note.execute(&mut *connection).await?;
    let promotion = Decision { key: parameters.control_id.as_str().into(), ..decision.clone() };
    let bytes = serde_json::to_vec(&promotion).expect("own values are JSON");
    let message = Message::new(PROMOTIONS, parameters.control_id.as_bytes(), &bytes).of_trace(traceparent);
    outbox::append(connection, &message).await.map(drop)
}

/// What was promoted is published, or not: then the routing configuration is in force as it is
/// written, or everything goes on to the candidate.
async fn settle_promotion(connection: &mut PgConnection, outcome: &Outcome) -> Result<(), sqlx::Error> {
    const FIND: &str = "SELECT canary_id, configuration_id FROM trunkline.canaries WHERE promotion_id = $1";
    let found: Option<(String, String)> =
        sqlx::query_as(FIND).bind(outcome.decision_id.0).fetch_optional(&mut *connection).await?;
    let Some((id, configuration_id)) = found else { return Ok(()) };
    lock_counter(connection, &configuration_id).await?;
    let (state, reason) = match outcome.status {
        OutcomeStatus::Applied | OutcomeStatus::Unchanged => (CanaryState::Promoted, "published".to_owned()),
        status => (CanaryState::Done, format!("not_published: {}: {}", status.name(), outcome.reason)),
    };
    const END: &str = "UPDATE trunkline.canaries SET state = $2, reason = $3, changed_at = now()
        WHERE canary_id = $1 AND state = 'promoting'";
    let ended = sqlx::query(END).bind(&id).bind(state.name()).bind(&reason).execute(&mut *connection).await?;
    if state == CanaryState::Promoted && ended.rows_affected() > 0 {
        put_overlay(connection, &configuration_id, None).await?;
    }
    Ok(())
}
