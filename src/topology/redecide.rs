//! Lends the actuator the stage's own rule, for campaigns that changed in between.

use std::sync::Arc;
use std::time::Duration;

use crate::sinks::actuator::{Redecide, Redecision};
use crate::stages::dialing::limits::Limits;
use crate::stages::dialing::proportional::{Answer, Proportional};
use crate::stages::dialing::{evidence, policy};

/// A campaign that is as it was when it was decided about gets what was decided, whatever this
/// instance is configured to. If it has changed since, the recorded window is decided on
/// again with the rate and limits just read, by the rule that decided it and no other.
pub fn by(rule: Proportional, tick: Duration) -> Redecide {
    let own = policy(rule, tick);
    Arc::new(move |decision, campaign| {
        let window = &decision.inputs;
        let then = [window.dial_rate, window.min_dial_rate, window.max_dial_rate];
        if [campaign.dial_rate, campaign.min_dial_rate, campaign.max_dial_rate] == then {
            return Redecision::Set(decision.parameters.dial_rate);
        }
        if decision.policy != own.by_reference() {
            let policy = &decision.policy;
            return Redecision::Hold(format!(
                "decided_under_another_policy: the campaign has changed since, and {} v{} ({}) is not the rule here",
                policy.name, policy.version, policy.hash
            ));
        }
        let limits = Limits { min: campaign.min_dial_rate, max: campaign.max_dial_rate };
        match evidence::judge(&rule, tick, window, decision.event_time, campaign.dial_rate, limits) {
            Answer::Set { dial_rate, .. } => Redecision::Set(dial_rate),
            Answer::Hold { reason } => Redecision::Hold(reason.to_owned()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesys::Campaign;
    use crate::topics::DialDecision;

    const TICK: Duration = Duration::from_secs(30);

    #[test]
    fn what_was_decided_elsewhere_is_not_decided_anew_under_another_rule() {
        let text = include_str!("../../schemas/examples/trunkline.dial-decisions.v1/set-dial-rate.json");
        let mut decision: DialDecision<'_, Vec<String>> = serde_json::from_str(text).unwrap();
        let window = &decision.inputs;
        let as_then = Campaign {
            id: "c".to_owned(),
            name: None,
            dial_rate: window.dial_rate,
            min_dial_rate: window.min_dial_rate,
            max_dial_rate: window.max_dial_rate,
            revision: "\"9\"".to_owned(),
        };
        let rule = Proportional { target: 0.5 };
        let decided = Redecision::Set(decision.parameters.dial_rate);
        assert_eq!(by(rule, TICK)(&decision, &as_then), decided, "to the letter, under whatever rule");
        let changed = Campaign { max_dial_rate: as_then.max_dial_rate + 1.0, ..as_then };
        let Redecision::Hold(reason) = by(rule, TICK)(&decision, &changed) else {
            panic!("decided by a stranger")
        };
        assert!(reason.starts_with("decided_under_another_policy"), "{reason}");
        decision.policy = policy(rule, TICK);
        assert!(
            matches!(by(rule, TICK)(&decision, &changed), Redecision::Set(_)),
            "its own rule decides again"
        );
    }

    #[test]
    fn a_rate_that_was_set_for_want_of_news_is_not_raised_on_the_news_of_before() {
        let text = include_str!("../../schemas/examples/trunkline.dial-decisions.v1/statistics-stale.json");
        let mut decision: DialDecision<'_, Vec<String>> = serde_json::from_str(text).unwrap();
        let rule = Proportional::default();
        decision.policy = policy(rule, TICK);
        let changed = Campaign {
            id: "c".to_owned(),
            name: None,
            dial_rate: 2.5,
            min_dial_rate: 0.8,
            max_dial_rate: 9.0,
            revision: "\"9\"".to_owned(),
        };
        assert_eq!(by(rule, TICK)(&decision, &changed), Redecision::Set(0.8));
    }
}
