//! Lends the actuator the stage's own rule, for campaigns that changed in between.

use std::sync::Arc;

use crate::sinks::actuator::{Redecide, Redecision};
use crate::stages::dialing::proportional::{Answer, Limits, Proportional};

/// The recorded window, decided on again with the rate and limits just read.
pub fn by(rule: Proportional) -> Redecide {
    Arc::new(move |decision, campaign| {
        let limits = Limits { least: campaign.min_dial_rate, greatest: campaign.max_dial_rate };
        match rule.decide(decision.inputs.mean_answer_rate, campaign.dial_rate, limits) {
            Answer::Set { dial_rate, .. } => Redecision::Set(dial_rate),
            Answer::Hold { reason } => Redecision::Hold(reason.to_owned()),
        }
    })
}
