//! Random draws that come out the same for one seed, on every run and with every
//! version of the libraries: only the bit stream is borrowed, the distributions are here.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// One independent stream of draws.
#[derive(Clone, Debug)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream `name` of `seed`. Streams do not touch each other, so adding a
    /// campaign leaves the lives of the others as they were.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let digest = Sha256::digest(name.as_bytes());
        let stream = digest[..8].iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        generator.set_stream(stream);
        Self(generator)
    }

    /// In `[0, 1)`, with 53 random bits.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with the given probability; 0 is never, 1 is always.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    /// A whole number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low) as f64 + 1.0;
        low + ((self.fraction() * span) as u64).min(high.saturating_sub(low))
    }

    /// A random UUID (version 4).
    pub(crate) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.0.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Mean 0, deviation 1 (Box and Muller 1958).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.fraction()).cos()
    }

    /// Lognormal with the given mean and coefficient of variation (deviation ÷ mean).
    pub(crate) fn lognormal(&mut self, mean: f64, variation: f64) -> f64 {
        let variance = (1.0 + variation * variation).ln();
        (mean.ln() - variance / 2.0 + variance.sqrt() * self.normal()).exp()
    }

    /// Exponential with the given mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.fraction()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_and_deviation(mut draw: impl FnMut() -> f64) -> (f64, f64) {
        let draws: Vec<f64> = (0..100_000).map(|_| draw()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / draws.len() as f64;
        (mean, variance.sqrt())
    }

    #[test]
    fn distributions_have_the_moments_they_are_asked_for() {
        let mut chance = Chance::new(7, "moments");
        let (mean, deviation) = mean_and_deviation(|| chance.normal());
        assert!(mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02, "{mean} {deviation}");
        let (mean, deviation) = mean_and_deviation(|| chance.lognormal(180.0, 0.7));
        assert!((mean - 180.0).abs() < 3.0 && (deviation - 126.0).abs() < 5.0, "{mean} {deviation}");
        let (mean, deviation) = mean_and_deviation(|| chance.exponential(30.0));
        assert!((mean - 30.0).abs() < 0.5 && (deviation - 30.0).abs() < 0.7, "{mean} {deviation}");
    }

    #[test]
    fn whole_numbers_reach_both_ends_and_nothing_else() {
        let mut chance = Chance::new(7, "ends");
        let mut seen = [0u32; 20];
        (0..10_000).for_each(|_| seen[chance.between(6, 18) as usize] += 1);
        assert!(seen[6..=18].iter().all(|count| *count > 500), "{seen:?}");
        assert_eq!(seen[..6].iter().chain(&seen[19..]).sum::<u32>(), 0);
        assert_eq!(chance.between(5, 5), 5);
    }

    #[test]
    fn streams_repeat_by_name_and_differ_between_names() {
        let draws = |seed, name| {
            let mut chance = Chance::new(seed, name);
            [chance.fraction(), chance.fraction(), chance.fraction()]
        };
        assert_eq!(draws(1, "a"), draws(1, "a"));
        assert_ne!(draws(1, "a"), draws(1, "b"));
        assert_ne!(draws(1, "a"), draws(2, "a"));
    }
}
