//! The HTTP interface: one listener for events coming in, the ledger, readiness and metrics.

mod access;
mod allowances;
mod body;
mod canaries;
mod decisions;
mod events;
mod lag;
mod openapi;
mod pages;
mod parameters;
mod pause;
mod problem;
mod review;
mod routes;
mod routing;
mod seats;
mod server;
mod session;
mod settings;
mod status;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method as HttpMethod, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use moka::sync::Cache;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::model::decision::DecisionId;
use crate::postgres::Database;
use crate::{role, topics};

pub use access::{Access, ApiKey, ApiKeyError, Caller, Role};
pub use allowances::{Account, Covered, OauthClientId};
pub use events::{EventIntake, Refusing, Taking};
pub use openapi::document as openapi_document;
pub use review::{Proposed, ReviewError, SettingsReview};
pub use routes::{Method, Place, ROUTES, Route};
pub use routing::{NotPublished, RouteDecisions, Routing};
pub use status::Metrics;

use access::Guard;
use problem::{Kind, Problem};
use session::Sessions;
use stream::Listeners;

pub static ROLE: role::Role = role::Role {
    name: "console",
    kind: role::Kind::Server,
    description: "answers HTTP: the ledger, readiness, metrics; settings go out through the outbox",
    reads: &[],
    writes: &[&topics::SETTINGS],
    sets_aside: &[],
    keeps: &[],
    outside: &[role::POSTGRES],
};

/// How the interface is offered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Without API keys it must be a loopback address.
    pub listen: SocketAddr,
    pub api_keys: Vec<ApiKey>,
    /// Longest time until a request's head is complete, and until its answer begins.
    pub request_timeout: Duration,
    /// Largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// Requests answered at the same time; more are told to come again.
    pub max_concurrent: usize,
    /// Requests that read the ledger at the same time; more wait their turn. Keeps
    /// connections to Postgres free for the work itself.
    pub max_ledger_reads: usize,
    /// Connections with a request at the same time; a few more for liveness, readiness and
    /// metrics. One without a whole request makes room when its place is wanted.
    pub max_connections: usize,
    /// Bytes of finished decisions kept to be shown again.
    pub cache_bytes: u64,
    pub events: EventLimits,
    /// Requests for routing decisions under way at the same time; more are told to come again.
    pub max_route_decisions: usize,
    pub ticks: Ticks,
    pub covered: Covered,
}

/// How often the loops look: what the console shows is old after two of these.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    pub dial: Duration,
    pub lag: Duration,
}

impl Default for Ticks {
    fn default() -> Self {
        Self { dial: Duration::from_secs(30), lag: Duration::from_secs(30) }
    }
}

/// What requests that bring events may take. They have places of their own: neither they nor
/// those who read the ledger can crowd the others out.
#[derive(Clone, Copy, Debug)]
pub struct EventLimits {
    /// Largest body, in bytes.
    pub max_body_bytes: usize,
    /// Requests under way at the same time; more are told to come again.
    pub max_concurrent: usize,
    /// Longest time until a body is complete.
    pub read_timeout: Duration,
    /// Longest time until a request is answered, from its head on.
    pub request_timeout: Duration,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            max_body_bytes: 1_024 * 1_024,
            max_concurrent: 128,
            read_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            api_keys: Vec::new(),
            request_timeout: Duration::from_secs(10),
            max_body_bytes: 64 * 1_024,
            max_concurrent: 64,
            max_ledger_reads: 3,
            max_connections: 512,
            cache_bytes: 8 * 1_024 * 1_024,
            events: EventLimits::default(),
            max_route_decisions: 4_096,
            ticks: Ticks::default(),
            covered: Covered::default(),
        }
    }
}

/// Why the interface cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error(
        "http.listen = {0} would let everybody in: configure http.api_keys, or listen on a loopback address \
         such as 127.0.0.1:8080"
    )]
    OpenToAll(SocketAddr),
    #[error("http.listen = {address} cannot be listened on: {source}; choose another address or port")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// The interface, listening but not answering yet.
pub struct Console {
    listener: TcpListener,
    address: SocketAddr,
    settings: Settings,
    shared: Shared,
}

/// What every request can reach.
type Shared = Arc<Inner>;

