//! What the versions of a flow did before: the baseline that a new one is held against.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::attribution::granted_rate;
use crate::model::Timestamp;
use crate::model::rollback::{Baseline, Candidate, CandidateReason};

/// Versions remembered besides the one in force.
const PAST_LIMIT: usize = 4;
/// Interactions per hour of the day before older ones begin to count half.
const HOUR_LIMIT: u64 = 20_000;
const HOURS: usize = 24;
const HOUR_MS: i64 = 3_600_000;

/// Interactions and errors of one version by hour of the day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InteractionCounts {
    hours: [(u64, u64); HOURS],
}

impl InteractionCounts {
    pub fn add(&mut self, minute: Timestamp, total: u64, errors: u64) {
        let (all, bad) = &mut self.hours[hour_of(minute)];
        (*all, *bad) = (all.saturating_add(total), bad.saturating_add(errors));
        if *all > HOUR_LIMIT {
            (*all, *bad) = (*all / 2, *bad / 2);
        }
    }

    /// Interactions and errors in the hours of the day from one time to another.
    fn between(&self, from: Timestamp, until: Timestamp) -> (u64, u64) {
        let hours = usize::try_from(until.millis_since(from).max(0) / HOUR_MS + 2).unwrap_or(HOURS);
        let mut at = from;
        let mut sum = (0u64, 0u64);
        for _ in 0..hours.min(HOURS) {
            if at.as_millis().div_euclid(HOUR_MS) > until.as_millis().div_euclid(HOUR_MS) {
                break;
            }
            let (total, errors) = self.hours[hour_of(at)];
            sum = (sum.0.saturating_add(total), sum.1.saturating_add(errors));
            at = at.plus(Duration::from_millis(HOUR_MS.unsigned_abs()));
        }
        sum
    }

    fn sum(&self) -> (u64, u64) {
        let add =
            |sum: (u64, u64), hour: &(u64, u64)| (sum.0.saturating_add(hour.0), sum.1.saturating_add(hour.1));
        self.hours.iter().fold((0, 0), add)
    }
}

fn hour_of(at: Timestamp) -> usize {
    usize::try_from(at.as_millis().div_euclid(HOUR_MS).rem_euclid(HOURS as i64)).unwrap_or(0)
}

/// How a version was when it ceased to be in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Nothing speaks against it, and it was not in force for long.
    #[default]
    Unproven,
    /// It was in force without a breach for as long as a publish can be taken back.
    Proven,
    /// People went back from it to an older one.
    LeftForOlder,
    /// It was replaced while it failed.
    Failing,
}

/// A version that was in force before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    pub version: String,
    pub counts: InteractionCounts,
    /// Newest minute counted.
    pub minute: Timestamp,
    /// It was taken back: it is nobody's baseline, and nobody goes back to it.
    pub bad: bool,
    #[serde(default)]
    pub standing: Standing,
    /// It was in force for as long as a publish can be taken back, breach or not: what it did
    /// is what the flow did.
    #[serde(default)]
    pub established: bool,
}

impl Past {
    /// Of which nothing is known but its interactions.
    pub fn unproven(version: &str, counts: InteractionCounts, minute: Timestamp) -> Self {
        let standing = Standing::Unproven;
        Self { version: version.to_owned(), counts, minute, bad: false, standing, established: false }
    }

    fn is_doubtful(&self) -> bool {
        self.bad || matches!(self.standing, Standing::LeftForOlder | Standing::Failing)
    }

    /// Whether a newer version may be held against it: one that failed from its publish to its
    /// end says nothing about what the flow is like.
    fn is_comparable(&self) -> bool {
        !self.bad && (self.established || self.standing != Standing::Failing)
    }
}

/// The versions that were in force before, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History(Vec<Past>);

impl History {
    /// Minutes after `anew` are new again where a clock that was ahead has told later ones.
    pub fn forget_after(&mut self, latest: Timestamp, anew: Timestamp) {
        self.0.iter_mut().filter(|past| past.minute > latest).for_each(|past| past.minute = anew);
    }

    pub fn get_mut(&mut self, version: &str) -> Option<&mut Past> {
        self.0.iter_mut().find(|past| past.version == version)
    }

    /// Remembers a version that is no longer in force; the oldest doubtful one is forgotten,
    /// or the oldest of all.
    pub fn push(&mut self, past: Past) {
        self.0.retain(|other| other.version != past.version);
        if self.0.len() == PAST_LIMIT {
            self.0.remove(self.0.iter().position(Past::is_doubtful).unwrap_or(0));
        }
        self.0.push(past);
    }

