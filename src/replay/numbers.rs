//! The numbers that the loops' rules go by, and what may be changed in them.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Change;
use crate::model::decision::Loop;
use crate::model::settings::DialSettings;
use crate::stages::delivery::canary::Plan;
use crate::stages::dialing::rules::Rules;
use crate::stages::lag::rules::Thresholds;
use crate::stages::rollback::rule::Rule;

/// The configuration's numbers for every loop, as a recording keeps them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Numbers {
    pub dial: Rules,
    /// Time between two observations of a campaign.
    pub dial_tick_ms: u64,
    pub rollback: Rule,
    pub lag: Thresholds,
    pub delivery: Plan,
}

/// What cannot be changed, and what can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

/// Numbers that are no thresholds: lengths of the platform's time, and what is a canary's own.
const FIXED: [&str; 3] = ["minute", "steps", "time_scale"];

impl Numbers {
    pub fn dial_tick(&self) -> Duration {
        Duration::from_millis(self.dial_tick_ms)
    }

    /// The same with a change; of dial and route it is applied decision by decision.
    pub(super) fn with(&self, of: Loop, change: &Change) -> Result<Self, Unusable> {
        let mut changed = self.clone();
        match of {
            Loop::Rollback => changed.rollback = with(&self.rollback, &change.numbers)?,
            Loop::Lag => changed.lag = with(&self.lag, &change.numbers)?,
            Loop::Delivery => changed.delivery = with(&self.delivery, &change.numbers)?,
            Loop::Dial | Loop::Route => {}
        }
        Ok(changed)
    }
}

/// `errorAgeMs`, `error-age-ms` and `error_age_ms` are one name.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// A value as it is written on a command line: a number where it is one, else text.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

/// Numbers of a rule with some of them changed, by their names.
fn with<T: Serialize + DeserializeOwned>(rule: &T, set: &[(String, String)]) -> Result<T, Unusable> {
    let Ok(Value::Object(mut numbers)) = serde_json::to_value(rule) else {
        return Err(Unusable("the rule has no numbers".to_owned()));
    };
    for (name, text) in set {
        put(&mut numbers, name, text)?;
    }
    serde_json::from_value(Value::Object(numbers))
        .map_err(|error| Unusable(format!("the numbers do not make a rule: {error}")))
}

fn put(numbers: &mut Map<String, Value>, name: &str, text: &str) -> Result<(), Unusable> {
    let is_free = |known: &str| !FIXED.map(plain).contains(&plain(known));
    let names: Vec<String> = numbers.keys().filter(|known| is_free(known)).cloned().collect();
    let Some(known) = names.iter().find(|known| plain(known) == plain(name)) else {
        return Err(Unusable(format!("there is no number {name}; there are {}", names.join(", "))));
    };
    let (before, after) = (&numbers[known], value(text));
    let is_alike = matches!(
        (before, &after),
        (Value::Number(_), Value::Number(_)) | (Value::String(_), Value::String(_))
    );
    let is_negative = after.as_f64().is_some_and(|number| number < 0.0);
    if !is_alike || is_negative {
        return Err(Unusable(format!("{known} is {before}; {text} cannot stand for it")));
    }
    numbers.insert(known.clone(), after);
    Ok(())
}

/// See [`Change::of`].
pub(super) fn change(of: Loop, set: &[(String, String)], policy: Option<&str>) -> Result<Change, Unusable> {
    match of {
        Loop::Dial => dial(set, policy),
        Loop::Rollback => {
            let named = policy.map(|name| ("policy".to_owned(), name.to_owned()));
            Ok(Change { numbers: set.iter().cloned().chain(named).collect(), ..Change::default() })
        }
        Loop::Lag | Loop::Route | Loop::Delivery => match policy {
            None => Ok(Change { numbers: set.to_vec(), ..Change::default() }),
            Some(name) => {
                Err(Unusable(format!("the loop {} has one policy; {name} is none of it", of.name())))
            }
        },
    }
}

/// Fields of the setting `dial`, checked as it is.
fn dial(set: &[(String, String)], policy: Option<&str>) -> Result<Change, Unusable> {
    const FIELDS: [&str; 7] =
        ["policy", "shadowPolicy", "goal", "cap", "handleSeconds", "utcOffsetMinutes", "target"];
    let mut fields = Map::new();
    let named = policy.map(|name| ("policy".to_owned(), name.to_owned()));
    for (name, text) in set.iter().chain(&named) {
        let Some(known) = FIELDS.iter().find(|known| plain(known) == plain(name)) else {
            return Err(Unusable(format!("there is no number {name}; there are {}", FIELDS.join(", "))));
        };
        fields.insert((*known).to_owned(), value(text));
    }
    let dial: DialSettings = serde_json::from_value(Value::Object(fields))
        .map_err(|error| Unusable(format!("dial takes {}: {error}", FIELDS.join(", "))))?;
    match dial.problems().into_iter().next() {
        Some((_, problem)) => Err(Unusable(problem)),
        None => Ok(Change { dial, ..Change::default() }),
    }
}
