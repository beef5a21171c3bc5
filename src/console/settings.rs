//! Changes at run time: settings and maintenance windows, each with who made it.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::{Extension, Json};
use schemars::{JsonSchema, json_schema};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::access::Caller;
use super::problem::{Kind, Problem};
use super::routes::{Answer, Content, Parameter, Place, RequestBody};
use super::{Shared, routing};
use crate::model::Timestamp;
use crate::model::dry_run::DryRun;
use crate::model::object;
use crate::model::settings::{MAINTENANCE, MaintenanceWindow, ROUTE, Setting, check};
use crate::postgres::settings::SettingError;

pub(super) const SCOPE_PARAMETERS: &[Parameter] = &[Parameter {
    name: "scope",
    place: Place::Path,
    description: "What is set: dial, dial/<campaignId>, maintenance/<id>, route/<configurationId> or pause/<loop>, its slash written %2F",
    schema: |_| json_schema!({"type": "string"}),
}];

pub(super) const WINDOW_PARAMETERS: &[Parameter] = &[Parameter {
    name: "id",
    place: Place::Path,
    description: "The window's id",
    schema: |_| json_schema!({"type": "string", "format": "uuid"}),
}];

pub(super) const SETTING_BODY: RequestBody = RequestBody {
    description: "The new value; null withdraws the setting",
    media_types: &["application/json"],
    schema: |_| json_schema!({"description": "An object as its scope asks for, or null"}),
};

pub(super) const WINDOW_BODY: RequestBody = RequestBody {
    description: "What the window is about, and how long it stays open",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<NewWindow>(),
};

const UNREADABLE: Answer = Answer {
    status: 400,
    description: "A value that is not allowed, and what is",
    content: Content::Problem,
};

pub(super) const SETTING_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The setting as it is in force",
        content: Content::Json(|generator| generator.subschema_for::<Setting<'_>>()),
    },
    UNREADABLE,
    Answer { status: 404, description: "It is not set", content: Content::Problem },
    NOT_ADMITTED,
];

const NOT_ADMITTED: Answer = Answer {
    status: 409,
    description: "Played over the last day, the change breaks a cap (`breaks-cap`), or that cannot be found out (`not-reviewed`)",
    content: Content::Problem,
};

pub(super) const DRY_RUN_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "How many decisions of the last hour would have been others, and the first of them",
        content: Content::Json(|generator| generator.subschema_for::<DryRun>()),
    },
    UNREADABLE,
    Answer { status: 409, description: "The record could not be played in time", content: Content::Problem },
];

pub(super) const WINDOW_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The window",
        content: Content::Json(|generator| generator.subschema_for::<Window>()),
    },
    UNREADABLE,
    Answer { status: 404, description: "No window of this id", content: Content::Problem },
];

pub(super) const WINDOW_LIST_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    description: "Windows that are open, newest first",
    content: Content::Json(|generator| generator.subschema_for::<Windows>()),
}];

/// Values nest no deeper than this.
const MAX_DEPTH: usize = 32;

/// A window to be opened.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewWindow {
    /// Absent: all flows.
    flow_id: Option<String>,
    /// At most 604 800.
    #[serde(default = "an_hour")]
    length_seconds: u32,
    reason: Option<String>,
}

fn an_hour() -> u32 {
    3_600
}

/// A maintenance window and who opened or closed it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Window {
    id: String,
    #[serde(flatten)]
    window: MaintenanceWindow,
    who: String,
    when: Timestamp,
    revision: u64,
}

/// Windows.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Windows {
    items: Vec<Window>,
    /// There is one page only.
    next: Option<String>,
}

impl Window {
    fn of(setting: &Setting<'_>) -> Option<Self> {
        Some(Self {
            id: setting.scope.strip_prefix(MAINTENANCE)?.to_owned(),
            window: serde_json::from_value(setting.value.clone()).ok()?,
            who: setting.who.clone().into_owned(),
            when: setting.when,
            revision: setting.revision,
        })
    }
}

impl From<SettingError> for Problem {
    fn from(error: SettingError) -> Self {
        match error {
            SettingError::Refused(reason) => Problem::new(Kind::BadBody, reason, "see /openapi.json"),
            SettingError::Database(error) => error.into(),
        }
    }
}

pub(super) async fn show(
    State(shared): State<Shared>,
    Path(scope): Path<String>,
) -> Result<Json<Setting<'static>>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    let setting = shared.database.setting(&scope).await?;
    setting.map(Json).ok_or_else(|| not_set(&scope))
}

pub(super) async fn put(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(scope): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Setting<'static>>, Problem> {
    let value = checked(&shared, &scope, &headers, &body).await?;
    shared.admit(&scope, &value, &caller.name).await?;
    Ok(Json(shared.database.change_setting(&scope, &caller.name, |_, _| Ok(value)).await?))
}

/// What the same change would have come to; nothing is changed.
pub(super) async fn dry_run(
    State(shared): State<Shared>,
    Path(scope): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<DryRun>, Problem> {
    let value = checked(&shared, &scope, &headers, &body).await?;
    Ok(Json(shared.dry_run(&scope, &value).await?))
}

/// A value that can be set.
async fn checked(shared: &Shared, scope: &str, headers: &HeaderMap, body: &Bytes) -> Result<Value, Problem> {
    let value: Value = read(headers, body)?;
    check(scope, &value).map_err(|reason| Problem::new(Kind::BadBody, reason, "see /openapi.json"))?;
    if let (Some(id), false) = (scope.strip_prefix(ROUTE), value.is_null()) {
        routing::check_weights(shared, id, &value).await?;
    }
    Ok(value)
}

pub(super) async fn list_windows(State(shared): State<Shared>) -> Result<Json<Windows>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    let open = shared.database.open_maintenance_windows().await?;
    Ok(Json(Windows { items: open.iter().filter_map(Window::of).collect(), next: None }))
}

pub(super) async fn open_window(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Window>, Problem> {
    let asked: NewWindow = read(&headers, &body)?;
    let length = Duration::from_secs(asked.length_seconds.into());
    let (flow, reason) = (asked.flow_id.as_deref(), asked.reason.as_deref());
    let opened = shared.database.open_maintenance(flow, length, reason, &caller.name).await?;
    shown(&opened)
}

pub(super) async fn close_window(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Json<Window>, Problem> {
    match shared.database.close_maintenance(&id, &caller.name).await? {
        Some(closed) => shown(&closed),
        None => {
            let detail = format!("there is no maintenance window {id:?}");
            Err(Problem::new(Kind::NotFound, detail, "GET /v1/maintenance-windows lists those that are open"))
        }
    }
}

fn shown(setting: &Setting<'_>) -> Result<Json<Window>, Problem> {
    let unreadable = || Problem::new(Kind::Internal, "what was written is no window", "look into the log");
    Window::of(setting).map(Json).ok_or_else(unreadable)
}

fn not_set(scope: &str) -> Problem {
    Problem::new(
        Kind::NotFound,
        format!("{scope:?} is not set"),
        "`trunkline settings history` shows what was",
    )
}

/// JSON and nothing else: a form that a web page makes a browser send is not read.
pub(super) fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Problem> {
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some("application/json") {
        let detail = format!("the body is {media_type:?}, not application/json");
        return Err(Problem::new(Kind::UnsupportedMediaType, detail, "send content-type: application/json"));
    }
    object::read(body, MAX_DEPTH)
        .map_err(|told| Problem::new(Kind::BadBody, told, "see /openapi.json for what it may hold"))
}
