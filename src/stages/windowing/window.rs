//! The last samples actually held, in the order of their observation.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::campaign::WINDOW_SAMPLES;

/// At most [`WINDOW_SAMPLES`] samples, oldest first, no two of the same time.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window {
    samples: ArrayVec<(Timestamp, f64), WINDOW_SAMPLES>,
}

/// Where a sample went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    Newest,
    /// Between older and newer ones.
    InBetween,
    /// Nowhere: its time is held already.
    Repeated,
    /// Nowhere: the window is full of newer ones.
    BeforeWindow,
}

impl Window {
    /// Takes a sample into the window; the oldest one makes room.
    pub(super) fn hold(&mut self, observed_at: Timestamp, answer_rate: f64) -> Held {
        let place = self.samples.partition_point(|(time, _)| *time < observed_at);
        if self.samples.get(place).is_some_and(|(time, _)| *time == observed_at) {
            return Held::Repeated;
        }
        let newest = place == self.samples.len();
        let place = if self.samples.is_full() {
            if place == 0 {
                return Held::BeforeWindow;
            }
            self.samples.remove(0);
            place - 1
        } else {
            place
        };
        self.samples.insert(place, (observed_at, answer_rate));
        if newest { Held::Newest } else { Held::InBetween }
    }

    /// Time of the oldest sample.
    pub(super) fn first_observed_at(&self) -> Option<Timestamp> {
        self.samples.first().map(|(time, _)| *time)
    }

    /// Time of the newest sample.
    pub(super) fn last_observed_at(&self) -> Option<Timestamp> {
        self.samples.last().map(|(time, _)| *time)
    }

    /// Lets go of samples later than that.
    pub(super) fn forget_after(&mut self, latest: Timestamp) {
        while self.last_observed_at().is_some_and(|time| time > latest) {
            self.samples.pop();
        }
    }

    pub(super) fn answer_rates(&self) -> ArrayVec<f64, WINDOW_SAMPLES> {
        self.samples.iter().map(|(_, rate)| *rate).collect()
    }

    /// Mean of the samples held, 0 when there are none. Taken as the oldest sample
    /// plus the mean distance from it, so that equal samples are exactly their own mean.
    pub(super) fn mean(&self) -> f64 {
        let Some((_, oldest)) = self.samples.first() else {
            return 0.0;
        };
        let distance: f64 = self.samples.iter().map(|(_, rate)| rate - oldest).sum();
        let rates = || self.samples.iter().map(|(_, rate)| *rate);
        let (least, greatest) = (rates().fold(*oldest, f64::min), rates().fold(*oldest, f64::max));
        (oldest + distance / self.samples.len() as f64).clamp(least, greatest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Any order of arrival leaves the newest samples, each once, in order,
        /// as long as no sample is held back beyond the window.
        #[test]
        fn any_order_within_the_window_gives_the_same_window(
            rates in proptest::collection::vec(0.0f64..=1.0, 1..=WINDOW_SAMPLES),
            seed in any::<u64>(),
        ) {
            let samples: Vec<_> =
                rates.iter().enumerate().map(|(tick, rate)| (Timestamp::from_millis(tick as i64), *rate)).collect();
            let mut shuffled = samples.clone();
            shuffled.sort_by_key(|(time, _)| (time.as_millis() as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut window = Window::default();
            for (time, rate) in shuffled {
                window.hold(time, rate);
                prop_assert_eq!(window.hold(time, rate), Held::Repeated);
            }
            prop_assert_eq!(window.samples.as_slice(), samples.as_slice());
        }

        #[test]
        fn the_mean_lies_among_the_samples(rates in proptest::collection::vec(0.0f64..=1.0, 1..40)) {
            let mut window = Window::default();
            for (tick, rate) in rates.iter().enumerate() {
                window.hold(Timestamp::from_millis(tick as i64), *rate);
            }
            let held = window.answer_rates();
            prop_assert_eq!(held.as_slice(), &rates[rates.len().saturating_sub(WINDOW_SAMPLES)..]);
            let least = held.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = held.iter().copied().fold(0.0, f64::max);
            prop_assert!((least..=greatest).contains(&window.mean()));
        }
    }
}
