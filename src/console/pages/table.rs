//! The routes of the pages, for the one table of all routes.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::json_schema;

use super::dial_form::Entered;
use super::login::redirect;
use super::shell::Shell;
use super::{
    alerts, asset, campaigns, canaries, canary_forms, decision, flows, forms, lag, ledger, login, now, page,
    platform, routes, settings, settings_forms,
};
use crate::console::Shared;
use crate::console::access::{Access, Caller, Role};
use crate::console::decisions::{ID_PARAMETERS, LIST_PARAMETERS};
use crate::console::problem::{ParameterError, Problem};
use crate::console::routes::{Answer, Content, Method, Parameter, Place, RequestBody, Route};
use crate::model::decision::DecisionId;

/// Longest id that is asked for, in characters.
const MOST_ID: usize = 512;

const PAGE_ANSWERS: &[Answer] = &[
    Answer { status: 200, description: "The page", content: Content::Text("text/html") },
    Answer {
        status: 303,
        description: "To the login, for people who are not logged in",
        content: Content::Text("text/html"),
    },
    Answer { status: 400, description: "Parameters that are not allowed", content: Content::Problem },
    Answer { status: 404, description: "There is no such thing", content: Content::Problem },
];

const FORM_ANSWERS: &[Answer] = &[
    Answer { status: 303, description: "Done: back to the page", content: Content::Text("text/html") },
    Answer { status: 400, description: "A field that is not allowed", content: Content::Problem },
    Answer { status: 403, description: "The form was not made for this session", content: Content::Problem },
    Answer { status: 415, description: "Not a form", content: Content::Problem },
    Answer {
        status: 422,
        description: "The page again, with what is wrong",
        content: Content::Text("text/html"),
    },
];

const FORM: RequestBody = RequestBody {
    description: "A form of one of the console's pages",
    media_types: &["application/x-www-form-urlencoded"],
    schema: |_| json_schema!({"type": "object", "additionalProperties": {"type": "string"}}),
};

const NAME: &[Parameter] = &[Parameter {
    name: "name",
    place: Place::Path,
    description: "A file's name",
    schema: |_| json_schema!({"type": "string", "maxLength": 64}),
}];

const ID: &[Parameter] = &[Parameter {
    name: "id",
    place: Place::Query,
    description: "One of them; without it all",
    schema: |_| json_schema!({"type": "string", "minLength": 1, "maxLength": MOST_ID}),
}];

type Handler = fn(MethodFilter) -> MethodRouter<Shared>;

const fn view(
    path: &'static str,
    summary: &'static str,
    parameters: &'static [Parameter],
    handler: Handler,
) -> Route {
    Route {
        method: Method::Get,
        path,
        summary,
        access: Access::Needs(Role::Read),
        parameters,
        body: None,
        answers: PAGE_ANSWERS,
        handler,
    }
}

const fn form(path: &'static str, summary: &'static str, access: Access, handler: Handler) -> Route {
    Route {
        method: Method::Post,
        path,
        summary,
        access,
        parameters: &[],
        body: Some(FORM),
        answers: FORM_ANSWERS,
        handler,
    }
}

const OPERATE: Access = Access::Needs(Role::Operate);

/// Every page and form.
pub(in crate::console) static PAGES: &[Route] = &[
    view("/", "The console: what is being done now", &[], |method| on(method, show_now)),
    view("/campaigns", "The console: campaigns", ID, |method| on(method, show_campaigns)),
    view("/flows", "The console: flows", ID, |method| on(method, show_flows)),
    view("/lag", "The console: consumer lag", &[], |method| on(method, show_lag)),
    view("/routes", "The console: shares against their targets", &[], |method| on(method, show_routes)),
    view("/canaries", "The console: flows that are tried out", ID, |method| on(method, show_canaries)),
    view("/platform", "The console: budget of calls and breakers", &[], |method| on(method, show_platform)),
    view("/alerts", "The console: alerts", &[], |method| on(method, show_alerts)),
    view("/ledger", "The console: decisions, searched", LIST_PARAMETERS, |method| on(method, show_ledger)),
    view("/settings", "The console: what is changed at run time", ID, |method| on(method, show_settings)),
    view("/decisions/{id}", "The console: one decision", ID_PARAMETERS, |method| on(method, show_decision)),
    form("/pause", "The console's form that pauses a loop", OPERATE, |method| on(method, forms::pause)),
    form("/resume", "The console's form that lets a loop go on", OPERATE, |method| on(method, forms::resume)),
    form("/settings/dial", "The console's form for how campaigns are dialled", OPERATE, |method| {
        on(method, settings_forms::dial)
    }),
    form("/settings/undo", "The console's form that takes a change back", OPERATE, |method| {
        on(method, settings_forms::undo)
    }),
    form("/settings/maintenance", "The console's form that opens a maintenance window", OPERATE, |method| {
        on(method, settings_forms::open_window)
    }),
    form("/settings/maintenance/close", "The console's form that closes one", OPERATE, |method| {
        on(method, settings_forms::close_window)
    }),
    form("/canaries/start", "The console's form that tries a flow out", OPERATE, |method| {
        on(method, canary_forms::begin)
    }),
    form("/canaries/abort", "The console's form that takes a candidate away", OPERATE, |method| {
        on(method, canary_forms::abort)
    }),
    form(
        "/canaries/promote",
        "The console's form that publishes what has proven itself",
        OPERATE,
        |method| on(method, canary_forms::promote),
    ),
    form("/logout", "Ends the console's session", Access::Needs(Role::Read), |method| {
        on(method, login::leave)
    }),
    Route {
        access: Access::Open,
        ..view("/login", "The console's login", &[], |method| on(method, login::show))
    },
    form("/login", "Exchanges an API key for a session", Access::Open, |method| on(method, login::enter)),
    Route {
        access: Access::Open,
        answers: &[
            Answer { status: 200, description: "The file", content: Content::Text("text/css") },
            Answer { status: 400, description: "Not a name", content: Content::Problem },
            Answer { status: 404, description: "There is no such file", content: Content::Problem },
        ],
        ..view("/assets/{name}", "What the console's pages load", NAME, |method| on(method, asset))
    },
];

