//! The ledger over HTTP.

use std::borrow::Cow;
use std::str::FromStr;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, json_schema};
use serde::Serialize;
use uuid::Uuid;

use super::Shared;
use super::parameters::NOT_ALLOWED;
use super::problem::{Kind, ParameterError, Problem};
use super::routes::{Answer, Content, Parameter, Place};
use crate::model::Timestamp;
use crate::model::decision::DecisionId;
use crate::model::organization::is_name;
use crate::postgres::ledger::{Cursor, Filter, LedgerEntry};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;
/// Longest text to look for, in bytes.
const MAX_TEXT: usize = 512;

/// One page of the ledger.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Page {
    /// Newest first.
    items: Vec<LedgerEntry>,
    /// Where the next page begins: hand it over as `cursor`. Null on the last page.
    next: Option<String>,
}

pub(super) const LIST_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "loop",
        place: Place::Query,
        description: "Only decisions of this loop",
        schema: |_| json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
    },
    Parameter {
        name: "key",
        place: Place::Query,
        description: "Only decisions about this campaign, flow, group or configuration",
        schema: |_| json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_TEXT}),
    },
    Parameter {
        name: "organization",
        place: Place::Query,
        description: "Only decisions about what belongs to this further organisation",
        schema: |_| json_schema!({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,31}$"}),
    },
    Parameter {
        name: "from",
        place: Place::Query,
        description: "Only decisions taken at this time or later",
        schema: |generator| generator.subschema_for::<Timestamp>(),
    },
    Parameter {
        name: "to",
        place: Place::Query,
        description: "Only decisions taken before this time",
        schema: |generator| generator.subschema_for::<Timestamp>(),
    },
    Parameter {
        name: "limit",
        place: Place::Query,
        description: "Decisions on one page",
        schema: |_| json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}),
    },
    Parameter {
        name: "cursor",
        place: Place::Query,
        description: "`next` of the page before",
        schema: |_| json_schema!({"type": "string"}),
    },
];

pub(super) const ID_PARAMETERS: &[Parameter] = &[Parameter {
    name: "id",
    place: Place::Path,
    description: "The decision's id",
    schema: |_| json_schema!({"type": "string", "format": "uuid"}),
}];

pub(super) const LIST_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "One page",
        content: Content::Json(|generator| generator.subschema_for::<Page>()),
    },
    NOT_ALLOWED,
];

pub(super) const ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The decision",
        content: Content::Json(|generator| generator.subschema_for::<LedgerEntry>()),
    },
    Answer { status: 400, description: "Not an id", content: Content::Problem },
    Answer { status: 404, description: "No decision of this id", content: Content::Problem },
];

pub(super) async fn list(
    State(shared): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, Problem> {
    let (filter, limit) = read_query(&query)?;
    let _turn = shared.ledger_reads.acquire().await;
    // One more than asked for tells whether another page follows.
    let mut items = shared.database.decisions(&filter, limit + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| Cursor::after(last).to_string());
    Ok(Json(Page { items, next }))
}

pub(super) async fn show(State(shared): State<Shared>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = Uuid::try_parse(&id).map(DecisionId).map_err(|_| {
        let parameter = "id".to_owned();
        Problem::bad_parameters(vec![ParameterError {
            parameter,
            value: Some(id),
            allowed: "a decision's id, a UUID".to_owned(),
        }])
    })?;
    if let Some(finished) = shared.finished.get(&id) {
        return Ok(as_json(finished));
    }
    let _turn = shared.ledger_reads.acquire().await;
    let Some(entry) = shared.database.decision(id).await? else {
        let remedy = "check the id; a decision taken just now is here once the audit has recorded it";
        return Err(Problem::new(Kind::NotFound, format!("there is no decision {id}"), remedy));
    };
    let text = serde_json::to_vec(&entry).map(Bytes::from).map_err(|error| {
        tracing::error!(%error, decision = %id, "a decision cannot be written as JSON");
        Problem::new(Kind::Internal, "the decision cannot be shown", "look into the log of this instance")
    })?;
    if entry.is_closed() {
        shared.finished.insert(id, text.clone());
    }
    Ok(as_json(text))
}

fn as_json(text: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// Reads the query and tells everything that is wrong with it at once.
pub(super) fn read_query(query: &[(String, String)]) -> Result<(Filter, u32), Problem> {
    let mut filter = Filter::default();
    let mut limit = DEFAULT_LIMIT;
    let mut errors = Vec::new();
    for (index, (name, value)) in query.iter().enumerate() {
        let mut wrong = |allowed: Cow<'_, str>| {
            errors.push(ParameterError {
                parameter: name.clone(),
                value: Some(value.clone()),
                allowed: allowed.into_owned(),
            });
        };
        if query[..index].iter().any(|(other, _)| other == name) {
            wrong("to be given once".into());
            continue;
        }
        match name.as_str() {
            "loop" | "key" if !is_searchable(value) => {
                wrong(format!("text of 1 to {MAX_TEXT} bytes without control characters").into());
            }
            "organization" if !is_name(value) => {
                wrong("the name of a further organisation as in genesys.organizations".into());
            }
            "organization" => filter.organization = Some(value.clone()),
            "loop" => filter.r#loop = Some(value.clone()),
            "key" => filter.key = Some(value.clone()),
            "from" => {
                take(value, &mut filter.from, &mut wrong, "an RFC 3339 time such as 2026-01-02T03:04:05.678Z")
            }
            "to" => {
                take(value, &mut filter.to, &mut wrong, "an RFC 3339 time such as 2026-01-02T03:04:05.678Z")
            }
            "cursor" => take(value, &mut filter.after, &mut wrong, "`next` of the page before"),
            "limit" => match value.parse() {
                Ok(number) if (1..=MAX_LIMIT).contains(&number) => limit = number,
                _ => wrong(format!("a whole number from 1 to {MAX_LIMIT}").into()),
            },
            _ => wrong(format!("one of {}", known_names()).into()),
        }
    }
    if let (Some(from), Some(to)) = (filter.from, filter.to)
        && from >= to
    {
        let (parameter, value) = ("to".to_owned(), Some(to.to_string()));
        errors.push(ParameterError { parameter, value, allowed: format!("a time after from={from}") });
    }
    if errors.is_empty() { Ok((filter, limit)) } else { Err(Problem::bad_parameters(errors)) }
}

fn take<T: FromStr>(
    text: &str,
    into: &mut Option<T>,
    wrong: &mut impl FnMut(Cow<'_, str>),
    allowed: &'static str,
) {
    match text.parse() {
        Ok(value) => *into = Some(value),
        Err(_) => wrong(allowed.into()),
    }
}

fn is_searchable(text: &str) -> bool {
    (1..=MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn known_names() -> String {
    LIST_PARAMETERS.iter().map(|parameter| parameter.name).collect::<Vec<_>>().join(", ")
}
