//! Keys of which nothing is heard at all.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Waking;
use crate::model::Timestamp;

/// Whether it was said that nothing comes, and when it may be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    is_told: bool,
    /// Nobody looked for some of the time: what was missed then was not missed.
    #[serde(skip)]
    not_before: Option<Timestamp>,
}

impl Silence {
    /// When it is to be said, something being missed from `silent_from` on; once is enough.
    pub fn due(&self, silent_from: Timestamp) -> Option<Timestamp> {
        (!self.is_told).then(|| self.not_before.map_or(silent_from, |due| due.max(silent_from)))
    }

    /// Whether it is to be said now: somebody has looked for `patience`.
    pub fn is_to_be_told(&mut self, waking: &Waking<'_>, patience: Duration) -> bool {
        let looked = Duration::from_millis(waking.at.millis_since(waking.held_since).max(0).unsigned_abs());
        let left = patience.saturating_sub(looked);
        self.not_before = (!left.is_zero()).then(|| waking.time.plus(left));
        self.is_told = left.is_zero();
        self.is_told
    }
}
