//! Every route, declared once: the router, the access check and `/openapi.json` are
//! made from this table.

use std::sync::LazyLock;

use axum::Router;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{Schema, SchemaGenerator};

use super::access::{Access, Role};
use super::{
    Shared, canaries, decisions, events, lag, openapi, pages, pause, routing, settings, status, stream,
};

/// Methods that routes take. HEAD is answered wherever GET is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Post => "post",
            Method::Put => "put",
            Method::Delete => "delete",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        }
    }

    fn covers(self, method: &axum::http::Method) -> bool {
        match self {
            Method::Get => matches!(*method, axum::http::Method::GET | axum::http::Method::HEAD),
            Method::Post => *method == axum::http::Method::POST,
            Method::Put => *method == axum::http::Method::PUT,
            Method::Delete => *method == axum::http::Method::DELETE,
        }
    }
}

/// One route.
pub struct Route {
    pub method: Method,
    /// With `{name}` for what varies.
    pub path: &'static str,
    pub summary: &'static str,
    pub access: Access,
    pub parameters: &'static [Parameter],
    /// What a request carries, if anything.
    pub body: Option<RequestBody>,
    pub answers: &'static [Answer],
    pub(super) handler: fn(MethodFilter) -> MethodRouter<Shared>,
}

/// Something a request may say in its path or query.
pub struct Parameter {
    pub name: &'static str,
    pub place: Place,
    pub description: &'static str,
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
}

/// The body of a request.
pub struct RequestBody {
    pub description: &'static str,
    pub media_types: &'static [&'static str],
    pub schema: fn(&mut SchemaGenerator) -> Schema,
}

/// A possible answer. Problems that every route can answer with are not listed.
pub struct Answer {
    pub status: u16,
    pub description: &'static str,
    pub content: Content,
}

