//! Works off one receiver's queue. Instances share it: what one has claimed the
//! others leave alone for a while.

use std::time::Duration;

use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::webhook::{Refusal, Webhook};
use super::{ROLE, Settings};
use crate::health::Part;
use crate::metrics;
use crate::model::decision::Position;
use crate::postgres::Database;
use crate::postgres::alerts::{Attempted, Delivery, Failure, Overdue};
use crate::postgres::outbox::Message;
use crate::runtime::clock;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::topics;

/// Messages on their way to one receiver at once.
const AT_ONCE: i64 = 8;
/// A claimed delivery is due again after this, should its instance be gone.
const CLAIM: Duration = Duration::from_secs(60);
/// A process that was stopped for longer than this after its claim does not send.
const CLAIM_LIFETIME: Duration = Duration::from_secs(30);
/// How often an empty queue is looked at.
const INTERVAL: Duration = Duration::from_millis(500);
/// What is on its way when shutdown begins gets this long for its reply.
const GRACE: Duration = Duration::from_millis(1_500);
/// How often the queue is measured, and overdue deliveries are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Overdue deliveries given up in one go.
const OVERDUE_AT_ONCE: i64 = 100;
/// The first pause after a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(600));

/// One receiver's queue.
#[derive(Clone)]
pub struct Queue {
    pub name: String,
    pub webhook: std::sync::Arc<Webhook>,
    pub database: Database,
    pub part: Part,
}

impl Queue {
    /// Delivers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        self.part.ready();
        let mut measured_at = None;
        while !shutdown.is_cancelled() {
            if measured_at.is_none_or(|at: Instant| at.elapsed() > HOUSEKEEPING) {
                self.measure().await;
                measured_at = Some(Instant::now());
            }
            let claimed_at = Instant::now();
            let wait = match self.database.claim_deliveries(&self.name, AT_ONCE, CLAIM).await {
                Ok(due) if due.is_empty() => INTERVAL,
                Ok(due) => {
                    let late = async {
                        shutdown.cancelled().await;
                        tokio::time::sleep(GRACE).await;
                    };
                    tokio::select! {
                        () = self.attempt_all(due, claimed_at) => continue,
                        () = late => return,
                    }
                }
                Err(error) => {
                    self.part.impaired(error.to_string());
                    2 * INTERVAL
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn measure(&self) {
        if let Ok((open, _)) = self.database.open_deliveries(&self.name).await {
            metrics::ALERTS_WAITING.gauge(&[&self.name]).set(open as f64);
            if open == 0 {
                self.part.ready();
            }
        }
    }

    async fn attempt_all(&self, due: Vec<Delivery>, claimed_at: Instant) {
        let mut attempts = JoinSet::new();
        for delivery in due {
            let queue = self.clone();
            attempts.spawn(async move { queue.attempt(&delivery, claimed_at).await });
        }
        attempts.join_all().await;
    }

    async fn attempt(&self, delivery: &Delivery, claimed_at: Instant) {
        if claimed_at.elapsed() > CLAIM_LIFETIME {
            return;
        }
        let attempted = match self.webhook.send(delivery.alert_id, clock::now(), &delivery.body).await {
            Ok(status) => {
                metrics::ALERT_DELIVERIES.counter(&[&self.name, "delivered"]).increment(1);
                self.part.ready();
                Attempted { http_status: Some(status.as_u16()), failure: None }
            }
            Err(Refusal { http_status, reason, wait }) => {
                metrics::ALERT_DELIVERIES.counter(&[&self.name, "failed"]).increment(1);
                let alert = delivery.alert_id;
                tracing::warn!(%alert, receiver = self.name, attempt = delivery.attempts, reason, "not delivered");
                self.part.impaired(format!("receiver {} does not take alerts: {reason}", self.name));
                let again_after = wait.unwrap_or(Duration::ZERO).max(pause(delivery.attempts));
                Attempted { http_status, failure: Some(Failure { reason, again_after }) }
            }
        };
        // What was delivered and is not recorded would be sent again.
        while let Err(error) = self.database.record_attempt(delivery, &attempted).await {
            self.part.impaired(error.to_string());
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// The pause after a number of attempts: doubling, with a fifth of it left to chance.
fn pause(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
    let full = PAUSE.0.saturating_mul(1 << doublings).min(PAUSE.1);
    full.mul_f64(0.8 + 0.2 * rand::rng().random::<f64>())
}

/// Gives up what was tried for too long, whoever it is for, until `shutdown`.
pub async fn give_up(
    settings: Settings,
    database: Database,
    topic_prefix: String,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        match database.overdue_deliveries(settings.give_up_after, OVERDUE_AT_ONCE).await {
            Ok(overdue) => {
                for overdue in overdue {
                    if let Err(error) = give_up_one(&settings, &database, &topic_prefix, &overdue).await {
                        tracing::warn!(%error, "an alert could not be given up yet");
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "overdue alerts cannot be looked for"),
        }
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

async fn give_up_one(
    settings: &Settings,
    database: &Database,
    topic_prefix: &str,
    overdue: &Overdue,
) -> Result<(), crate::postgres::Error> {
    let Overdue { alert_id, receiver, attempts, key, body, last_error } = overdue;
    let last = last_error.as_deref().unwrap_or("it was never tried: no such receiver is configured");
    let reason = Reason::Rejected(format!(
        "receiver {receiver} did not take it in {} s and {attempts} attempts: {last}",
        settings.give_up_after.as_secs()
    ));
    // No topic of ours: it cannot be sent again from the dead letters.
    let source = format!("{topic_prefix}webhook:{receiver}");
    let position = Position { topic: &source, partition: 0, offset: i64::from(*attempts) };
    let errors = ErrorHeaders::new(ROLE, &reason, position, clock::now());
    let once = format!("alert/{alert_id}/{receiver}");
    let mut letter = Message::new(topics::DEAD_LETTERS.name, key.as_bytes(), body.as_bytes()).once(&once);
    letter.described = false;
    for (name, value) in errors.iter() {
        letter = letter.with_header(name, value.as_bytes());
    }
    if database.give_up_delivery(overdue, &letter).await? {
        metrics::ALERT_DELIVERIES.counter(&[receiver, "given_up"]).increment(1);
        tracing::error!(alert = %alert_id, receiver, %reason, "an alert goes to the dead letters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_ten_minutes() {
        for (attempts, seconds) in
            [(1, 1.0), (2, 2.0), (5, 16.0), (10, 512.0), (11, 600.0), (i32::MAX, 600.0)]
        {
            let pause = pause(attempts).as_secs_f64();
            assert!((0.8 * seconds..=seconds).contains(&pause), "{pause} after {attempts}");
        }
    }
}
