//! Takes recorded decisions about one configuration again: the rule on the deficits that were
//! recorded. Answers that were given without the counters are another matter: what the instance
//! knew that gave them is not recorded.

use std::borrow::Cow;

use super::group_counters::book;
use super::recorder::{Given, policy};
use super::rule::{self, Standing};
use crate::model::routing::{RouteGroup, RouteInputs, RouteReason, RouteSource};
use crate::topics::RouteDecision;

/// Where a conversation goes by the rule, from what was recorded before the decision.
///
/// `None` for answers that were given without the counters.
pub fn take<'d>(recorded: &'d RouteDecision<'_, Vec<String>>) -> Option<RouteDecision<'d, Vec<String>>> {
    if recorded.parameters.source != RouteSource::Exact {
        return None;
    }
    let standings = standings(&recorded.inputs);
    let inputs = &recorded.inputs;
    let chosen = rule::choose(&standings, inputs.unit).map(|index| &*inputs.groups[index].destination_id);
    let reason = match chosen {
        Some(_) => RouteReason::Share.name(),
        // Whether the configuration distributes is part of its revision; nobody has a share either way.
        None if recorded.reason == RouteReason::Disabled.name() => RouteReason::Disabled.name(),
        None => RouteReason::NobodyAvailable.name(),
    };
    let given = Given {
        configuration_id: &recorded.key,
        sequence: recorded.sequence,
        conversation_id: &recorded.parameters.conversation_id,
        // The default is the configuration's: the rule has no say in it.
        destination_id: chosen.unwrap_or(&recorded.parameters.destination_id),
        source: RouteSource::Exact,
        reason: Cow::Borrowed(reason),
        decided_at: recorded.decided_at,
    };
    let groups = inputs.groups.iter().zip(&standings);
    let inputs = RouteInputs {
        revision: inputs.revision,
        unit: inputs.unit,
        groups: groups
            .map(|(group, at)| RouteGroup::of(&group.destination_id, inputs.unit, at.share, at.deficit))
            .collect(),
    };
    Some(given.decision(inputs, recorded.mode, policy(), recorded.settings_revision))
}

/// How everybody stood before the decision.
fn standings(inputs: &RouteInputs<'_>) -> Vec<Standing> {
    let standing = |group: &RouteGroup<'_>| Standing {
        share: group.share.unwrap_or(group.share_billionths),
        deficit: group.deficit.unwrap_or(group.deficit_billionths),
    };
    inputs.groups.iter().map(standing).collect()
}

/// The same sequence of conversations under other weights, from the first on by itself: nobody is
/// behind then.
#[derive(Debug)]
pub struct OtherWeights {
    groups: Vec<String>,
    weights: Vec<i64>,
    unit: i64,
    standings: Vec<Standing>,
}

impl OtherWeights {
    /// `weights` in the order of the groups of the first decision, whole numbers.
    pub fn new(first: &RouteDecision<'_, Vec<String>>, weights: Vec<i64>) -> Self {
        let groups = first.inputs.groups.iter().map(|group| group.destination_id.to_string()).collect();
        let standings = vec![Standing { share: 0, deficit: 0 }; weights.len()];
        let total: i64 = weights.iter().sum();
        let unit = if total == 0 { rule::MIN_UNIT } else { rule::unit_for(total, rule::MIN_UNIT) };
        Self { groups, weights, unit, standings }
    }

    /// Whether the decision is between the same groups.
    pub fn has_groups_of(&self, recorded: &RouteDecision<'_, Vec<String>>) -> bool {
        let groups = recorded.inputs.groups.iter().map(|group| &*group.destination_id);
        self.groups.iter().map(String::as_str).eq(groups)
    }

    /// Where the next conversation goes; `None` where nobody who has a share is there.
    pub fn take(&mut self, recorded: &RouteDecision<'_, Vec<String>>) -> Option<&str> {
        // A group that had no share could not take it: it drained, or nobody of it was there.
        let is_there = |name: &str| {
            let mut groups = recorded.inputs.groups.iter();
            groups.any(|group| group.destination_id == name && group.share_billionths > 0)
        };
        let weights: Vec<i64> = self
            .groups
            .iter()
            .zip(&self.weights)
            .map(|(name, weight)| if is_there(name) { *weight } else { 0 })
            .collect();
        let total: i64 = weights.iter().sum();
        if total > 0 {
            let unit = rule::unit_for(total, self.unit);
            if unit != self.unit {
                rule::rescale(&mut self.standings, self.unit, unit);
                self.unit = unit;
            }
        }
        for (standing, weight) in self.standings.iter_mut().zip(&weights) {
            standing.share = if total == 0 { 0 } else { weight * (self.unit / total) };
        }
        let chosen = rule::choose(&self.standings, self.unit)?;
        book(&mut self.standings, self.unit, Some(chosen));
        Some(&self.groups[chosen])
    }
}