/// What an answer's body is.
#[derive(Clone, Copy)]
pub enum Content {
    Json(fn(&mut SchemaGenerator) -> Schema),
    Text(&'static str),
    Problem,
}

/// Every route there is: those of programs, and those of the console's pages.
pub static ROUTES: LazyLock<Vec<&'static Route>> =
    LazyLock::new(|| FOR_PROGRAMS.iter().chain(super::allowances::ROUTES).chain(pages::PAGES).collect());

static FOR_PROGRAMS: &[Route] = &[
    Route {
        method: Method::Post,
        path: "/v1/events",
        summary: "Takes conversation events in; answers once Kafka has them",
        access: Access::Needs(Role::Publish),
        parameters: &[],
        body: Some(events::BODY),
        answers: events::ANSWERS,
        handler: |method| on(method, events::take),
    },
    Route {
        method: Method::Get,
        path: "/v1/decisions",
        summary: "Decisions with their outcomes, newest first",
        access: Access::Needs(Role::Read),
        parameters: decisions::LIST_PARAMETERS,
        body: None,
        answers: decisions::LIST_ANSWERS,
        handler: |method| on(method, decisions::list),
    },
    Route {
        method: Method::Get,
        path: "/v1/decisions/{id}",
        summary: "One decision with its outcome",
        access: Access::Needs(Role::Read),
        parameters: decisions::ID_PARAMETERS,
        body: None,
        answers: decisions::ANSWERS,
        handler: |method| on(method, decisions::show),
    },
    Route {
        method: Method::Get,
        path: "/v1/lag",
        summary: "How consumer groups are, by name",
        access: Access::Needs(Role::Read),
        parameters: lag::LIST_PARAMETERS,
        body: None,
        answers: lag::LIST_ANSWERS,
        handler: |method| on(method, lag::list),
    },
    Route {
        method: Method::Get,
        path: "/v1/lag/{group}",
        summary: "How one consumer group is",
        access: Access::Needs(Role::Read),
        parameters: lag::GROUP_PARAMETERS,
        body: None,
        answers: lag::GROUP_ANSWERS,
        handler: |method| on(method, lag::show),
    },
    Route {
        method: Method::Get,
        path: "/v1/lag/{group}/replicas",
        summary: "How many consumers would be right for a group",
        access: Access::Needs(Role::Read),
        parameters: lag::GROUP_PARAMETERS,
        body: None,
        answers: lag::REPLICAS_ANSWERS,
        handler: |method| on(method, lag::replicas),
    },
    Route {
        method: Method::Post,
        path: "/v1/routes/{configurationId}/decisions",
        summary: "Which group gets a conversation",
        access: Access::Needs(Role::Decide),
        parameters: routing::ID_PARAMETERS,
        body: Some(routing::DECISION_BODY),
        answers: routing::DECISION_ANSWERS,
        handler: |method| on(method, routing::decide),
    },
    Route {
        method: Method::Get,
        path: "/v1/routes",
        summary: "Routing configurations",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: routing::LIST_ANSWERS,
        handler: |method| on(method, routing::list),
    },
    Route {
        method: Method::Get,
        path: "/v1/routes/{configurationId}",
        summary: "A routing configuration, in force and as a draft",
        access: Access::Needs(Role::Read),
        parameters: routing::ID_PARAMETERS,
        body: None,
        answers: routing::CONFIGURATION_ANSWERS,
        handler: |method| on(method, routing::show),
    },
    Route {
        method: Method::Put,
        path: "/v1/routes/{configurationId}",
        summary: "Keeps a draft of a routing configuration",
        access: Access::Needs(Role::Operate),
        parameters: routing::ID_PARAMETERS,
        body: Some(routing::CONFIGURATION_BODY),
        answers: routing::CONFIGURATION_ANSWERS,
        handler: |method| on(method, routing::save),
    },
    Route {
        method: Method::Post,
        path: "/v1/routes/{configurationId}/publish",
        summary: "Puts the draft in force and, where configured, asks the platform to publish it",
        access: Access::Needs(Role::Operate),
        parameters: routing::ID_PARAMETERS,
        body: None,
        answers: routing::PUBLISH_ANSWERS,
        handler: |method| on(method, routing::publish),
    },
    Route {
        method: Method::Get,
        path: "/v1/routes/{configurationId}/history",
        summary: "The revisions of a routing configuration that were in force, newest first",
        access: Access::Needs(Role::Read),
        parameters: routing::ID_PARAMETERS,
        body: None,
        answers: routing::HISTORY_ANSWERS,
        handler: |method| on(method, routing::history),
    },
    Route {
        method: Method::Get,
        path: "/v1/settings/{scope}",
        summary: "A setting as it is in force",
        access: Access::Needs(Role::Read),
        parameters: settings::SCOPE_PARAMETERS,
        body: None,
        answers: settings::SETTING_ANSWERS,
        handler: |method| on(method, settings::show),
    },
    Route {
        method: Method::Put,
        path: "/v1/settings/{scope}",
        summary: "Changes a setting; in force everywhere within 2 s",
        access: Access::Needs(Role::Operate),
        parameters: settings::SCOPE_PARAMETERS,
        body: Some(settings::SETTING_BODY),
        answers: settings::SETTING_ANSWERS,
        handler: |method| on(method, settings::put),
    },
    Route {
        method: Method::Post,
        path: "/v1/settings/{scope}/dry-run",
        summary: "What a change would have come to in the last hour; nothing is changed",
        access: Access::Needs(Role::Operate),
        parameters: settings::SCOPE_PARAMETERS,
        body: Some(settings::SETTING_BODY),
        answers: settings::DRY_RUN_ANSWERS,
        handler: |method| on(method, settings::dry_run),
    },
    Route {
        method: Method::Get,
        path: "/v1/maintenance-windows",
        summary: "Maintenance windows that are open",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: settings::WINDOW_LIST_ANSWERS,
        handler: |method| on(method, settings::list_windows),
    },
    Route {
        method: Method::Post,
        path: "/v1/maintenance-windows",
        summary: "Opens a maintenance window: no flow it is about is rolled back while it is open",
        access: Access::Needs(Role::Operate),
        parameters: &[],
        body: Some(settings::WINDOW_BODY),
        answers: settings::WINDOW_ANSWERS,
        handler: |method| on(method, settings::open_window),
    },
    Route {
        method: Method::Delete,
        path: "/v1/maintenance-windows/{id}",
        summary: "Closes a maintenance window",
        access: Access::Needs(Role::Operate),
        parameters: settings::WINDOW_PARAMETERS,
        body: None,
        answers: settings::WINDOW_ANSWERS,
        handler: |method| on(method, settings::close_window),
    },
    Route {
        method: Method::Get,
        path: "/v1/pause",
        summary: "Loops that people have paused",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: pause::LIST_ANSWERS,
        handler: |method| on(method, pause::list),
    },
    Route {
        method: Method::Post,
        path: "/v1/pause",
        summary: "Pauses a loop, or all: it decides and records, and changes nothing outside",
        access: Access::Needs(Role::Operate),
        parameters: &[],
        body: Some(pause::BODY),
        answers: pause::PAUSE_ANSWERS,
        handler: |method| on(method, pause::pause),
    },
    Route {
        method: Method::Delete,
        path: "/v1/pause/{loop}",
        summary: "Lets a loop go on, or all",
        access: Access::Needs(Role::Operate),
        parameters: pause::PARAMETERS,
        body: None,
        answers: pause::RESUME_ANSWERS,
        handler: |method| on(method, pause::resume),
    },
    Route {
        method: Method::Get,
        path: "/v1/canaries",
        summary: "Canaries of flows, newest first",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: canaries::LIST_ANSWERS,
        handler: |method| on(method, canaries::list),
    },
    Route {
        method: Method::Post,
        path: "/v1/canaries",
        summary: "Tries a flow out: conversations go to it by rising exact shares",
        access: Access::Needs(Role::Operate),
        parameters: &[],
        body: Some(canaries::START_BODY),
        answers: canaries::ANSWERS,
        handler: |method| on(method, canaries::start),
    },
    Route {
        method: Method::Post,
        path: "/v1/canaries/{id}/abort",
        summary: "Takes a candidate away: it gets nothing from the very next decision on",
        access: Access::Needs(Role::Operate),
        parameters: canaries::PARAMETERS,
        body: Some(canaries::ABORT_BODY),
        answers: canaries::ANSWERS,
        handler: |method| on(method, canaries::abort),
    },
    Route {
        method: Method::Post,
        path: "/v1/canaries/{id}/promote",
        summary: "Publishes what has proven itself",
        access: Access::Needs(Role::Operate),
        parameters: canaries::PARAMETERS,
        body: Some(canaries::PROMOTE_BODY),
        answers: canaries::ANSWERS,
        handler: |method| on(method, canaries::promote),
    },
    Route {
        method: Method::Get,
        path: "/v1/stream",
        summary: "What happens, as server-sent events",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: stream::ANSWERS,
        handler: |method| on(method, stream::listen),
    },
    Route {
        method: Method::Get,
        path: "/healthz",
        summary: "Whether the process is alive",
        access: Access::Open,
        parameters: &[],
        body: None,
        answers: &[Answer { status: 200, description: "It is", content: Content::Text("text/plain") }],
        handler: |method| on(method, status::healthz),
    },
    Route {
        method: Method::Get,
        path: "/readyz",
        summary: "Whether all parts work, with reasons where not",
        access: Access::Open,
        parameters: &[],
        body: None,
        answers: &[
            Answer {
                status: 200,
                description: "All parts work",
                content: Content::Json(|generator| generator.subschema_for::<status::Readiness>()),
            },
            Answer {
                status: 503,
                description: "Some part does not",
                content: Content::Json(|generator| generator.subschema_for::<status::Readiness>()),
            },
        ],
        handler: |method| on(method, status::readyz),
    },
    Route {
        method: Method::Get,
        path: "/metrics",
        summary: "Metrics in Prometheus' text format",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            description: "All metrics that were recorded",
            content: Content::Text("text/plain"),
        }],
        handler: |method| on(method, status::metrics),
    },
    Route {
        method: Method::Get,
        path: "/openapi.json",
        summary: "This interface, as an OpenAPI 3.1 document",
        access: Access::Needs(Role::Read),
        parameters: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            description: "The document",
            content: Content::Json(|_| schemars::json_schema!({"type": "object"})),
        }],
        handler: |method| on(method, openapi::show),
    },
];

pub(super) fn router() -> Router<Shared> {
    ROUTES
        .iter()
        .fold(Router::new(), |router, route| router.route(route.path, (route.handler)(route.method.filter())))
}

/// The rule of the route that matched, if one did and it takes the method.
pub(super) fn access_of(method: &axum::http::Method, matched_path: Option<&str>) -> Option<Access> {
    let path = matched_path?;
    ROUTES.iter().find(|route| route.path == path && route.method.covers(method)).map(|route| route.access)
}

/// Whether it must be answered however busy the rest is: how this process is, in words and in
/// numbers. These ask nobody else.
pub(super) fn is_vital(access: Option<Access>, matched_path: Option<&str>) -> bool {
    access.is_some() && matched_path.is_some_and(|path| ["/healthz", "/readyz", "/metrics"].contains(&path))
}
