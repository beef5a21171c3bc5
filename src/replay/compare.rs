//! A decision on record beside the same one taken now.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::decision::{Action, Policy};

/// What came of one decision.
#[derive(Clone, Debug)]
pub(super) enum Compared {
    /// The record does not have what it takes to take it again.
    NotTaken(String),
    Taken(Box<Taken>),
}

/// Both decisions, as they stand on their topic.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub recorded: Value,
    pub replayed: Value,
    pub mismatch: Option<Mismatch>,
}

/// Where both are not the same to the byte.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mismatch {
    /// The first field that differs, as a path.
    pub field: String,
    pub recorded: Value,
    pub replayed: Value,
    pub cause: Cause,
}

/// Why both differ, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The rule has another version now: it may answer differently on the same inputs.
    CodeVersion,
    /// The rule has other numbers now: another configuration, or settings that are not known here.
    Settings,
    /// Rule and numbers are those of then: what was recorded was changed since, or the program
    /// answers differently under the same version, which is a bug.
    DataRestated,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::CodeVersion => "code_version",
            Cause::Settings => "settings",
            Cause::DataRestated => "data_restated",
        }
    }
}

/// Fields of a decision in the order in which they are written.
const ORDER: [&str; 15] = [
    "decisionId",
    "sequence",
    "loop",
    "key",
    "mode",
    "decidedAt",
    "eventTime",
    "action",
    "reason",
    "parameters",
    "inputs",
    "policy",
    "settingsRevision",
    "causeIds",
    "expiresAt",
];

/// Both as they would be written by this program.
pub(super) fn compare(recorded: &str, replayed: &str) -> Result<Taken, serde_json::Error> {
    let values = (serde_json::from_str(recorded)?, serde_json::from_str(replayed)?);
    let (recorded_value, replayed_value): (Value, Value) = values;
    let mismatch = (recorded != replayed).then(|| mismatch(&recorded_value, &replayed_value));
    Ok(Taken { recorded: recorded_value, replayed: replayed_value, mismatch })
}

fn mismatch(recorded: &Value, replayed: &Value) -> Mismatch {
    let differs = ORDER.into_iter().find(|field| recorded[field] != replayed[field]);
    let field = differs.unwrap_or("parameters");
    let (path, recorded_part, replayed_part) =
        first_difference(field.to_owned(), &recorded[field], &replayed[field]);
    Mismatch {
        field: path,
        recorded: recorded_part.clone(),
        replayed: replayed_part.clone(),
        cause: cause(recorded, replayed),
    }
}

fn cause(recorded: &Value, replayed: &Value) -> Cause {
    let policy = |value: &Value| Policy::deserialize(value["policy"].clone()).ok();
    match (policy(recorded), policy(replayed)) {
        (Some(then), Some(now)) if then.name == now.name && then.version != now.version => Cause::CodeVersion,
        (Some(then), Some(now)) if then != now => Cause::Settings,
        _ => Cause::DataRestated,
    }
}

/// The innermost value that differs first, with its path.
fn first_difference<'v>(path: String, one: &'v Value, other: &'v Value) -> (String, &'v Value, &'v Value) {
    match (one, other) {
        (Value::Object(left), Value::Object(right)) => {
            let names = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
            let mut names = names.filter(|name| left.get(*name) != right.get(*name));
            match names.next() {
                Some(name) => first_difference(format!("{path}.{name}"), &one[name], &other[name]),
                None => (path, one, other),
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            match left.iter().zip(right).position(|(one, other)| one != other) {
                Some(at) => first_difference(format!("{path}[{at}]"), &left[at], &right[at]),
                None => (path, one, other),
            }
        }
        _ => (path, one, other),
    }
}

/// What a decision asks for, in the one value that counts in its loop.
pub(super) fn asked(decision: &Value) -> Value {
    let parameters = &decision["parameters"];
    let names = ["dialRate", "destinationId", "share", "replicas", "flowVersion"];
    names.iter().map(|name| &parameters[*name]).find(|value| !value.is_null()).cloned().unwrap_or(Value::Null)
}

/// Whether something is asked for at all.
pub(super) fn acts(decision: &Value) -> bool {
    decision["action"] != Action::Hold.name()
}
