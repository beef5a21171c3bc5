//! How consumer groups are, over HTTP.

use axum::Json;
use axum::extract::{Path, Query, State};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::{JsonSchema, json_schema};
use serde::Serialize;

use super::Shared;
use super::parameters::NOT_ALLOWED;
use super::problem::{Kind, ParameterError, Problem};
use super::routes::{Answer, Content, Parameter, Place};
use crate::model::decision::Loop;
use crate::postgres::lag::GroupStatus;

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1_000;
/// Longest name of a group, in characters: what the poller makes of names at most.
const MAX_NAME: usize = 1_024;
/// Longest cursor: a name of so many bytes in base64.
const MAX_CURSOR: usize = 1_368;

/// Consumer groups by name.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Page {
    items: Vec<GroupStatus>,
    /// Where the next page begins: hand it over as `cursor`, as it is. Null on the last page.
    next: Option<String>,
}

/// For the HTTP metric of an autoscaler.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Replicas {
    /// Consumers that would be right, at least 1; while the loop is paused those there are.
    replicas: u32,
}

pub(super) const LIST_PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "limit",
        place: Place::Query,
        description: "Groups on one page",
        schema: |_| json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}),
    },
    Parameter {
        name: "cursor",
        place: Place::Query,
        description: "`next` of the page before, as it is",
        schema: |_| json_schema!({"type": "string", "maxLength": MAX_CURSOR}),
    },
];

pub(super) const GROUP_PARAMETERS: &[Parameter] = &[Parameter {
    name: "group",
    place: Place::Path,
    description: "The group's name; `cluster:name` for another cluster than trunkline's own",
    schema: |_| json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_NAME}),
}];

pub(super) const LIST_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "One page",
        content: Content::Json(|generator| generator.subschema_for::<Page>()),
    },
    NOT_ALLOWED,
];

pub(super) const GROUP_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The group",
        content: Content::Json(|generator| generator.subschema_for::<GroupStatus>()),
    },
    Answer { status: 404, description: "No group of this name was observed", content: Content::Problem },
];

pub(super) const REPLICAS_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "How many consumers would be right",
        content: Content::Json(|generator| generator.subschema_for::<Replicas>()),
    },
    Answer {
        status: 404,
        description: "No group of this name was observed, or nobody can tell how many consumers it has",
        content: Content::Problem,
    },
];

pub(super) async fn list(
    State(shared): State<Shared>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<Json<Page>, Problem> {
    let (after, limit) = read_query(&query)?;
    let _turn = shared.ledger_reads.acquire().await;
    // One more than asked for tells whether another page follows.
    let mut items = shared.database.lag_statuses(after.as_deref(), limit + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| to_cursor(&last.group));
    Ok(Json(Page { items, next }))
}

pub(super) async fn show(
    State(shared): State<Shared>,
    Path(group): Path<String>,
) -> Result<Json<GroupStatus>, Problem> {
    find(&shared, &group).await.map(Json)
}

pub(super) async fn replicas(
    State(shared): State<Shared>,
    Path(group): Path<String>,
) -> Result<Json<Replicas>, Problem> {
    let found = find(&shared, &group).await?;
    let held = shared.database.pauses().await?.stopping(Loop::Lag).and(found.evaluation.members);
    let Some(replicas) = found.replicas.map(|right| held.map_or(right, |members| members.max(1))) else {
        let remedy = "watch the group at its brokers: analytics do not tell how many consumers it has";
        return Err(Problem::new(
            Kind::NotFound,
            format!("nobody can tell how many consumers group {group} has"),
            remedy,
        ));
    };
    Ok(Json(Replicas { replicas }))
}

async fn find(shared: &Shared, group: &str) -> Result<GroupStatus, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    // Postgres holds no NUL, so no group is called so.
    let found = match group.contains('\0') {
        true => None,
        false => shared.database.lag_status(group).await?,
    };
    found.ok_or_else(|| {
        let remedy = "check the name and lag.include; a group is here after its first poll";
        Problem::new(Kind::NotFound, format!("no consumer group {group} was observed"), remedy)
    })
}

/// Names may hold anything, and a cursor has to survive addresses and shells.
fn to_cursor(group: &str) -> String {
    URL_SAFE_NO_PAD.encode(group)
}

fn from_cursor(cursor: &str) -> Option<String> {
    let group = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    // Postgres holds no NUL.
    (!group.contains('\0')).then_some(group)
}

/// Reads the query and tells everything that is wrong with it at once.
fn read_query(query: &[(String, String)]) -> Result<(Option<String>, u32), Problem> {
    let (mut after, mut limit) = (None, DEFAULT_LIMIT);
    let mut errors = Vec::new();
    for (index, (name, value)) in query.iter().enumerate() {
        let allowed = match name.as_str() {
            _ if query[..index].iter().any(|(other, _)| other == name) => "to be given once".to_owned(),
            "cursor" => match from_cursor(value) {
                Some(group) => {
                    after = Some(group);
                    continue;
                }
                None => "`next` of the page before".to_owned(),
            },
            "limit" => match value.parse() {
                Ok(number) if (1..=MAX_LIMIT).contains(&number) => {
                    limit = number;
                    continue;
                }
                _ => format!("a whole number from 1 to {MAX_LIMIT}"),
            },
            _ => "one of limit, cursor".to_owned(),
        };
        errors.push(ParameterError { parameter: name.clone(), value: Some(value.clone()), allowed });
    }
    if errors.is_empty() { Ok((after, limit)) } else { Err(Problem::bad_parameters(errors)) }
}
