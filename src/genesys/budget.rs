//! The rules of the budget that all calls of all instances share: what a permit
//! costs whom, and where permits come from.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::BoxFuture;
use super::priority::Priority;

/// A token bucket under which no window sees more calls than allowed.
///
/// After `capacity` calls at once each further one takes `1 / refill`, so that the call
/// beyond the allowance must not come before a window is over: the two share it. A tenth
/// (at least 1) may come at once, the rest is spread; a small budget, of which each call
/// at once would cost a good part of its rate, is spread evenly. A little longer than a
/// window, for permits that are taken in one and used in the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BucketShape {
    /// Permits that may be taken at once; at least 1.
    pub capacity: f64,
    pub refill_per_second: f64,
    /// Calls allowed in a window.
    pub requests: f64,
    /// The window of the platform's own counting, in seconds.
    pub window_seconds: f64,
}

/// How much longer than a window an allowance lasts.
const SHARE_KEPT_BACK: f64 = 0.02;
const LEAST_KEPT_BACK_SECONDS: f64 = 0.05;

impl BucketShape {
    /// `requests` in any `window`; at least 1 in at least a millisecond.
    pub fn new(requests: u32, window: Duration) -> Self {
        let window_seconds = window.as_secs_f64().max(0.001);
        let requests = requests.max(1);
        let capacity = (requests / 10).max(1);
        let spread = requests + 1 - capacity;
        let margin_seconds = (window_seconds * SHARE_KEPT_BACK).max(LEAST_KEPT_BACK_SECONDS);
        Self {
            capacity: f64::from(capacity),
            refill_per_second: f64::from(spread) / (window_seconds + margin_seconds),
            requests: f64::from(requests),
            window_seconds,
        }
    }

    /// Permits that must be there before one is given to `priority`: the last
    /// ones are kept for rollbacks, the last fifth for them, for dial changes, and for reads
    /// whose turn it is.
    pub fn needed(&self, priority: Priority) -> f64 {
        let kept = match priority {
            Priority::Rollback => 0.0,
            Priority::DialChange { .. } | Priority::ReadInTurn { .. } if self.capacity >= 5.0 => 1.0,
            Priority::DialChange { .. } | Priority::ReadInTurn { .. } => 0.0,
            _ if self.capacity >= 2.0 => (self.capacity / 5.0).floor().max(1.0),
            _ => 0.0,
        };
        1.0 + kept
    }

    /// Permits that may be left after what the platform says: of the calls left in
    /// its window those that flow in until its end are spoken for. Negative when
    /// too many were already made.
    ///
    /// An allowance below ours is not this budget's but a single resource's: it
    /// limits what may come at once, and stops everybody only when it is spent.
    pub fn ceiling(&self, limits: Limits) -> f64 {
        let until_reset = limits.reset_seconds.clamp(0.0, self.window_seconds);
        let inflow = self.refill_per_second * until_reset;
        let left = if limits.allowed >= self.requests {
            limits.remaining - inflow
        } else if limits.remaining >= 1.0 {
            limits.remaining
        } else {
            -inflow
        };
        left.min(self.capacity)
    }
}

/// What the platform says about its own count (`inin-ratelimit-*`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Calls it allows in a window.
    pub allowed: f64,
    /// Calls left in this window; negative when there were more than allowed.
    pub remaining: f64,
    /// Seconds until the window ends.
    pub reset_seconds: f64,
}

/// First wait after a 429 that does not say how long, and where doubling ends.
pub(super) const UNTOLD_WAIT: Duration = Duration::from_secs(2);
const UNTOLD_WAIT_LIMIT: Duration = Duration::from_secs(30);

/// The wait after the `refusals`-th 429 in a row that does not say how long:
/// 2 s doubling to 30 s, and up to the next step of it by chance. `chance` is
/// from 0 to 1.
pub fn untold_wait(refusals: u32, chance: f64) -> Duration {
    let step = |n: u32| UNTOLD_WAIT.saturating_mul(1 << n.min(8)).min(UNTOLD_WAIT_LIMIT);
    let base = step(refusals.saturating_sub(1));
    base + (step(refusals.max(1)) - base).mul_f64(chance.clamp(0.0, 1.0))
}

/// After a pause a single call goes out, and others when it was let through, or after this:
/// its process may have died. Over all instances.
pub const PROBE_LIFE: Duration = Duration::from_secs(5);
/// How often those who wait for the probe ask again.
pub const PROBE_NAP: Duration = Duration::from_millis(250);

/// Permission for one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Permit {
    /// Permits left after this one.
    pub left: f64,
    /// 429 replies in a row so far; where there are any, this call probes whether they end.
    pub refusals: u32,
}

/// The answer to asking for a permit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Take {
    Granted(Permit),
    /// Not before this has passed; more may be asked of the caller then.
    Wait(Duration),
}

