//! Is this version worse than the one before? (`docs/rollback.md`, points 3 and 4)

use serde::{Deserialize, Serialize};

/// z of the one-sided 95 % bound.
const Z: f64 = 1.645;
/// What a version no worse than its baseline is granted beyond the bound.
const MARGIN: f64 = 1.25;
/// Alternatives, as multiples of the granted rate, and their greatest value.
const ALTERNATIVES: [f64; 3] = [1.6, 3.0, 8.0];
const GREATEST_RATE: f64 = 0.95;
/// Statistics stop growing here: far over every limit, and still a number.
const GREATEST_STATISTIC: f64 = 1e15;

/// The error rate that a version no worse than the one before is granted:
/// 1.25 × the upper end of the one-sided 95 % Wilson interval (Wilson 1927).
/// `total` must be at least 1.
pub fn granted_rate(errors: u64, total: u64) -> f64 {
    let n = total as f64;
    let rate = errors as f64 / n;
    let squared = Z * Z;
    let centre = rate + squared / (2.0 * n);
    let spread = Z * (rate * (1.0 - rate) / n + squared / (4.0 * n * n)).sqrt();
    MARGIN * (centre + spread) / (1.0 + squared / n)
}

/// The Shiryaev–Roberts statistic for each alternative (Roberts 1966). Fed minute by
/// minute it passes a limit A without a change within m minutes with a probability of at
/// most m / A.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShiryaevRoberts([f64; 3]);

impl ShiryaevRoberts {
    /// One minute with `total` interactions, `errors` of them errors, against `rate`.
    pub fn feed(&mut self, rate: f64, errors: u64, total: u64) {
        let (bad, good) = (errors as f64, total.saturating_sub(errors) as f64);
        for (statistic, multiple) in self.0.iter_mut().zip(ALTERNATIVES) {
            let alternative = (multiple * rate).min(GREATEST_RATE);
            // Nothing is worse than a baseline that nearly always failed.
            if rate <= 0.0 || alternative <= rate {
                continue;
            }
            let likelihood =
                bad * (alternative / rate).ln() + good * ((1.0 - alternative) / (1.0 - rate)).ln();
            let grown = (1.0 + *statistic).ln() + likelihood;
            *statistic = grown.min(GREATEST_STATISTIC.ln()).exp();
        }
    }

    /// The mean over the alternatives.
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_wilsons() {
        // Agresti & Coull 1998 give 0 of 10 an upper end of z² / (n + z²).
        let squared = Z * Z;
        assert!((granted_rate(0, 10) / MARGIN - squared / (10.0 + squared)).abs() < 1e-12);
        assert!((granted_rate(10, 10) / MARGIN - 1.0).abs() < 1e-12);
        assert!((granted_rate(52, 5_210) / MARGIN - 0.012_534).abs() < 1e-4, "{}", granted_rate(52, 5_210));
    }

    #[test]
    fn it_is_the_product_that_is_written_down() {
        let (rate, errors, total) = (0.05, 4u64, 30u64);
        let mut statistic = ShiryaevRoberts::default();
        let mut expected = [0.0f64; 3];
        for _ in 0..5 {
            statistic.feed(rate, errors, total);
            for (value, q) in expected.iter_mut().zip([0.08, 0.15, 0.40]) {
                let ratio = (q / rate).powi(4) * ((1.0 - q) / (1.0 - rate)).powi(26);
                *value = (1.0 + *value) * ratio;
            }
        }
        let mean = expected.iter().sum::<f64>() / 3.0;
        assert!((statistic.mean() / mean - 1.0).abs() < 1e-9, "{} {mean}", statistic.mean());
    }

    #[test]
    fn it_stays_a_number_whatever_it_is_fed() {
        let mut statistic = ShiryaevRoberts::default();
        for (rate, errors, total) in
            [(0.01, 1_000_000, 1_000_000), (0.01, 0, u64::MAX), (0.0, 5, 5), (1.25, 5, 5), (0.94, 5, 5)]
        {
            statistic.feed(rate, errors, total);
            assert!(statistic.mean().is_finite(), "{rate} {errors} {total}");
        }
    }
}
