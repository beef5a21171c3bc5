//! Stops calling what is down: after some failures in a row it pauses, then lets a
//! single probe through. Pure; time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// The breaker of one resource, or of all resources together.
#[derive(Clone, Debug)]
pub(super) struct Breaker {
    failures_allowed: u32,
    pause: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One probe is on its way.
    Probing,
}

/// What became of a call that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The endpoint answered, if only with a refusal.
    Answered,
    /// 5xx, or no usable reply.
    Failed,
    /// The API answered with something about the resource that cannot be: a failure of the
    /// resource, and no evidence about others.
    Odd,
    /// Nothing was learnt: the call was given up on our side.
    Unknown,
}

/// The breaker is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Open {
    /// When it is worth asking again; `None` while a probe is on its way.
    pub until: Option<Instant>,
}

impl Breaker {
    pub(super) fn new(failures_allowed: u32, pause: Duration) -> Self {
        Self { failures_allowed: failures_allowed.max(1), pause, state: State::Closed { failures: 0 } }
    }

    /// Whether a call would be let through; changes nothing.
    pub(super) fn check(&self, now: Instant) -> Result<(), Open> {
        match self.state {
            State::Closed { .. } => Ok(()),
            State::Open { until } if now >= until => Ok(()),
            State::Open { until } => Err(Open { until: Some(until) }),
            State::Probing => Err(Open { until: None }),
        }
    }

    /// Lets a call through. Each admission is followed by exactly one [`settle`](Self::settle).
    pub(super) fn admit(&mut self, now: Instant) -> Result<Admission, Open> {
        self.check(now)?;
        if let State::Open { .. } = self.state {
            self.state = State::Probing;
            return Ok(Admission::Probe);
        }
        Ok(Admission::Usual)
    }

    /// Takes note of how an admitted call went.
    pub(super) fn settle(&mut self, admission: Admission, verdict: Verdict, now: Instant) {
        self.state = match (admission, self.state, verdict) {
            (Admission::Probe, _, Verdict::Answered) => State::Closed { failures: 0 },
            (Admission::Probe, _, Verdict::Failed | Verdict::Odd) => State::Open { until: now + self.pause },
            // The next call probes again, at once.
            (Admission::Probe, _, Verdict::Unknown) => State::Open { until: now },
            (Admission::Usual, State::Closed { .. }, Verdict::Answered) => State::Closed { failures: 0 },
            (Admission::Usual, State::Closed { failures }, Verdict::Failed | Verdict::Odd) => {
                let failures = failures + 1;
                if failures >= self.failures_allowed {
                    State::Open { until: now + self.pause }
                } else {
                    State::Closed { failures }
                }
            }
            // Calls from before the pause do not lengthen or end it.
            (Admission::Usual, state, _) => state,
        };
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether nothing is held against what it guards.
    pub(super) fn is_clean(&self) -> bool {
        self.state == State::Closed { failures: 0 }
    }
}

/// How a call was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Usual,
    Probe,
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(60);

    fn call(breaker: &mut Breaker, now: Instant, verdict: Verdict) {
        let admission = breaker.admit(now).unwrap();
        breaker.settle(admission, verdict, now);
    }

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3, PAUSE);
        (0..3).for_each(|_| call(&mut breaker, now, Verdict::Failed));
        breaker
    }

    #[test]
    fn three_failures_in_a_row_pause_and_fewer_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3, PAUSE);
        for verdict in [Verdict::Failed, Verdict::Failed, Verdict::Answered, Verdict::Failed, Verdict::Failed]
        {
            call(&mut breaker, now, verdict);
        }
        assert!(breaker.check(now).is_ok(), "an answer between starts the count anew");
        call(&mut breaker, now, Verdict::Unknown);
        assert!(breaker.check(now).is_ok(), "nothing learnt is no failure");
        call(&mut breaker, now, Verdict::Failed);
        assert_eq!(breaker.check(now), Err(Open { until: Some(now + PAUSE) }));
    }

    #[test]
    fn after_the_pause_one_probe_decides() {
        let start = Instant::now();
        let mut breaker = opened(start);
        assert!(breaker.admit(start + PAUSE - Duration::from_millis(1)).is_err());

        let later = start + PAUSE;
        assert_eq!(breaker.admit(later), Ok(Admission::Probe));
        assert_eq!(breaker.admit(later), Err(Open { until: None }), "a second call waits for the probe");
        breaker.settle(Admission::Probe, Verdict::Failed, later);
        assert_eq!(breaker.check(later), Err(Open { until: Some(later + PAUSE) }));

        let later = later + PAUSE;
        assert_eq!(breaker.admit(later), Ok(Admission::Probe));
        breaker.settle(Admission::Probe, Verdict::Answered, later);
        assert!(breaker.is_closed());
        call(&mut breaker, later, Verdict::Failed);
        assert!(breaker.is_closed(), "the count began anew");
    }

    #[test]
    fn a_probe_that_was_given_up_frees_its_place() {
        let start = Instant::now();
        let mut breaker = opened(start);
        let later = start + PAUSE;
        assert_eq!(breaker.admit(later), Ok(Admission::Probe));
        breaker.settle(Admission::Probe, Verdict::Unknown, later);
        assert_eq!(breaker.admit(later), Ok(Admission::Probe));
    }

    #[test]
    fn stragglers_from_before_the_pause_change_nothing() {
        let start = Instant::now();
        let mut breaker = Breaker::new(3, PAUSE);
        let straggler = breaker.admit(start).unwrap();
        (0..3).for_each(|_| call(&mut breaker, start, Verdict::Failed));
        for verdict in [Verdict::Answered, Verdict::Failed] {
            breaker.settle(straggler, verdict, start + Duration::from_secs(30));
            assert_eq!(breaker.check(start), Err(Open { until: Some(start + PAUSE) }));
        }
    }
}
