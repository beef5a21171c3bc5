//! A group of endpoints behind its breakers, and what readiness says of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::Settings;
use super::breaker::Verdict;
use super::breakers::{Admission, Breakers, Paused, Standing};
use super::error::{CallError, CallErrorKind as Kind};
use crate::health::{Health, Part};
use crate::metrics;

/// Endpoints for resources of one kind. Reading and writing fail apart: that a campaign can
/// be read does not say that it can be changed.
pub(super) struct Endpoints {
    /// For metrics, readiness and reasons.
    pub name: &'static str,
    reads: Mutex<Breakers>,
    writes: Mutex<Breakers>,
    health: Part,
    /// Without it the instance cannot do its work.
    vital: bool,
    /// The platform wants no calls of this family before then.
    throttled_until: Mutex<Option<Instant>>,
}

/// What a call is about, for the breakers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// Id of the resource; empty where there is only one.
    pub resource: &'a str,
    /// Whether it may change something.
    pub writes: bool,
}

impl Endpoints {
    /// Not `vital`: what is asked here can wait, however long it is away.
    pub(super) fn new(name: &'static str, vital: bool, settings: &Settings, health: &Health) -> Self {
        let part = settings.organization.part(name, health);
        part.ready();
        metrics::GENESYS_BREAKER_OPEN.gauge(&[name]).set(0.0);
        let breakers = || Mutex::new(Breakers::new(settings.breaker_failures, settings.breaker_pause));
        Self {
            name,
            reads: breakers(),
            writes: breakers(),
            health: part,
            vital,
            throttled_until: Mutex::new(None),
        }
    }

    /// Nothing is called before `until`.
    pub(super) fn throttle(&self, until: Instant) {
        *self.throttled_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    fn check_throttle(&self) -> Result<(), CallError> {
        let mut throttled = self.throttled_until.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(until) = throttled.filter(|until| *until > Instant::now()) else {
            *throttled = None;
            return Ok(());
        };
        let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
        let reason =
            format!("not sent: the platform wants no calls of {} for another {left:.1} s", self.name);
        Err(CallError::without_reply(Kind::Paused { until: Some(until) }, reason))
    }

    /// Whether a call would be let through.
    pub(super) fn check(&self, subject: Subject<'_>) -> Result<(), CallError> {
        self.check_throttle()?;
        let checked = self.breakers(subject.writes).check(subject.resource, Instant::now());
        checked.map_err(|paused| self.paused(subject, paused))
    }

    /// Lets a call through.
    pub(super) fn admit<'a>(&'a self, subject: Subject<'a>) -> Result<Admitted<'a>, CallError> {
        let admitted = self.breakers(subject.writes).admit(subject.resource, Instant::now());
        let admission = admitted.map_err(|paused| self.paused(subject, paused))?;
        Ok(Admitted { endpoints: self, subject, admission, settled: false })
    }

    fn breakers(&self, writes: bool) -> MutexGuard<'_, Breakers> {
        let breakers = if writes { &self.writes } else { &self.reads };
        breakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paused(&self, subject: Subject<'_>, paused: Paused) -> CallError {
        let (open, who) = match paused {
            Paused::Resource(open) if !subject.resource.is_empty() => {
                (open, format!("{} of {}", self.name, subject.resource))
            }
            Paused::Group(open) | Paused::Resource(open) => (open, self.name.to_owned()),
        };
        let reason = match open.until {
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
                format!("not sent: {who} failed repeatedly and pauses for another {left:.1} s")
            }
            None => format!("not sent: {who} failed repeatedly and is being probed"),
        };
        CallError::without_reply(Kind::Paused { until: open.until }, reason)
    }

    fn settle(&self, subject: Subject<'_>, admission: Admission, verdict: Verdict) {
        let mut breakers = self.breakers(subject.writes);
        let before = breakers.standing();
        breakers.settle(admission, subject.resource, verdict, Instant::now());
        let after = breakers.standing();
        drop(breakers);
        if before != after {
            self.tell(subject.writes);
        }
    }

    fn tell(&self, writes: bool) {
        // Read anew: reads and writes share one line.
        let standings = [false, true].map(|writes| self.breakers(writes).standing());
        let open = standings.iter().any(|standing| *standing != Standing::Closed);
        metrics::GENESYS_BREAKER_OPEN.gauge(&[self.name]).set(if open { 1.0 } else { 0.0 });
        match &standings[usize::from(writes)] {
            Standing::Closed => tracing::info!(endpoints = self.name, writes, "answers again"),
            standing => {
                tracing::warn!(
                    endpoints = self.name,
                    writes,
                    ?standing,
                    "failed repeatedly: pausing, then probing"
                );
            }
        }
        const REASON: &str = "Genesys Cloud failed repeatedly here: paused, then probed";
        let alone = |first: &str| first.is_empty();
        let all = standings.iter().any(|standing| match standing {
            Standing::Group => true,
            Standing::Resources { first, .. } => alone(first),
            Standing::Closed => false,
        });
        let some = standings.iter().find_map(|standing| match standing {
            Standing::Resources { count, first } => Some((count, first)),
            Standing::Group | Standing::Closed => None,
        });
        match some {
            _ if all && self.vital => self.health.not_ready(REASON),
            _ if all => self.health.impaired(REASON),
            Some((1, first)) => self.health.impaired(format!("{first}: {REASON}")),
            Some((count, first)) => {
                self.health.impaired(format!("{count} of them, among them {first}: {REASON}"))
            }
            None => self.health.ready(),
        }
    }
}

/// A call that the breakers let through; giving it up tells them so.
pub(super) struct Admitted<'a> {
    endpoints: &'a Endpoints,
    subject: Subject<'a>,
    admission: Admission,
    settled: bool,
}

impl Admitted<'_> {
    pub(super) fn settle(mut self, verdict: Verdict) {
        self.settled = true;
        self.endpoints.settle(self.subject, self.admission, verdict);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.endpoints.settle(self.subject, self.admission, Verdict::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_family_that_the_platform_throttles_waits_alone() {
        let (settings, health) = (Settings::default(), Health::default());
        let [throttled, other] = ["one", "other"].map(|name| Endpoints::new(name, false, &settings, &health));
        let subject = Subject { resource: "r", writes: false };
        let until = Instant::now() + Duration::from_secs(12);
        throttled.throttle(until);
        let refused = throttled.check(subject).unwrap_err();
        assert_eq!(refused.kind, Kind::Paused { until: Some(until) });
        assert!(refused.reason.contains("calls of one for another 12.0 s"), "{refused}");
        assert!(other.check(subject).is_ok());
        tokio::time::advance(Duration::from_secs(12)).await;
        assert!(throttled.check(subject).is_ok());
    }
}