/// Where permits come from. One store serves all calls with one OAuth client.
pub trait PermitStore: Send + Sync + 'static {
    /// Takes one permit if there are at least as many as `priority` needs and no
    /// 429 is being waited out. After a 429 one permit is given out at a time, until one
    /// was [`accepted`](Self::accepted) or [`PROBE_LIFE`] has passed.
    fn take(&self, priority: Priority) -> BoxFuture<'_, Result<Take, StoreError>>;

    /// Lowers what is left to what the platform says is left.
    fn correct(&self, limits: Limits) -> BoxFuture<'_, Result<(), StoreError>>;

    /// A 429 came: nobody gets a permit for the returned time, which is
    /// `retry_after` where given.
    fn refused(&self, retry_after: Option<Duration>) -> BoxFuture<'_, Result<Duration, StoreError>>;

    /// A call was let through again after 429 replies.
    fn accepted(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The store could not be asked. Without it nobody calls.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Permits for one process alone: where there is no other instance, and in tests.
#[derive(Debug)]
pub struct InProcessPermits {
    bucket: Mutex<Bucket>,
}

impl InProcessPermits {
    pub fn new(shape: BucketShape) -> Self {
        Self { bucket: Mutex::new(Bucket::new(shape, Instant::now())) }
    }

    fn with_bucket<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Bucket, Instant) -> T,
    ) -> BoxFuture<'_, Result<T, StoreError>> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut bucket, Instant::now());
        Box::pin(std::future::ready(Ok(result)))
    }
}

impl PermitStore for InProcessPermits {
    fn take(&self, priority: Priority) -> BoxFuture<'_, Result<Take, StoreError>> {
        self.with_bucket(|bucket, now| bucket.take(priority, now))
    }

    fn correct(&self, limits: Limits) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with_bucket(|bucket, now| bucket.correct(limits, now))
    }

    fn refused(&self, retry_after: Option<Duration>) -> BoxFuture<'_, Result<Duration, StoreError>> {
        self.with_bucket(|bucket, now| bucket.refused(retry_after, rand::rng().random(), now))
    }

    fn accepted(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.with_bucket(|bucket, _| bucket.refusals = 0)
    }
}

/// The bucket itself. Pure; time and chance are passed in.
#[derive(Debug)]
struct Bucket {
    shape: BucketShape,
    tokens: f64,
    refilled_at: Instant,
    blocked_until: Instant,
    /// 429 replies in a row.
    refusals: u32,
    /// While there are any: the one call that is let through has until then.
    probe_until: Instant,
}

impl Bucket {
    fn new(shape: BucketShape, now: Instant) -> Self {
        let tokens = shape.capacity;
        Self { shape, tokens, refilled_at: now, blocked_until: now, refusals: 0, probe_until: now }
    }

    fn refill(&mut self, now: Instant) {
        let gained = now.saturating_duration_since(self.refilled_at).as_secs_f64();
        self.tokens = (self.tokens + gained * self.shape.refill_per_second).min(self.shape.capacity);
        self.refilled_at = self.refilled_at.max(now);
    }

    fn take(&mut self, priority: Priority, now: Instant) -> Take {
        self.refill(now);
        let blocked = self.blocked_until.saturating_duration_since(now);
        let missing = self.shape.needed(priority) - self.tokens;
        let probing = self.probe_until.saturating_duration_since(now);
        if !blocked.is_zero() {
            Take::Wait(blocked)
        } else if self.refusals > 0 && !probing.is_zero() {
            Take::Wait(probing.min(PROBE_NAP))
        } else if missing > 0.0 {
            Take::Wait(Duration::from_secs_f64(missing / self.shape.refill_per_second))
        } else {
            self.tokens -= 1.0;
            self.probe_until = now + PROBE_LIFE;
            Take::Granted(Permit { left: self.tokens, refusals: self.refusals })
        }
    }

    fn correct(&mut self, limits: Limits, now: Instant) {
        self.refill(now);
        self.tokens = self.tokens.min(self.shape.ceiling(limits));
    }

