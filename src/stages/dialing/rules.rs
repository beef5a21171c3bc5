//! Which rule a campaign is dialled by: the configuration's, or what was set at run time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pacing::{self, Pacing};
use super::proportional::{self, Proportional};
use crate::model::decision::Policy;
use crate::model::settings::{DialPolicy, DialSettings, DialShadow};

/// The rules there are with their numbers, and which of them decides.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    pub policy: DialPolicy,
    /// Decides beside it; nobody acts on that.
    pub shadow: Option<DialPolicy>,
    pub pacing: Pacing,
    pub proportional: Proportional,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            policy: DialPolicy::Pacing,
            shadow: None,
            pacing: Pacing::default(),
            proportional: Proportional::default(),
        }
    }
}

impl From<Proportional> for Rules {
    fn from(proportional: Proportional) -> Self {
        Self { policy: DialPolicy::Proportional, proportional, ..Self::default() }
    }
}

/// What a decision depends on beside its inputs.
#[derive(Serialize)]
struct Parameters<R> {
    #[serde(flatten)]
    rule: R,
    tick_ms: u64,
}

impl Rules {
    /// With what was set at run time.
    #[must_use]
    pub fn with(self, set: &DialSettings) -> Self {
        let pacing = Pacing {
            goal: set.goal.unwrap_or(self.pacing.goal),
            cap: set.cap.unwrap_or(self.pacing.cap),
            handle_seconds: set.handle_seconds.unwrap_or(self.pacing.handle_seconds),
            day_offset_minutes: set.utc_offset_minutes.unwrap_or(self.pacing.day_offset_minutes),
            ..self.pacing
        };
        Self {
            policy: set.policy.unwrap_or(self.policy),
            shadow: match set.shadow_policy {
                None => self.shadow,
                Some(DialShadow::None) => None,
                Some(DialShadow::Policy(policy)) => Some(policy),
            },
            pacing,
            proportional: Proportional { target: set.target.unwrap_or(self.proportional.target) },
        }
    }

    /// Whether any of them is `pacing`.
    pub fn have_pacing(&self) -> bool {
        self.policy == DialPolicy::Pacing || self.shadow == Some(DialPolicy::Pacing)
    }

    /// The numbers of a rule, for people.
    pub fn numbers(&self, policy: DialPolicy) -> serde_json::Value {
        let numbers = match policy {
            DialPolicy::Pacing => serde_json::to_value(self.pacing),
            DialPolicy::Proportional => serde_json::to_value(self.proportional),
        };
        numbers.expect("numbers are JSON")
    }

    /// What decisions under one of the rules name, `tick` being the time between two observations.
    pub fn named(&self, policy: DialPolicy, tick: Duration) -> Policy<'static> {
        let tick_ms = u64::try_from(tick.as_millis()).unwrap_or(u64::MAX);
        match policy {
            DialPolicy::Pacing => {
                Policy::new(pacing::NAME, pacing::VERSION, &Parameters { rule: self.pacing, tick_ms })
            }
            DialPolicy::Proportional => {
                let parameters = Parameters { rule: self.proportional, tick_ms };
                Policy::new(proportional::NAME, proportional::VERSION, &parameters)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stands_for_the_configuration_and_shows_in_the_digest() {
        let tick = Duration::from_secs(30);
        let rules = Rules { shadow: Some(DialPolicy::Proportional), ..Rules::default() };
        assert_eq!(rules.with(&DialSettings::default()), rules);
        let set = DialSettings {
            goal: Some(0.01),
            shadow_policy: Some(DialShadow::None),
            utc_offset_minutes: Some(60),
            ..DialSettings::default()
        };
        let changed = rules.with(&set);
        assert_eq!((changed.shadow, changed.pacing.goal, changed.pacing.cap), (None, 0.01, 0.03));
        assert_ne!(changed.named(DialPolicy::Pacing, tick), rules.named(DialPolicy::Pacing, tick));
        let same = rules.named(DialPolicy::Proportional, tick);
        assert_eq!(changed.named(DialPolicy::Proportional, tick), same);
        let proportional = rules.with(&DialSettings { policy: Some(DialPolicy::Proportional), ..set });
        assert_eq!((proportional.policy, proportional.have_pacing()), (DialPolicy::Proportional, false));
    }
}
