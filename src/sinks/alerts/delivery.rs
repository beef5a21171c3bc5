//! Works off one receiver's queue. Instances share it: what one has claimed the
//! others leave alone for a while.

use std::time::Duration;

use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::webhook::{Notice, Refusal, Webhook, Wish};
use super::{ROLE, Settings};
use crate::clock;
use crate::health::Part;
use crate::metrics;
use crate::model::decision::Position;
use crate::postgres::Database;
use crate::postgres::alerts::{Answered, Attempted, Delivery, Failure, Overdue};
use crate::postgres::outbox::Message;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::{telemetry, topics};

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
pub(super) struct Queue {
    pub name: String,
    pub webhook: std::sync::Arc<Webhook>,
    pub database: Database,
    pub part: Part,
}

impl Queue {
    /// Delivers until `shutdown`.
    pub(super) async fn run(self, shutdown: CancellationToken) {
        self.part.ready();
        let mut measured_at = None;
        let mut known = false;
        while !shutdown.is_cancelled() {
            if !known {
                let digest = self.webhook.url_digest();
                match self.database.know_receiver(&self.name, &digest).await {
                    Ok(()) => known = true,
                    Err(error) => {
                        self.part.impaired(error.to_string());
                        tokio::select! {
                            () = tokio::time::sleep(2 * INTERVAL) => {}
                            () = shutdown.cancelled() => {}
                        }
                        continue;
                    }
                }
            }
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
        let Ok((waiting, switched_off)) = self.database.receiver_standing(&self.name).await else { return };
        metrics::ALERTS_WAITING.gauge(&[&self.name]).set(waiting as f64);
        let off = if switched_off.is_some() { 1.0 } else { 0.0 };
        metrics::ALERT_RECEIVER_OFF.gauge(&[&self.name]).set(off);
        match switched_off {
            Some(why) => self.part.impaired(self.switched_off(&why)),
            None if waiting == 0 => self.part.ready(),
            None => {}
        }
    }

    fn switched_off(&self, why: &str) -> String {
        let name = &self.name;
        format!(
            "receiver {name} is switched off, it said that it is gone ({why}); once it takes alerts again, \
             run: trunkline alerts enable {name}"
        )
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
        let span = tracing::info_span!(
            "notify",
            alert = %delivery.alert_id, receiver = self.name, attempt = delivery.attempts
        );
        telemetry::continue_trace(&span, delivery.traceparent.as_deref().unwrap_or_default().as_bytes());
        // Where no spans go out the receiver still learns whose trace it is.
        let trace = telemetry::traceparent(&span).or_else(|| delivery.traceparent.clone());
        let notice = Notice { id: delivery.alert_id, body: &delivery.body, traceparent: trace.as_deref() };
        let sent = self.webhook.send(&notice, clock::now()).instrument(span).await;
        let (attempted, answered) = self.judge(delivery, sent);
        if let Some(answered) = answered {
            self.keep_answer(delivery, &answered).await;
        }
        // What was delivered and is not recorded would be sent again.
        while let Err(error) = self.database.record_attempt(delivery, &attempted).await {
            self.part.impaired(error.to_string());
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Queue {
    /// What a reply says about the delivery, and about the receiver as a whole where anything.
    fn judge(
        &self,
        delivery: &Delivery,
        sent: Result<reqwest::StatusCode, Refusal>,
    ) -> (Attempted, Option<Answered>) {
        let Refusal { http_status, reason, wish } = match sent {
            Ok(status) => {
                metrics::ALERT_DELIVERIES.counter(&[&self.name, "delivered"]).increment(1);
                self.part.ready();
                let attempted = Attempted { http_status: Some(status.as_u16()), failure: None };
                return (attempted, delivery.probe.then_some(Answered::Takes));
            }
            Err(refusal) => refusal,
        };
        metrics::ALERT_DELIVERIES.counter(&[&self.name, "failed"]).increment(1);
        let alert = delivery.alert_id;
        tracing::warn!(%alert, receiver = self.name, attempt = delivery.attempts, reason, "not delivered");
        self.part.impaired(format!("receiver {} does not take alerts: {reason}", self.name));
        let pause = pause(delivery.attempts);
        let (again_after, answered) = match wish {
            Wish::LeftAlone(wait) => {
                let wait = wait.map_or(pause, |wait| wait.max(pause));
                (wait, Some(Answered::LeaveAlone(wait)))
            }
            Wish::SwitchedOff => (pause, Some(Answered::Gone(reason.clone()))),
            Wish::Nothing => (pause, delivery.probe.then_some(Answered::StillFails(pause))),
        };
        (Attempted { http_status, failure: Some(Failure { reason, again_after }) }, answered)
    }

    /// Keeps what a reply says about the receiver, before its next message can be claimed.
    async fn keep_answer(&self, delivery: &Delivery, answered: &Answered) {
        loop {
            match self.database.receiver_answered(&self.name, delivery.alert_id, answered).await {
                Ok(changed) => {
                    if let (true, Answered::Gone(why)) = (changed, answered) {
                        let told = self.switched_off(why);
                        metrics::ALERT_RECEIVER_OFF.gauge(&[&self.name]).set(1.0);
                        tracing::error!(receiver = self.name, "{told}");
                        self.part.impaired(told);
                    }
                    return;
                }
                Err(error) => self.part.impaired(error.to_string()),
            }
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
pub(super) async fn give_up(
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
    let errors = ErrorHeaders::new(ROLE.name, &reason, position, clock::now());
    ROLE.assert_sends(&topics::DEAD_LETTERS);
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
