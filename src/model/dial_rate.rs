//! Dial rates in whole hundredths, as the platform keeps them.

/// Binary fractions come this close to the hundredth they stand for.
pub const HUNDREDTH_SLACK: f64 = 1e-6;

/// A campaign's own limits of its dial rate: lines per idle agent, as the platform has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    pub min: f64,
    pub max: f64,
}

impl Limits {
    /// The least and the greatest rate of two decimals, in hundredths; `None` where no rate of
    /// two decimals lies between the limits.
    pub fn hundredths(self) -> Option<(f64, f64)> {
        let min = (self.min * 100.0 - HUNDREDTH_SLACK).ceil();
        let max = (self.max * 100.0 + HUNDREDTH_SLACK).floor();
        (min <= max).then_some((min, max))
    }
}

/// The whole hundredths nearest to a rate or a change of one; a half goes away from zero.
pub fn hundredths(rate: f64) -> f64 {
    (rate * 100.0 + HUNDREDTH_SLACK.copysign(rate)).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_goes_away_from_zero_however_it_is_spelled_in_binary() {
        for (rate, expected) in [(1.005, 101.0), (2.675, 268.0), (0.93, 93.0), (-0.145, -15.0), (0.0, 0.0)] {
            assert_eq!(hundredths(rate), expected, "{rate}");
        }
    }

    #[test]
    fn limits_between_which_no_hundredth_lies_have_none() {
        let limits = |min, max| Limits { min, max }.hundredths();
        assert_eq!(limits(0.8, 1.2), Some((80.0, 120.0)));
        assert_eq!(limits(0.801, 0.809), None);
        assert_eq!(limits(1.2, 0.8), None);
    }
}