    fn refused(&mut self, retry_after: Option<Duration>, chance: f64, now: Instant) -> Duration {
        let already_waiting = self.blocked_until > now;
        // Replies to calls that were already on their way are the same refusal.
        if !already_waiting {
            self.refusals = self.refusals.saturating_add(1);
        }
        self.probe_until = now;
        let until = match retry_after {
            Some(wait) => now + wait,
            None if already_waiting => self.blocked_until,
            None => now + untold_wait(self.refusals, chance),
        };
        self.blocked_until = self.blocked_until.max(until);
        self.blocked_until - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn shape(requests: u32) -> BucketShape {
        BucketShape::new(requests, MINUTE)
    }

    #[test]
    fn untold_waits_double_from_2_to_30_seconds() {
        let seconds = |refusals, chance| untold_wait(refusals, chance).as_secs_f64();
        assert_eq!([1, 2, 3, 4, 5, 99].map(|n| seconds(n, 0.0)), [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!([1, 2, 3, 4, 5, 99].map(|n| seconds(n, 1.0)), [4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
    }

    const CHANGE: Priority = Priority::DialChange { size_hundredths: 1 };

    /// Takes greedily with hand-moved time and looks at every window.
    #[test]
    fn no_window_sees_more_than_allowed_and_a_small_budget_reaches_its_rate() {
        const MINUTES: u32 = 10;
        let all = [1, 2, 3, 4, 5, 6, 7, 10, 12, 19, 20, 21, 60, 300].into_iter();
        for (requests, priority) in all.flat_map(|n| [(n, Priority::Rollback), (n, Priority::Read)]) {
            let start = Instant::now();
            let mut now = start;
            let mut bucket = Bucket::new(shape(requests), now);
            let mut taken: Vec<Instant> = Vec::new();
            while now < start + MINUTES * MINUTE {
                match bucket.take(priority, now) {
                    Take::Granted(_) => taken.push(now),
                    Take::Wait(wait) => now += wait.max(Duration::from_millis(1)),
                }
            }
            let in_window =
                |from: Instant| taken.iter().filter(|at| (from..from + MINUTE).contains(at)).count();
            let busiest = taken.iter().map(|from| in_window(*from)).max().unwrap();
            assert!(busiest <= requests as usize, "{busiest} of {requests}");
            let reached = taken.len() as f64 / f64::from(MINUTES * requests);
            let goal = if requests < 20 { 0.97 } else { 0.88 };
            assert!(reached >= goal, "{reached:.3} of {requests} a minute for {}", priority.name());
        }
    }

    #[test]
    fn the_last_permits_are_not_for_reads() {
        let now = Instant::now();
        let mut bucket = Bucket::new(shape(300), now);
        let mut granted = |priority| {
            std::iter::from_fn(|| matches!(bucket.take(priority, now), Take::Granted(_)).then_some(()))
                .count()
        };
        assert_eq!(granted(Priority::Read), 24, "of 30");
        assert_eq!(granted(CHANGE), 5);
        assert_eq!(granted(Priority::Rollback), 1);
    }

    #[test]
    fn refusals_at_once_count_once_and_an_answer_ends_the_count() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(shape(60), now);
        assert_eq!(bucket.refused(None, 0.0, now).as_secs(), 2);
        assert_eq!(bucket.refused(None, 1.0, now).as_secs(), 2, "the same refusal");
        now += Duration::from_secs(2);
        assert_eq!(bucket.refused(None, 0.0, now).as_secs(), 4);
        assert_eq!(bucket.take(Priority::Rollback, now), Take::Wait(Duration::from_secs(4)));
        assert_eq!(bucket.refused(Some(Duration::from_secs(1)), 0.0, now).as_secs(), 4, "the longest counts");
        bucket.refusals = 0;
        now += Duration::from_secs(4);
        assert_eq!(bucket.refused(None, 0.0, now).as_secs(), 2);
    }

    #[test]
    fn after_each_pause_one_call_goes_out_and_more_when_it_was_let_through() {
        let mut now = Instant::now();
        let mut bucket = Bucket::new(shape(300), now);
        for _ in 0..4 {
            now += bucket.refused(None, 0.0, now);
            let Take::Granted(probe) = bucket.take(CHANGE, now) else { panic!("the probe") };
            assert!(probe.refusals > 0);
            for _ in 0..9 {
                assert_eq!(bucket.take(Priority::Rollback, now), Take::Wait(PROBE_NAP), "no burst");
            }
        }
        now += PROBE_LIFE;
        assert!(matches!(bucket.take(CHANGE, now), Take::Granted(_)), "the probe was lost");
        bucket.refusals = 0;
        for _ in 0..9 {
            assert!(matches!(bucket.take(Priority::Read, now), Take::Granted(_)));
        }
    }

    #[test]
    fn the_platforms_own_count_lowers_what_is_left_and_never_raises_it() {
        let now = Instant::now();
        let mut bucket = Bucket::new(shape(300), now);
        bucket.correct(Limits { allowed: 300.0, remaining: 299.0, reset_seconds: 60.0 }, now);
        let Take::Granted(permit) = bucket.take(Priority::Read, now) else { panic!("full") };
        assert!(permit.left > 28.0, "agreeing costs nothing: {permit:?}");
        bucket.correct(Limits { allowed: 300.0, remaining: 0.0, reset_seconds: 10.0 }, now);
        bucket.correct(Limits { allowed: 300.0, remaining: 9e9, reset_seconds: 0.0 }, now);
        let Take::Wait(wait) = bucket.take(Priority::Rollback, now) else { panic!("spent") };
        assert!(wait > Duration::from_secs(10), "{wait:?}");
    }

    #[test]
    fn a_single_resources_lower_limit_stops_everybody_only_when_it_is_spent() {
        let left = |remaining| shape(300).ceiling(Limits { allowed: 100.0, remaining, reset_seconds: 30.0 });
        assert_eq!(left(60.0), 30.0, "a full bucket");
        assert_eq!(left(5.0), 5.0);
        assert!(left(0.0) < -100.0, "nothing flows in before the window ends");
    }
}
