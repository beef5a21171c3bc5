//! What campaigns' calls came to, by the machine's clock.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use crate::dialer::CallCounts;
use crate::series::Series;
use crate::time::Timestamp;

/// Calls within a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub attempted: u64,
    pub connected: u64,
    pub abandoned: u64,
}

impl AddAssign for Calls {
    fn add_assign(&mut self, other: Self) {
        self.attempted += other.attempted;
        self.connected += other.connected;
        self.abandoned += other.abandoned;
    }
}

/// All campaigns' calls.
#[derive(Debug, Default)]
pub(crate) struct CallHistory(BTreeMap<String, (CallCounts, Series<Calls>)>);

impl CallHistory {
    /// Takes down what has been added to a campaign's counters since the last time.
    pub(crate) fn record(&mut self, campaign_id: &str, counts: CallCounts, at: Timestamp) {
        let Some((seen, series)) = self.0.get_mut(campaign_id) else {
            self.0.insert(campaign_id.to_owned(), (CallCounts::default(), Series::default()));
            return self.record(campaign_id, counts, at);
        };
        let calls = Calls {
            attempted: counts.attempts - seen.attempts,
            connected: counts.answers - seen.answers,
            abandoned: counts.abandoned - seen.abandoned,
        };
        *seen = counts;
        if calls != Calls::default() {
            series.add(at, calls);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Series<Calls>)> {
        self.0.iter().map(|(id, (_, series))| (id.as_str(), series))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_counts_and_when_it_was_seen() {
        let mut history = CallHistory::default();
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let counts =
            |attempts, answers, abandoned| CallCounts { attempts, answers, abandoned, ..Default::default() };
        history.record("a", counts(10, 4, 0), at(10));
        history.record("a", counts(10, 4, 0), at(20));
        history.record("a", counts(15, 6, 1), at(30));
        let (id, series) = history.iter().next().unwrap();
        assert_eq!(id, "a");
        assert_eq!(series.between(at(0), at(30)), Calls { attempted: 10, connected: 4, abandoned: 0 });
        assert_eq!(series.between(at(30), at(31)), Calls { attempted: 5, connected: 2, abandoned: 1 });
    }
}
