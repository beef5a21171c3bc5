//! A call from its scope to its verdict.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::{Method, Request, StatusCode, Url};
use secrecy::ExposeSecret;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Settings;
use super::auth::{AuthError, Token, Tokens, authorize};
use super::breaker::Verdict;
use super::budget::{BucketShape, Permit, PermitStore, UNTOLD_WAIT};
use super::credentials::Credentials;
use super::dialect::Spoken;
use super::dispatch::{Identity, Others};
use super::endpoints::{Endpoints, Subject};
use super::error::{CallError, CallErrorKind as Kind, ClientError};
use super::pace::Pace;
use super::priority::Priority;
use super::reply::{bounded_header, excerpt, judge_status, limits, throttled_family};
use super::retry_after::retry_after;
use super::transport::{BodyProblem, RawReply, Silence, Transport};
use super::url::{checked_url, parse_url};
use super::waiting::Budget;
use super::{platform, turns::NoPermit};
use crate::health::Health;
use crate::metrics;
use crate::model::outcome::{ReceivedResponse, SentRequest};

/// How urgent a call is and how long it may take.
#[derive(Clone, Debug)]
pub struct Scope {
    pub priority: Priority,
    /// Waiting for token, permit and reply ends here.
    pub deadline: Instant,
    /// The same, when the process stops. A write that is on its way is given
    /// 1.5 s more for its reply.
    pub cancelled: CancellationToken,
    /// What is not on its way yet is not sent any more; what is, goes on.
    pub withdrawn: CancellationToken,
    /// Milliseconds that calls have waited for the shared budget are added to it.
    pub waited_ms: Arc<AtomicU64>,
}

/// A change that the platform confirmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// For the record.
    pub response: ReceivedResponse,
    /// The object's entity tag after the change, where the reply names it.
    pub revision: Option<String>,
    /// What the platform only began, where the reply names it.
    pub operation: Option<String>,
}

/// The client; clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
    pub(super) others: Others,
}

/// How calls are made, and what families of calls share.
pub(super) struct Inner {
    pub identity: Identity,
    pub spoken: Spoken,
    pub base_url: String,
    pub campaigns: Endpoints,
    pub statistics: Endpoints,
    pub conversation_details: Endpoints,
    pub event_lag: Endpoints,
    pub flow_versions: Endpoints,
    pub flow_activations: Endpoints,
    pub flow_measures: Endpoints,
    pub queue_availability: Endpoints,
    pub routing: Endpoints,
    /// What holds for the organisation as a whole.
    pub organization: Endpoints,
    transport: Transport,
    tokens: Tokens,
    budget: Budget,
    credentials: Credentials,
    pub pace: Pace,
    retry_after_limit: Duration,
}

/// How long a write on its way is waited for when the process stops.
const STOPPING_GRACE: Duration = Duration::from_millis(1_500);

/// One call on its way through permit, breakers and exchange.
struct Call<'a> {
    endpoints: &'a Endpoints,
    subject: Subject<'a>,
    request: &'a SentRequest,
    scope: &'a Scope,
}

/// Why a call failed, and what the breakers are to make of it.
struct Fault {
    kind: Kind,
    reason: String,
    verdict: Verdict,
}

impl Client {
    /// One organisation's. Starts getting a token at once. Registers `genesys.*` with `health`.
    /// Needs a running tokio runtime; its tasks end with the last clone.
    pub fn new(
        settings: &Settings,
        permits: Arc<dyn PermitStore>,
        health: &Health,
    ) -> Result<Self, ClientError> {
        if settings.requests_per_minute == 0 {
            return Err(ClientError::NoBudget);
        }
        let base_url = checked_url("genesys.base_url", &settings.base_url)?;
        let login_url = match &settings.login_url {
            Some(url) => checked_url("genesys.login_url", url)?,
            None => base_url.clone(),
        };
        let token_url = parse_url("genesys.login_url", &format!("{login_url}/oauth/token"))?;
        let transport = Transport::new(settings)?;
        let shape = BucketShape::new(settings.requests_per_minute, settings.budget_window);
        let endpoints = |name| Endpoints::new(name, true, settings, health);
        let part = |name| settings.organization.part(name, health);
        let inner = Inner {
            identity: settings.organization.clone(),
            tokens: Tokens::new(transport.clone(), settings, token_url, part("token")),
            budget: Budget::new(permits, shape, part("budget")),
            campaigns: endpoints("campaigns"),
            statistics: endpoints("campaign_statistics"),
            conversation_details: Endpoints::new("conversation_details", false, settings, health),
            event_lag: Endpoints::new("event_lag", false, settings, health),
            flow_versions: Endpoints::new("flow_versions", true, settings, health),
            flow_activations: Endpoints::new("flow_activations", true, settings, health),
            flow_measures: Endpoints::new("flow_measures", false, settings, health),
            queue_availability: Endpoints::new("queue_availability", false, settings, health),
            routing: Endpoints::new("routing", false, settings, health),
            organization: Endpoints::new("organization", false, settings, health),
            spoken: Spoken::new(&settings.dialect, &settings.credentials),
            base_url,
            transport,
            credentials: settings.credentials.clone(),
            pace: settings.pace.clone(),
            retry_after_limit: settings.retry_after_limit,
        };
        Ok(Self { inner: Arc::new(inner), others: Arc::default() })
    }

