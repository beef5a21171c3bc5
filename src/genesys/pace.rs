//! How far apart polls come: what shares a client slows them when the month's allowance of calls
//! does not last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many times as far apart as configured; clones share it.
#[derive(Clone, Debug)]
pub struct Pace(Arc<AtomicU32>);

const HUNDREDTHS: f64 = 100.0;

impl Default for Pace {
    /// As configured.
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(HUNDREDTHS as u32)))
    }
}

impl Pace {
    /// At least 1; hundredths count.
    pub fn set(&self, stretch: f64) {
        // Saturates, and NaN is 0.
        let hundredths = ((stretch * HUNDREDTHS).round() as u32).max(HUNDREDTHS as u32);
        self.0.store(hundredths, Ordering::Relaxed);
    }

    pub fn stretch(&self) -> f64 {
        f64::from(self.0.load(Ordering::Relaxed)) / HUNDREDTHS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_never_hurried() {
        let (pace, other) = (Pace::default(), Pace::default());
        let clone = pace.clone();
        for (stretch, expected) in [(1.8, 1.8), (0.2, 1.0), (f64::NAN, 1.0), (2.345, 2.35), (-1.0, 1.0)] {
            pace.set(stretch);
            assert_eq!((clone.stretch(), other.stretch()), (expected, 1.0), "{stretch}");
        }
    }
}