/// Where a form leads back to and what a view hands over.
type Page = Result<Response, Problem>;
type Asked = (State<Shared>, Extension<Caller>, Uri);

/// Runs a view in its shell, one of few at the same time that read the ledger.
macro_rules! shown {
    ($name:ident, $here:literal, |$shared:ident, $shell:ident, $uri:ident| $view:expr) => {
        async fn $name((State($shared), Extension(caller), $uri): Asked) -> Page {
            let $shell = Shell::of(&$shared, caller, $here, &$uri).await;
            let (title, main) = {
                let _turn = $shared.ledger_reads.acquire().await;
                $view
            }?;
            Ok(page($shell.around(&title, &main)))
        }
    };
}

shown!(show_now, "/", |shared, shell, uri| now::view(&shared, &shell).await);
shown!(show_campaigns, "/campaigns", |shared, shell, uri| match id_of(&uri) {
    Ok(id) => campaigns::view(&shared, &shell, id.as_deref()).await,
    Err(problem) => Err(problem),
});
shown!(show_flows, "/flows", |shared, shell, uri| match id_of(&uri) {
    Ok(id) => flows::view(&shared, id.as_deref()).await,
    Err(problem) => Err(problem),
});
shown!(show_canaries, "/canaries", |shared, shell, uri| match id_of(&uri) {
    Ok(id) => canaries::view(&shared, &shell, id.as_deref()).await,
    Err(problem) => Err(problem),
});
shown!(show_lag, "/lag", |shared, shell, uri| lag::view(&shared, &shell).await);
shown!(show_routes, "/routes", |shared, shell, uri| routes::view(&shared).await);
shown!(show_platform, "/platform", |shared, shell, uri| platform::view(&shared).await);
shown!(show_alerts, "/alerts", |shared, shell, uri| alerts::view(&shared).await);

async fn show_ledger((State(shared), Extension(caller), uri): Asked) -> Page {
    let query = query_of(&uri);
    // Who looks for a decision by its id is led to it; ids of campaigns look the same.
    let sought =
        query.iter().find(|(name, _)| name == "key").and_then(|(_, key)| uuid::Uuid::try_parse(key).ok());
    if let Some(id) = sought
        && shared.database.decision(DecisionId(id)).await?.is_some()
    {
        return Ok(redirect(&format!("/decisions/{id}")));
    }
    let shell = Shell::of(&shared, caller, "/ledger", &uri).await;
    let _turn = shared.ledger_reads.acquire().await;
    let (title, main) = ledger::view(&shared, &query).await?;
    Ok(page(shell.around(&title, &main)))
}

/// A form without a campaign asks for those of all.
async fn show_settings((State(shared), Extension(caller), uri): Asked) -> Page {
    let id = if uri.query() == Some("id=") { None } else { id_of(&uri)? };
    let shell = Shell::of(&shared, caller, "/settings", &uri).await;
    let _turn = shared.ledger_reads.acquire().await;
    let (title, main) = settings::view(&shared, &shell, &Entered::of(id)).await?;
    Ok(page(shell.around(&title, &main)))
}

async fn show_decision(Path(id): Path<String>, (State(shared), Extension(caller), uri): Asked) -> Page {
    let shell = Shell::of(&shared, caller, "/ledger", &uri).await;
    let _turn = shared.ledger_reads.acquire().await;
    let (title, main) = decision::view(&shared, &id).await?;
    Ok(page(shell.around(&title, &main)))
}

fn query_of(uri: &Uri) -> Vec<(String, String)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// The id that a view is asked for.
fn id_of(uri: &Uri) -> Result<Option<String>, Problem> {
    let query = query_of(uri);
    let is_id =
        |value: &str| (1..=MOST_ID).contains(&value.chars().count()) && !value.chars().any(char::is_control);
    let wrong: Vec<ParameterError> = query
        .iter()
        .enumerate()
        .filter_map(|(index, (name, value))| {
            let allowed = match name.as_str() {
                "id" if index > 0 => "to be given once".to_owned(),
                "id" if is_id(value) => return None,
                "id" => format!("text of 1 to {MOST_ID} characters without control characters"),
                _ => "id alone".to_owned(),
            };
            let value = Some(value.chars().take(200).collect());
            Some(ParameterError { parameter: name.clone(), value, allowed })
        })
        .collect();
    match wrong.is_empty() {
        true => Ok(query.into_iter().next().map(|(_, id)| id)),
        false => Err(Problem::bad_parameters(wrong)),
    }
}
