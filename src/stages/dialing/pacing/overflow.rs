//! Answers that nobody is free for: the expected excess of a binomial count.

use std::sync::LazyLock;

/// Lines that ring at once, at most; what is beyond counts as this many.
pub const MOST_LINES: u64 = 4_096;

/// Below this a further term does not change a rate on the grid.
const NEGLIGIBLE: f64 = 1e-9;

/// Logarithms of the factorials of 0 to [`MOST_LINES`].
static LN_FACTORIAL: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let mut sum = 0.0;
    (0..=MOST_LINES)
        .map(|number| {
            sum += if number > 1 { (number as f64).ln() } else { 0.0 };
            sum
        })
        .collect()
});

/// `E[(X − takers)+]` for X binomial with `lines` and `probability` (0 < p < 1): of the calls
/// answered, how many find nobody on average.
pub fn expected_excess(lines: u64, probability: f64, takers: u64) -> f64 {
    let lines = lines.min(MOST_LINES);
    if lines <= takers {
        return 0.0;
    }
    let mean = lines as f64 * probability;
    let deviation = (mean * (1.0 - probability)).sqrt();
    if ((takers + 1) as f64) < mean - 6.0 * deviation {
        return mean - takers as f64;
    }
    let first = takers + 1;
    let ln_factorial = |number: u64| LN_FACTORIAL[number as usize];
    let ln_choices = ln_factorial(lines) - ln_factorial(first) - ln_factorial(lines - first);
    let ln_first =
        ln_choices + first as f64 * probability.ln() + (lines - first) as f64 * (1.0 - probability).ln();
    let odds = probability / (1.0 - probability);
    let (mut chance, mut sum) = (ln_first.exp(), 0.0);
    for answered in first..=lines {
        let term = (answered - takers) as f64 * chance;
        sum += term;
        if answered as f64 > mean && term < NEGLIGIBLE {
            break;
        }
        chance *= (lines - answered) as f64 / (answered + 1) as f64 * odds;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Term by term from 0, as the definition has it.
    fn by_definition(lines: u64, probability: f64, takers: u64) -> f64 {
        let mut chance = (1.0 - probability).powi(lines as i32);
        let mut sum = 0.0;
        for answered in 0..=lines {
            sum += answered.saturating_sub(takers) as f64 * chance;
            chance *= (lines - answered) as f64 / (answered + 1) as f64 * probability / (1.0 - probability);
        }
        sum
    }

    proptest! {
        #[test]
        fn it_is_what_the_definition_says(lines in 0u64..200, probability in 0.01f64..0.9, takers in 0u64..60) {
            let (found, wanted) = (expected_excess(lines, probability, takers), by_definition(lines, probability, takers));
            prop_assert!((found - wanted).abs() < 1e-6, "{found} {wanted}");
        }

        #[test]
        fn more_lines_lose_more_and_more_takers_less(lines in 1u64..4_000, probability in 0.01f64..0.98, takers in 0u64..500) {
            let here = expected_excess(lines, probability, takers);
            prop_assert!(here >= 0.0 && here <= lines as f64 * probability + 1e-6);
            prop_assert!(expected_excess(lines + 1, probability, takers) >= here - 1e-6);
            prop_assert!(expected_excess(lines, probability, takers + 1) <= here + 1e-6);
        }
    }

    #[test]
    fn simple_cases() {
        assert_eq!(expected_excess(3, 0.5, 3), 0.0);
        assert!((expected_excess(2, 0.5, 1) - 0.25).abs() < 1e-12);
        assert!((expected_excess(4_000, 0.9, 10) - 3_590.0).abs() < 1e-6);
        assert!(expected_excess(u64::MAX, 0.5, 0).is_finite());
    }
}
