//! The last samples actually held, in the order of their observation.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::campaign::WINDOW_SAMPLES;

/// At most [`WINDOW_SAMPLES`] samples, oldest first, no two of the same time.
#[derive(Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window {
    #[serde(with = "samples")]
    samples: ArrayVec<(Timestamp, f64), WINDOW_SAMPLES>,
}

/// Samples as they are kept: times and rates in one row, each time in milliseconds since the one
/// before. Up to version 1 of the state each sample was a list of its own, with its time as text.
mod samples {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::{SerializeSeq as _, Serializer};

    use super::{ArrayVec, Timestamp, WINDOW_SAMPLES};
    use crate::pipeline::row::Piece;

    type Samples = ArrayVec<(Timestamp, f64), WINDOW_SAMPLES>;

    pub(super) fn serialize<S: Serializer>(samples: &Samples, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_seq(Some(2 * samples.len()))?;
        let mut before = Timestamp::default();
        for (time, rate) in samples {
            row.serialize_element(&time.millis_since(before))?;
            row.serialize_element(rate)?;
            before = *time;
        }
        row.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Samples, D::Error> {
        let (mut samples, mut since, mut before) = (Samples::new(), None, Timestamp::default());
        // A double holds every millisecond.
        for piece in Vec::<Piece<f64, (Timestamp, f64)>>::deserialize(deserializer)? {
            let sample = match (piece, since.take()) {
                (Piece::Entry(sample), _) => sample,
                (Piece::Number(passed), None) => {
                    since = Some(passed as i64);
                    continue;
                }
                (Piece::Number(rate), Some(passed)) => {
                    before = Timestamp::from_millis(before.as_millis().saturating_add(passed));
                    (before, rate)
                }
            };
            samples.try_push(sample).map_err(D::Error::custom)?;
        }
        Ok(samples)
    }
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
        fn a_window_is_kept_in_one_row_and_read_as_it_was_kept_before(
            held in proptest::collection::vec((0i64..2_000_000_000_000, 0.0f64..=1.0), 0..=WINDOW_SAMPLES),
        ) {
            let mut window = Window::default();
            for (millis, rate) in held {
                window.hold(Timestamp::from_millis(millis), rate);
            }
            let kept = serde_json::to_string(&window).unwrap();
            let kept_before = serde_json::to_string(&window.samples).unwrap();
            prop_assert_eq!(kept.matches('[').count(), 1);
            for kept in [kept, kept_before] {
                let read: Window = serde_json::from_str(&kept).unwrap();
                prop_assert_eq!(&read.samples, &window.samples);
            }
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
