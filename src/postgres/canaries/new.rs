//! What a canary is to be, and what it must be to begin.

use crate::model::delivery::{MAX_HOLD_MINUTES, Steps};
use crate::model::routing::{RouteConfiguration, RouteStatus};

/// Longest reason, in characters.
const REASON_LIMIT: usize = 500;

/// What a canary is to be.
#[derive(Clone, Debug)]
pub struct NewCanary {
    /// The flow in force.
    pub flow: String,
    pub candidate: String,
    /// The routing configuration that the dispatcher asks.
    pub route: String,
    pub steps: Steps,
    pub hold_minutes: u32,
    pub reason: Option<String>,
}

impl NewCanary {
    /// Whether it can be one, whatever is in force.
    ///
    /// # Errors
    /// What of it cannot be, and what can.
    pub fn check(&self) -> Result<(), String> {
        for (name, id) in [("flow", &self.flow), ("candidate", &self.candidate), ("route", &self.route)] {
            if id.is_empty() || id.len() > 128 || id.chars().any(char::is_control) {
                return Err(format!("{name} must be 1 to 128 bytes without control characters"));
            }
        }
        if self.flow == self.candidate {
            return Err("the candidate is the flow itself: name the flow that is to be tried out".to_owned());
        }
        if !(1..=MAX_HOLD_MINUTES).contains(&self.hold_minutes) {
            return Err(format!("a step lasts 1 to {MAX_HOLD_MINUTES} minutes"));
        }
        check_reason(self.reason.as_deref())?;
        Steps::new(self.steps.0.clone()).map(drop)
    }

    /// Whether the configuration sends to nobody but both flows.
    pub(super) fn fits(&self, definition: &RouteConfiguration) -> Result<(), String> {
        let is_ours = |id: &str| id == self.flow || id == self.candidate;
        let foreign = definition.rules.iter().find(|rule| !is_ours(&rule.destination.id));
        if let Some(rule) = foreign {
            return Err(format!(
                "configuration {} also sends to {}: a canary needs one with flow {} alone, or with {} beside it",
                self.route, rule.destination.id, self.flow, self.candidate
            ));
        }
        let control = definition.rules.iter().find(|rule| rule.destination.id == self.flow);
        if control.is_none_or(|rule| rule.drain) || definition.status != RouteStatus::Enabled {
            return Err(format!(
                "configuration {} does not send to flow {} now: put that in force first",
                self.route, self.flow
            ));
        }
        Ok(())
    }
}

pub(super) fn check_reason(reason: Option<&str>) -> Result<(), String> {
    let is_long =
        |reason: &str| reason.chars().count() > REASON_LIMIT || reason.chars().any(char::is_control);
    match reason {
        Some(reason) if is_long(reason) => {
            Err(format!("reason must have at most {REASON_LIMIT} characters and no control characters"))
        }
        _ => Ok(()),
    }
}
