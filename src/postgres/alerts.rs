//! Alerts: queued with the position of the record that raised them, delivered to
//! each receiver on its own.

mod receivers;

use std::time::Duration;

use uuid::Uuid;

use super::ledger::{Advance, RecordError};
use super::outbox::{Message, append};
use super::{Database, Error};
use crate::model::alert::Alert;

pub use receivers::{Answered, ReceiverStanding};

/// An alert with the place of the record that raised it.
#[derive(Clone, Debug)]
pub struct Raised {
    pub alert: Alert,
    /// The topic's full name.
    pub topic: String,
    /// Which topic of that name, where the brokers tell.
    pub topic_id: Option<Uuid>,
    pub partition: i32,
    pub offset: i64,
    /// Names of those to be told.
    pub receivers: Vec<String>,
    /// The trace of that record, where it has one.
    pub traceparent: Option<String>,
}

/// A delivery that is due, claimed for one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub alert_id: Uuid,
    pub receiver: String,
    /// Which attempt this is, from 1.
    pub attempts: i32,
    pub body: String,
    /// The trace of the record that raised it, where it had one.
    pub traceparent: Option<String>,
    /// The one that finds out whether a receiver that asked to be left alone takes alerts again;
    /// no other is claimed before [`receiver_answered`](Database::receiver_answered).
    pub probe: bool,
}

/// A delivery that was tried for too long.
#[derive(Clone, Debug, PartialEq)]
pub struct Overdue {
    pub alert_id: Uuid,
    pub receiver: String,
    pub attempts: i32,
    pub key: String,
    pub body: String,
    pub last_error: Option<String>,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempted {
    pub http_status: Option<u16>,
    /// Why it was not taken; `None` is success.
    pub failure: Option<Failure>,
}

/// Why an attempt failed, and when the next one comes.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    pub reason: String,
    pub again_after: Duration,
}

