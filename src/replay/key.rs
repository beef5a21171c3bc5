//! One key of one loop: a campaign, a flow, a group, a configuration.

use serde::de::Deserialize;
use serde::{Serialize, de};
use serde_json::value::RawValue;

use super::compare::{Compared, compare};
use super::{Change, Numbers, Settings, Unusable};
use crate::model::decision::{Loop, Policy};
use crate::model::routing::{Destination, RouteConfiguration, RouteGroup, RouteRule};
use crate::routing;
use crate::routing::again::OtherWeights;
use crate::routing::weights::Plan;
use crate::stages::{delivery, dialing, lag, rollback};
use crate::topics::{DeliveryDecision, DialDecision, LagDecision, RollbackDecision, RouteDecision};

/// What a loop's decisions are taken again with.
pub(super) struct Rules {
    of: Loop,
    /// Numbers that decisions may have been taken under.
    known: Vec<Numbers>,
    /// The same with the change.
    changed: Vec<Numbers>,
    change: Change,
}

impl Rules {
    pub(super) fn new(of: Loop, known: Vec<Numbers>, change: Change) -> Result<Self, Unusable> {
        if known.is_empty() {
            return Err(Unusable("the numbers of the rules are not known".to_owned()));
        }
        let changed = known.iter().map(|numbers| numbers.with(of, &change)).collect::<Result<_, _>>()?;
        Ok(Self { of, known, changed, change })
    }

    /// The numbers whose policy this is, else the first; and the same with the change.
    fn under(&self, policy: &Policy<'_>, named: impl Fn(&Numbers) -> Policy<'static>) -> [&Numbers; 2] {
        let found = self.known.iter().position(|numbers| named(numbers) == *policy).unwrap_or(0);
        [&self.known[found], &self.changed[found]]
    }
}

/// What is remembered between decisions, by loop.
enum Memory {
    Dial(Box<dialing::again::Again>),
    Rollback(rollback::again::Again),
    Lag(lag::again::Again),
    Route(Option<OtherWeights>),
    Delivery,
}

pub(super) struct KeyReplay {
    key: String,
    memory: Memory,
}

/// Inputs as they stand in the record.
#[derive(serde::Deserialize)]
struct Inputs<'r> {
    #[serde(borrow)]
    inputs: &'r RawValue,
}

const OLDER: &str = "it is of an older program, which did not record all that it was taken from";
const EPISODE_UNKNOWN: &str = "the decision before it, which tells when help was asked for, is not on record";
const WITHOUT_COUNTERS: &str = "it was given without the counters: what the instance knew is not recorded";

impl KeyReplay {
    pub(super) fn new(key: &str, rules: &Rules) -> Self {
        let memory = match rules.of {
            Loop::Dial => {
                let known = rules.known.iter().map(|numbers| (numbers.dial, numbers.dial_tick()));
                Memory::Dial(Box::new(dialing::again::Again::new(known)))
            }
            Loop::Rollback => Memory::Rollback(rollback::again::Again::default()),
            Loop::Lag => Memory::Lag(lag::again::Again::default()),
            Loop::Route => Memory::Route(None),
            Loop::Delivery => Memory::Delivery,
        };
        Self { key: key.to_owned(), memory }
    }

    pub(super) fn is(&self, key: &str) -> bool {
        self.key == key
    }

