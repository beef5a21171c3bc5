//! A call from its scope to its verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::{Method, Request, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::auth::{AuthError, Token, Tokens, authorize};
use super::breaker::Verdict;
use super::budget::{BucketShape, Permit, PermitStore, Priority};
use super::details::{self, DetailsQuery};
use super::endpoints::{Endpoints, Subject};
use super::error::{CallError, CallErrorKind as Kind, ClientError};
use super::event_lag::{self, EventLagAnswer, EventLagQuery};
use super::flows::{self, Measured, PlatformVersion};
use super::queue::{Budget, NoPermit};
use super::reply::{bounded_header, excerpt, judge_status, limits};
use super::retry_after::retry_after;
use super::routing::{self, Available};
use super::seed::{self, Campaign, CampaignStatistics};
use super::transport::{BodyProblem, RawReply, Silence, Transport};
use crate::health::Health;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::outcome::{ReceivedResponse, SentRequest};
use crate::model::routing::RouteConfiguration;

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
}

/// A change that the platform confirmed.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// For the record.
    pub response: ReceivedResponse,
    /// The object's entity tag after the change, where the reply names it.
    pub revision: Option<String>,
}

/// The client; clones share everything.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    base_url: String,
    transport: Transport,
    tokens: Tokens,
    budget: Budget,
    campaigns: Endpoints,
    statistics: Endpoints,
    conversation_details: Endpoints,
    event_lag: Endpoints,
    flow_versions: Endpoints,
    flow_activations: Endpoints,
    flow_measures: Endpoints,
    queue_availability: Endpoints,
    routing: Endpoints,
    client_secret: SecretString,
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
    /// Starts getting a token at once. Registers `genesys.*` with `health`.
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
        let inner = Inner {
            tokens: Tokens::new(transport.clone(), settings, token_url, health.part("genesys.token")),
            budget: Budget::new(permits, shape, health.part("genesys.budget")),
            campaigns: endpoints("campaigns"),
            statistics: endpoints("campaign_statistics"),
            conversation_details: Endpoints::new("conversation_details", false, settings, health),
            event_lag: Endpoints::new("event_lag", false, settings, health),
            flow_versions: Endpoints::new("flow_versions", true, settings, health),
            flow_activations: Endpoints::new("flow_activations", true, settings, health),
            flow_measures: Endpoints::new("flow_measures", false, settings, health),
            queue_availability: Endpoints::new("queue_availability", false, settings, health),
            routing: Endpoints::new("routing", false, settings, health),
            base_url,
            transport,
            client_secret: settings.client_secret.clone(),
            retry_after_limit: settings.retry_after_limit,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether the platform gives out a token: for `trunkline check`.
    pub async fn authenticate(&self, scope: &Scope) -> Result<(), CallError> {
        self.inner.token(scope).await.map(|_| ())
    }

    /// The campaign as it is now.
    pub async fn campaign(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        let request = read_request(seed::campaign_path(id));
        self.inner
            .read(&self.inner.campaigns, id, &request, scope, |reply, body| {
                seed::read_campaign(id, bounded_header(reply, "etag"), body)
            })
            .await
    }

    /// The campaign's statistics as they are now.
    pub async fn campaign_statistics(
        &self,
        id: &str,
        scope: &Scope,
    ) -> Result<CampaignStatistics, CallError> {
        let request = read_request(seed::campaign_statistics_path(id));
        self.inner
            .read(&self.inner.statistics, id, &request, scope, |_, body| seed::read_campaign_statistics(body))
            .await
    }

    /// What analytics know of these conversations: all pages of the answer, or an error.
    /// Those that it does not know are not in it.
    pub async fn conversation_details(
        &self,
        query: &DetailsQuery<'_>,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, CallError> {
        let mut found = BTreeMap::new();
        let mut asked = BTreeSet::new();
        let mut request = details::query_request(query);
        loop {
            let read = |_: &RawReply, body: &[u8]| details::read_page(&self.inner.base_url, body);
            let page = self.inner.read(&self.inner.conversation_details, "", &request, scope, read).await?;
            found.extend(page.conversations.into_iter().filter_map(|(id, details)| {
                // Ids are in hexadecimal, which is spelled in two ways.
                let asked = query.conversation_ids.iter().find(|asked| asked.eq_ignore_ascii_case(&id))?;
                Some(((*asked).to_owned(), details))
            }));
            let Some(next) = page.next else { break };
            let problem = if asked.len() + 1 >= details::PAGE_LIMIT {
                format!("the answer has more than {} pages", details::PAGE_LIMIT)
            } else if !asked.insert(next.clone()) {
                format!("the answer's pages go in a circle, back to {next}")
            } else {
                request = read_request(next);
                continue;
            };
            let reason = format!("{} {}: {problem}", request.method, request.path);
            return Err(CallError::without_reply(Kind::Malformed, reason));
        }
        Ok(found)
    }

    /// The flow's versions as they are now.
    pub async fn flow_versions(&self, id: &str, scope: &Scope) -> Result<Vec<PlatformVersion>, CallError> {
        let request = read_request(flows::versions_path(id));
        self.inner
            .read(&self.inner.flow_versions, id, &request, scope, |_, body| flows::read_versions(body))
            .await
    }

    /// Interactions and errors of the flow between two times.
    pub async fn flow_measures(
        &self,
        id: &str,
        from: Timestamp,
        until: Timestamp,
        scope: &Scope,
    ) -> Result<Measured, CallError> {
        let request = flows::measures_request(id, from, until);
        self.inner
            .read(&self.inner.flow_measures, id, &request, scope, |_, body| flows::read_measures(body))
            .await
    }

    /// The request that makes `version` the flow's active one. Nothing is sent: record the
    /// request, then [`send_activation`](Self::send_activation) it.
    pub fn prepare_activation(id: &str, version: &str, description: &str) -> SentRequest {
        flows::activation_request(id, version, description)
    }

    /// Sends a prepared request; makes one attempt at its effect.
    ///
    /// # Errors
    /// [`CallError::effect_is_unknown`] says whether the platform must be read back.
    pub async fn send_activation(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let version = flows::requested_version(request);
        let is_ours = request.method == "PATCH"
            && version.is_some_and(|version| request.path == flows::activation_path(id, version));
        if !is_ours {
            let reason = format!("not sent: this is no possible activation of a version of flow {id}");
            return Err(CallError::without_reply(Kind::Rejected, reason));
        }
        self.inner.write(&self.inner.flow_activations, id, request, scope).await
    }

    /// How far behind the platform's consumer groups are: all pages of the answer, or an error.
    pub async fn event_lag(
        &self,
        query: &EventLagQuery<'_>,
        scope: &Scope,
    ) -> Result<EventLagAnswer, CallError> {
        let mut found = EventLagAnswer::default();
        let mut tokens = BTreeSet::new();
        let mut token: Option<String> = None;
        loop {
            let request = event_lag::query_request(query, token.as_deref()).map_err(|problem| {
                CallError::without_reply(Kind::Rejected, format!("not sent: {problem}"))
            })?;
            let read = |_: &RawReply, body: &[u8]| event_lag::read_page(body);
            let page = self.inner.read(&self.inner.event_lag, "", &request, scope, read).await?;
            found.rows.extend(page.answer.rows);
            let number = tokens.len() + 1;
            let problems = page.answer.problems;
            found.problems.extend(problems.into_iter().map(|problem| format!("page {number}: {problem}")));
            let Some(next) = page.next else { return Ok(found) };
            let problem = if number >= event_lag::PAGE_LIMIT {
                format!("the answer has more than {} pages", event_lag::PAGE_LIMIT)
            } else if !tokens.insert(next.clone()) {
                format!("the answer's pages go in a circle: page token {next:?} came twice")
            } else {
                token = Some(next);
                continue;
            };
            let reason = format!("{} {}: {problem}", request.method, request.path);
            return Err(CallError::without_reply(Kind::Malformed, reason));
        }
    }

    /// How many of the queue's agents could take a conversation now.
    pub async fn queue_availability(&self, id: &str, scope: &Scope) -> Result<Available, CallError> {
        let request = read_request(routing::availability_path(id));
        self.inner
            .read(&self.inner.queue_availability, id, &request, scope, |_, body| {
                routing::read_availability(body)
            })
            .await
    }

    /// The request that publishes a routing configuration. Nothing is sent: record the
    /// request, then [`send_route_publication`](Self::send_route_publication) it.
    pub fn prepare_route_publication(configuration: &RouteConfiguration) -> SentRequest {
        routing::publish_request(configuration)
    }

    /// Sends a prepared request; makes one attempt at its effect. Sent again it changes nothing more.
    pub async fn send_route_publication(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        if request.method != "POST" || request.path != routing::publish_path(id) {
            let reason = format!("not sent: this is no possible publication of routing configuration {id}");
            return Err(CallError::without_reply(Kind::Rejected, reason));
        }
        self.inner.write(&self.inner.routing, id, request, scope).await
    }

    /// The request that gives the campaign this dial rate, provided that it is
    /// still at `revision`. Nothing is sent: record the request, then
    /// [`send_dial_rate`](Self::send_dial_rate) it.
    pub fn prepare_dial_rate(id: &str, rate: f64, revision: &str) -> SentRequest {
        seed::dial_rate_request(id, rate, revision)
    }

    /// Sends a prepared request; makes one attempt at its effect.
    ///
    /// # Errors
    /// [`CallError::effect_is_unknown`] says whether the platform must be read back.
    pub async fn send_dial_rate(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let is_ours = request.method == "PUT"
            && request.path == seed::campaign_path(id)
            && request.if_match.is_some()
            && seed::requested_dial_rate(request).is_some();
        if !is_ours {
            let reason = format!("not sent: this is no possible change of campaign {id}'s dial rate");
            return Err(CallError::without_reply(Kind::Rejected, reason));
        }
        self.inner.write(&self.inner.campaigns, id, request, scope).await
    }
}