impl Database {
    /// Queues alerts and moves the positions of `consumer`: all of it or nothing. An
    /// alert that was raised before is left as it is. Returns the number of new ones.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn raise(
        &self,
        consumer: &str,
        advances: &[Advance],
        raised: &[Raised],
    ) -> Result<u64, RecordError> {
        const LOG: &str = "INSERT INTO audit.alert_log (alert_id, incident_type, loop, key, decision_id,
                occurred_at, body, topic, partition, \"offset\", topic_id, traceparent)
            SELECT alert_id, incident_type, loop, key, decision_id,
                to_timestamp(occurred_at::float8 / 1000), body, topic, partition, position, topic_id, traceparent
            FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::text[],
                $8::text[], $9::int[], $10::bigint[], $11::uuid[], $12::text[])
                AS r(alert_id, incident_type, loop, key, decision_id, occurred_at, body, topic, partition,
                position, topic_id, traceparent)
            ON CONFLICT DO NOTHING
            RETURNING alert_id";
        const QUEUE: &str = "INSERT INTO trunkline.alert_deliveries (alert_id, receiver)
            SELECT * FROM unnest($1::uuid[], $2::text[]) ON CONFLICT DO NOTHING";
        let fail = |error| RecordError::of(self, error);
        let mut transaction = self.moving(consumer, advances).await?;
        let mut new: Vec<Uuid> = Vec::new();
        if !raised.is_empty() {
            let alert = |raised: &Raised| raised.alert.clone();
            new = sqlx::query_scalar(LOG)
                .bind(raised.iter().map(|raised| raised.alert.id()).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.alert.incident_type).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.alert.r#loop.name()).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| alert(raised).key).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.alert.decision_id.0).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.alert.occurred_at.as_millis()).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.alert.body()).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.topic.as_str()).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.partition).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.offset).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.topic_id).collect::<Vec<_>>())
                .bind(raised.iter().map(|raised| raised.traceparent.as_deref()).collect::<Vec<_>>())
                .fetch_all(&mut *transaction)
                .await
                .map_err(fail)?;
            let (ids, receivers): (Vec<Uuid>, Vec<&str>) = raised
                .iter()
                .filter(|raised| new.contains(&raised.alert.id()))
                .flat_map(|raised| {
                    let id = raised.alert.id();
                    raised.receivers.iter().map(move |receiver| (id, receiver.as_str()))
                })
                .unzip();
            sqlx::query(QUEUE).bind(ids).bind(receivers).execute(&mut *transaction).await.map_err(fail)?;
        }
        transaction.commit().await.map_err(fail)?;
        Ok(new.len() as u64)
    }

    /// Claims due deliveries of `receiver`, oldest first: nobody else gets them for
    /// `claim`, after which they are due again.
    ///
    /// # Errors
    /// When the database cannot be asked; they may have been claimed.
    pub async fn claim_deliveries(
        &self,
        receiver: &str,
        at_most: i64,
        claim: Duration,
    ) -> Result<Vec<Delivery>, Error> {
        // A receiver that is left alone gets one probe at a time: whoever claims it moves the pause on.
        const CLAIM: &str = "WITH receiver AS (
                SELECT paused_until IS NOT NULL AS probed FROM trunkline.alert_receivers
                WHERE receiver = $1 AND switched_off_at IS NULL AND (paused_until IS NULL OR paused_until <= now())
                FOR UPDATE),
            due AS (
                SELECT alert_id FROM trunkline.alert_deliveries
                WHERE receiver = $1 AND next_at <= now() AND delivered_at IS NULL AND given_up_at IS NULL
                  AND EXISTS (SELECT FROM receiver)
                ORDER BY next_at LIMIT (SELECT CASE WHEN probed THEN 1 ELSE $2 END FROM receiver)
                FOR UPDATE SKIP LOCKED),
            probe AS (
                UPDATE trunkline.alert_receivers
                SET paused_until = now() + $3 * interval '1 second', probe = (SELECT alert_id FROM due)
                WHERE receiver = $1 AND (SELECT probed FROM receiver) AND EXISTS (SELECT FROM due))
            UPDATE trunkline.alert_deliveries d
            SET attempts = d.attempts + 1, next_at = now() + $3 * interval '1 second'
            FROM due, audit.alert_log a
            WHERE d.receiver = $1 AND d.alert_id = due.alert_id AND a.alert_id = due.alert_id
            RETURNING d.alert_id, d.attempts, a.body, a.traceparent, (SELECT probed FROM receiver)";
        let rows = sqlx::query_as(CLAIM)
            .bind(receiver)
            .bind(at_most)
            .bind(claim.as_secs_f64())
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        let delivery = |(alert_id, attempts, body, traceparent, probe)| Delivery {
            alert_id,
            receiver: receiver.to_owned(),
            attempts,
            body,
            traceparent,
            probe,
        };
        Ok(rows.into_iter().map(delivery).collect())
    }

    /// Records how an attempt ended. A failure counts only while no other attempt has
    /// begun since; that it was delivered always does. `false` when it did not count.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been recorded.
    pub async fn record_attempt(&self, delivery: &Delivery, attempted: &Attempted) -> Result<bool, Error> {
        const RECORD: &str = "UPDATE trunkline.alert_deliveries
            SET last_status = $4, last_error = $5, delivered_at = CASE WHEN $5 IS NULL THEN now() END,
                next_at = now() + $6 * interval '1 second'
            WHERE alert_id = $1 AND receiver = $2 AND (attempts = $3 OR $5 IS NULL) AND delivered_at IS NULL";
        let failure = attempted.failure.as_ref();
        let done = sqlx::query(RECORD)
            .bind(delivery.alert_id)
            .bind(&delivery.receiver)
            .bind(delivery.attempts)
            .bind(attempted.http_status.map(i32::from))
            .bind(failure.map(|failure| failure.reason.as_str()))
            .bind(failure.map_or(0.0, |failure| failure.again_after.as_secs_f64()))
            .execute(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(done.rows_affected() == 1)
    }

    /// Deliveries that have been queued for longer than `after`, whoever they are for.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn overdue_deliveries(&self, after: Duration, at_most: i64) -> Result<Vec<Overdue>, Error> {
        let rows = sqlx::query_as(
            "SELECT d.alert_id, d.receiver, d.attempts, a.key, a.body, d.last_error
             FROM trunkline.alert_deliveries d JOIN audit.alert_log a USING (alert_id)
             WHERE d.delivered_at IS NULL AND d.given_up_at IS NULL
               AND d.queued_at < now() - $1 * interval '1 second'
             ORDER BY d.queued_at LIMIT $2",
        )
        .bind(after.as_secs_f64())
        .bind(at_most)
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        let overdue = |(alert_id, receiver, attempts, key, body, last_error)| Overdue {
            alert_id,
            receiver,
            attempts,
            key,
            body,
            last_error,
        };
        Ok(rows.into_iter().map(overdue).collect())
    }

    /// Gives a delivery up and appends `letter` to the outbox in the same transaction.
    /// `false` when it went on in the meantime.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    pub async fn give_up_delivery(&self, overdue: &Overdue, letter: &Message<'_>) -> Result<bool, Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let given_up = sqlx::query(
            "UPDATE trunkline.alert_deliveries SET given_up_at = now()
             WHERE alert_id = $1 AND receiver = $2 AND attempts = $3
               AND delivered_at IS NULL AND given_up_at IS NULL",
        )
        .bind(overdue.alert_id)
        .bind(&overdue.receiver)
        .bind(overdue.attempts)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        if given_up.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut transaction, letter).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(true)
    }
}