struct Inner {
    database: Database,
    health: Health,
    metrics: Metrics,
    /// Finished decisions as JSON.
    finished: Cache<DecisionId, Bytes>,
    guard: Guard,
    ledger_reads: Semaphore,
    /// Those who bring events.
    event_limits: Limits,
    /// Those who ask for routing decisions.
    route_limits: Limits,
    /// Everybody else.
    limits: Limits,
    max_body_bytes: usize,
    events: EventLimits,
    intake: Option<Arc<dyn EventIntake>>,
    routing: Option<Arc<dyn RouteDecisions>>,
    review: Option<Arc<dyn SettingsReview>>,
    sessions: Sessions,
    /// Those who follow `/v1/stream`.
    listeners: Listeners,
    ticks: Ticks,
    covered: Covered,
}

/// Places for requests of one sort.
struct Limits {
    permits: Semaphore,
    request_timeout: Duration,
    max_body_bytes: usize,
}

impl Inner {
    fn limits(&self, access: Option<Access>) -> &Limits {
        match access {
            Some(Access::Needs(Role::Publish)) => &self.event_limits,
            Some(Access::Needs(Role::Decide)) => &self.route_limits,
            _ => &self.limits,
        }
    }
}

impl Console {
    /// Begins to listen. Without an intake no events are taken in.
    ///
    /// # Errors
    /// When strangers could come in without a key, or the address is taken.
    pub fn bind(
        settings: Settings,
        database: Database,
        health: Health,
        metrics: Metrics,
        intake: Option<Arc<dyn EventIntake>>,
    ) -> Result<Self, ConsoleError> {
        let guard = Guard::new(settings.api_keys.clone());
        if !guard.may_listen_on(settings.listen) {
            return Err(ConsoleError::OpenToAll(settings.listen));
        }
        let listen = |source| ConsoleError::Listen { address: settings.listen, source };
        let listener = std::net::TcpListener::bind(settings.listen).map_err(listen)?;
        listener.set_nonblocking(true).map_err(listen)?;
        let listener = TcpListener::from_std(listener).map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let finished = Cache::builder()
            .weigher(|_, text: &Bytes| u32::try_from(text.len() + 256).unwrap_or(u32::MAX))
            .max_capacity(settings.cache_bytes)
            .build();
        let limits = |places| Limits {
            permits: Semaphore::new(places),
            request_timeout: settings.request_timeout,
            max_body_bytes: settings.max_body_bytes,
        };
        let shared = Arc::new(Inner {
            database,
            health,
            metrics,
            finished,
            guard,
            ledger_reads: Semaphore::new(settings.max_ledger_reads),
            event_limits: Limits {
                permits: Semaphore::new(settings.events.max_concurrent),
                request_timeout: settings.events.request_timeout,
                max_body_bytes: settings.events.max_body_bytes,
            },
            route_limits: limits(settings.max_route_decisions),
            limits: limits(settings.max_concurrent),
            max_body_bytes: settings.max_body_bytes,
            events: settings.events,
            intake,
            routing: None,
            review: None,
            sessions: Sessions::new(),
            listeners: Listeners::default(),
            ticks: settings.ticks,
            covered: settings.covered.clone(),
        });
        Ok(Self { listener, address, settings, shared })
    }

    /// Answers requests for routing decisions as well.
    ///
    /// # Panics
    /// When it serves already.
    #[must_use]
    pub fn with_routing(mut self, routing: Arc<dyn RouteDecisions>) -> Self {
        Arc::get_mut(&mut self.shared).expect("not served yet").routing = Some(routing);
        self
    }

    /// Where it listens: the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown`, then lets requests in progress end for a second.
    pub async fn serve(self, shutdown: CancellationToken) {
        let router = router(self.shared.clone());
        let limits = server::Limits {
            connections: self.settings.max_connections,
            head_timeout: self.settings.request_timeout,
        };
        let upkeep = async {
            let mut every = tokio::time::interval(Duration::from_secs(5));
            loop {
                every.tick().await;
                self.shared.metrics.upkeep();
            }
        };
        let told = stream::tell(self.shared.clone(), shutdown.clone());
        let served = async {
            tokio::join!(server::serve(self.listener, router, limits, shutdown), told);
        };
        tokio::select! {
            () = served => {}
            () = upkeep => {}
        }
    }
}

fn router(shared: Shared) -> Router {
    routes::router()
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(shared.max_body_bytes))
        .layer(middleware::from_fn_with_state(shared.clone(), door))
        .with_state(shared)
}

async fn not_found(request: Request) -> Problem {
    let detail = format!("nothing is at {}", request.uri().path());
    Problem::new(Kind::NotFound, detail, "see /openapi.json for what there is")
}

async fn method_not_allowed(request: Request) -> Problem {
    let detail = format!("{} does not take {}", request.uri().path(), request.method());
    Problem::new(Kind::MethodNotAllowed, detail, "see /openapi.json for what there is")
}

