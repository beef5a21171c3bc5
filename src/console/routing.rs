//! Weighted distribution over HTTP: decisions, and the configurations behind them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Instrument as _, Span};

use super::access::Caller;
use super::problem::{Kind, Problem};
use super::routes::{Answer, Content, Parameter, Place, RequestBody};
use super::{Inner, Shared};
use crate::model::Timestamp;
use crate::model::object;
use crate::model::routing::{RouteAnswer, RouteConfiguration, RoutePublication, RouteRefusal};
use crate::model::settings::RouteWeights;
use crate::postgres::Database;
use crate::postgres::routing::Saved;
use crate::{telemetry, topics};

/// Revisions the history shows.
const HISTORY: u32 = 100;
/// Bodies nest no deeper than this.
const MAX_DEPTH: usize = 8;

/// Work on its way behind a `dyn` interface.
pub type Routing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The decision service.
pub trait RouteDecisions: Send + Sync + 'static {
    /// Which group gets the conversation.
    fn decide<'a>(
        &'a self,
        configuration_id: &'a str,
        conversation_id: &'a str,
    ) -> Routing<'a, Result<Arc<RouteAnswer>, RouteRefusal>>;

    /// Everything that is wrong with a configuration.
    ///
    /// # Errors
    /// One sentence per finding.
    fn check(&self, configuration: &RouteConfiguration) -> Result<(), Vec<String>>;

    /// Whether the configuration can be decided by with these weights of destinations.
    fn check_weights<'a>(
        &'a self,
        database: &'a Database,
        id: &'a str,
        weights: &'a BTreeMap<String, f64>,
    ) -> Routing<'a, Result<(), NotPublished>>;

    /// Puts the draft in force.
    fn publish<'a>(
        &'a self,
        id: &'a str,
        who: &'a str,
    ) -> Routing<'a, Result<RoutePublication, NotPublished>>;
}

/// Why a draft is not in force.
#[derive(Debug)]
pub enum NotPublished {
    /// There is nothing to publish.
    Unknown(String),
    /// It cannot be: why.
    Unusable(String),
    /// People have stopped routing from being changed.
    Paused(String),
    /// There are too many.
    TooMany(String),
    Database(crate::postgres::Error),
}

/// What an Architect flow asks.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DecisionRequest {
    #[schemars(length(min = 1, max = 128))]
    conversation_id: String,
}

/// A configuration with its standing.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConfigurationView {
    /// As it is in force; the draft where nothing is.
    #[serde(flatten)]
    configuration: RouteConfiguration,
    /// In force; null where only a draft is.
    revision: Option<u64>,
    /// What a publication would put in force.
    draft: Option<RouteConfiguration>,
}

/// All configurations.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Configurations {
    items: Vec<ConfigurationView>,
    /// Always null: there is one page.
    next: Option<String>,
}

/// The revisions that were in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct History {
    /// Newest first, 100 at most.
    items: Vec<Revision>,
    /// Always null: there is one page.
    next: Option<String>,
}

/// One revision.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Revision {
    revision: u64,
    published_by: String,
    published_at: Timestamp,
    configuration: RouteConfiguration,
}

pub(super) const ID_PARAMETERS: &[Parameter] = &[Parameter {
    name: "configurationId",
    place: Place::Path,
    description: "The configuration's id",
    schema: |_| schemars::json_schema!({"type": "string", "minLength": 1, "maxLength": 128}),
}];

pub(super) const DECISION_BODY: RequestBody = RequestBody {
    description: "The conversation that is to be sent somewhere",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<DecisionRequest>(),
};

pub(super) const DECISION_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "Where it goes. Asked again, the same",
        content: Content::Json(|generator| generator.subschema_for::<RouteAnswer>()),
    },
    Answer { status: 400, description: "No conversation id", content: Content::Problem },
    Answer { status: 404, description: "No such configuration is in force", content: Content::Problem },
    Answer {
        status: 503,
        description: "Too many requests at once, or the configuration is not known here yet",
        content: Content::Problem,
    },
];

