//! From a configuration as people write it to whole shares.

use std::sync::Arc;

use super::rule::UNIT;
use crate::model::routing::{RouteConfiguration, RouteFallback, RouteStatus};

/// Groups one configuration has at most.
pub const MAX_GROUPS: usize = 50;
/// Longest id, in bytes.
pub const MAX_ID: usize = 128;
const MAX_NAME: usize = 256;
const MAX_EXPRESSION: usize = 4_096;
/// Weights count in hundredths of a percent.
const WHOLE: f64 = 10_000.0;
/// 1 %: nobody who is not drained gets less.
const FLOOR: u32 = 100;

/// A configuration checked and made ready to decide by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order of their ids.
    pub groups: Vec<PlannedGroup>,
    /// Where conversations go that no group can take.
    pub default: Arc<str>,
    pub fallback: RouteFallback,
    pub enabled: bool,
    /// Every weight was 0, so all are equal: worth an alarm.
    pub all_zero: bool,
}

/// One group of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedGroup {
    pub id: Arc<str>,
    /// In hundredths of a percent, raised to the floor; 0 drains.
    pub weight: u32,
}

/// What is wrong with a configuration, one sentence per finding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Unusable(pub Vec<String>);

impl Plan {
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn of(configuration: &RouteConfiguration) -> Result<Self, Unusable> {
        let problems = problems(configuration);
        if !problems.is_empty() {
            return Err(Unusable(problems));
        }
        let active = || configuration.rules.iter().filter(|rule| !rule.drain);
        let total: f64 = active().map(|rule| rule.weight).sum();
        let all_zero = active().next().is_some() && total == 0.0;
        let count = active().count() as f64;
        let mut groups: Vec<PlannedGroup> = configuration
            .rules
            .iter()
            .map(|rule| {
                let part = if all_zero { 1.0 / count } else { rule.weight / total };
                let weight = if rule.drain { 0 } else { ((part * WHOLE).round() as u32).max(FLOOR) };
                PlannedGroup { id: rule.destination.id.as_str().into(), weight }
            })
            .collect();
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        let heaviest =
            groups.iter().reduce(|most, other| if other.weight > most.weight { other } else { most });
        let default = match (&configuration.default_destination, heaviest) {
            (Some(destination), _) => destination.id.as_str().into(),
            (None, Some(group)) => group.id.clone(),
            (None, None) => unreachable!("a configuration without rules was refused"),
        };
        Ok(Self {
            groups,
            default,
            fallback: configuration.fallback,
            enabled: configuration.status == RouteStatus::Enabled,
            all_zero,
        })
    }

    /// Where the group of this destination stands.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.groups.binary_search_by(|group| (*group.id).cmp(id)).ok()
    }

    /// Shares over the groups that `available` lets through, in the order of the groups.
    pub fn shares(&self, available: impl Fn(&str) -> bool) -> Vec<i64> {
        let weights: Vec<u32> = self
            .groups
            .iter()
            .map(|group| if self.enabled && available(&group.id) { group.weight } else { 0 })
            .collect();
        shares(&weights)
    }
}

/// Parts of [`UNIT`] in proportion to `weights`, summing up to it exactly: what rounding
/// leaves over goes to the greatest remainders, the first of equals. All 0 where every
/// weight is.
pub fn shares(weights: &[u32]) -> Vec<i64> {
    let total: i128 = weights.iter().map(|&weight| i128::from(weight)).sum();
    if total == 0 {
        return vec![0; weights.len()];
    }
    let unit = i128::from(UNIT);
    let exact = |weight: u32| i128::from(weight) * unit;
    // At most UNIT each, so the casts fit.
    let mut shares: Vec<i64> = weights.iter().map(|&weight| (exact(weight) / total) as i64).collect();
    let left = (unit - shares.iter().map(|&share| i128::from(share)).sum::<i128>()) as usize;
    let mut order: Vec<usize> = (0..weights.len()).filter(|&index| weights[index] > 0).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(exact(weights[index]) % total));
    for index in order.into_iter().take(left) {
        shares[index] += 1;
    }
    shares
}

/// Whether an id can be kept and shown: not empty, bounded, without control characters.
pub fn is_id(text: &str) -> bool {
    !text.trim().is_empty() && text.len() <= MAX_ID && !text.chars().any(char::is_control)
}