    /// Whether the platform gives out a token: for `trunkline check`.
    pub async fn authenticate(&self, scope: &Scope) -> Result<(), CallError> {
        self.inner.token(scope).await.map(|_| ())
    }
}

impl Inner {
    /// A call that changes nothing.
    pub(super) async fn read<T>(
        &self,
        endpoints: &Endpoints,
        resource: &str,
        request: &SentRequest,
        scope: &Scope,
        read: impl Fn(&RawReply, &[u8]) -> Result<T, String>,
    ) -> Result<T, CallError> {
        let failed = |kind, reason| Err(Fault { kind, reason, verdict: Verdict::Failed });
        let judge = |reply: &RawReply| {
            // The platform's own API answers 202 to what it only begins.
            let is_due = reply.status == StatusCode::OK || matches!(self.spoken, Spoken::Platform(_));
            if !is_due {
                let reason = format!("HTTP {} where 200 was due", reply.status.as_u16());
                return failed(Kind::Malformed, reason);
            }
            let body = match &reply.body {
                Ok(body) => body,
                Err(problem @ BodyProblem::Broken(_)) => return failed(Kind::NoReply, problem.to_string()),
                Err(problem @ BodyProblem::TooLarge(_)) => {
                    return failed(Kind::Malformed, problem.to_string());
                }
            };
            if !reply.is_json() {
                return failed(Kind::Malformed, "the reply is not JSON".to_owned());
            }
            read(reply, body).map_err(|problem| Fault {
                kind: Kind::Malformed,
                reason: format!("the reply makes no sense: {problem}"),
                verdict: Verdict::Odd,
            })
        };
        let call = Call { endpoints, subject: Subject { resource, writes: false }, request, scope };
        self.call(&call, judge).await.map(|(value, _)| value)
    }

    /// A call that may change something.
    pub(super) async fn write(
        &self,
        endpoints: &Endpoints,
        resource: &str,
        request: &SentRequest,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let failed = |reason: String| Err(Fault { kind: Kind::NoReply, reason, verdict: Verdict::Failed });
        let judge = |reply: &RawReply| match &reply.body {
            Err(problem) => failed(problem.to_string()),
            Ok(body) if body.is_empty() => Ok((bounded_header(reply, "etag"), None)),
            Ok(body) if reply.is_json() && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => {
                Ok((bounded_header(reply, "etag"), platform::flows::read_operation(body)))
            }
            Ok(_) => failed("the reply is not the API's: neither empty nor JSON".to_owned()),
        };
        let call = Call { endpoints, subject: Subject { resource, writes: true }, request, scope };
        let ((revision, operation), response) = self.call(&call, judge).await?;
        Ok(Reply { response, revision, operation })
    }

    /// Measures a call and makes it, once more where only the token was at fault.
    async fn call<T>(
        &self,
        call: &Call<'_>,
        judge: impl Fn(&RawReply) -> Result<T, Fault>,
    ) -> Result<(T, ReceivedResponse), CallError> {
        let Call { endpoints, request, scope, .. } = call;
        let mut renewed = false;
        let result = loop {
            let token = match self.token(scope).await {
                Ok(token) => token,
                Err(error) => break Err(error),
            };
            let result = self.attempt(call, &token, &judge).await;
            match result {
                Err(error) if error.kind == Kind::Unauthorized && !renewed => {
                    self.tokens.reject(token.generation);
                    renewed = true;
                }
                result => break result,
            }
        };
        let outcome = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        metrics::GENESYS_CALLS.counter(&[endpoints.name, outcome]).increment(1);
        result.map_err(|mut error| {
            error.reason = format!("{} {}: {}", request.method, request.path, error.reason);
            error
        })
    }

