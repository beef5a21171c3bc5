//! Which groups have metrics: the worst, and none that nobody hears of any more.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::metrics::{
    LAG_GROUP_AGE_SECONDS, LAG_GROUP_OPEN_TRANSACTION_SECONDS, LAG_GROUP_RECORDS, LAG_GROUP_REPLICAS,
    LAG_GROUP_STATUS, Metric,
};
use crate::model::Timestamp;
use crate::model::lag::{LagEvaluation, LagStatus};

/// Groups with metrics of their own at most: labels are bounded.
const MOST: usize = 500;
/// Groups known at most: those that are well are forgotten first.
const MOST_KNOWN: usize = 20_000;

const METRICS: [&Metric; 5] = [
    &LAG_GROUP_STATUS,
    &LAG_GROUP_RECORDS,
    &LAG_GROUP_AGE_SECONDS,
    &LAG_GROUP_REPLICAS,
    &LAG_GROUP_OPEN_TRANSACTION_SECONDS,
];

/// Groups heard of, by name.
#[derive(Default)]
pub(super) struct ShownGroups {
    known: BTreeMap<String, Known>,
}

struct Known {
    status: LagStatus,
    age_seconds: f64,
    valid_until: Timestamp,
    lag: Option<u64>,
    replicas: Option<u32>,
    open_transaction_seconds: Option<f64>,
    shown: bool,
}

impl ShownGroups {
    /// Takes the newest evaluations in.
    pub(super) fn update<'e>(
        &mut self,
        evaluations: impl Iterator<Item = &'e LagEvaluation>,
        now: Timestamp,
    ) {
        for evaluation in evaluations {
            let shown = self.known.get(&evaluation.consumer_group).is_some_and(|known| known.shown);
            let known = Known {
                status: evaluation.status,
                age_seconds: evaluation.age_seconds,
                valid_until: evaluation.valid_until,
                lag: evaluation.lag,
                replicas: evaluation.replicas,
                open_transaction_seconds: evaluation.open_transaction_seconds,
                shown,
            };
            self.known.insert(evaluation.consumer_group.clone(), known);
        }
        self.sweep(now);
    }

    /// Takes groups off the page that were deleted, or are another instance's to tell of
    /// now: nobody has heard of them here since their evaluation held.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        self.known.retain(|group, known| {
            let holds = known.valid_until >= now;
            if !holds && known.shown {
                hide(group);
            }
            holds
        });
        let mut worst: Vec<(&String, &mut Known)> = self.known.iter_mut().collect();
        // Of equals those that have been shown, so that series do not come and go.
        worst.sort_by(|(_, one), (_, other)| {
            let rank = |known: &Known| (known.status, Reverse(known.shown));
            rank(one).cmp(&rank(other)).then(other.age_seconds.total_cmp(&one.age_seconds))
        });
        for (place, (group, known)) in worst.iter_mut().enumerate() {
            if place < MOST {
                known.show(group);
            } else if known.shown {
                hide(group);
                known.shown = false;
            }
        }
        if worst.len() > MOST_KNOWN {
            let forgotten: Vec<String> =
                worst[MOST_KNOWN..].iter().map(|(group, _)| (*group).clone()).collect();
            for group in &forgotten {
                self.known.remove(group);
            }
        }
    }
}

impl Drop for ShownGroups {
    fn drop(&mut self) {
        self.known.iter().filter(|(_, known)| known.shown).for_each(|(group, _)| hide(group));
    }
}

impl Known {
    fn show(&mut self, group: &str) {
        self.shown = true;
        LAG_GROUP_STATUS.show(&[group], Some(f64::from(severity(self.status))));
        LAG_GROUP_AGE_SECONDS.show(&[group], Some(self.age_seconds));
        LAG_GROUP_RECORDS.show(&[group], self.lag.map(|lag| lag as f64));
        LAG_GROUP_REPLICAS.show(&[group], self.replicas.map(f64::from));
        LAG_GROUP_OPEN_TRANSACTION_SECONDS.show(&[group], self.open_transaction_seconds);
    }
}

fn hide(group: &str) {
    METRICS.iter().for_each(|metric| metric.hide(&[group]));
}

/// As the metric's help spells it: 0 is OK, 11 the worst.
fn severity(status: LagStatus) -> u8 {
    let worse = LagStatus::ALL.iter().rev().take_while(|other| **other != status).count();
    u8::try_from(worse).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn severities_are_those_the_metrics_help_names() {
        for (number, status) in LagStatus::ALL.iter().rev().enumerate() {
            assert_eq!(usize::from(severity(*status)), number);
            let named = format!("{number} {}", status.name());
            assert!(LAG_GROUP_STATUS.help.contains(&named), "{named}");
        }
    }

    fn evaluation(group: &str, status: LagStatus, at: Timestamp) -> LagEvaluation {
        let text = include_str!("../../../schemas/examples/trunkline.lag-status.v1/error.json");
        let evaluation: LagEvaluation = serde_json::from_str(text).unwrap();
        let valid_until = at.plus(Duration::from_secs(40));
        LagEvaluation { consumer_group: group.to_owned(), status, valid_until, ..evaluation }
    }

    /// Groups of one test's own on the page, by what stands after the prefix.
    fn page(prefix: &str) -> Vec<String> {
        let mut page = String::new();
        crate::metrics::shown::render(&mut page);
        let start = format!("{}{{group=\"{prefix}", LAG_GROUP_STATUS.name);
        let lines = page.lines().filter_map(|line| line.strip_prefix(&start));
        lines.map(|rest| rest.replace("\"}", "")).collect()
    }

    #[test]
    fn a_group_that_nobody_hears_of_leaves_the_page() {
        let (now, mut shown) = (Timestamp::from_millis(1_767_323_045_678), ShownGroups::default());
        shown.update([evaluation("gone: a", LagStatus::Stopped, now)].iter(), now);
        let later = now.plus(Duration::from_secs(41));
        shown.update([evaluation("gone: b", LagStatus::Ok, later)].iter(), later);
        assert_eq!(page("gone: "), ["b 0"]);
        shown.sweep(later.plus(Duration::from_secs(41)));
        assert!(page("gone: ").is_empty());
        shown.update([evaluation("gone: a", LagStatus::Ok, later)].iter(), later);
        assert_eq!(page("gone: "), ["a 0"], "and is back when it is heard of again");
        drop(shown);
        assert!(page("gone: ").is_empty(), "nor does one stay when nobody tells any more");
    }

    #[test]
    fn with_more_groups_than_series_the_worst_have_them() {
        let (now, mut shown) = (Timestamp::from_millis(1_767_323_045_678), ShownGroups::default());
        let many: Vec<_> =
            (0..600).map(|number| evaluation(&format!("many: {number:03}"), LagStatus::Ok, now)).collect();
        shown.update(many.iter(), now);
        assert_eq!(page("many: ").len(), MOST);
        shown.update([evaluation("many: 599", LagStatus::Stopped, now)].iter(), now);
        let told = page("many: ");
        assert!(told.len() == MOST && told.contains(&"599 8".to_owned()), "{told:?}");
        let kept = told.iter().filter(|line| line.ends_with(" 0")).count();
        assert_eq!(kept, MOST - 1);
    }
}
