//! Whether a series rises: Theil–Sen slope and Mann–Kendall test. Neither minds
//! outliers, and neither assumes how the noise is distributed.

use crate::model::lag::Trend;

/// Points below which nothing is said: with fewer, chance alone reaches p < .05.
const LEAST_POINTS: usize = 4;

/// The trend of `(time in ms, age in ms)`, oldest first; `None` with too few points.
///
/// Slope: H. Theil (1950), P. K. Sen (1968), the median over all pairs. Probability:
/// one-sided Mann–Kendall with correction for ties and continuity (M. G. Kendall, 1975).
pub(super) fn trend(points: &[(u64, u64)]) -> Option<Trend> {
    let n = points.len();
    if n < LEAST_POINTS {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    let mut score = 0i64;
    for (index, (earlier, before)) in points.iter().enumerate() {
        for (later, after) in &points[index + 1..] {
            let rise = *after as f64 - *before as f64;
            score += i64::from(after > before) - i64::from(after < before);
            if later > earlier {
                slopes.push(rise / (later - earlier) as f64);
            }
        }
    }
    if slopes.is_empty() {
        return None;
    }
    let p_value = match deviation(points) {
        deviation if deviation > 0.0 => upper_tail((score as f64 - 1.0) / deviation),
        // All values are the same.
        _ => 1.0,
    };
    Some(Trend { slope: median(&mut slopes), p_value })
}

/// Standard deviation of the Mann–Kendall score where there is no trend.
fn deviation(points: &[(u64, u64)]) -> f64 {
    let term = |n: usize| (n * (n - 1) * (2 * n + 5)) as f64;
    let mut values: Vec<u64> = points.iter().map(|(_, value)| *value).collect();
    values.sort_unstable();
    let ties: f64 = values.chunk_by(|a, b| a == b).map(|tied| term(tied.len())).sum();
    ((term(points.len()) - ties) / 18.0).sqrt()
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    let upper = *upper;
    if below.is_empty() || !values.len().is_multiple_of(2) {
        return upper;
    }
    let lower = values[..middle].iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lower + upper) / 2.0
}

/// P(Z ≥ z) of the standard normal distribution, by Abramowitz and Stegun 7.1.26
/// (error below 1.5e-7).
fn upper_tail(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = t
        * (0.254_829_592
            + t * (-0.284_496_736 + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = polynomial * (-x * x).exp() / 2.0;
    if z >= 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_ten_seconds(ages: &[u64]) -> Vec<(u64, u64)> {
        (0..).step_by(10_000).zip(ages.iter().copied()).collect()
    }

    #[test]
    fn a_steady_rise_has_its_slope_and_little_doubt() {
        let ages: Vec<u64> = (0..30).map(|poll| 1_000 + 500 * poll).collect();
        let found = trend(&every_ten_seconds(&ages)).unwrap();
        assert!((found.slope - 0.05).abs() < 1e-12, "{found:?}");
        assert!(found.p_value < 1e-6, "{found:?}");
    }

    #[test]
    fn one_outlier_changes_nothing_and_a_fall_is_no_rise() {
        let mut ages: Vec<u64> = (0..30).map(|poll| 1_000 + 500 * poll).collect();
        ages[3] = 900_000;
        let found = trend(&every_ten_seconds(&ages)).unwrap();
        assert!((found.slope - 0.05).abs() < 0.01 && found.p_value < 0.001, "{found:?}");
        ages.reverse();
        let found = trend(&every_ten_seconds(&ages)).unwrap();
        assert!(found.slope < 0.0 && found.p_value > 0.99, "{found:?}");
    }

    #[test]
    fn a_saw_tooth_and_a_constant_do_not_rise() {
        let saw: Vec<u64> = (0..30).map(|poll| 1_000 * (poll % 6)).collect();
        assert!(trend(&every_ten_seconds(&saw)).unwrap().p_value > 0.05);
        let found = trend(&every_ten_seconds(&[7_000; 30])).unwrap();
        assert_eq!((found.slope, found.p_value), (0.0, 1.0));
    }

    #[test]
    fn few_points_say_nothing_and_equal_times_do_not_divide_by_zero() {
        assert_eq!(trend(&every_ten_seconds(&[1, 2, 3])), None);
        assert_eq!(trend(&[(5, 1), (5, 2), (5, 3), (5, 4)]), None);
    }

    /// Values of the tables of the standard normal distribution.
    #[test]
    fn tails_are_those_of_the_tables() {
        for (z, tail) in [(0.0, 0.5), (1.0, 0.158_655), (1.644_854, 0.05), (2.326_348, 0.01)] {
            assert!((upper_tail(z) - tail).abs() < 1e-6, "{z}");
            assert!((upper_tail(-z) - (1.0 - tail)).abs() < 1e-6, "-{z}");
        }
    }
}
