//! The counter lined up with a plan: who is how far behind, and who got how many.

use std::collections::BTreeMap;

use super::rule::{self, Standing};
use super::weights::Plan;
use crate::model::routing::RouteReason;
use crate::postgres::routing::Counts;

/// Groups in the order of the plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupCounters {
    /// Parts of an interaction that shares and deficits are counted in.
    unit: i64,
    standings: Vec<Standing>,
    decisions: Vec<i64>,
    /// Decisions for destinations that are no group of the plan: its default, or groups it
    /// had once.
    elsewhere: BTreeMap<String, i64>,
}

impl GroupCounters {
    /// `weights` in the order of the plan's groups, 0 for those that cannot take anything.
    ///
    /// What a group that the plan no longer has was owed or had too much is dealt to the
    /// others in equal parts, so that all deficits together stay 0.
    pub(super) fn new(plan: &Plan, counts: &Counts, weights: &[i64]) -> Self {
        let (mut standings, mut decisions) = (Vec::new(), Vec::new());
        for group in &plan.groups {
            let (deficit, count) = counts.groups.get(&*group.id).copied().unwrap_or_default();
            standings.push(Standing { share: 0, deficit });
            decisions.push(count);
        }
        let (mut left, mut elsewhere) = (0i64, BTreeMap::new());
        for (id, &(deficit, count)) in &counts.groups {
            if plan.index(id).is_none() {
                left = left.saturating_add(deficit);
                elsewhere.insert(id.clone(), count);
            }
        }
        let count = standings.len() as i64;
        for (index, standing) in (0..count).zip(&mut standings) {
            let dealt = left / count + (left % count).signum() * i64::from(index < (left % count).abs());
            standing.deficit = standing.deficit.saturating_add(dealt);
        }
        let mut group_counters = Self { unit: counts.unit, standings, decisions, elsewhere };
        group_counters.set_weights(weights);
        group_counters
    }

    /// Nothing was decided yet, and nobody has a share.
    pub(super) fn of_nothing(plan: &Plan) -> Self {
        let counts = Counts { unit: rule::MIN_UNIT, groups: BTreeMap::new() };
        Self::new(plan, &counts, &vec![0; plan.groups.len()])
    }

    /// Shares by these weights from now on; everybody stands where they stood.
    pub(super) fn set_weights(&mut self, weights: &[i64]) {
        let total: i64 = weights.iter().sum();
        let unit = if total == 0 { self.unit } else { rule::unit_for(total, self.unit) };
        if unit != self.unit {
            rule::rescale(&mut self.standings, self.unit, unit);
            self.unit = unit;
        }
        for (standing, &weight) in self.standings.iter_mut().zip(weights) {
            standing.share = if total == 0 { 0 } else { weight * (unit / total) };
        }
    }

    /// Whose turn it is, by index; `None` when nobody is available.
    pub(super) fn choose(&self) -> Option<usize> {
        rule::choose(&self.standings, self.unit)
    }

    /// Counts a decision. Only one by share moves the deficits.
    pub(super) fn book(&mut self, plan: &Plan, destination: &str, reason: RouteReason) {
        let index = plan.index(destination);
        if reason == RouteReason::Share {
            book(&mut self.standings, self.unit, index);
        }
        match index {
            Some(index) => self.decisions[index] += 1,
            None => *self.elsewhere.entry(destination.to_owned()).or_default() += 1,
        }
    }

    /// What went to this destination by share does not count after all.
    pub(super) fn take_back(&mut self, plan: &Plan, destination: &str) {
        let Some(index) = plan.index(destination) else { return };
        if self.standings.iter().any(|standing| standing.share > 0) {
            rule::take_back(&mut self.standings, self.unit, index);
        }
        self.decisions[index] = self.decisions[index].saturating_sub(1);
    }

    /// As the counter keeps it.
    pub(super) fn counts(&self, plan: &Plan) -> Counts {
        let planned = plan.groups.iter().zip(&self.standings).zip(&self.decisions);
        let planned =
            planned.map(|((group, standing), &count)| (group.id.to_string(), (standing.deficit, count)));
        let groups = planned.chain(self.elsewhere.iter().map(|(id, &count)| (id.clone(), (0, count))));
        Counts { unit: self.unit, groups: groups.collect() }
    }

    /// Destination, share and deficit of each group.
    pub(super) fn taken_from(&self, plan: &Plan) -> Vec<(String, i64, i64)> {
        let groups = plan.groups.iter().zip(&self.standings);
        groups.map(|(group, standing)| (group.id.to_string(), standing.share, standing.deficit)).collect()
    }
}