pub(super) const CONFIGURATION_BODY: RequestBody = RequestBody {
    description: "The whole configuration; `revision` and `draft`, as GET shows them, are passed over",
    media_types: &["application/json"],
    schema: |generator| generator.subschema_for::<RouteConfiguration>(),
};

pub(super) const CONFIGURATION_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The configuration with its standing",
        content: Content::Json(|generator| generator.subschema_for::<ConfigurationView>()),
    },
    Answer { status: 400, description: "Not a configuration", content: Content::Problem },
    Answer { status: 404, description: "Nothing of this id", content: Content::Problem },
];

pub(super) const LIST_ANSWERS: &[Answer] = &[Answer {
    status: 200,
    description: "All configurations, by id",
    content: Content::Json(|generator| generator.subschema_for::<Configurations>()),
}];

pub(super) const HISTORY_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The revisions",
        content: Content::Json(|generator| generator.subschema_for::<History>()),
    },
    Answer { status: 404, description: "Nothing of this id was published", content: Content::Problem },
];

pub(super) const PUBLISH_ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "The revision is in force for the next decision of every instance",
        content: Content::Json(|generator| generator.subschema_for::<RoutePublication>()),
    },
    Answer { status: 400, description: "The draft cannot be used", content: Content::Problem },
    Answer { status: 404, description: "Nothing of this id was saved", content: Content::Problem },
    Answer {
        status: 409,
        description: "There are as many as there can be, or routing is paused",
        content: Content::Problem,
    },
    Answer {
        status: 503,
        description: "No instance here decides on routes, so nothing would be in force",
        content: Content::Problem,
    },
];