fn problems(configuration: &RouteConfiguration) -> Vec<String> {
    let mut found = Vec::new();
    let mut id = |name: &str, text: &str| {
        if !is_id(text) {
            found.push(format!("{name} must be text of 1 to {MAX_ID} bytes without control characters"));
        }
    };
    id("id", &configuration.id);
    id("routingType", &configuration.routing_type);
    let named =
        [("target", &configuration.target), ("defaultDestination", &configuration.default_destination)];
    for (name, destination) in named {
        if let Some(destination) = destination {
            id(&format!("{name}.type"), &destination.r#type);
            id(&format!("{name}.id"), &destination.id);
        }
    }
    for (index, rule) in configuration.rules.iter().enumerate() {
        id(&format!("rules[{index}].id"), &rule.id);
        id(&format!("rules[{index}].destination.type"), &rule.destination.r#type);
        id(&format!("rules[{index}].destination.id"), &rule.destination.id);
    }
    let name = &configuration.name;
    if name.trim().is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        found.push(format!("name must be text of 1 to {MAX_NAME} bytes without control characters"));
    }
    if !(1..=MAX_GROUPS).contains(&configuration.rules.len()) {
        found.push(format!("rules must be 1 to {MAX_GROUPS}, not {}", configuration.rules.len()));
    }
    for (index, rule) in configuration.rules.iter().enumerate() {
        if !rule.weight.is_finite() || !(0.0..=1e9).contains(&rule.weight) {
            found.push(format!(
                "rules[{index}].weight = {} must be a number from 0 to 1000000000; to send nothing set drain",
                rule.weight
            ));
        }
        if rule.expression.as_ref().is_some_and(|text| text.len() > MAX_EXPRESSION || text.contains('\0')) {
            found.push(format!("rules[{index}].expression must be text of {MAX_EXPRESSION} bytes at most"));
        }
        let before = &configuration.rules[..index];
        if before.iter().any(|other| other.destination.id == rule.destination.id) {
            found.push(format!(
                "rules[{index}].destination.id = {} is another rule's already; give each destination one rule",
                rule.destination.id
            ));
        }
        if before.iter().any(|other| other.id == rule.id) {
            found.push(format!("rules[{index}].id = {} is given twice", rule.id));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routing::{Destination, RouteRule};

    fn configuration(weights: &[f64]) -> RouteConfiguration {
        let destination = |id: String| Destination { r#type: "QUEUE_ID".into(), id };
        RouteConfiguration {
            id: "c".into(),
            name: "Support".into(),
            routing_type: "SINGLE_QUEUE".into(),
            target: None,
            rules: weights
                .iter()
                .enumerate()
                .map(|(index, &weight)| RouteRule {
                    id: format!("r{index}"),
                    priority: None,
                    expression: None,
                    destination: destination(format!("q{index}")),
                    weight,
                    drain: false,
                })
                .collect(),
            status: RouteStatus::Enabled,
            default_destination: None,
            fallback: RouteFallback::Local,
        }
    }

    fn planned(weights: &[f64]) -> Vec<u32> {
        let plan = Plan::of(&configuration(weights)).unwrap();
        plan.groups.iter().map(|group| group.weight).collect()
    }

    #[test]
    fn weights_of_any_scale_become_hundredths_of_a_percent_with_a_floor() {
        assert_eq!(planned(&[70.0, 30.0]), [7_000, 3_000]);
        assert_eq!(planned(&[0.7, 0.3]), [7_000, 3_000]);
        assert_eq!(planned(&[100.0, 0.0]), [10_000, 100]);
        assert_eq!(planned(&[1.0]), [10_000]);
        assert_eq!(planned(&[1.0, 1.0, 1.0]), [3_333; 3]);
    }

    #[test]
    fn all_zero_is_equal_shares_and_said() {
        let plan = Plan::of(&configuration(&[0.0, 0.0])).unwrap();
        assert!(plan.all_zero);
        assert_eq!(plan.shares(|_| true), [UNIT / 2, UNIT / 2]);
        assert!(!Plan::of(&configuration(&[1.0, 0.0])).unwrap().all_zero);
    }

    #[test]
    fn impossible_weights_are_refused_by_name() {
        for weights in [[-5.0, 105.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0], [1e300, 1.0]] {
            let Unusable(told) = Plan::of(&configuration(&weights)).unwrap_err();
            assert!(told[0].contains("rules[0].weight"), "{told:?}");
        }
        let Unusable(told) = Plan::of(&configuration(&[])).unwrap_err();
        assert!(told[0].contains("rules"), "{told:?}");
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut bad = configuration(&[1.0, -1.0]);
        bad.name = " ".into();
        bad.rules[1].destination.id = "q0".into();
        bad.rules[1].id = "r\n".into();
        assert_eq!(Plan::of(&bad).unwrap_err().0.len(), 4);
    }

    #[test]
    fn draining_and_absent_groups_leave_their_part_to_the_others() {
        let mut wanted = configuration(&[50.0, 30.0, 20.0]);
        wanted.rules[0].drain = true;
        let plan = Plan::of(&wanted).unwrap();
        assert_eq!(plan.shares(|_| true), [0, 600_000_000, 400_000_000]);
        assert_eq!(plan.shares(|id| id != "q1"), [0, 0, UNIT]);
        assert_eq!(plan.shares(|_| false), [0, 0, 0]);
        wanted.status = RouteStatus::Disabled;
        assert_eq!(Plan::of(&wanted).unwrap().shares(|_| true), [0, 0, 0]);
    }

    #[test]
    fn the_default_is_the_configured_one_or_the_heaviest() {
        let mut wanted = configuration(&[30.0, 70.0]);
        assert_eq!(Plan::of(&wanted).unwrap().default.as_ref(), "q1");
        wanted.default_destination = Some(Destination { r#type: "QUEUE_ID".into(), id: "x".into() });
        assert_eq!(Plan::of(&wanted).unwrap().default.as_ref(), "x");
    }

    #[test]
    fn shares_sum_up_whatever_the_weights() {
        for weights in [vec![1, 1, 1], vec![3_333, 3_333, 3_334, 100], vec![u32::MAX; 7], vec![0, 5]] {
            assert_eq!(shares(&weights).iter().sum::<i64>(), UNIT, "{weights:?}");
        }
        assert_eq!(shares(&[1, 1, 1]), [333_333_334, 333_333_333, 333_333_333]);
    }
}
