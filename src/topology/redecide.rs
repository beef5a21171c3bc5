//! What becomes of a dial decision about a campaign that has changed since.

use std::sync::Arc;

use crate::genesys::Campaign;
use crate::model::campaign::DialAnswer;
use crate::model::chain::Limit;
use crate::sinks::actuator::{Redecide, Redecision};
use crate::stages::dialing::judgement::OTHER_WRITER;
use crate::topics::DialDecision;

/// A campaign that is as it was when it was decided about gets what was decided. Where its limits
/// have changed, the recorded answer is held within the new ones. A rate that somebody else has set
/// stays until the next decision, which knows it; only where too much was abandoned, or nobody knows
/// what the rate does, it is taken down all the same. Depends on the record and the campaign alone.
pub fn from_the_record() -> Redecide {
    Arc::new(|decision, campaign| {
        let (window, answer) = (&decision.inputs, &decision.parameters);
        let limits = [campaign.min_dial_rate, campaign.max_dial_rate];
        let is_known = same(campaign.dial_rate, window.dial_rate)
            || answer.own_rates.iter().any(|own| same(campaign.dial_rate, *own));
        if is_known && limits == [window.min_dial_rate, window.max_dial_rate] {
            return Redecision::Set(answer.dial_rate);
        }
        let Some(wanted) = within(decision, campaign) else {
            let told = "decided_without_chain: the campaign has changed since";
            return Redecision::Hold(told.to_owned());
        };
        let gives_way = !(takes_down(answer) && wanted < campaign.dial_rate);
        if !is_known && gives_way {
            let (now, then) = (campaign.dial_rate, window.dial_rate);
            return Redecision::Hold(format!(
                "{OTHER_WRITER}: the rate is {now}, and was {then} when it was decided about"
            ));
        }
        Redecision::Set(wanted)
    })
}

/// The recorded answer within the limits as they are now; `None` where it was not recorded how
/// it came to be.
fn within(decision: &DialDecision<'_, Vec<String>>, campaign: &Campaign) -> Option<f64> {
    let answer = &decision.parameters;
    let chain = answer.chain.as_ref()?;
    let was_least = (answer.dial_rate - decision.inputs.min_dial_rate).abs() < 0.01;
    let wanted = match chain.bound {
        Some(Limit::Maximum) => chain.after(Limit::Minimum).unwrap_or(answer.dial_rate),
        Some(Limit::Minimum) => chain.raw,
        Some(Limit::Brake | Limit::Evidence | Limit::Staleness) if was_least => campaign.min_dial_rate,
        _ => answer.dial_rate,
    };
    // Contradicting limits are the actuator's to tell.
    Some(wanted.max(campaign.min_dial_rate).min(campaign.max_dial_rate))
}

fn takes_down(answer: &DialAnswer) -> bool {
    let bound = answer.chain.as_ref().and_then(|chain| chain.bound);
    matches!(bound, Some(Limit::Brake | Limit::Evidence | Limit::Staleness))
}

/// Equal in hundredths.
fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.005
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain::Chain;

    fn decision(text: &str) -> DialDecision<'_, Vec<String>> {
        serde_json::from_str(text).unwrap()
    }

    fn set() -> DialDecision<'static, Vec<String>> {
        decision(include_str!("../../schemas/examples/trunkline.dial-decisions.v1/set-dial-rate.json"))
    }

    /// As it was when it was decided about.
    fn campaign(decision: &DialDecision<'_, Vec<String>>) -> Campaign {
        let window = &decision.inputs;
        Campaign {
            id: "c".to_owned(),
            name: None,
            dial_rate: window.dial_rate,
            min_dial_rate: window.min_dial_rate,
            max_dial_rate: window.max_dial_rate,
            revision: "\"9\"".to_owned(),
            definition: None,
        }
    }

    fn held(redecision: &Redecision, reason: &str) -> bool {
        matches!(redecision, Redecision::Hold(told) if told.starts_with(reason))
    }

    #[test]
    fn what_was_decided_is_done_where_nothing_has_changed_or_we_have_changed_it() {
        let mut decision = set();
        let redecide = from_the_record();
        let decided = Redecision::Set(decision.parameters.dial_rate);
        assert_eq!(redecide(&decision, &campaign(&decision)), decided);
        decision.parameters.own_rates.push(1.5);
        let ours = Campaign { dial_rate: 1.5, ..campaign(&decision) };
        assert_eq!(redecide(&decision, &ours), decided, "the decision before was late");
    }

    #[test]
    fn new_limits_hold_the_recorded_answer() {
        let mut decision = set();
        let redecide = from_the_record();
        let mut chain = Chain::new(4.0);
        chain.at_least(Limit::Minimum, 0.5);
        chain.at_most(Limit::Maximum, 3.0);
        decision.parameters.chain = Some(chain);
        let with = |min, max| Campaign { min_dial_rate: min, max_dial_rate: max, ..campaign(&decision) };
        assert_eq!(redecide(&decision, &with(0.5, 3.5)), Redecision::Set(3.5), "the old limit bound it");
        assert_eq!(redecide(&decision, &with(0.5, 9.0)), Redecision::Set(4.0));
        assert_eq!(redecide(&decision, &with(0.5, 2.5)), Redecision::Set(2.5));
        decision.parameters.chain = None;
        let changed = Campaign { max_dial_rate: 2.5, ..campaign(&decision) };
        assert!(held(&redecide(&decision, &changed), "decided_without_chain"));
    }

    #[test]
    fn somebody_elses_rate_stays_for_the_tick() {
        let mut decision = set();
        decision.parameters.chain = Some(Chain::new(3.0));
        let theirs = Campaign { dial_rate: 2.2, ..campaign(&decision) };
        assert!(held(&from_the_record()(&decision, &theirs), OTHER_WRITER));
    }

    #[test]
    fn unless_nobody_knows_what_it_does() {
        let text = include_str!("../../schemas/examples/trunkline.dial-decisions.v1/statistics-stale.json");
        let decision = decision(text);
        let theirs =
            Campaign { dial_rate: 2.5, min_dial_rate: 0.8, max_dial_rate: 9.0, ..campaign(&decision) };
        assert_eq!(from_the_record()(&decision, &theirs), Redecision::Set(0.8));
    }
}
