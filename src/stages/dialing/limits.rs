//! A campaign's own limits of its dial rate, in whole hundredths.

/// Binary fractions come this close to the hundredth they stand for.
pub const HUNDREDTH_SLACK: f64 = 1e-6;

/// Lines per idle agent, as the platform has them.
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
