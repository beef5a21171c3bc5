//! Watching many things of one kind: a bounded number is observed at the same time, each at
//! once and then every interval. What could not be observed is told, and tried again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::facts::{FactLost, FactProducer, current_traceparent};
use super::ownership::{Member, Owned, PollerError, STOPPING_GRACE};
use super::readiness::Readiness;
use super::schedule::Schedule;
use crate::clock;
use crate::genesys::{CallError, CallErrorKind, Client, Priority, Scope};
use crate::model::Timestamp;
use crate::runtime::watermark::is_from_the_future;
use crate::topics::Topic;

/// Something that the platform refuses is asked for this many times less often.
const REFUSED_FACTOR: u32 = 10;
/// Least and longest time for one observation, whatever the interval.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);
const LONGEST_PATIENCE: Duration = Duration::from_secs(60);

/// Why there is no new fact.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Delivery(#[from] FactLost),
    /// What is watched went elsewhere, or the process stops.
    #[error("stopped")]
    Stopped,
}

impl Missed {
    /// As metrics name it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Missed::Call(error) => error.kind.name(),
            Missed::Delivery(_) => "not_delivered",
            Missed::Stopped => "stopped",
        }
    }

    fn is_stop(&self) -> bool {
        matches!(self, Missed::Stopped | Missed::Call(CallError { kind: CallErrorKind::Cancelled, .. }))
    }

    /// The platform answered, and it will answer the same for as long as nobody changes
    /// something there or here.
    fn is_refusal(&self) -> bool {
        matches!(self, Missed::Call(error) if error.is_refusal())
    }
}

/// How an observation ended, for whoever repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Seen,
    Missed,
    /// The platform will not tell: what is watched does not exist, or must not be seen.
    Refused,
    Stopped,
}

/// What a poller of things of one kind runs with.
pub(super) struct Poller<'a> {
    pub member: Member<'a>,
    pub client: Client,
    /// What is watched, one and many.
    pub nouns: (&'static str, &'static str),
    /// Observations under way at once in each organisation, at least 1.
    pub concurrency: usize,
    /// Where the month's allowance of calls does not last, observations come up to so many times as
    /// far apart as configured.
    pub longest_stretch: f64,
}

impl Poller<'_> {
    /// Runs `work` of an observer on this instance's share until shutdown, anew with every change
    /// of it.
    ///
    /// # Errors
    /// When the Kafka clients cannot be made or the group member fails for good.
    pub(super) async fn run<O, F>(
        self,
        observer: impl FnOnce(Watch) -> O,
        work: impl Fn(Arc<O>, Owned, CancellationToken) -> F,
    ) -> Result<(), PollerError>
    where
        O: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { member, client, nouns: (one, many), concurrency, longest_stretch } = self;
        let producer = FactProducer::new(member.kafka, member.role)?;
        // An organisation that does not answer must not take the others' places.
        let slots =
            |client: &Client| (client.organization().name.clone(), Semaphore::new(concurrency.max(1)));
        let slots: BTreeMap<_, _> = client.organizations().map(slots).collect();
        let (health, role) = (member.health, member.role.name);
        let part = if slots.len() > 1 { health.part_among_several(role) } else { health.part(role) };
        let watch = Watch {
            client,
            producer: producer.clone(),
            clock: clock::now,
            slots,
            readiness: Readiness::new(one, many, part),
            longest_stretch,
        };
        member.run(producer, Arc::new(observer(watch)), work).await
    }
}

/// What observations of one kind of thing share.
pub(super) struct Watch {
    pub client: Client,
    pub producer: FactProducer,
    pub clock: fn() -> Timestamp,
    /// Observations under way, by the organisation's name.
    slots: BTreeMap<Option<String>, Semaphore>,
    readiness: Readiness,
    longest_stretch: f64,
}

impl Watch {
    /// How many times as far apart as configured observations of this come now.
    fn stretch(&self, key: &str) -> f64 {
        self.client.poll_stretch(key).min(self.longest_stretch).max(1.0)
    }

    /// For what is read every interval.
    pub(super) fn polling(&self, key: &str, interval: Duration, stop: &CancellationToken) -> Scope {
        // From 100 to a few thousand.
        let stretch_hundredths = (self.stretch(key) * 100.0).round() as u32;
        Scope { priority: Priority::Poll { stretch_hundredths }, ..reading(interval, stop) }
    }

