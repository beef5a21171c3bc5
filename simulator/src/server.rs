//! The listeners, the ticker that lets the world live, and their end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::control;
use crate::decisions::DecisionLoad;
use crate::events::post;
use crate::exchange::{Received, Transport};
use crate::journal::Origin;
use crate::organization::{Moment, Organization, Overview};
use crate::reply::refusal_for_status;
use crate::scenario::ScenarioError;
use crate::settings::Settings;
use crate::time::Timestamp;
use crate::transport::{Dropped, response};

/// A request's body may have this many bytes.
pub(crate) const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Time for a request's head, and how long a connection may idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(50);
/// Real time the world may take for itself at once; requests wait no longer for it.
const STEPPING_SLICE: Duration = Duration::from_millis(25);
/// Open connections get this long to finish at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why a simulator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("simulator settings: {}", .0.join("; "))]
    Settings(Vec<String>),
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    #[error("cannot listen on {address}: {source}; choose another address or port 0 for a free one")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("no HTTP client for the event stream can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Starts simulated organisations.
pub struct Simulator;

impl Simulator {
    /// Binds the listeners and sets the world going.
    ///
    /// # Errors
    /// Impossible settings, all in one go, or an address that cannot be bound.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        let problems = settings.problems();
        if !problems.is_empty() {
            return Err(StartError::Settings(problems));
        }
        settings.scenario.validate()?;
        let (api, api_addr) = bind(settings.listen).await?;
        let login = match settings.login_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        let login_addr = login.as_ref().map(|(_, address)| *address);

        let http = http_client()?;
        let tasks = TaskTracker::new();
        let shared = Arc::new(Shared::new(&settings, http, tasks.clone()));
        let permits = Arc::new(Semaphore::new(settings.max_connections));
        let api_router = Router::new()
            .nest("/simulator", control::router())
            .fallback(platform_on_api)
            .with_state(shared.clone());
        tasks.spawn(accept(api, api_router, shared.clone(), permits.clone(), tasks.clone()));
        if let Some((listener, _)) = login {
            let router = Router::new().fallback(platform_on_login).with_state(shared.clone());
            tasks.spawn(accept(listener, router, shared.clone(), permits, tasks.clone()));
        }
        if settings.speed > 0.0 {
            tasks.spawn(tick(shared.clone()));
        }
        for number in 0..post::WORKERS {
            tasks.spawn(post::work(shared.clone(), number));
        }
        tasks.close();
        tracing::info!(%api_addr, ?login_addr, speed = settings.speed, seed = settings.seed, "simulator started");
        Ok(Running { api_addr, login_addr, shared, tasks })
    }
}

/// For what the organisation sends by itself.
fn http_client() -> Result<reqwest::Client, StartError> {
    // Whoever comes first installs it; all in one process agree on ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    Ok(client.connect_timeout(CONNECT_TIMEOUT).build()?)
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A simulator at work. Dropping it stops it without waiting.
pub struct Running {
    pub api_addr: SocketAddr,
    pub login_addr: Option<SocketAddr>,
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

impl Running {
    /// Base URL of the API, without a slash at its end.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api_addr)
    }

    /// Base URL of the token endpoint: the login host's, or else the API's.
    pub fn login_url(&self) -> String {
        format!("http://{}", self.login_addr.unwrap_or(self.api_addr))
    }

    /// The world as it is now.
    pub fn overview(&self) -> Overview {
        self.shared.with(|organization, _| organization.overview())
    }

    /// Closes the listeners, gives open connections a second, ends.
    pub async fn shutdown(self) {
        self.shared.ending.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.ending.cancel();
    }
}

/// What listeners and ticker share.
pub(crate) struct Shared {
    live: Mutex<Live>,
    started: Instant,
    speed: f64,
    pub(crate) ending: CancellationToken,
    pub(crate) seed: u64,
    pub(crate) http: reqwest::Client,
    pub(crate) tasks: TaskTracker,
    decisions: Mutex<DecisionLoad>,
}

struct Live {
    organization: Organization,
    /// Up to when real time has been turned into simulated seconds.
    paid_until: Instant,
    /// Simulated seconds the world still has to live through.
    owed_seconds: f64,
}

impl Shared {
    fn new(settings: &Settings, http: reqwest::Client, tasks: TaskTracker) -> Self {
        let started = Instant::now();
        let organization = Organization::new(settings, wall_clock());
        Self {
            live: Mutex::new(Live { organization, paid_until: started, owed_seconds: 0.0 }),
            started,
            speed: settings.speed,
            ending: CancellationToken::new(),
            seed: settings.seed,
            http,
            tasks,
            decisions: Mutex::default(),
        }
    }

    /// The load of decisions, which has nothing to do with the organisation's lock.
    pub(crate) fn decisions(&self) -> MutexGuard<'_, DecisionLoad> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Simulated seconds per real second.
    pub(crate) fn speed(&self) -> f64 {
        self.speed
    }

    /// Brings the world up to now and lets `work` look at it or change it.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Organization, Moment) -> T) -> T {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let moment = Moment { elapsed: now - self.started, wall: wall_clock() };
        live.catch_up(now, self.speed, moment);
        work(&mut live.organization, moment)
    }
}

