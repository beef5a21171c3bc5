//! How much speaks against the candidate: an e-process (`docs/delivery.md`).
//!
//! Each minute multiplies in an E-variable for two samples against "the candidate is no worse"
//! (Turner, Ly & Grünwald 2024, "Generic E-variables for exact sequential k-sample tests that
//! allow for optional stopping"). Under that hypothesis the product is a supermartingale that
//! begins at 1, so it ever passes `A` with a probability of at most `1/A` (Ville 1939), however
//! often one looks.

use serde::{Deserialize, Serialize};

pub use crate::model::delivery::Counts;

/// Alternatives, as multiples of the control's rate, and their greatest value.
const ALTERNATIVES: [f64; 4] = [1.6, 3.0, 5.0, 8.0];
const GREATEST_RATE: f64 = 0.95;
/// What a candidate without a control beside it is granted beyond the control's past rate.
const MARGIN: f64 = 1.25;
/// Logarithms stop growing here: far over every limit, and still a number.
const GREATEST_LOGARITHM: f64 = 34.0;

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.total = self.total.saturating_add(other.total);
        self.errors = self.errors.saturating_add(other.errors);
    }

    /// Errors per interaction, 0–1, and never quite 0 or 1: (e + ½) / (n + 1), the mean under
    /// Jeffreys' prior.
    pub fn rate(&self) -> f64 {
        (self.errors.min(self.total) as f64 + 0.5) / (self.total as f64 + 1.0)
    }

    /// The variance of [`rate`](Self::rate).
    pub fn variance(&self) -> f64 {
        let rate = self.rate();
        rate * (1.0 - rate) / (self.total as f64 + 1.0)
    }

    fn good(&self) -> u64 {
        self.total.saturating_sub(self.errors)
    }

    /// The logarithm of how likely these counts are at `rate`, but for a factor.
    fn likelihood(&self, rate: f64) -> f64 {
        self.errors as f64 * rate.ln() + self.good() as f64 * (1.0 - rate).ln()
    }
}

/// Logarithms of the e-values of the alternatives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence([f64; 4]);

impl Evidence {
    /// One minute of both flows; `past` is the control before it.
    pub fn feed(&mut self, past: Counts, control: Counts, candidate: Counts) {
        if candidate.total == 0 {
            return;
        }
        let rate = past.rate();
        let (of_control, of_candidate) = (control.total as f64, candidate.total as f64);
        for (logarithm, worse) in self.0.iter_mut().zip(alternatives(rate)) {
            let pooled = (of_control * rate + of_candidate * worse) / (of_control + of_candidate);
            let both =
                Counts { total: control.total + candidate.total, errors: control.errors + candidate.errors };
            let grown = candidate.likelihood(worse) + control.likelihood(rate) - both.likelihood(pooled);
            *logarithm = (*logarithm + grown).min(GREATEST_LOGARITHM);
        }
    }

    /// One minute of a candidate that has everything: 1.25 × the control's past rate stands for
    /// the control.
    pub fn feed_alone(&mut self, past: Counts, candidate: Counts) {
        let granted = (MARGIN * past.rate()).min(GREATEST_RATE);
        for (logarithm, worse) in self.0.iter_mut().zip(alternatives(granted)) {
            let grown = candidate.likelihood(worse) - candidate.likelihood(granted);
            *logarithm = (*logarithm + grown).min(GREATEST_LOGARITHM);
        }
    }

    /// The e-value: the mean over the alternatives. 1 says nothing.
    pub fn value(&self) -> f64 {
        self.0.iter().map(|logarithm| logarithm.exp()).sum::<f64>() / self.0.len() as f64
    }
}

fn alternatives(rate: f64) -> [f64; 4] {
    ALTERNATIVES.map(|multiple| (multiple * rate).min(GREATEST_RATE).max(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(total: u64, errors: u64) -> Counts {
        Counts { total, errors }
    }

    #[test]
    fn it_is_the_product_that_is_written_down() {
        let (past, control, candidate) = (counts(999, 9), counts(80, 1), counts(20, 4));
        let mut evidence = Evidence::default();
        evidence.feed(past, control, candidate);
        let p = 9.5 / 1_000.0;
        let of = |q: f64| {
            let pooled: f64 = (80.0 * p + 20.0 * q) / 100.0;
            q.powi(4) * (1.0 - q).powi(16) * p.powi(1) * (1.0 - p).powi(79)
                / (pooled.powi(5) * (1.0 - pooled).powi(95))
        };
        let expected = [1.6, 3.0, 5.0, 8.0].map(|multiple| of(multiple * p)).iter().sum::<f64>() / 4.0;
        assert!((evidence.value() / expected - 1.0).abs() < 1e-9, "{} {expected}", evidence.value());
    }

    #[test]
    fn without_a_candidate_nothing_is_learned() {
        let mut evidence = Evidence::default();
        evidence.feed(counts(100, 1), counts(50, 50), counts(0, 0));
        assert_eq!(evidence.value(), 1.0);
    }

    #[test]
    fn it_stays_a_number_whatever_it_is_fed() {
        for past in [counts(0, 0), counts(5, 5), counts(1_000_000, 1_000_000), counts(u64::MAX, 0)] {
            let mut evidence = Evidence::default();
            for candidate in [counts(1_000_000, 1_000_000), counts(1, 0), counts(3, 9)] {
                evidence.feed(past, counts(10, 1), candidate);
                evidence.feed_alone(past, candidate);
                assert!(evidence.value().is_finite(), "{past:?} {candidate:?}");
            }
        }
    }
}
