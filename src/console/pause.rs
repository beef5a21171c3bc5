//! Stopping loops and letting them go on, over HTTP.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::access::Caller;
use super::problem::{Kind, ParameterError, Problem};
use super::routes::{Answer, Content, Parameter, Place, RequestBody};
use super::settings::read;
use crate::model::pause::{Extent, PauseInForce, Pauses, REASON_LIMIT};

/// What is to be stopped, and why.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewPause {
    /// `dial`, `rollback`, `lag`, `route`, `delivery` or `all`.
    r#loop: String,
    #[schemars(length(min = 1, max = REASON_LIMIT))]
    reason: String,
}

/// Pauses, that of all first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct PauseList {
    items: Vec<PauseInForce>,
    /// There is one page only.
    next: Option<String>,
}

impl PauseList {
    fn of(pauses: &Pauses) -> Self {
        Self { items: pauses.iter().map(|(_, pause)| pause.clone()).collect(), next: None }
    }
}

pub(super) const BODY: RequestBody = RequestBody {
    description: "What is to be stopped, and why",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<NewPause>(),
};

pub(super) const PARAMETERS: &[Parameter] = &[Parameter {
    name: "loop",
    place: Place::Path,
    description: "dial, rollback, lag, route, delivery, or all: with all every pause ends",
    schema: |_| json_schema!({"type": "string", "maxLength": 32}),
}];

const UNREADABLE: Answer =
    Answer { status: 400, description: "What is not allowed, and what is", content: Content::Problem };

const LIST: Content = Content::Json(|generator| generator.subschema_for::<PauseList>());

pub(super) const LIST_ANSWERS: &[Answer] =
    &[Answer { status: 200, description: "The pauses in force", content: LIST }];

pub(super) const PAUSE_ANSWERS: &[Answer] = &[
    Answer { status: 200, description: "The pause, in force on every instance within 2 s", content: LIST },
    UNREADABLE,
];

pub(super) const RESUME_ANSWERS: &[Answer] = &[
    Answer { status: 200, description: "The pauses that have ended", content: LIST },
    UNREADABLE,
    Answer { status: 404, description: "It is not paused by itself", content: Content::Problem },
];

pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<PauseList>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    Ok(Json(PauseList::of(&shared.database.pauses().await?)))
}

pub(super) async fn pause(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<PauseList>, Problem> {
    let asked: NewPause = read(&headers, &body)?;
    let extent = extent(&asked.r#loop)?;
    Ok(Json(PauseList::of(&shared.database.pause(extent, &asked.reason, &caller.name).await?)))
}

pub(super) async fn resume(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<PauseList>, Problem> {
    let extent = extent(&name)?;
    let ended = shared.database.resume(extent, &caller.name).await?;
    if ended.is_empty() {
        let detail = format!("no pause of {extent} is in force");
        return Err(Problem::new(Kind::NotFound, detail, "GET /v1/pause lists those that are"));
    }
    Ok(Json(PauseList::of(&ended)))
}

fn extent(name: &str) -> Result<Extent, Problem> {
    name.parse().map_err(|allowed| {
        Problem::bad_parameters(vec![ParameterError {
            parameter: "loop".to_owned(),
            value: Some(name.chars().take(200).collect()),
            allowed,
        }])
    })
}
