//! The filters of analytics: predicates about dimensions, joined by `and` or `or`, two levels at
//! most.

use serde::Deserialize;

use super::request::{missing, not_one_of};
use crate::input::invalid;
use crate::reply::Refusal;

/// Predicates one filter may have.
const MAX_PREDICATES: usize = 2_000;

#[derive(Debug, Deserialize)]
pub(super) struct Filter {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    clauses: Option<Vec<Clause>>,
    #[serde(default)]
    predicates: Option<Vec<Predicate>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Clause {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    predicates: Option<Vec<Predicate>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Predicate {
    #[serde(rename = "type")]
    kind: Option<String>,
    dimension: Option<String>,
    operator: Option<String>,
    value: Option<String>,
}

impl Filter {
    /// `dimensions` are those the query knows, `simulated` those the simulated world can answer for.
    ///
    /// # Errors
    /// 400 for what is missing or unknown; 501 for a true filter this simulator cannot apply.
    pub(super) fn check(&self, dimensions: &[&str], simulated: &[&str]) -> Result<(), Refusal> {
        check_kind(self.kind.as_deref(), "filter.type")?;
        let clauses = self.clauses.as_deref().unwrap_or_default();
        for clause in clauses {
            check_kind(clause.kind.as_deref(), "filter.clauses.type")?;
        }
        let predicates: Vec<&Predicate> = clauses
            .iter()
            .flat_map(|it| it.predicates.iter().flatten())
            .chain(self.predicates.iter().flatten())
            .collect();
        if predicates.is_empty() {
            return Err(missing("filter.predicates"));
        }
        if predicates.len() > MAX_PREDICATES {
            return Err(invalid(format!("a filter may have {MAX_PREDICATES} predicates")));
        }
        predicates.into_iter().try_for_each(|predicate| predicate.check(dimensions, simulated))
    }

    /// Whether it lets through what has these values; `value` tells a dimension's, if there is one.
    pub(super) fn admits<'v>(&self, value: &impl Fn(&str) -> Option<&'v str>) -> bool {
        let clauses = self.clauses.iter().flatten().map(|clause| {
            join(clause.kind.as_deref(), clause.predicates.iter().flatten().map(|it| it.holds(value)))
        });
        let predicates = self.predicates.iter().flatten().map(|it| it.holds(value));
        join(self.kind.as_deref(), clauses.chain(predicates))
    }

    /// The values an `or` of one dimension asks for, if the filter is nothing else.
    pub(super) fn only_values(&self, dimension: &str) -> Option<Vec<&str>> {
        let predicates = self.predicates.as_deref().unwrap_or_default();
        let alone = self.clauses.as_ref().is_none_or(Vec::is_empty)
            && (self.kind.as_deref() == Some("or") || predicates.len() == 1);
        let value = |it: &'_ Predicate| {
            let asks = it.dimension.as_deref() == Some(dimension) && it.operator() == "matches";
            asks.then_some(())
        };
        if !alone || predicates.iter().any(|it| value(it).is_none()) {
            return None;
        }
        predicates.iter().map(|it| it.value.as_deref()).collect()
    }
}

impl Predicate {
    fn operator(&self) -> &str {
        self.operator.as_deref().unwrap_or("matches")
    }

    fn check(&self, dimensions: &[&str], simulated: &[&str]) -> Result<(), Refusal> {
        let kind = self.kind.as_deref().unwrap_or("dimension");
        if !["dimension", "property", "metric"].contains(&kind) {
            return Err(not_one_of("predicates.type", kind, "dimension, property, metric"));
        }
        if kind != "dimension" {
            return Err(unsimulated(&format!("a predicate of type {kind}")));
        }
        let dimension = self.dimension.as_deref().ok_or_else(|| missing("predicates.dimension"))?;
        if !dimensions.contains(&dimension) {
            return Err(not_one_of("predicates.dimension", dimension, "the dimensions of this query"));
        }
        match (self.operator(), &self.value) {
            ("matches", None) => return Err(missing("predicates.value")),
            ("matches" | "exists" | "notExists", _) => {}
            (other, _) => return Err(not_one_of("predicates.operator", other, "matches, exists, notExists")),
        }
        if simulated.contains(&dimension) {
            Ok(())
        } else {
            Err(unsimulated(&format!("the dimension {dimension}")))
        }
    }

    fn holds<'v>(&self, value: &impl Fn(&str) -> Option<&'v str>) -> bool {
        let held = value(self.dimension.as_deref().unwrap_or_default());
        match self.operator() {
            "exists" => held.is_some(),
            "notExists" => held.is_none(),
            _ => held.is_some() && held == self.value.as_deref(),
        }
    }
}

fn check_kind(kind: Option<&str>, field: &str) -> Result<(), Refusal> {
    match kind.ok_or_else(|| missing(field))? {
        "and" | "or" => Ok(()),
        other => Err(not_one_of(field, other, "and, or")),
    }
}

fn join(kind: Option<&str>, mut holds: impl Iterator<Item = bool>) -> bool {
    if kind == Some("or") { holds.any(|it| it) } else { holds.all(|it| it) }
}

/// The platform can do it; the simulated one says that it cannot, rather than answering wrongly.
pub(super) fn unsimulated(what: &str) -> Refusal {
    let message = format!("{what} is not simulated");
    Refusal::new(axum::http::StatusCode::NOT_IMPLEMENTED, "not.implemented", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filter(json: serde_json::Value) -> Filter {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn predicates_and_clauses_are_joined_as_they_say() {
        let both = filter(json!({"type": "and", "clauses": [
            {"type": "or", "predicates": [{"dimension": "flowId", "value": "a"}, {"dimension": "flowId", "value": "b"}]},
            {"type": "and", "predicates": [{"dimension": "queueId", "operator": "notExists"}]}]}));
        let admits = |flow: Option<&'static str>, queue: Option<&'static str>| {
            both.admits(&|name: &str| if name == "flowId" { flow } else { queue })
        };
        assert!(admits(Some("a"), None) && admits(Some("b"), None));
        assert!(!admits(Some("c"), None) && !admits(Some("a"), Some("q")) && !admits(None, None));
        assert_eq!(both.only_values("flowId"), None);
        let ids = filter(
            json!({"type": "or", "predicates": [{"dimension": "x", "value": "1"}, {"dimension": "x", "value": "2"}]}),
        );
        assert_eq!(ids.only_values("x"), Some(vec!["1", "2"]));
        assert_eq!(ids.only_values("y"), None);
    }

    #[test]
    fn what_the_platform_would_refuse_is_refused_and_what_is_not_simulated_is_said() {
        let status =
            |json| filter(json).check(&["flowId", "ani"], &["flowId"]).map_err(|it| it.status.as_u16());
        assert_eq!(
            status(json!({"type": "and", "predicates": [{"dimension": "flowId", "value": "a"}]})),
            Ok(())
        );
        for wrong in [
            json!({"predicates": [{"dimension": "flowId", "value": "a"}]}),
            json!({"type": "xor", "predicates": [{"dimension": "flowId", "value": "a"}]}),
            json!({"type": "and"}),
            json!({"type": "and", "predicates": [{"dimension": "flowId"}]}),
            json!({"type": "and", "predicates": [{"dimension": "flow", "value": "a"}]}),
            json!({"type": "and", "predicates": [{"dimension": "flowId", "operator": "like", "value": "a"}]}),
        ] {
            assert_eq!(status(wrong.clone()), Err(400), "{wrong}");
        }
        assert_eq!(
            status(json!({"type": "and", "predicates": [{"dimension": "ani", "value": "a"}]})),
            Err(501)
        );
    }
}