impl Live {
    /// What does not fit into a slice is made up for later, ten seconds' worth at most.
    fn catch_up(&mut self, now: Instant, speed: f64, moment: Moment) {
        let passed = now.saturating_duration_since(self.paid_until);
        self.paid_until = now;
        self.owed_seconds = (self.owed_seconds + passed.as_secs_f64() * speed).min(10.0 * speed.max(1.0));
        while self.owed_seconds >= 1.0 && now.elapsed() < STEPPING_SLICE {
            let seconds = (self.owed_seconds as u64).min(16);
            self.owed_seconds -= seconds as f64;
            // What is owed still lies between the last of these seconds and now.
            let behind = Duration::from_secs_f64(self.owed_seconds / speed);
            let ended = Moment { wall: moment.wall.minus(behind), ..moment };
            self.organization.advance(seconds, ended);
        }
    }
}

pub(crate) fn wall_clock() -> Timestamp {
    Timestamp::now()
}

async fn tick(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shared.ending.run_until_cancelled(interval.tick()).await.is_some() {
        shared.with(|_, _| ());
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
) {
    let next = async || {
        let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
        (listener.accept().await, permit)
    };
    while let Some((accepted, permit)) = shared.ending.run_until_cancelled(next()).await {
        match accepted {
            Ok((stream, _)) => {
                let connection = serve(stream, router.clone(), shared.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file handles, mostly: others have to close theirs first.
                tracing::warn!(%error, "a connection to the simulator could not be accepted");
                tokio::time::sleep(TICK).await;
            }
        }
    }
}

/// Speaks HTTP/1.1 on one connection. An error of the service makes hyper close the
/// connection without a reply, which is what a dropped reply is.
async fn serve(stream: TcpStream, router: Router, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let router = router.clone();
        async move {
            let response = router
                .oneshot(request.map(Body::new))
                .await
                .unwrap_or_else(|never: Infallible| match never {});
            if response.extensions().get::<Dropped>().is_some() { Err(ReplyDropped) } else { Ok(response) }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.ending.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection to the simulator ended early");
    }
}

/// The reply is not sent; the connection is closed.
#[derive(Debug, thiserror::Error)]
#[error("reply dropped")]
struct ReplyDropped;

async fn platform_on_api(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    platform(shared, Origin::Api, request).await
}

async fn platform_on_login(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    platform(shared, Origin::Login, request).await
}

/// Takes a request in whole, then carries it out apart from its connection: a client
/// that hangs up does not undo what it asked for.
async fn platform(shared: Arc<Shared>, origin: Origin, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_REQUEST_BYTES)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refuse(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT),
    };
    let received = Received {
        origin,
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().map(str::to_owned),
        headers: parts.headers,
        body,
    };
    match tokio::spawn(exchange(shared, received)).await {
        Ok(Some(response)) => response,
        // The simulator ends, or the exchange panicked: both look like a dead platform.
        Ok(None) | Err(_) => response(super::reply::Reply::empty(StatusCode::OK), Transport::Dropped),
    }
}

/// `None` when the simulator ends in the middle of a delay.
async fn exchange(shared: Arc<Shared>, received: Received) -> Option<Response> {
    let admission = shared.with(|organization, moment| organization.admit(&received, moment));
    wait(&shared, admission.delay()).await?;
    let outgoing = shared.with(|organization, moment| organization.answer(&received, admission, moment));
    wait(&shared, outgoing.delay).await?;
    Some(response(outgoing.reply, outgoing.transport))
}

async fn wait(shared: &Shared, delay: Duration) -> Option<()> {
    if delay.is_zero() {
        return Some(());
    }
    shared.ending.run_until_cancelled(tokio::time::sleep(delay)).await
}

fn refuse(status: StatusCode) -> Response {
    let context_id = uuid::Uuid::now_v7().to_string();
    let reply = refusal_for_status(status).reply(&context_id);
    response(reply.with_header(super::exchange::CORRELATION_ID, &context_id), Transport::Whole)
}
