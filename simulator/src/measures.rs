//! Interactions and errors of one flow, and what of them Genesys Cloud's own interface tells.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use crate::series::Series;
use crate::time::Timestamp;

/// What happened within a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub interactions: u64,
    pub errors: u64,
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.interactions += other.interactions;
        self.errors += other.errors;
    }
}

/// Interactions with one version that left it the same way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Visits {
    pub count: u64,
    pub outcomes: u64,
    pub outcomes_failed: u64,
    /// Time spent in the flow.
    pub ms: Spread,
}

impl AddAssign for Visits {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.outcomes += other.outcomes;
        self.outcomes_failed += other.outcomes_failed;
        self.ms += other.ms;
    }
}

/// Some values: how many, their sum, the least and the greatest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Spread {
    pub count: u64,
    pub sum: u64,
    pub min: u64,
    pub max: u64,
}

impl Spread {
    pub(crate) fn of(value: u64) -> Self {
        Self { count: 1, sum: value, min: value, max: value }
    }
}

impl AddAssign for Spread {
    fn add_assign(&mut self, other: Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.count += other.count;
        self.sum += other.sum;
    }
}

/// Counted when an interaction leaves the flow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measures {
    totals: Series<Total>,
    /// By version and exit reason.
    visits: BTreeMap<(Arc<str>, &'static str), Series<Visits>>,
}

impl Measures {
    pub(crate) fn count(&mut self, at: Timestamp, failed: bool) {
        self.totals.add(at, Total { interactions: 1, errors: u64::from(failed) });
    }

    pub(crate) fn count_visit(
        &mut self,
        at: Timestamp,
        version: &Arc<str>,
        exit_reason: &'static str,
        visits: Visits,
    ) {
        self.visits.entry((version.clone(), exit_reason)).or_default().add(at, visits);
    }

    /// Of the seconds that began within the span.
    pub(crate) fn between(&self, start: Timestamp, end: Timestamp) -> Total {
        self.totals.between(start, end)
    }

    /// Version, exit reason and what happened that way.
    pub(crate) fn visits(&self) -> impl Iterator<Item = (&Arc<str>, &'static str, &Series<Visits>)> {
        self.visits.iter().map(|((version, exit_reason), series)| (version, *exit_reason, series))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_hold_what_happened_in_them() {
        let mut measures = Measures::default();
        let at = Timestamp::from_millis;
        for (ms, failed) in [(61_500, false), (60_000, true), (119_999, true), (120_000, false)] {
            measures.count(at(ms), failed);
        }
        let total = |interactions, errors| Total { interactions, errors };
        assert_eq!(measures.between(at(60_000), at(120_000)), total(3, 2));
        assert_eq!(measures.between(at(0), at(500_000)), total(4, 2));
        assert_eq!(measures.between(at(121_000), at(500_000)), total(0, 0));
    }

    #[test]
    fn a_spread_of_nothing_changes_none() {
        let mut spread = Spread::default();
        for value in [7, 3] {
            spread += Spread::of(value);
            spread += Spread::default();
        }
        assert_eq!(spread, Spread { count: 2, sum: 10, min: 3, max: 7 });
    }
}