impl Inner {
    /// A call that changes nothing.
    async fn read<T>(
        &self,
        endpoints: &Endpoints,
        resource: &str,
        request: &SentRequest,
        scope: &Scope,
        read: impl Fn(&RawReply, &[u8]) -> Result<T, String>,
    ) -> Result<T, CallError> {
        let failed = |kind, reason| Err(Fault { kind, reason, verdict: Verdict::Failed });
        let judge = |reply: &RawReply| {
            if reply.status != StatusCode::OK {
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
    async fn write(
        &self,
        endpoints: &Endpoints,
        resource: &str,
        request: &SentRequest,
        scope: &Scope,
    ) -> Result<Reply, CallError> {
        let failed = |reason: String| Err(Fault { kind: Kind::NoReply, reason, verdict: Verdict::Failed });
        let judge = |reply: &RawReply| match &reply.body {
            Err(problem) => failed(problem.to_string()),
            Ok(body) if body.is_empty() => Ok(bounded_header(reply, "etag")),
            Ok(body) if reply.is_json() && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() => {
                Ok(bounded_header(reply, "etag"))
            }
            Ok(_) => failed("the reply is not the API's: neither empty nor JSON".to_owned()),
        };
        let call = Call { endpoints, subject: Subject { resource, writes: true }, request, scope };
        let (revision, response) = self.call(&call, judge).await?;
        Ok(Reply { response, revision })
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
        let http_request = self.http_request(request, token)?;
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
                return Err(CallError::without_reply(kind, reason));
            }
        };
        let mut response = self.record(&reply, token);
        let judged = if reply.status.is_success() {
            judge(&reply)
        } else {
            let wait = self.told_wait(&reply);
            let (kind, reason) = match judge_status(reply.status, &response) {
                (Kind::RateLimited { .. }, reason) => {
                    (Kind::RateLimited { until: self.budget.refused(wait).await }, reason)
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
        let permit = waited.await?.map_err(|error| {
            let reason = match error {
                NoPermit::Store(problem) => format!("not sent: the shared budget cannot be asked: {problem}"),
                NoPermit::Full => "not sent: too many calls wait for the shared budget".to_owned(),
            };
            CallError::without_reply(Kind::Paused { until: None }, reason)
        })?;
        metrics::GENESYS_BUDGET_WAIT_SECONDS.histogram(&[scope.priority.name()]).record(asked_at.elapsed());
        Ok(permit)
    }

    fn http_request(&self, request: &SentRequest, token: &Token) -> Result<Request, CallError> {
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
        let secrets = [token.text.expose_secret(), self.client_secret.expose_secret()];
        ReceivedResponse {
            status: Some(reply.status.as_u16()),
            body: body.map(|body| excerpt(body, &secrets)),
            error: reply.body.as_ref().err().map(BodyProblem::to_string),
            correlation_id: bounded_header(reply, "inin-correlation-id"),
        }
    }

    /// How long a 429 says to wait.
    fn told_wait(&self, reply: &RawReply) -> Option<Duration> {
        let value = reply.header("retry-after")?;
        retry_after(value, reply.header("date"), SystemTime::now(), self.retry_after_limit)
    }
}

impl Scope {
    /// Waits for something that has no effect yet, as long as the scope allows.
    async fn wait<T>(
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

fn read_request(path: String) -> SentRequest {
    SentRequest { method: "GET".to_owned(), path, if_match: None, body: serde_json::Value::Null }
}

fn parse_url(name: &'static str, value: &str) -> Result<Url, ClientError> {
    let refuse = |problem: String| ClientError::Url { name, value: value.to_owned(), problem };
    let url = Url::parse(value).map_err(|error| refuse(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refuse("it must begin with https:// or http:// and name a host".to_owned()));
    }
    if url.query().is_some()
        || url.fragment().is_some()
        || !url.username().is_empty()
        || url.password().is_some()
    {
        return Err(refuse("it must have no credentials, query or fragment".to_owned()));
    }
    Ok(url)
}

/// The URL without a slash at its end, ready for paths to be put behind it.
fn checked_url(name: &'static str, value: &str) -> Result<String, ClientError> {
    parse_url(name, value)?;
    Ok(value.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked_before_anything_is_called() {
        assert_eq!(checked_url("genesys.base_url", "http://h:1/a/").unwrap(), "http://h:1/a");
        for value in ["", "h", "ftp://h", "http://user:secret@h", "http://h?x=1", "http://h#x", "file:///etc"]
        {
            assert!(checked_url("genesys.base_url", value).is_err(), "{value}");
        }
    }
}
