//! Delivers first and commits the group's offsets afterwards: at least once. For receivers to
//! whom a record that comes again is the same as before. What they refuse for good is told the
//! sink and passed over; while they are away reading stands still.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::health::Health;
use crate::kafka::memberships::{Ended, Memberships};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{
    CommitError, Event, InboundRecord, Offsets, Start, Subscription, SubscriptionError, SubscriptionOptions,
};
use crate::role::Role;

/// Brings what records say to a receiver.
pub(super) trait Carrier {
    /// What the receiver takes of a record.
    type Item: Send + Sync;

    /// `None` for a record that is none of the receiver's business.
    fn item(&self, record: &InboundRecord) -> Option<Self::Item>;

    /// Delivers all of these, at least one. Is dropped at shutdown.
    async fn deliver(&self, items: &[Self::Item]) -> Result<(), NotDelivered>;

    /// These will never be delivered.
    fn passed_over(&self, items: &[Self::Item], why: PassedOver);
}

/// Why items are not delivered.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NotDelivered {
    /// None of them will ever be taken.
    Refused(String),
    /// At least one of them will never be taken; fewer at a time find out which.
    RefusedSome(String),
    /// Not now: the same again later, not before this where the receiver says so.
    Later(String, Option<Duration>),
}

/// Why items are given up on, with the receiver's own words.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PassedOver {
    Refused(String),
    /// The receiver was away for too long.
    GivenUp(String),
}

/// What a role reads, and how.
pub(super) struct Reading {
    pub role: &'static Role,
    /// Records delivered at once at most.
    pub batch_records: usize,
    /// Shortest and longest pause before something that failed is tried again.
    pub retry: (Duration, Duration),
    /// How long the same records are tried before they are given up.
    pub give_up_after: Duration,
}

/// Reads and delivers until `shutdown`.
///
/// # Errors
/// When the Kafka settings are not accepted; everything else is retried and shown on `health`.
pub(super) async fn run<C: Carrier>(
    reading: Reading,
    kafka: &KafkaSettings,
    health: &Health,
    shutdown: CancellationToken,
    carrier: C,
) -> Result<(), SubscriptionError> {
    let part = health.part(reading.role.name);
    let options = SubscriptionOptions {
        batch_records: reading.batch_records,
        health: Some(part.clone()),
        ..SubscriptionOptions::default()
    };
    let mut memberships =
        Memberships::new(kafka, reading.role, options, part, reading.retry, shutdown.clone());
    let delivery = Delivery { carrier, reading, shutdown };
    while let Some(mut subscription) = memberships.next()? {
        let ended = delivery.follow(&mut subscription, memberships.pause()).await;
        memberships.end(subscription, ended).await;
    }
    Ok(())
}

struct Delivery<C> {
    carrier: C,
    reading: Reading,
    shutdown: CancellationToken,
}

/// The process stops.
struct Stopped;

impl<C: Carrier> Delivery<C> {
    async fn follow(&self, subscription: &mut Subscription, pause: &mut Backoff) -> Ended {
        loop {
            match subscription.next().await {
                Event::Assigned(partitions) => {
                    let starts = partitions.into_iter().map(|partition| (partition, Start::Committed));
                    subscription.start(starts.collect()).await;
                }
                // Nothing is kept between two events: what was read is delivered, or read again.
                Event::Revoked(_) => subscription.acknowledge_revocation().await,
                Event::Lost(_) => {}
                Event::Records(records) => {
                    if self.deliver(&records).await.is_err() {
                        return Ended::Shutdown;
                    }
                    pause.reset();
                    match subscription.commit(next_offsets(&records)).await {
                        Ok(()) | Err(CommitError::Closed) => {}
                        Err(error) => tracing::warn!(role = self.reading.role.name, %error, "delivered"),
                    }
                }
                Event::Failed(error) => return error.into(),
                Event::Closed => return Ended::Shutdown,
            }
        }
    }

    async fn deliver(&self, records: &[InboundRecord]) -> Result<(), Stopped> {
        let items: Vec<C::Item> = records.iter().filter_map(|record| self.carrier.item(record)).collect();
        // Halves of what was refused come before the rest, so that the order stays.
        let mut waiting: Vec<&[C::Item]> = vec![&items];
        waiting.retain(|items| !items.is_empty());
        while let Some(items) = waiting.pop() {
            match self.settle(items).await? {
                Ok(()) => {}
                Err(NotDelivered::RefusedSome(_)) if items.len() > 1 => {
                    let (first, second) = items.split_at(items.len() / 2);
                    waiting.extend([second, first]);
                }
                Err(NotDelivered::Refused(reason) | NotDelivered::RefusedSome(reason)) => {
                    self.carrier.passed_over(items, PassedOver::Refused(reason));
                }
                Err(NotDelivered::Later(reason, _)) => {
                    self.carrier.passed_over(items, PassedOver::GivenUp(reason));
                }
            }
        }
        Ok(())
    }

    /// Delivers, with growing pauses, until there is an answer that stays.
    async fn settle(&self, items: &[C::Item]) -> Result<Result<(), NotDelivered>, Stopped> {
        let began = Instant::now();
        let mut pauses = Backoff::new(self.reading.retry);
        loop {
            let delivered = tokio::select! {
                delivered = self.carrier.deliver(items) => delivered,
                () = self.shutdown.cancelled() => return Err(Stopped),
            };
            let Err(NotDelivered::Later(reason, wait)) = delivered else { return Ok(delivered) };
            if began.elapsed() >= self.reading.give_up_after {
                return Ok(Err(NotDelivered::Later(reason, wait)));
            }
            let pause = pauses.next_at_least(wait);
            let role = self.reading.role.name;
            tracing::warn!(role, reason, pause_ms = pause.as_millis() as u64, "records wait to be delivered");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.shutdown.cancelled() => return Err(Stopped),
            }
        }
    }
}

fn next_offsets(records: &[InboundRecord]) -> Offsets {
    let mut offsets = Offsets::new();
    for record in records {
        let partition = record.topic_partition();
        match offsets.iter_mut().find(|(known, _)| *known == partition) {
            Some((_, next)) => *next = record.offset + 1,
            None => offsets.push((partition, record.offset + 1)),
        }
    }
    offsets
}
