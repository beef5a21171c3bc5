//! From a configuration as people write it to whole weights, none of them rounded.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rule::MAX_UNIT;
use crate::model::delivery::CanaryOverlay;
use crate::model::routing::{RouteConfiguration, RouteFallback, RouteStatus};

/// Groups one configuration has at most.
pub const MAX_GROUPS: usize = 50;
/// Longest id, in bytes.
pub const MAX_ID: usize = 128;
const MAX_NAME: usize = 256;
const MAX_EXPRESSION: usize = 4_096;
/// Nobody who is not drained is weighed as less than one part in so many: 1 %.
const FLOOR: i128 = 100;
/// Most decimals of a weight. With weights below 10^10 and 50 groups their sums stay below 10^37.
const MAX_DECIMALS: usize = 24;

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
    /// The flow that a canary tries out: it gets nothing that was not asked of the counters.
    pub candidate: Option<Arc<str>>,
}

/// One group of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedGroup {
    pub id: Arc<str>,
    /// As it was asked for, raised to the floor; all together in the smallest whole numbers.
    /// 0 drains. Their sum is at most [`MAX_UNIT`].
    pub weight: i64,
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
        let active = || configuration.rules.iter().filter(|rule| !rule.drain).map(|rule| rule.weight);
        let all_zero = active().next().is_some() && active().all(|weight| weight == 0.0);
        let whole = whole(&active().collect::<Vec<_>>()).map_err(|problem| Unusable(vec![problem]))?;
        let mut whole = whole.into_iter();
        let mut weight = |drain: bool| if drain { 0 } else { whole.next().expect("one each") };
        let mut groups: Vec<PlannedGroup> = configuration
            .rules
            .iter()
            .map(|rule| PlannedGroup { id: rule.destination.id.as_str().into(), weight: weight(rule.drain) })
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
            candidate: None,
        })
    }

    /// What stands over the configuration while a canary has it: both flows alone, by exact shares.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn under(canary: &CanaryOverlay, configuration: &RouteConfiguration) -> Result<Self, Unusable> {
        let parts = canary.candidate_parts.min(CanaryOverlay::PARTS);
        let named = |id: &str| configuration.rules.iter().find(|rule| rule.destination.id == id);
        let rule = |id: &str, parts: u32| {
            let mut rule = named(id).or(configuration.rules.first())?.clone();
            id.clone_into(&mut rule.id);
            id.clone_into(&mut rule.destination.id);
            (rule.weight, rule.drain) = (f64::from(parts), parts == 0);
            Some(rule)
        };
        let control = rule(&canary.control_id, CanaryOverlay::PARTS - parts);
        let default = control.as_ref().map(|control| control.destination.clone());
        let rules = control.into_iter().chain(rule(&canary.candidate_id, parts)).collect();
        let both = RouteConfiguration { rules, default_destination: default, ..configuration.clone() };
        Ok(Self { candidate: Some(canary.candidate_id.as_str().into()), ..Self::of(&both)? })
    }

    /// Weights for what is decided without the counters: nobody can tell there whether the
    /// candidate has been taken away.
    pub fn without_candidate(&self, mut weights: Vec<i64>) -> Vec<i64> {
        if let Some(candidate) = self.candidate.as_deref().and_then(|id| self.index(id)) {
            weights[candidate] = 0;
            if self.enabled && weights.iter().all(|&weight| weight == 0) {
                weights
                    .iter_mut()
                    .enumerate()
                    .for_each(|(index, weight)| *weight = i64::from(index != candidate));
            }
        }
        weights
    }

    /// Where the group of this destination stands.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.groups.binary_search_by(|group| (*group.id).cmp(id)).ok()
    }

    /// Whether both have the same groups, whatever their weights.
    pub fn has_groups_of(&self, other: &Plan) -> bool {
        self.groups.iter().map(|group| &group.id).eq(other.groups.iter().map(|group| &group.id))
    }

    /// Whether a conversation can still be where this says: at a group, drained or not, or at
    /// the default.
    pub fn has(&self, destination_id: &str) -> bool {
        self.index(destination_id).is_some() || *self.default == *destination_id
    }

    /// Weights of the groups that `available` lets through, 0 for the others, in the order of
    /// the groups.
    pub fn weights(&self, available: impl Fn(&str) -> bool) -> Vec<i64> {
        let weight = |group: &PlannedGroup| {
            if self.enabled && available(&group.id) { group.weight } else { 0 }
        };
        self.groups.iter().map(weight).collect()
    }
}

/// The configuration with these weights, by destination, in the place of its own.
pub fn with_weights(
    configuration: &RouteConfiguration,
    weights: &BTreeMap<String, f64>,
) -> RouteConfiguration {
    let mut changed = configuration.clone();
    for rule in &mut changed.rules {
        if let Some(&weight) = weights.get(&rule.destination.id) {
            rule.weight = weight;
        }
    }
    changed
}

