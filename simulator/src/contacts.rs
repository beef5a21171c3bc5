//! The people who are called: how likely they answer, and how long it rings.

use crate::chance::Chance;
use crate::scenario::Answering;

/// Ring time of a call that is answered, seconds (`docs/platform.md`).
pub(crate) const RING_ANSWERED_SECONDS: std::ops::RangeInclusive<u64> = 6..=18;
/// Ring time after which the dialer gives up, seconds.
pub(crate) const RING_UNANSWERED_SECONDS: u64 = 22;

/// The answering behaviour of one campaign's list.
#[derive(Clone, Debug)]
pub(crate) struct Contacts {
    answering: Answering,
    rate: f64,
}

impl Contacts {
    pub(crate) fn new(answering: Answering) -> Self {
        let rate = match &answering {
            Answering::Constant { rate } => *rate,
            Answering::Drifting { start, .. } => *start,
            Answering::Steps { steps } => steps.first().map_or(0.0, |step| step.1),
        };
        Self { answering, rate }
    }

    /// Probability that a call placed now is answered.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// The rate that never changes, where the scenario says so.
    pub(crate) fn constant(&self) -> Option<f64> {
        matches!(self.answering, Answering::Constant { .. }).then_some(self.rate)
    }

    /// Lets the rate change over the second that ends at `now`.
    pub(crate) fn step(&mut self, now: u64, chance: &mut Chance) {
        match &self.answering {
            Answering::Constant { .. } => {}
            Answering::Drifting { min, max, per_minute, .. } => {
                let moved = self.rate + per_minute / 60f64.sqrt() * chance.normal();
                let reflected = if moved < *min {
                    2.0 * min - moved
                } else if moved > *max {
                    2.0 * max - moved
                } else {
                    moved
                };
                self.rate = reflected.clamp(*min, *max);
            }
            Answering::Steps { steps } => {
                let in_force = steps.partition_point(|step| step.0 <= now);
                self.rate = steps[..in_force].last().map_or(self.rate, |step| step.1);
            }
        }
    }

    /// Whether a call placed now will be answered, and for how long it rings.
    pub(crate) fn call(&self, chance: &mut Chance) -> (bool, u64) {
        if chance.happens(self.rate) {
            (true, chance.between(*RING_ANSWERED_SECONDS.start(), *RING_ANSWERED_SECONDS.end()))
        } else {
            (false, RING_UNANSWERED_SECONDS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drifting_rate_moves_and_keeps_its_bounds() {
        let mut chance = Chance::new(3, "drift");
        let mut contacts =
            Contacts::new(Answering::Drifting { start: 0.3, min: 0.2, max: 0.4, per_minute: 0.05 });
        let rates: Vec<f64> = (1..=36_000)
            .map(|now| {
                contacts.step(now, &mut chance);
                contacts.rate()
            })
            .collect();
        assert!(rates.iter().all(|rate| (0.2..=0.4).contains(rate)));
        assert!(rates.iter().any(|rate| *rate < 0.22) && rates.iter().any(|rate| *rate > 0.38));
    }

    #[test]
    fn steps_take_force_at_their_second() {
        let mut chance = Chance::new(3, "steps");
        let mut contacts = Contacts::new(Answering::Steps { steps: vec![(0, 0.15), (100, 0.4)] });
        assert_eq!(contacts.rate(), 0.15);
        contacts.step(99, &mut chance);
        assert_eq!(contacts.rate(), 0.15);
        contacts.step(100, &mut chance);
        assert_eq!(contacts.rate(), 0.4);
    }

    #[test]
    fn the_share_of_answers_is_the_rate() {
        let mut chance = Chance::new(3, "share");
        let contacts = Contacts::new(Answering::Constant { rate: 0.25 });
        let answered = (0..100_000).filter(|_| contacts.call(&mut chance).0).count();
        assert!((24_500..25_500).contains(&answered), "{answered}");
    }
}