    /// Remembers a version from before all others, if there is room.
    pub fn push_older(&mut self, past: Past) {
        if self.0.len() < PAST_LIMIT {
            self.0.insert(0, past);
        }
    }

    /// Takes a version out because it is in force again.
    pub fn take(&mut self, version: &str) -> Option<Past> {
        let at = self.0.iter().position(|past| past.version == version)?;
        Some(self.0.remove(at))
    }

    /// Versions to go back to from the one in force, best first: the baseline it was held
    /// against, versions that proved good, those of which no ill is known, and doubtful ones;
    /// each kind newest first.
    pub fn candidates(&self, baseline: Option<&Baseline>) -> Vec<Candidate> {
        let reason = |past: &Past| match past.standing {
            Standing::LeftForOlder => CandidateReason::LeftForOlder,
            Standing::Failing => CandidateReason::ReplacedWhileFailing,
            _ if baseline.is_some_and(|it| it.flow_version == past.version) => CandidateReason::Baseline,
            Standing::Proven => CandidateReason::Proven,
            Standing::Unproven => CandidateReason::InForceBefore,
        };
        let fit = self.0.iter().rev().filter(|past| !past.bad && !past.version.is_empty());
        let mut candidates: Vec<_> =
            fit.map(|past| Candidate { flow_version: past.version.clone(), reason: reason(past) }).collect();
        candidates.sort_by_key(|candidate| candidate.reason);
        candidates
    }

    /// Whether anything is remembered of this version.
    pub fn knows(&self, version: &str) -> bool {
        self.0.iter().any(|past| past.version == version)
    }

    /// The newest version before that says something about the flow and had at least `least` interactions,
    /// over the hours of the day between these times or, where those hold fewer, over all.
    pub fn baseline(&self, from: Timestamp, until: Timestamp, least: u64) -> Option<Baseline> {
        let past = self.0.iter().rev().find(|past| past.is_comparable())?;
        let within = past.counts.between(from, until);
        let same_hours = within.0 >= least;
        let (total, errors) = if same_hours { within } else { past.counts.sum() };
        (total >= least && total > 0).then(|| Baseline {
            flow_version: past.version.clone(),
            total,
            errors,
            same_hours,
            granted_rate: granted_rate(errors, total),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_millis(hour * HOUR_MS)
    }

    fn past(version: &str) -> Past {
        Past::unproven(version, InteractionCounts::default(), at(0))
    }

    #[test]
    fn the_same_hours_of_the_day_come_first() {
        let mut history = History::default();
        let mut version = past("1");
        version.counts.add(at(9), 1_000, 10);
        version.counts.add(at(22), 1_000, 90);
        history.push(version);
        let baseline = history.baseline(at(24 + 8), at(24 + 10), 200).unwrap();
        assert_eq!((baseline.total, baseline.errors, baseline.same_hours), (1_000, 10, true));
        let wider = history.baseline(at(24 + 2), at(24 + 3), 200).unwrap();
        assert_eq!((wider.total, wider.errors, wider.same_hours), (2_000, 100, false));
        let whole_day = history.baseline(at(24), at(240), 200).unwrap();
        assert_eq!(whole_day.total, 2_000);
        assert_eq!(history.baseline(at(24), at(25), 2_001), None, "too few interactions");
    }

    #[test]
    fn old_interactions_fade_and_keep_their_rate() {
        let mut counts = InteractionCounts::default();
        (0..1_000).for_each(|_| counts.add(at(5), 1_000, 50));
        let (total, errors) = counts.sum();
        assert!(total <= HOUR_LIMIT && errors.abs_diff(total / 20) <= 1, "{errors} of {total}");
    }

    #[test]
    fn few_versions_are_remembered_and_bad_ones_are_no_baseline() {
        let mut history = History::default();
        for version in ["1", "2", "3", "4", "5"] {
            let mut past = past(version);
            past.counts.add(at(1), 500, 5);
            past.bad = version == "5";
            history.push(past);
        }
        assert!(history.get_mut("1").is_none(), "the oldest is forgotten");
        assert_eq!(history.baseline(at(1), at(2), 200).unwrap().flow_version, "4");
    }

    #[test]
    fn a_good_version_outlives_any_number_of_bad_ones() {
        let mut history = History::default();
        history.push(Past { standing: Standing::Proven, ..past("1") });
        for number in 2..20 {
            history.push(Past { standing: Standing::Failing, ..past(&number.to_string()) });
        }
        assert_eq!(history.candidates(None)[0].flow_version, "1");
    }
}
