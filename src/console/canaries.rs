//! Progressive delivery of flows, over HTTP.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::access::Caller;
use super::problem::{Kind, Problem};
use super::routes::{Answer, Content, Parameter, Place, RequestBody};
use super::settings::read;
use crate::model::delivery::Steps;
use crate::postgres::canaries::{Canary, NewCanary};
use crate::postgres::settings::SettingError;

/// A flow that is to be tried out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CanaryToStart {
    /// The flow in force.
    #[schemars(length(min = 1, max = 128))]
    flow_id: String,
    #[schemars(length(min = 1, max = 128))]
    candidate_id: String,
    /// The routing configuration that the dispatcher asks; it sends to these flows alone.
    #[schemars(length(min = 1, max = 128))]
    configuration_id: String,
    /// Shares of the candidate, 0–1, rising, the last one 1; 1, 5, 20, 50 and 100 % where absent.
    #[serde(default)]
    #[schemars(length(min = 2, max = 20))]
    steps: Option<Vec<f64>>,
    /// Minutes that a step lasts at least.
    #[serde(default = "a_quarter")]
    hold_minutes: u32,
    #[serde(default)]
    #[schemars(length(max = 500))]
    reason: Option<String>,
}

fn a_quarter() -> u32 {
    15
}

/// Why a candidate is taken away.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Abort {
    #[schemars(length(min = 1, max = 500))]
    reason: String,
}

/// What is to be published.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Promotion {
    /// Version of the flow in force that has the candidate's content; absent: the newest one that was
    /// never in force.
    #[serde(default)]
    version: Option<String>,
}

/// Canaries, newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct CanaryList {
    items: Vec<Canary>,
    /// There is one page only.
    next: Option<String>,
}

pub(super) const PARAMETERS: &[Parameter] = &[Parameter {
    name: "id",
    place: Place::Path,
    description: "The canary, or its routing configuration for the newest one",
    schema: |_| json_schema!({"type": "string", "maxLength": 128}),
}];

pub(super) const START_BODY: RequestBody = RequestBody {
    description: "Which flow is tried out beside which",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<CanaryToStart>(),
};

pub(super) const ABORT_BODY: RequestBody = RequestBody {
    description: "Why",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<Abort>(),
};

pub(super) const PROMOTE_BODY: RequestBody = RequestBody {
    description: "What is to be published",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<Promotion>(),
};

const ONE: Content = Content::Json(|generator| generator.subschema_for::<Canary>());

pub(super) const LIST_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    description: "Canaries, newest first",
    content: Content::Json(|generator| generator.subschema_for::<CanaryList>()),
}];

pub(super) const ANSWERS: &[Answer] = &[
    Answer { status: 200, description: "The canary as it stands now", content: ONE },
    Answer { status: 400, description: "What is not allowed, and what is", content: Content::Problem },
    Answer { status: 404, description: "No canary of this id", content: Content::Problem },
    Answer { status: 409, description: "It cannot be done as things are", content: Content::Problem },
];

/// What is well said and cannot be done now.
fn as_things_are(error: SettingError) -> Problem {
    match error {
        SettingError::Refused(reason) => {
            Problem::new(Kind::Conflict, reason, "GET /v1/canaries shows how they stand")
        }
        SettingError::Database(error) => error.into(),
    }
}

async fn known(shared: &Shared, id: &str) -> Result<(), Problem> {
    match shared.database.canary(id).await? {
        Some(_) => Ok(()),
        None => {
            let detail = "there is no such canary".to_owned();
            Err(Problem::new(Kind::NotFound, detail, "GET /v1/canaries lists them"))
        }
    }
}

pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<CanaryList>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    Ok(Json(CanaryList { items: shared.database.canaries().await?, next: None }))
}

pub(super) async fn start(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Canary>, Problem> {
    let asked: CanaryToStart = read(&headers, &body)?;
    let new = NewCanary {
        flow: asked.flow_id,
        candidate: asked.candidate_id,
        route: asked.configuration_id,
        steps: asked.steps.map_or_else(Steps::default, Steps),
        hold_minutes: asked.hold_minutes,
        reason: asked.reason,
    };
    Ok(Json(shared.database.start_canary(&new, &caller.name).await.map_err(as_things_are)?))
}

pub(super) async fn abort(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Canary>, Problem> {
    let asked: Abort = read(&headers, &body)?;
    known(&shared, &id).await?;
    let aborted = shared.database.abort_canary(&id, &asked.reason, &caller.name).await;
    Ok(Json(aborted.map_err(as_things_are)?))
}

pub(super) async fn promote(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Canary>, Problem> {
    let asked: Promotion = read(&headers, &body)?;
    known(&shared, &id).await?;
    let promoted = shared.database.promote_canary(&id, asked.version.as_deref(), &caller.name).await;
    Ok(Json(promoted.map_err(as_things_are)?))
}