/// Books a decision by share that went to `index`; `None`: to a group that is no more.
/// While nobody has a share, there is nothing to be behind of.
pub(super) fn book(standings: &mut [Standing], unit: i64, index: Option<usize>) {
    if let Some(index) = index
        && standings.iter().any(|standing| standing.share > 0)
    {
        rule::book(standings, unit, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routing::{BILLION, RouteFallback};
    use crate::postgres::routing::Groups;
    use crate::routing::weights::PlannedGroup;

    fn plan(ids: &[&str]) -> Plan {
        let group = |id: &&str| PlannedGroup { id: (*id).into(), weight: 100 };
        Plan {
            groups: ids.iter().map(group).collect(),
            default: "z".into(),
            fallback: RouteFallback::Local,
            enabled: true,
            all_zero: false,
            candidate: None,
        }
    }

    fn counts(groups: Groups) -> Counts {
        Counts { unit: BILLION, groups }
    }

    #[test]
    fn what_a_removed_group_leaves_is_dealt_out_whole() {
        let groups: Groups =
            [("a", (-3, 5)), ("b", (-4, 6)), ("c", (7, 9))].map(|(id, entry)| (id.into(), entry)).into();
        for (left, ids) in [(7, ["a", "b"]), (-3, ["b", "c"]), (-4, ["a", "c"])] {
            let plan = plan(&ids);
            let group_counters = GroupCounters::new(&plan, &counts(groups.clone()), &[1, 1]);
            let sum: i64 = group_counters.standings.iter().map(|standing| standing.deficit).sum();
            assert_eq!(sum, 0, "{left} left over");
            let kept = group_counters.counts(&plan).groups;
            assert_eq!(kept.values().map(|(_, count)| count).sum::<i64>(), 20, "counts stay: {kept:?}");
        }
    }

    #[test]
    fn only_decisions_by_share_move_deficits() {
        let plan = plan(&["a", "b"]);
        let mut group_counters = GroupCounters::new(&plan, &counts(Groups::new()), &[1, 1]);
        group_counters.book(&plan, "z", RouteReason::FallbackDefault);
        group_counters.book(&plan, "a", RouteReason::FallbackDefault);
        assert!(group_counters.standings.iter().all(|standing| standing.deficit == 0));
        group_counters.book(&plan, "a", RouteReason::Share);
        assert_eq!(group_counters.standings[0].deficit, -BILLION / 2);
        assert_eq!(group_counters.counts(&plan).groups["a"], (-BILLION / 2, 2));
        assert_eq!(group_counters.counts(&plan).groups["z"], (0, 1));
        // A decision for a group that is gone, and one while nobody has a share.
        group_counters.book(&plan, "gone", RouteReason::Share);
        let mut nobody = GroupCounters::new(&plan, &counts(Groups::new()), &[0, 0]);
        nobody.book(&plan, "a", RouteReason::Share);
        assert_eq!(nobody.standings[0].deficit, 0);
    }

    #[test]
    fn what_is_taken_back_was_never_booked() {
        let plan = plan(&["a", "b", "c"]);
        let mut group_counters = GroupCounters::new(&plan, &counts(Groups::new()), &[1, 2, 4]);
        for destination in ["c", "b", "c", "a"] {
            group_counters.book(&plan, destination, RouteReason::Share);
        }
        let before = group_counters.clone();
        group_counters.book(&plan, "b", RouteReason::Share);
        group_counters.take_back(&plan, "b");
        assert_eq!(group_counters, before);
        group_counters.take_back(&plan, "gone");
        assert_eq!(group_counters, before);
    }

    #[test]
    fn weights_that_do_not_divide_the_unit_get_one_that_they_do() {
        let plan = plan(&["a", "b"]);
        let mut group_counters = GroupCounters::new(&plan, &counts(Groups::new()), &[1, 2]);
        for _ in 0..30_000 {
            let chosen = group_counters.choose().unwrap();
            group_counters.book(&plan, &plan.groups[chosen].id, RouteReason::Share);
        }
        let kept = group_counters.counts(&plan);
        assert_eq!(kept.groups, [("a".into(), (0, 10_000)), ("b".into(), (0, 20_000))].into());
        assert!(kept.unit % 3 == 0 && kept.unit >= BILLION);
        // Read again it goes on in the same unit, also while one of them is away.
        let mut again = GroupCounters::new(&plan, &kept, &[1, 0]);
        assert_eq!(again.unit, kept.unit);
        again.set_weights(&[1, 2]);
        assert_eq!(again.taken_from(&plan), group_counters.taken_from(&plan));
    }
}