    /// Takes the decision again.
    pub(super) fn take(
        &mut self,
        text: &str,
        rules: &Rules,
        settings: &Settings,
    ) -> Result<Compared, serde_json::Error> {
        let is_changed = !rules.change.is_none();
        match &mut self.memory {
            Memory::Dial(again) => {
                let recorded: DialDecision<'_, Vec<String>> = read(text)?;
                let inputs: Inputs<'_> = read(text)?;
                let set = settings.dial(&self.key, recorded.settings_revision);
                let newest = rules.change.settings.as_ref().map(|settings| settings.newest(&self.key));
                let under = rules.change.dial.or(newest.unwrap_or(set.settings));
                match again.take(&recorded, inputs.inputs.get(), set, under) {
                    Err(why) => Ok(Compared::NotTaken(why.to_string())),
                    Ok(taken) => {
                        let replayed: DialDecision<'_, Vec<String>> = serde_json::from_slice(taken)?;
                        written(&recorded, &replayed)
                    }
                }
            }
            Memory::Rollback(again) => {
                let recorded: RollbackDecision<'_, Vec<String>> = read(text)?;
                let under = rules.under(&recorded.policy, |numbers| rollback::named(&numbers.rollback));
                let [then, now] = under.map(|numbers| &numbers.rollback);
                let replayed = match is_changed {
                    false => again.take(&recorded, now),
                    true => again.take_under(&recorded, then, now),
                };
                written(&recorded, &replayed)
            }
            Memory::Lag(again) => {
                let recorded: LagDecision<'_, Vec<String>> = read(text)?;
                let [then, now] = rules.under(&recorded.policy, |numbers| lag::named(&numbers.lag));
                match again.take(&recorded, &then.lag, &now.lag) {
                    None => Ok(Compared::NotTaken(EPISODE_UNKNOWN.to_owned())),
                    Some(replayed) => written(&recorded, &replayed),
                }
            }
            Memory::Route(other) => {
                let recorded: RouteDecision<'_, Vec<String>> = read(text)?;
                if is_changed {
                    return route_otherwise(&recorded, other, &rules.change);
                }
                match routing::again::take(&recorded) {
                    Some(replayed) => written(&recorded, &replayed),
                    None => Ok(Compared::NotTaken(WITHOUT_COUNTERS.to_owned())),
                }
            }
            Memory::Delivery => {
                let recorded: DeliveryDecision<'_, Vec<String>> = read(text)?;
                let [then, now] = rules.under(&recorded.policy, |numbers| delivery::named(&numbers.delivery));
                match delivery::again::take(&recorded, &then.delivery, &now.delivery) {
                    Some(replayed) => written(&recorded, &replayed),
                    None => Ok(Compared::NotTaken(OLDER.to_owned())),
                }
            }
        }
    }
}

fn read<'r, T: Deserialize<'r>>(text: &'r str) -> Result<T, serde_json::Error> {
    serde_json::from_str(text)
}

/// Both as this program writes them.
fn written(recorded: &impl Serialize, replayed: &impl Serialize) -> Result<Compared, serde_json::Error> {
    let texts = (serde_json::to_string(recorded)?, serde_json::to_string(replayed)?);
    Ok(Compared::Taken(Box::new(compare(&texts.0, &texts.1)?)))
}

/// The same conversation under other weights.
fn route_otherwise(
    recorded: &RouteDecision<'_, Vec<String>>,
    other: &mut Option<OtherWeights>,
    change: &Change,
) -> Result<Compared, serde_json::Error> {
    let other = match other {
        Some(other) if other.has_groups_of(recorded) => other,
        other => {
            let weights = weights(recorded, change).map_err(de::Error::custom)?;
            other.insert(OtherWeights::new(recorded, weights))
        }
    };
    let mut replayed = recorded.clone();
    if let Some(destination) = other.take(recorded) {
        replayed.parameters.destination_id = destination.to_owned().into();
    }
    written(recorded, &replayed)
}

/// Weights as the service would make them: those that are named are others, the rest are as they
/// were recorded.
fn weights(recorded: &RouteDecision<'_, Vec<String>>, change: &Change) -> Result<Vec<i64>, String> {
    let groups = &recorded.inputs.groups;
    let named = |id: &str| change.numbers.iter().rev().find(|(name, _)| name == id);
    if let Some((unknown, _)) =
        change.numbers.iter().find(|(name, _)| groups.iter().all(|group| group.destination_id != *name))
    {
        let known: Vec<&str> = groups.iter().map(|group| &*group.destination_id).collect();
        return Err(format!("{} has no destination {unknown}; it has {}", recorded.key, known.join(", ")));
    }
    let rule = |group: &RouteGroup<'_>| {
        let id = group.destination_id.to_string();
        let recorded = group.share_billionths as f64;
        let weight = match named(&id) {
            Some((_, text)) => text.parse().map_err(|_| format!("the weight {text} of {id} is no number"))?,
            None => recorded,
        };
        Ok(RouteRule {
            id: id.clone(),
            priority: None,
            expression: None,
            destination: Destination { r#type: "QUEUE_ID".to_owned(), id },
            weight,
            drain: weight == 0.0,
        })
    };
    let rules = groups.iter().map(rule).collect::<Result<Vec<_>, String>>()?;
    let configuration = RouteConfiguration {
        id: recorded.key.to_string(),
        name: recorded.key.to_string(),
        routing_type: "SINGLE_QUEUE".to_owned(),
        target: None,
        rules,
        status: Default::default(),
        default_destination: None,
        fallback: Default::default(),
    };
    let plan = Plan::of(&configuration).map_err(|unusable| unusable.to_string())?;
    let weight = |id: &str| plan.index(id).map_or(0, |index| plan.groups[index].weight);
    Ok(groups.iter().map(|group| weight(&group.destination_id)).collect())
}