/// Every request comes through here: access, parameters, limits, time, and what every answer says.
async fn door(
    State(shared): State<Shared>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let path = matched.as_ref().map(|path| path.as_str().to_owned());
    let access = routes::access_of(request.method(), path.as_deref());
    let (uri, for_people) = (request.uri().clone(), is_for_people(&request));
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let (mut response, caller) = match admitted(&shared, access, path.as_deref(), &method, &headers).await {
        Err(problem) if for_people && problem.status() == StatusCode::UNAUTHORIZED => {
            (pages::to_login(&uri), None)
        }
        Err(problem) => (problem.into_response(), None),
        Ok(caller) => {
            let answer = let_in(&shared, access, path.as_deref(), caller.clone(), request, next).await;
            (answer, Some(caller))
        }
    };
    if let (Some(problem), Some(caller), true) =
        (response.extensions_mut().remove::<Arc<Problem>>(), caller, for_people)
    {
        response = pages::told(&shared, caller, &uri, &problem).await;
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, pages::POLICY);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Who asks, and whether they may.
async fn admitted(
    shared: &Shared,
    access: Option<Access>,
    path: Option<&str>,
    method: &HttpMethod,
    headers: &HeaderMap,
) -> Result<Caller, Problem> {
    let needs_one = shared.guard.has_keys() && access != Some(Access::Open);
    let session = if needs_one { shared.sessions.of(&shared.database, headers).await? } else { None };
    let caller = shared.guard.admit(access, headers, session)?;
    let reads = matches!(*method, HttpMethod::GET | HttpMethod::HEAD);
    if !reads {
        check_origin(&caller, path, headers)?;
    }
    Ok(caller)
}

/// A change that a browser sends because a page elsewhere told it to is refused: browsers say so, and
/// what comes by cookie must carry what our pages alone know. Forms carry it in their body.
fn check_origin(caller: &Caller, path: Option<&str>, headers: &HeaderMap) -> Result<(), Problem> {
    let told = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let elsewhere = told("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let is_form = pages::PAGES.iter().any(|route| Some(route.path) == path);
    let carries = || caller.made(told("x-csrf-token").unwrap_or_default().as_bytes());
    if elsewhere || (caller.is_by_cookie() && !is_form && !carries()) {
        let remedy = "use the console's own pages, or send `Authorization: Bearer KEY` and no cookie";
        return Err(Problem::new(Kind::Forbidden, "the request was made by a page elsewhere", remedy));
    }
    Ok(())
}

/// A browser asks for a page.
fn is_for_people(request: &Request) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|types| types.contains("text/html")) && !request.uri().path().starts_with("/v1/")
}

async fn let_in(
    shared: &Shared,
    access: Option<Access>,
    path: Option<&str>,
    caller: Caller,
    mut request: Request,
    next: Next,
) -> Response {
    let vital = routes::is_vital(access, path);
    if !vital && request.extensions().get::<server::Crowded>().is_some() {
        let detail = "too many connections are being served";
        return Problem::new(Kind::Overloaded, detail, "try again in a moment").into_response();
    }
    request.extensions_mut().insert(caller);
    let (mut parts, body) = request.into_parts();
    let checked = match path {
        Some(path) => parameters::check(path, &mut parts).await,
        None => Ok(()),
    };
    match checked {
        Ok(()) => answer(shared, access, vital, Request::from_parts(parts, body), next).await,
        Err(problem) => problem.into_response(),
    }
}

async fn answer(
    shared: &Shared,
    access: Option<Access>,
    vital: bool,
    request: Request,
    next: Next,
) -> Response {
    let limits = shared.limits(access);
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // The route of events wants to see what it refuses.
    let looks_itself = access == Some(Access::Needs(Role::Publish));
    if !looks_itself && announced.is_some_and(|length| length > limits.max_body_bytes as u64) {
        body::pass_over(request.into_body()).await;
        return Problem::body_too_large(limits.max_body_bytes).into_response();
    }
    // How we are must be told even when we are busy.
    let _permit = if vital {
        None
    } else {
        match limits.permits.try_acquire() {
            Ok(permit) => Some(permit),
            Err(_) => {
                let detail = "too many requests are being answered";
                return Problem::new(Kind::Overloaded, detail, "try again in a moment").into_response();
            }
        }
    };
    match tokio::time::timeout(limits.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} ms", limits.request_timeout.as_millis());
            Problem::new(Kind::TimedOut, detail, "ask for less, or try again in a moment").into_response()
        }
    }
}
