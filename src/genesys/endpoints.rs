//! A group of endpoints behind one breaker, and what readiness says of it.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::Settings;
use super::breaker::{Admission, Breaker, Open, Verdict};
use super::error::{CallError, CallErrorKind as Kind};
use crate::health::{Health, Part};
use crate::metrics;

/// Endpoints that fail together.
pub struct Endpoints {
    /// For metrics, readiness and reasons.
    pub name: &'static str,
    breaker: Mutex<Breaker>,
    health: Part,
    /// Without it the instance cannot do its work.
    vital: bool,
}

impl Endpoints {
    /// Not `vital`: what is asked here can wait, however long it is away.
    pub fn new(name: &'static str, vital: bool, settings: &Settings, health: &Health) -> Self {
        let part = health.part(&format!("genesys.{name}"));
        part.ready();
        metrics::GENESYS_BREAKER_OPEN.gauge(&[name]).set(0.0);
        let breaker = Breaker::new(settings.breaker_failures, settings.breaker_pause);
        Self { name, breaker: Mutex::new(breaker), health: part, vital }
    }

    /// Whether a call would be let through.
    pub fn check(&self) -> Result<(), CallError> {
        let breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        breaker.check(Instant::now()).map_err(|open| self.paused(open))
    }

    /// Lets a call through.
    pub fn admit(&self) -> Result<Admitted<'_>, CallError> {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let admission = breaker.admit(Instant::now()).map_err(|open| self.paused(open))?;
        Ok(Admitted { endpoints: self, admission, settled: false })
    }

    fn paused(&self, open: Open) -> CallError {
        let reason = match open.until {
            Some(until) => {
                let left = until.saturating_duration_since(Instant::now()).as_secs_f64();
                format!("not sent: {} failed repeatedly and pauses for another {left:.1} s", self.name)
            }
            None => format!("not sent: {} failed repeatedly and is being probed", self.name),
        };
        CallError::without_reply(Kind::Paused { until: open.until }, reason)
    }

    fn settle(&self, admission: Admission, verdict: Verdict) {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let was_closed = breaker.is_closed();
        breaker.settle(admission, verdict, Instant::now());
        let is_closed = breaker.is_closed();
        drop(breaker);
        if was_closed == is_closed {
            return;
        }
        metrics::GENESYS_BREAKER_OPEN.gauge(&[self.name]).set(if is_closed { 0.0 } else { 1.0 });
        if is_closed {
            tracing::info!(endpoints = self.name, "answers again");
            self.health.ready();
        } else {
            tracing::warn!(endpoints = self.name, "failed repeatedly: pausing, then probing");
            const REASON: &str = "Genesys Cloud failed repeatedly here: paused, then probed";
            if self.vital { self.health.not_ready(REASON) } else { self.health.impaired(REASON) }
        }
    }
}

/// A call that the breaker let through; giving it up tells the breaker so.
pub struct Admitted<'a> {
    endpoints: &'a Endpoints,
    admission: Admission,
    settled: bool,
}

impl Admitted<'_> {
    pub fn settle(mut self, verdict: Verdict) {
        self.settled = true;
        self.endpoints.settle(self.admission, verdict);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if !self.settled {
            self.endpoints.settle(self.admission, Verdict::Unknown);
        }
    }
}