    /// One request: permit, breaker, exchange, verdict.
    async fn attempt<T>(
        &self,
        call: &Call<'_>,
        token: &Token,
        judge: &impl Fn(&RawReply) -> Result<T, Fault>,
    ) -> Result<(T, ReceivedResponse), CallError> {
        let Call { endpoints, subject, request, scope } = call;
        let correlation = self.new_correlation_id();
        let http_request = self.http_request(request, token, correlation.as_deref())?;
        // No permit is spent on a call that the breakers would stop.
        endpoints.check(*subject)?;
        let permit = self.permit(scope).await?;
        let admitted = endpoints.admit(*subject)?;
        let sent_at = Instant::now();
        let exchanged = self.exchange(http_request, subject.writes, scope).await;
        metrics::GENESYS_CALL_SECONDS.histogram(&[endpoints.name]).record(sent_at.elapsed());
        let reply = match exchanged {
            Ok(reply) => reply,
            Err(Fault { kind, reason, verdict }) => {
                admitted.settle(verdict);
                let mut error = CallError::without_reply(kind, reason);
                error.response.correlation_id = correlation;
                return Err(error);
            }
        };
        let mut response = self.record(&reply, token);
        response.correlation_id = response.correlation_id.or(correlation);
        let judged = if reply.status.is_success() {
            judge(&reply)
        } else {
            let (kind, reason) = match judge_status(reply.status, &response) {
                (Kind::RateLimited { .. }, reason) => {
                    (Kind::RateLimited { until: self.rate_limited(endpoints, &reply).await }, reason)
                }
                other => other,
            };
            // A refusal is an answer, and about this request alone.
            let failed = matches!(kind, Kind::Server { .. });
            Err(Fault { kind, reason, verdict: if failed { Verdict::Failed } else { Verdict::Answered } })
        };
        if reply.status != StatusCode::TOO_MANY_REQUESTS {
            self.budget.accepted(permit, limits(&reply));
        }
        admitted.settle(judged.as_ref().map_or_else(|fault| fault.verdict, |_| Verdict::Answered));
        match judged {
            Ok(value) => Ok((value, response)),
            Err(Fault { kind, reason, .. }) => {
                response.error = Some(reason.clone());
                Err(CallError { kind, reason, response: Box::new(response) })
            }
        }
    }

    /// Takes note of a 429: all calls wait, or where the platform says that it is about one
    /// family, that family alone.
    async fn rate_limited(&self, endpoints: &Endpoints, reply: &RawReply) -> Instant {
        let wait = self.told_wait(reply);
        let is_platform = matches!(self.spoken, Spoken::Platform(_));
        let family = reply.body.as_deref().ok().filter(|_| is_platform).and_then(throttled_family);
        let Some(family) = family else { return self.budget.refused(wait).await };
        let until = Instant::now() + wait.unwrap_or(UNTOLD_WAIT);
        tracing::warn!(
            family,
            endpoints = endpoints.name,
            "the platform wants no calls of this family for a while"
        );
        endpoints.throttle(until);
        until
    }

    /// Sent along, and on record also where no reply comes.
    fn new_correlation_id(&self) -> Option<String> {
        matches!(self.spoken, Spoken::Platform(_)).then(|| Uuid::now_v7().to_string())
    }

    async fn token(&self, scope: &Scope) -> Result<Token, CallError> {
        let waited = scope.wait(self.tokens.current(), || match self.tokens.last_failure() {
            Some(failure) => format!("waiting for an access token ({})", failure.reason()),
            None => "waiting for an access token".to_owned(),
        });
        waited.await?.map_err(|error| {
            let kind = match &error {
                AuthError::Refused(_) => Kind::Unauthorized,
                AuthError::Unavailable(_) => Kind::NotSent,
            };
            CallError::without_reply(kind, error.reason())
        })
    }