    /// Observes one thing at once and then every `interval`, until stopped. `observe` is given
    /// when it was last seen, and answers when it was this time; `count` the ending's name.
    pub(super) async fn every<F>(
        &self,
        interval: Duration,
        key: &str,
        stop: &CancellationToken,
        count: impl Fn(&'static str),
        observe: impl Fn(Timestamp) -> F,
    ) where
        F: Future<Output = Result<Timestamp, Missed>>,
    {
        let mut last = Timestamp::MIN;
        // Also when it is aborted: another instance watches it then.
        let _open = self.readiness.until_dropped(key);
        loop {
            let observed = observe(last).await;
            let interval = interval.mul_f64(self.stretch(key));
            let mut wait = Schedule::new(key, interval).wait((self.clock)());
            match self.tell(key, observed.as_ref().err(), &count) {
                Ended::Stopped => break,
                Ended::Refused => wait = wait.saturating_add(interval.saturating_mul(REFUSED_FACTOR - 1)),
                Ended::Seen | Ended::Missed => {}
            }
            last = observed.unwrap_or(last);
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Counts and tells how an observation ended.
    pub(super) fn tell(&self, key: &str, missed: Option<&Missed>, count: impl Fn(&'static str)) -> Ended {
        match missed {
            None => {
                count("ok");
                self.readiness.withdraw(key);
                Ended::Seen
            }
            Some(missed) if missed.is_stop() => {
                self.readiness.withdraw(key);
                Ended::Stopped
            }
            Some(missed) => {
                count(missed.name());
                self.readiness.file(key, missed.to_string(), missed.is_refusal());
                if missed.is_refusal() { Ended::Refused } else { Ended::Missed }
            }
        }
    }

    /// Tells that what is observed cannot be relied on, and why; `None` is that it can again.
    pub(super) fn doubt(&self, key: &str, reason: Option<String>) {
        self.readiness.doubt(key, reason);
    }

    /// Waits for its turn.
    ///
    /// # Errors
    /// [`Missed::Stopped`].
    pub(super) async fn slot(
        &self,
        key: &str,
        stop: &CancellationToken,
    ) -> Result<SemaphorePermit<'_>, Missed> {
        let slots = self.slots.get(&self.client.organization_of(key).name).ok_or(Missed::Stopped)?;
        tokio::select! {
            slot = slots.acquire() => slot.map_err(|_| Missed::Stopped),
            () = stop.cancelled() => Err(Missed::Stopped),
        }
    }

    /// Writes a fact under the current span's trace; one on its way when all stops still has a
    /// short while.
    ///
    /// # Errors
    /// When the brokers did not take it in time.
    pub(super) async fn publish(
        &self,
        topic: &'static Topic,
        partition: i32,
        key: &str,
        fact: &impl Serialize,
        stop: &CancellationToken,
    ) -> Result<(), Missed> {
        let value = serde_json::to_vec(fact).expect("own values are JSON");
        let traceparent = current_traceparent();
        let stopped = async {
            stop.cancelled().await;
            sleep(STOPPING_GRACE).await;
        };
        tokio::select! {
            written = self.producer.publish(topic, partition, key, &value, &traceparent) => Ok(written?),
            () = stopped => Err(Missed::Stopped),
        }
    }
}

/// For reading within about `interval`.
pub(super) fn reading(interval: Duration, stop: &CancellationToken) -> Scope {
    Scope {
        priority: Priority::Read,
        deadline: Instant::now() + interval.clamp(LEAST_PATIENCE, LONGEST_PATIENCE),
        cancelled: stop.clone(),
        withdrawn: CancellationToken::new(),
        waited_ms: Arc::default(),
    }
}

/// When something is observed that was observed at `last` before: the times of one thing never
/// repeat nor run back, whatever the clock does. Only one that was put back by more than clocks
/// may differ is followed: what it said before was wrong, and nobody takes such times.
pub(super) fn observed_after(last: Timestamp, now: Timestamp) -> Timestamp {
    if is_from_the_future(last, now) { now } else { now.max(last.plus(Duration::from_millis(1))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_go_on_in_order_and_follow_a_clock_that_was_put_right() {
        let at = |millis: i64| Timestamp::from_millis(1_767_323_045_000 + millis);
        assert_eq!(observed_after(at(0), at(30_000)), at(30_000));
        assert_eq!(observed_after(at(0), at(0)), at(1));
        assert_eq!(observed_after(at(60_000), at(0)), at(60_001), "clocks differ by as much");
        assert_eq!(observed_after(at(3_000_000), at(0)), at(0), "it had been put ahead");
    }
}
