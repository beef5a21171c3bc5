//! Lends the actuator the stage's own rule, for campaigns that changed in between.

use std::sync::Arc;

use crate::model::decision::Policy;
use crate::sinks::actuator::{Redecide, Redecision};
use crate::stages::dialing::limits::Limits;
use crate::stages::dialing::proportional::{Answer, NAME, Proportional, VERSION};

/// A campaign that is as it was when it was decided about gets what was decided, whatever this
/// instance is configured to. If it has changed since, the recorded window is decided on
/// again with the rate and limits just read, by the rule that decided it and no other.
pub fn by(rule: Proportional) -> Redecide {
    let own = Policy::new(NAME, VERSION, &rule);
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
        match rule.decide(window.mean_answer_rate, campaign.dial_rate, limits) {
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
        assert_eq!(by(rule)(&decision, &as_then), decided, "to the letter, under whatever rule");
        let changed = Campaign { max_dial_rate: as_then.max_dial_rate + 1.0, ..as_then };
        let Redecision::Hold(reason) = by(rule)(&decision, &changed) else { panic!("decided by a stranger") };
        assert!(reason.starts_with("decided_under_another_policy"), "{reason}");
        decision.policy = Policy::new(NAME, VERSION, &rule);
        assert!(matches!(by(rule)(&decision, &changed), Redecision::Set(_)), "its own rule decides again");
    }
}