    async fn permit(&self, scope: &Scope) -> Result<Permit, CallError> {
        let asked_at = Instant::now();
        let waited =
            scope.wait(self.budget.permit(scope.priority), || "waiting for the shared budget".to_owned());
        let answered = waited.await;
        let waited_ms = u64::try_from(asked_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        scope.waited_ms.fetch_add(waited_ms, Ordering::Relaxed);
        let permit = answered?.map_err(|error| {
            let reason = match error {
                NoPermit::Store(problem) => format!("not sent: the shared budget cannot be asked: {problem}"),
                NoPermit::Full => "not sent: too many calls wait for the shared budget".to_owned(),
            };
            CallError::without_reply(Kind::Paused { until: None }, reason)
        })?;
        metrics::GENESYS_BUDGET_WAIT_SECONDS.histogram(&[scope.priority.name()]).record(asked_at.elapsed());
        Ok(permit)
    }

    fn http_request(
        &self,
        request: &SentRequest,
        token: &Token,
        correlation: Option<&str>,
    ) -> Result<Request, CallError> {
        let rejected =
            |problem: String| CallError::without_reply(Kind::Rejected, format!("not sent: {problem}"));
        let url = format!("{}{}", self.base_url, request.path);
        let url = Url::parse(&url).map_err(|error| rejected(error.to_string()))?;
        let method =
            Method::from_bytes(request.method.as_bytes()).map_err(|error| rejected(error.to_string()))?;
        let mut builder = self.transport.http().request(method, url).header("accept", "application/json");
        if let Some(revision) = &request.if_match {
            builder = builder.header("if-match", revision);
        }
        if let Some(correlation) = correlation {
            builder = builder.header("inin-correlation-id", correlation);
        }
        if !request.body.is_null() {
            builder = builder.json(&request.body);
        }
        let mut built = builder.build().map_err(|error| rejected(error.without_url().to_string()))?;
        authorize(&mut built, token);
        Ok(built)
    }

    /// The exchange itself. Once a write is on its way, giving up means not knowing. That it
    /// took longer than we had time for says nothing about the platform.
    async fn exchange(&self, request: Request, changes: bool, scope: &Scope) -> Result<RawReply, Fault> {
        let exchange = self.transport.exchange(request);
        tokio::pin!(exchange);
        let late = if changes { Kind::NoReply } else { Kind::DeadlinePassed };
        let given_up =
            |kind, reason: &str| Err(Fault { kind, reason: reason.to_owned(), verdict: Verdict::Unknown });
        // A process that was stopped on the way here must not send what it no longer may.
        if Instant::now() >= scope.deadline {
            return given_up(Kind::DeadlinePassed, "not sent: the deadline has passed");
        }
        if scope.withdrawn.is_cancelled() {
            return given_up(Kind::NotSent, "not sent: withdrawn");
        }
        let finished = tokio::select! {
            finished = &mut exchange => finished,
            () = sleep_until(scope.deadline) => {
                return given_up(late, "no reply before the call's deadline");
            }
            () = scope.cancelled.cancelled() => {
                const STOPPED: &str = "stopped while waiting for the reply";
                if !changes {
                    return given_up(Kind::Cancelled, STOPPED);
                }
                tokio::select! {
                    finished = &mut exchange => finished,
                    () = sleep(STOPPING_GRACE) => return given_up(Kind::NoReply, STOPPED),
                }
            }
        };
        finished.map_err(|silence| {
            let (kind, reason) = match silence {
                Silence::NotSent(problem) => (Kind::NotSent, format!("not sent: {problem}")),
                Silence::NoReply(problem) => (Kind::NoReply, format!("no reply: {problem}")),
            };
            Fault { kind, reason, verdict: Verdict::Failed }
        })
    }

    /// The reply for the record: cut, and without anything secret.
    fn record(&self, reply: &RawReply, token: &Token) -> ReceivedResponse {
        let body = reply.body.as_ref().ok().filter(|body| !body.is_empty());
        let client_secret = self.credentials.secret();
        let secrets = [token.text.expose_secret(), client_secret.expose_secret()];
        ReceivedResponse {
            status: Some(reply.status.as_u16()),
            body: body.map(|body| excerpt(body, &secrets)),
            error: reply.body.as_ref().err().map(BodyProblem::to_string),
            correlation_id: bounded_header(reply, "inin-correlation-id"),
        }
    }

    /// How long a 429 says to wait: the platform's own API also says when its window ends.
    fn told_wait(&self, reply: &RawReply) -> Option<Duration> {
        let reset = || match self.spoken {
            Spoken::Seed => None,
            Spoken::Platform(_) => reply.header("inin-ratelimit-reset"),
        };
        let value = reply.header("retry-after").or_else(reset)?;
        retry_after(value, reply.header("date"), self.retry_after_limit)
    }
}

impl Scope {
    /// Waits for something that has no effect yet, as long as the scope allows.
    pub(super) async fn wait<T>(
        &self,
        future: impl Future<Output = T>,
        doing: impl Fn() -> String,
    ) -> Result<T, CallError> {
        tokio::select! {
            biased;
            () = self.cancelled.cancelled() => {
                Err(CallError::without_reply(Kind::Cancelled, format!("stopped while {}", doing())))
            }
            () = self.withdrawn.cancelled() => {
                Err(CallError::without_reply(Kind::NotSent, format!("not sent: withdrawn while {}", doing())))
            }
            value = future => Ok(value),
            () = sleep_until(self.deadline) => {
                Err(CallError::without_reply(Kind::DeadlinePassed, format!("the deadline passed while {}", doing())))
            }
        }
    }
}

pub(super) fn read_request(path: String) -> SentRequest {
    SentRequest { method: "GET".to_owned(), path, if_match: None, body: serde_json::Value::Null }
}
