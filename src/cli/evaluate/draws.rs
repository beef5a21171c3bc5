//! Random counts for simulated minutes.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Random counts by inversion: the same for one seed with every version of the libraries.
pub(super) struct Draws(ChaCha8Rng);

impl Draws {
    /// Those of one run; runs of one seed have nothing to do with each other.
    pub(super) fn of_run(seed: u64, run: u32) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed ^ (u64::from(run) << 32)))
    }

    fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    pub(super) fn poisson(&mut self, mean: f64) -> u64 {
        let next = |count: u64, chance: f64| chance * mean / (count + 1) as f64;
        self.invert((-mean).exp(), 10_000, next)
    }

    pub(super) fn binomial(&mut self, trials: u64, rate: f64) -> u64 {
        let odds = rate / (1.0 - rate);
        let next = |count: u64, chance: f64| chance * odds * (trials - count) as f64 / (count + 1) as f64;
        self.invert((1.0 - rate).powf(trials as f64), trials, next)
    }

    /// The count whose cumulated chance passes a random fraction.
    fn invert(&mut self, none: f64, most: u64, next: impl Fn(u64, f64) -> f64) -> u64 {
        let mut left = self.fraction();
        let mut chance = none;
        for count in 0..most {
            left -= chance;
            if left < 0.0 {
                return count;
            }
            chance = next(count, chance);
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_the_moments_they_are_asked_for() {
        let mut draws = Draws::of_run(7, 0);
        let mean = |counts: Vec<u64>| counts.iter().sum::<u64>() as f64 / counts.len() as f64;
        let poisson = mean((0..20_000).map(|_| draws.poisson(30.0)).collect());
        assert!((poisson - 30.0).abs() < 0.2, "{poisson}");
        let binomial = mean((0..20_000).map(|_| draws.binomial(300, 0.045)).collect());
        assert!((binomial - 13.5).abs() < 0.15, "{binomial}");
        assert_eq!((draws.binomial(0, 0.5), draws.binomial(5, 0.0)), (0, 0));
    }
}
