//! How the value of a decision came to be: the rule's raw answer and what each limit made of it.

use arrayvec::ArrayVec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits that one decision meets at most.
const LIMITS: usize = 10;

/// What may change a rule's answer, in the order in which it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// What may still be lost of what is allowed.
    Budget,
    /// Too much was lost.
    Brake,
    /// A value rises slowly.
    Slew,
    /// The campaign's own least value.
    Minimum,
    /// The campaign's own greatest value.
    Maximum,
    /// The facts lack what the rule needs.
    Evidence,
    /// The facts are old.
    Staleness,
    /// Another loop, or another writer.
    Hold,
    /// Two decimals, and no change below one hundredth.
    Rounding,
}

impl Limit {
    pub fn name(self) -> &'static str {
        match self {
            Limit::Budget => "budget",
            Limit::Brake => "brake",
            Limit::Slew => "slew",
            Limit::Minimum => "minimum",
            Limit::Maximum => "maximum",
            Limit::Evidence => "evidence",
            Limit::Staleness => "staleness",
            Limit::Hold => "hold",
            Limit::Rounding => "rounding",
        }
    }
}

/// A limit and the value after it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Limited {
    pub limit: Limit,
    pub value: f64,
}

/// From the rule's answer to the value decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Chain {
    /// The rule's answer before any limit.
    pub raw: f64,
    /// Limits in the order in which they were asked, each with the value after it.
    #[schemars(with = "Vec<Limited>", length(max = 10))]
    pub limits: ArrayVec<Limited, LIMITS>,
    /// The limit that changed the value last; absent where none did. Rounding only where nothing
    /// else did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Limit>,
}

impl Chain {
    pub fn new(raw: f64) -> Self {
        Self { raw, limits: ArrayVec::new(), bound: None }
    }

    /// The value after all limits so far.
    pub fn value(&self) -> f64 {
        self.limits.last().map_or(self.raw, |limited| limited.value)
    }

    /// The value after this limit, where it was asked.
    pub fn after(&self, limit: Limit) -> Option<f64> {
        self.limits.iter().find(|limited| limited.limit == limit).map(|limited| limited.value)
    }

    /// The value is to be `most` or less.
    pub fn at_most(&mut self, limit: Limit, most: f64) {
        self.ask(limit, self.value().min(most));
    }

    /// The value is to be `least` or more.
    pub fn at_least(&mut self, limit: Limit, least: f64) {
        self.ask(limit, self.value().max(least));
    }

    /// The value after `limit`, recorded whether it is another one or not.
    ///
    /// # Panics
    /// When more limits are asked than a chain holds, which is a bug.
    pub fn ask(&mut self, limit: Limit, value: f64) {
        if value != self.value() && (limit != Limit::Rounding || self.bound.is_none()) {
            self.bound = Some(limit);
        }
        self.limits.push(Limited { limit, value });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_limit_that_changed_the_value_bound_it() {
        let mut chain = Chain::new(4.0);
        chain.at_most(Limit::Slew, 2.5);
        chain.at_most(Limit::Maximum, 3.0);
        chain.at_least(Limit::Minimum, 1.0);
        assert_eq!((chain.value(), chain.bound), (2.5, Some(Limit::Slew)));
        let text = serde_json::to_string(&chain).unwrap();
        assert_eq!(
            text,
            r#"{"raw":4.0,"limits":[{"limit":"slew","value":2.5},{"limit":"maximum","value":2.5},{"limit":"minimum","value":2.5}],"bound":"slew"}"#
        );
        assert_eq!(serde_json::from_str::<Chain>(&text).unwrap(), chain);
        assert_eq!((chain.after(Limit::Maximum), chain.after(Limit::Hold)), (Some(2.5), None));
        chain.ask(Limit::Rounding, 2.0);
        assert_eq!(
            (chain.value(), chain.bound),
            (2.0, Some(Limit::Slew)),
            "rounding binds alone or not at all"
        );
        assert_eq!(Chain::new(1.0).bound, None);
    }
}