pub(super) async fn decide(
    State(shared): State<Shared>,
    Path(configuration_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let request: DecisionRequest = object::read(&body, MAX_DEPTH).map_err(|told| {
        Problem::new(Kind::BadBody, format!("not a request for a decision: {told}"), DECISION_REMEDY)
    })?;
    let decided = service(&shared)?.decide(&configuration_id, &request.conversation_id);
    let answer = decided.instrument(span_of(&configuration_id, &headers)).await?;
    let text = serde_json::to_vec(&*answer).expect("own values are JSON");
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// Goes on with the trace of whoever asks. Nothing where spans go nowhere: decisions are too many for that.
fn span_of(configuration_id: &str, headers: &HeaderMap) -> Span {
    if !telemetry::is_exported() {
        return Span::none();
    }
    let span = tracing::info_span!("decide", key = configuration_id);
    if let Some(given) = headers.get(topics::headers::TRACEPARENT) {
        telemetry::continue_trace(&span, given.as_bytes());
    }
    span
}

const DECISION_REMEDY: &str = "send {\"conversationId\":\"…\"}";

pub(super) async fn list(State(shared): State<Shared>) -> Result<Json<Configurations>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    let saved = shared.database.routes().await?;
    let items = saved.into_iter().filter_map(|(_, saved)| view(saved)).collect();
    Ok(Json(Configurations { items, next: None }))
}

pub(super) async fn show(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<ConfigurationView>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    stored(&shared, &id).await.map(Json)
}

pub(super) async fn save(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
    body: Bytes,
) -> Result<Json<ConfigurationView>, Problem> {
    let draft = read_configuration(&id, &body)?;
    service(&shared)?.check(&draft).map_err(|findings| unusable(&findings.join("; ")))?;
    let _turn = shared.ledger_reads.acquire().await;
    shared.database.save_route_draft(&draft, &caller.name).await?;
    stored(&shared, &id).await.map(Json)
}

pub(super) async fn publish(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<RoutePublication>, Problem> {
    service(&shared)?.publish(&id, &caller.name).await.map(Json).map_err(Problem::from)
}

pub(super) async fn history(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<History>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    let entries = shared.database.route_history(&id, HISTORY).await?;
    if entries.is_empty() {
        return Err(unknown(format!("nothing was published under {id}")));
    }
    let revision = |entry: crate::postgres::routing::RevisionEntry| Revision {
        revision: entry.revision.unsigned_abs(),
        published_by: entry.published_by,
        published_at: entry.published_at,
        configuration: entry.definition,
    };
    Ok(Json(History { items: entries.into_iter().map(revision).collect(), next: None }))
}

/// Refuses weights for run time that the configuration cannot be decided by. An instance
/// without the service lets them be: those with it leave the configuration's own in force.
pub(super) async fn check_weights(
    shared: &Inner,
    configuration_id: &str,
    value: &serde_json::Value,
) -> Result<(), Problem> {
    let (Some(service), Ok(RouteWeights { weights })) = (&shared.routing, RouteWeights::deserialize(value))
    else {
        return Ok(());
    };
    service.check_weights(&shared.database, configuration_id, &weights).await.map_err(Problem::from)
}

fn service(shared: &Inner) -> Result<&Arc<dyn RouteDecisions>, Problem> {
    shared.routing.as_ref().ok_or_else(|| {
        let remedy = "ask another instance, or start this one with the role `routing`";
        Problem::new(Kind::Unavailable, "this instance takes no routing decisions", remedy)
    })
}

async fn stored(shared: &Inner, id: &str) -> Result<ConfigurationView, Problem> {
    let saved = shared.database.route(id).await?;
    view(saved).ok_or_else(|| unknown(format!("there is no configuration {id}")))
}

fn view(saved: Saved) -> Option<ConfigurationView> {
    Some(match saved.in_force {
        Some((revision, configuration)) => {
            let revision = Some(revision.unsigned_abs());
            ConfigurationView { configuration, revision, draft: saved.draft }
        }
        None => {
            let draft = saved.draft?;
            ConfigurationView { configuration: draft.clone(), revision: None, draft: Some(draft) }
        }
    })
}

fn read_configuration(id: &str, body: &[u8]) -> Result<RouteConfiguration, Problem> {
    let remedy = "see RouteConfiguration in /openapi.json";
    let bad = |told: String| Problem::new(Kind::BadBody, format!("not a configuration: {told}"), remedy);
    let mut value = object::parse(body, MAX_DEPTH).map_err(bad)?;
    if let Some(object) = value.as_object_mut() {
        object.remove("revision");
        object.remove("draft");
    }
    let draft: RouteConfiguration = object::of(&value).map_err(|error| bad(error.to_string()))?;
    if draft.id != id {
        return Err(bad(format!("its id is {:?} and the path says {id:?}", draft.id)));
    }
    Ok(draft)
}

fn unusable(findings: &str) -> Problem {
    Problem::new(Kind::BadBody, findings, "mend the configuration; what is in force stays in force")
}

fn unknown(detail: String) -> Problem {
    Problem::new(
        Kind::NotFound,
        detail,
        "see /v1/routes for what there is; PUT makes a draft, publish puts it in force",
    )
}

impl From<RouteRefusal> for Problem {
    fn from(refusal: RouteRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            RouteRefusal::BadConversation => Problem::new(Kind::BadBody, detail, DECISION_REMEDY),
            RouteRefusal::Unknown(_) => unknown(detail),
            RouteRefusal::Unavailable { .. } => {
                let remedy =
                    "ask another instance, or again in a moment; /readyz says when the database is back";
                Problem::new(Kind::Unavailable, detail, remedy)
            }
            RouteRefusal::Overloaded => Problem::new(Kind::Overloaded, detail, "ask again in a moment"),
            RouteRefusal::Stopping => Problem::new(Kind::Unavailable, detail, "ask another instance"),
        }
    }
}

impl From<NotPublished> for Problem {
    fn from(problem: NotPublished) -> Self {
        match problem {
            NotPublished::Unknown(detail) => unknown(detail),
            NotPublished::Unusable(detail) => unusable(&detail),
            NotPublished::Paused(detail) => Problem::new(
                Kind::Conflict,
                detail,
                "let routing go on first: DELETE /v1/pause/route, or all",
            ),
            NotPublished::TooMany(detail) => {
                Problem::new(Kind::Conflict, detail, "publish over one that is no longer needed")
            }
            NotPublished::Database(error) => error.into(),
        }
    }
}
