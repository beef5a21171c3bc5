//! The counter lined up with a plan: who is how far behind, and who got how many.

use std::collections::BTreeMap;

use super::rule::{self, Standing};
use super::weights::Plan;
use crate::model::routing::RouteReason;
use crate::postgres::routing::Groups;

/// Groups in the order of the plan's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    standings: Vec<Standing>,
    decisions: Vec<i64>,
    /// Decisions for destinations that are no group of the plan: its default, or groups it
    /// had once.
    elsewhere: BTreeMap<String, i64>,
}

impl Tally {
    /// What a group that the plan no longer has was owed or had too much is dealt to the
    /// others in equal parts, so that all deficits together stay 0.
    pub fn new(plan: &Plan, groups: &Groups, shares: &[i64]) -> Self {
        let mut tally = Self::default();
        for (group, &share) in plan.groups.iter().zip(shares) {
            let (deficit, decisions) = groups.get(&*group.id).copied().unwrap_or_default();
            tally.standings.push(Standing { share, deficit });
            tally.decisions.push(decisions);
        }
        let mut left: i64 = 0;
        for (id, &(deficit, decisions)) in groups {
            if plan.index(id).is_none() {
                left += deficit;
                tally.elsewhere.insert(id.clone(), decisions);
            }
        }
        let count = tally.standings.len() as i64;
        for (index, standing) in (0..count).zip(&mut tally.standings) {
            standing.deficit +=
                left / count + (left % count).signum() * i64::from(index < (left % count).abs());
        }
        tally
    }

    /// Shares as they are now.
    pub fn set_shares(&mut self, shares: &[i64]) {
        for (standing, &share) in self.standings.iter_mut().zip(shares) {
            standing.share = share;
        }
    }

    /// Whose turn it is, by index; `None` when nobody is available.
    pub fn choose(&self) -> Option<usize> {
        rule::choose(&self.standings)
    }

    /// Counts a decision. Only one by share moves the deficits.
    pub fn book(&mut self, plan: &Plan, destination: &str, reason: RouteReason) {
        let index = plan.index(destination);
        if reason == RouteReason::Share {
            book(&mut self.standings, index);
        }
        match index {
            Some(index) => self.decisions[index] += 1,
            None => *self.elsewhere.entry(destination.to_owned()).or_default() += 1,
        }
    }

    /// As the counter keeps it.
    pub fn groups(&self, plan: &Plan) -> Groups {
        let planned = plan.groups.iter().zip(&self.standings).zip(&self.decisions);
        let planned =
            planned.map(|((group, standing), &count)| (group.id.to_string(), (standing.deficit, count)));
        planned.chain(self.elsewhere.iter().map(|(id, &count)| (id.clone(), (0, count)))).collect()
    }

    /// Destination, share and deficit of each group.
    pub fn taken_from(&self, plan: &Plan) -> Vec<(String, i64, i64)> {
        let groups = plan.groups.iter().zip(&self.standings);
        groups.map(|(group, standing)| (group.id.to_string(), standing.share, standing.deficit)).collect()
    }
}

/// Books a decision by share that went to `index`; `None`: to a group that is no more.
/// While nobody has a share, there is nothing to be behind of.
pub fn book(standings: &mut [Standing], index: Option<usize>) {
    if let Some(index) = index
        && standings.iter().any(|standing| standing.share > 0)
    {
        rule::book(standings, index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routing::{RouteFallback, UNIT};
    use crate::routing::weights::PlannedGroup;

    fn plan(ids: &[&str]) -> Plan {
        let group = |id: &&str| PlannedGroup { id: (*id).into(), weight: 100 };
        Plan {
            groups: ids.iter().map(group).collect(),
            default: "z".into(),
            fallback: RouteFallback::Local,
            enabled: true,
            all_zero: false,
        }
    }

    #[test]
    fn what_a_removed_group_leaves_is_dealt_out_whole() {
        let groups: Groups =
            [("a", (-3, 5)), ("b", (-4, 6)), ("c", (7, 9))].map(|(id, entry)| (id.into(), entry)).into();
        for (left, ids) in [(7, ["a", "b"]), (-3, ["b", "c"]), (-4, ["a", "c"])] {
            let plan = plan(&ids);
            let tally = Tally::new(&plan, &groups, &[UNIT / 2, UNIT / 2]);
            let sum: i64 = tally.standings.iter().map(|standing| standing.deficit).sum();
            assert_eq!(sum, 0, "{left} left over");
            let kept = tally.groups(&plan);
            assert_eq!(kept.values().map(|(_, count)| count).sum::<i64>(), 20, "counts stay: {kept:?}");
        }
    }

    #[test]
    fn only_decisions_by_share_move_deficits() {
        let plan = plan(&["a", "b"]);
        let mut tally = Tally::new(&plan, &Groups::new(), &[UNIT / 2, UNIT / 2]);
        tally.book(&plan, "z", RouteReason::FallbackDefault);
        tally.book(&plan, "a", RouteReason::FallbackDefault);
        assert!(tally.standings.iter().all(|standing| standing.deficit == 0));
        tally.book(&plan, "a", RouteReason::Share);
        assert_eq!(tally.standings[0].deficit, -UNIT / 2);
        assert_eq!(tally.groups(&plan)["a"], (-UNIT / 2, 2));
        assert_eq!(tally.groups(&plan)["z"], (0, 1));
        // A decision for a group that is gone, and one while nobody has a share.
        tally.book(&plan, "gone", RouteReason::Share);
        let mut nobody = Tally::new(&plan, &Groups::new(), &[0, 0]);
        nobody.book(&plan, "a", RouteReason::Share);
        assert_eq!(nobody.standings[0].deficit, 0);
    }
}