/// The smallest whole numbers in the same proportions, each raised to 1 % of all; all 1 where
/// every weight is 0.
///
/// # Errors
/// When they have so many digits that they cannot be counted in exactly.
fn whole(weights: &[f64]) -> Result<Vec<i64>, String> {
    // The shortest text that reads back as the number is the one that was given.
    let texts: Vec<String> = weights.iter().map(f64::to_string).collect();
    let parts = texts.iter().map(|text| text.split_once('.').unwrap_or((text.as_str(), "")));
    let decimals = parts.clone().map(|(_, fraction)| fraction.len()).max().unwrap_or(0);
    let too_fine = || {
        format!(
            "the weights have too many digits to be kept exactly: in the smallest whole numbers of their \
             proportions they must sum up to {MAX_UNIT} at most; give them with fewer digits"
        )
    };
    if decimals > MAX_DECIMALS {
        return Err(too_fine());
    }
    let scaled = |(whole, fraction): (&str, &str)| -> i128 {
        format!("{whole}{fraction:0<decimals$}").parse().expect("digits of a number below 10^10")
    };
    let scaled: Vec<i128> = parts.map(scaled).collect();
    let total: i128 = scaled.iter().sum();
    if total == 0 {
        return Ok(vec![1; weights.len()]);
    }
    let raised: Vec<i128> = scaled.iter().map(|weight| (weight * FLOOR).max(total)).collect();
    let divisor = raised.iter().copied().fold(0, greatest_common_divisor);
    let reduced: Vec<i128> = raised.iter().map(|weight| weight / divisor).collect();
    if reduced.iter().sum::<i128>() > i128::from(MAX_UNIT) {
        return Err(too_fine());
    }
    Ok(reduced.into_iter().map(|weight| weight as i64).collect())
}

fn greatest_common_divisor(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
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
    use proptest::prelude::*;

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

    fn planned(weights: &[f64]) -> Vec<i64> {
        let plan = Plan::of(&configuration(weights)).unwrap();
        plan.groups.iter().map(|group| group.weight).collect()
    }

    #[test]
    fn weights_are_kept_in_their_proportions_and_only_raised_to_the_floor() {
        assert_eq!(planned(&[70.0, 30.0]), [7, 3]);
        assert_eq!(planned(&[0.7, 0.3]), [7, 3]);
        assert_eq!(planned(&[1.0, 2.0]), [1, 2]);
        assert_eq!(planned(&[33.33, 66.67]), [3_333, 6_667]);
        assert_eq!(planned(&[100.0, 0.0]), [100, 1]);
        assert_eq!(planned(&[99.0, 1.0]), [99, 1]);
        assert_eq!(planned(&[1.0]), [1]);
        assert_eq!(planned(&[3.0, 3.0, 3.0]), [1; 3]);
        assert_eq!(planned(&[1e-20, 2e-20]), [1, 2]);
        assert_eq!(planned(&[12.345_678_901, 87.654_321_099]), [12_345_678_901, 87_654_321_099]);
    }

    #[test]
    fn weights_with_too_many_digits_are_refused_with_the_limit() {
        for weights in
            [[0.123_456_789_012_345_7, 0.7], [0.1 + 0.2, 0.7], [f64::MIN_POSITIVE, 1.0], [1e9, 1e-9]]
        {
            let Unusable(told) = Plan::of(&configuration(&weights)).unwrap_err();
            assert!(told[0].contains("1000000000000000 at most"), "{told:?}");
        }
        assert_eq!(planned(&[0.333_333_333_333, 0.666_666_666_667]), [333_333_333_333, 666_666_666_667]);
    }

    proptest! {
        #[test]
        fn whatever_can_be_asked_for_keeps_its_proportions_or_is_refused(
            weights in prop::collection::vec(
                prop_oneof![0.0..=1e9, (0u32..=10_000).prop_map(|hundredths| f64::from(hundredths) / 100.0)],
                // Beyond ten their ids would not stand in the order of the weights.
                1..=10,
            ),
        ) {
            let Ok(plan) = Plan::of(&configuration(&weights)) else { return Ok(()) };
            let whole = planned(&weights);
            let total: i128 = whole.iter().map(|&weight| i128::from(weight)).sum();
            prop_assert!(total <= i128::from(MAX_UNIT) && plan.weights(|_| true).len() == weights.len());
            let asked: f64 = weights.iter().sum();
            let raised: f64 = weights.iter().map(|weight| weight.max(asked / 100.0)).sum();
            for (weight, whole) in weights.iter().zip(&whole) {
                prop_assert!(*whole > 0);
                let wanted = if asked == 0.0 { 1.0 / weights.len() as f64 } else { weight.max(asked / 100.0) / raised };
                prop_assert!((*whole as f64 / total as f64 - wanted).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn all_zero_is_equal_shares_and_said() {
        let plan = Plan::of(&configuration(&[0.0, 0.0])).unwrap();
        assert!(plan.all_zero);
        assert_eq!(plan.weights(|_| true), [1, 1]);
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
        assert_eq!(plan.weights(|_| true), [0, 3, 2]);
        assert_eq!(plan.weights(|id| id != "q1"), [0, 0, 2]);
        assert_eq!(plan.weights(|_| false), [0, 0, 0]);
        wanted.status = RouteStatus::Disabled;
        assert_eq!(Plan::of(&wanted).unwrap().weights(|_| true), [0, 0, 0]);
    }

    #[test]
    fn the_default_is_the_configured_one_or_the_heaviest() {
        let mut wanted = configuration(&[30.0, 70.0]);
        assert_eq!(Plan::of(&wanted).unwrap().default.as_ref(), "q1");
        wanted.default_destination = Some(Destination { r#type: "QUEUE_ID".into(), id: "x".into() });
        assert_eq!(Plan::of(&wanted).unwrap().default.as_ref(), "x");
    }
}
