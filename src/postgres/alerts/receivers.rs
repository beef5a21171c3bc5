//! Receivers of alerts: which are left alone, and which are switched off.

use std::time::Duration;

use uuid::Uuid;

use super::super::{Database, Error};
use crate::model::Timestamp;

/// What a reply says about the receiver as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// To the probe: as many as are due may follow.
    Takes,
    /// To the probe: it failed for another reason, the next one comes after this.
    StillFails(Duration),
    /// It asks to be left alone for so long.
    LeaveAlone(Duration),
    /// It is gone, with its words: switched off until somebody enables it.
    Gone(String),
}

/// How a receiver is.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReceiverStanding {
    pub receiver: String,
    /// `on`, `waiting` or `off`.
    pub status: String,
    /// Alerts that wait for it.
    pub queued: i64,
    /// It asked to be left alone until then.
    pub paused_until: Option<Timestamp>,
    pub switched_off_at: Option<Timestamp>,
    /// Its words when it was switched off.
    pub switched_off: Option<String>,
}

impl Database {
    /// Makes a receiver known, under the digest of its URL. What was found out about another URL
    /// of it is forgotten.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    pub async fn know_receiver(&self, receiver: &str, url_digest: &str) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO trunkline.alert_receivers AS known (receiver, url_digest) VALUES ($1, $2)
             ON CONFLICT (receiver) DO UPDATE SET url_digest = $2, paused_until = NULL, probe = NULL,
                 switched_off_at = NULL, switched_off_why = NULL
             WHERE known.url_digest <> $2",
        )
        .bind(receiver)
        .bind(url_digest)
        .execute(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        Ok(())
    }

    /// Keeps what a reply to the delivery of `alert` says about the receiver. Answers whether that
    /// changed anything.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    pub async fn receiver_answered(
        &self,
        receiver: &str,
        alert: Uuid,
        answered: &Answered,
    ) -> Result<bool, Error> {
        let query = match answered {
            Answered::Takes => sqlx::query(
                "UPDATE trunkline.alert_receivers SET paused_until = NULL, probe = NULL
                 WHERE receiver = $1 AND probe = $2",
            )
            .bind(receiver)
            .bind(alert),
            Answered::StillFails(pause) => sqlx::query(
                "UPDATE trunkline.alert_receivers
                 SET paused_until = now() + $3 * interval '1 second', probe = NULL
                 WHERE receiver = $1 AND probe = $2",
            )
            .bind(receiver)
            .bind(alert)
            .bind(pause.as_secs_f64()),
            // The pause that the probe's claim made ends with its reply; one that another
            // message was told of stays if it is longer.
            Answered::LeaveAlone(pause) => sqlx::query(
                "UPDATE trunkline.alert_receivers
                 SET paused_until = greatest(now() + $3 * interval '1 second',
                         CASE WHEN probe IS DISTINCT FROM $2 THEN paused_until END),
                     probe = nullif(probe, $2)
                 WHERE receiver = $1",
            )
            .bind(receiver)
            .bind(alert)
            .bind(pause.as_secs_f64()),
            Answered::Gone(why) => sqlx::query(
                "UPDATE trunkline.alert_receivers SET switched_off_at = now(), switched_off_why = $2
                 WHERE receiver = $1 AND switched_off_at IS NULL",
            )
            .bind(receiver)
            .bind(why),
        };
        let done = query.execute(self.pool()).await.map_err(|error| self.explain(error))?;
        Ok(done.rows_affected() == 1)
    }

    /// Lets a receiver have alerts again, at once. Answers whether it is known at all.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    pub async fn enable_receiver(&self, receiver: &str) -> Result<bool, Error> {
        let explain = |error| self.explain(error);
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let known = sqlx::query(
            "UPDATE trunkline.alert_receivers
             SET paused_until = NULL, probe = NULL, switched_off_at = NULL, switched_off_why = NULL
             WHERE receiver = $1",
        )
        .bind(receiver)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        sqlx::query(
            "UPDATE trunkline.alert_deliveries SET next_at = now()
             WHERE receiver = $1 AND delivered_at IS NULL AND given_up_at IS NULL",
        )
        .bind(receiver)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        Ok(known.rows_affected() == 1)
    }

    /// How every receiver that was ever known is, by name.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn receivers(&self) -> Result<Vec<ReceiverStanding>, Error> {
        let rows = sqlx::query_as(
            "SELECT receiver, status, queued, (extract(epoch FROM paused_until) * 1000)::bigint,
                    (extract(epoch FROM switched_off_at) * 1000)::bigint, switched_off_why
             FROM audit.alert_receivers ORDER BY receiver",
        )
        .fetch_all(self.pool())
        .await
        .map_err(|error| self.explain(error))?;
        type Row = (String, String, i64, Option<i64>, Option<i64>, Option<String>);
        let standing =
            |(receiver, status, queued, paused_until, off_at, switched_off): Row| ReceiverStanding {
                receiver,
                status,
                queued,
                paused_until: paused_until.map(Timestamp::from_millis),
                switched_off_at: off_at.map(Timestamp::from_millis),
                switched_off,
            };
        Ok(rows.into_iter().map(standing).collect())
    }

    /// How many alerts wait for `receiver`, and its words if it was switched off.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn receiver_standing(&self, receiver: &str) -> Result<(i64, Option<String>), Error> {
        sqlx::query_as(
            "SELECT (SELECT count(*) FROM trunkline.alert_deliveries
                     WHERE receiver = $1 AND delivered_at IS NULL AND given_up_at IS NULL),
                    (SELECT switched_off_why FROM trunkline.alert_receivers
                     WHERE receiver = $1 AND switched_off_at IS NOT NULL)",
        )
        .bind(receiver)
        .fetch_one(self.pool())
        .await
        .map_err(|error| self.explain(error))
    }
}
