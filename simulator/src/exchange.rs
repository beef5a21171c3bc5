//! One request to the platform, from admission to the log: budget, faults, token,
//! scope, effect.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use uuid::Uuid;

use crate::budget::Standing;
use crate::dialect::{Call, Dialect, campaign_in};
use crate::faults::{Fault, Plan};
use crate::input::text_of;
use crate::journal::{Effect, Entry, Origin, body_text};
use crate::organization::{Moment, Organization};
use crate::reply::{Limit, Refusal, Reply, refusal_for_status};
use crate::time::Timestamp;
use crate::tokens::TokenProblem;

pub(crate) const CORRELATION_ID: HeaderName = HeaderName::from_static("inin-correlation-id");
const BUDGET_COUNT: HeaderName = HeaderName::from_static("inin-ratelimit-count");
const BUDGET_ALLOWED: HeaderName = HeaderName::from_static("inin-ratelimit-allowed");
const BUDGET_RESET: HeaderName = HeaderName::from_static("inin-ratelimit-reset");

/// A whole request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub origin: Origin,
    pub method: Method,
    pub path: String,
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How a reply leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Transport {
    Whole,
    /// Not at all: the connection is closed.
    Dropped,
    /// Half of it, then the connection is closed.
    Truncated,
    Slow {
        bytes_per_second: u32,
    },
    /// Filled up with spaces to this length.
    Huge {
        bytes: u64,
    },
    /// The same, as gzip that unpacks to this length.
    GzipBomb {
        bytes: u64,
    },
}

/// What goes back to the client, and when.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub reply: Reply,
    pub transport: Transport,
    pub delay: Duration,
}

/// What is settled about a request before it is carried out.
#[derive(Debug)]
pub(crate) struct Admission {
    correlation_id: String,
    client: Option<String>,
    standing: Option<Standing>,
    plan: Plan,
    admitted_at: Timestamp,
}

/// From a request's arrival to its reply, by the machine's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub started_at: Timestamp,
    pub ended_at: Timestamp,
}

impl Admission {
    /// To wait before [`Organization::answer`].
    pub(crate) fn delay(&self) -> Duration {
        self.plan.delay_before
    }

    fn over_budget(&self) -> Option<Standing> {
        self.standing.filter(|standing| standing.exceeded())
    }
}

impl Organization {
    /// Counts the request on its client's budget and draws its faults. The token is
    /// looked at again when the request is carried out: it may expire meanwhile.
    pub(crate) fn admit(&mut self, received: &Received, moment: Moment) -> Admission {
        let bearer = text_of(&received.headers, header::AUTHORIZATION);
        let client = self.tokens.authenticate(bearer, moment.elapsed).ok().map(|client| client.id.clone());
        let standing = client.as_ref().map(|client| self.budgets.count(client, moment.elapsed));
        let campaign = campaign_in(&received.path);
        let plan = match standing {
            Some(standing) if standing.exceeded() => Plan::default(),
            _ => self.faults.plan(received.method.as_str(), &received.path, campaign),
        };
        let correlation_id = Uuid::now_v7().to_string();
        Admission { correlation_id, client, standing, plan, admitted_at: moment.wall }
    }

    /// Carries the request out, as far as budget and faults let it, and logs it.
    pub(crate) fn answer(&mut self, received: &Received, admission: Admission, moment: Moment) -> Outgoing {
        self.settle_operations(moment);
        let context_id = admission.correlation_id.clone();
        let span = Span {
            started_at: admission.admitted_at,
            ended_at: moment.wall.plus(admission.plan.delay_after),
        };
        let (reply, effect) = match (admission.over_budget(), &admission.plan.fault) {
            (Some(standing), _) => (self.over_budget(standing, &context_id, moment), None),
            (None, Some(fault)) if !fault.lets_effect_happen() => (Reply::empty(StatusCode::OK), None),
            (None, _) => match self.carry_out(received, span, moment) {
                Ok(done) => done,
                Err(refusal) => (refusal.reply(&context_id), None),
            },
        };
        let (reply, transport) =
            distort(reply, admission.plan.fault.as_ref(), (self.dialect, &context_id), moment);
        let reply = with_standing(reply, admission.standing).with_header(CORRELATION_ID, &context_id);
        if let Some(effect) = &effect {
            let by = (received.origin, admission.client.as_deref());
            self.platform.audit_log.record(by, effect, moment.wall);
        }
        self.count_usage(received, admission.client.as_deref(), reply.status, moment);
        let delay = admission.plan.delay_after;
        self.log(received, admission, &reply, transport, effect, moment);
        Outgoing { reply, transport, delay }
    }

    fn carry_out(
        &mut self,
        received: &Received,
        span: Span,
        moment: Moment,
    ) -> Result<(Reply, Option<Effect>), Refusal> {
        let found = Call::find(self.dialect, received);
        let is_token = found.as_ref().is_ok_and(Call::is_token);
        if received.origin == Origin::Login && !is_token {
            return Err(found.err().unwrap_or_else(|| refusal_for_status(StatusCode::NOT_FOUND)));
        }
        let mut client_id = String::new();
        if !is_token {
            let bearer = text_of(&received.headers, header::AUTHORIZATION);
            let client = self.tokens.authenticate(bearer, moment.elapsed).map_err(refuse_token)?;
            found.as_ref().map_or(Ok(()), |call| call.check_client(client))?;
            client_id.clone_from(&client.id);
        }
        found?.perform(self, (received, &client_id), span, moment)
    }

    /// Only Genesys Cloud's own calls count, and those of somebody who is known.
    fn count_usage(&mut self, received: &Received, client: Option<&str>, status: StatusCode, moment: Moment) {
        let template = Call::find(self.dialect, received).ok().and_then(|call| call.template());
        if let (Some(client), Some(template)) = (client, template) {
            self.platform.usage.count(client, (received.method.as_str(), template), status, moment.wall);
        }
    }

    fn over_budget(&self, standing: Standing, context_id: &str, moment: Moment) -> Reply {
        let seconds = standing.left.as_secs_f64();
        let wait = standing.reset_seconds();
        let reply = too_many_requests(self.dialect, wait, standing.allowed, "platform.api").reply(context_id);
        match self.manners.budget_retry_after.text(seconds, moment.wall.as_millis()) {
            Some(text) => reply.with_header(header::RETRY_AFTER, &text),
            None => reply,
        }
    }

    fn log(
        &mut self,
        received: &Received,
        admission: Admission,
        reply: &Reply,
        transport: Transport,
        effect: Option<Effect>,
        moment: Moment,
    ) {
        let holds_secret = received.path.trim_matches('/') == "oauth/token";
        let path = match &received.query {
            Some(query) => format!("{}?{query}", received.path),
            None => received.path.clone(),
        };
        let retry_after = reply.headers.iter().find(|(name, _)| *name == header::RETRY_AFTER);
        self.journal.push(Entry {
            sequence: 0,
            at: moment.wall,
            simulated_seconds: self.world.now(),
            origin: received.origin,
            client: admission.client,
            method: received.method.to_string(),
            path,
            if_match: text_of(&received.headers, header::IF_MATCH).map(str::to_owned),
            body: if holds_secret { None } else { body_text(&received.body) },
            status: (transport != Transport::Dropped).then_some(reply.status.as_u16()),
            retry_after: retry_after.and_then(|(_, value)| Some(value.to_str().ok()?.to_owned())),
            faults: admission.plan.names(),
            effect,
            correlation_id: admission.correlation_id,
        });
    }
}

fn refuse_token(problem: TokenProblem) -> Refusal {
    let (code, message) = match problem {
        TokenProblem::Missing => {
            ("authentication.required", "No authentication bearer token specified in authorization header.")
        }
        TokenProblem::Unknown => ("bad.credentials", "Invalid login credentials."),
        TokenProblem::Expired => ("credentials.expired", "The supplied credentials have expired."),
    };
    Refusal::new(StatusCode::UNAUTHORIZED, code, message)
}

fn too_many_requests(dialect: Dialect, wait_seconds: u64, allowed: u32, namespace: &str) -> Refusal {
    let template = "Rate limit exceeded the maximum. Retry the request in [{retryAfter}] seconds";
    let wait = wait_seconds.to_string();
    let (status, code) = (StatusCode::TOO_MANY_REQUESTS, "too.many.requests");
    let worded = Refusal::worded(status, code, template, &[("retryAfter", &wait)]);
    let (refusal, key) = match dialect {
        Dialect::Seed => (Refusal::new(status, code, worded.message), "token.rate.per.minute"),
        Dialect::Platform | Dialect::Both => (worded, "client.credentials.token.rate.per.minute"),
    };
    let limit = Limit { key, namespace: namespace.to_owned(), value: allowed };
    Refusal { limit: Some(Box::new(limit)), ..refusal }
}

fn with_standing(reply: Reply, standing: Option<Standing>) -> Reply {
    let Some(standing) = standing else { return reply };
    reply
        .with_header(BUDGET_COUNT, &standing.count.to_string())
        .with_header(BUDGET_ALLOWED, &standing.allowed.to_string())
        .with_header(BUDGET_RESET, &standing.reset_seconds().to_string())
}

/// What the fault makes of the reply.
fn distort(
    reply: Reply,
    fault: Option<&Fault>,
    (dialect, context_id): (Dialect, &str),
    moment: Moment,
) -> (Reply, Transport) {
    let Some(fault) = fault else { return (reply, Transport::Whole) };
    match fault {
        Fault::Status { code, retry_after, seconds, namespace, .. } => {
            let status = StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let refused = match namespace {
                Some(namespace) => too_many_requests(dialect, seconds.ceil() as u64, 0, namespace),
                None => refusal_for_status(status),
            };
            let refused = refused.reply(context_id);
            let reply = match retry_after.text(*seconds, moment.wall.as_millis()) {
                Some(text) => refused.with_header(header::RETRY_AFTER, &text),
                None => refused,
            };
            (reply, Transport::Whole)
        }
        Fault::DropBeforeEffect | Fault::DropAfterEffect => (reply, Transport::Dropped),
        Fault::TruncateBody => (with_body(reply), Transport::Truncated),
        Fault::GarbageBody => {
            let garbage = b"{\"id\": \"\xff\xfe\x00, }} 1e999 [[[".to_vec();
            (Reply { body: Some(garbage), ..with_body(reply) }, Transport::Whole)
        }
        Fault::HtmlWith200 { .. } => {
            let page =
                "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in.</body></html>";
            let mut html = Reply::empty(StatusCode::OK).with_header(header::CONTENT_TYPE, "text/html");
            html.body = Some(page.into());
            (html, Transport::Whole)
        }
        Fault::Redirect { location } => {
            (Reply::empty(StatusCode::FOUND).with_header(header::LOCATION, location), Transport::Whole)
        }
        Fault::SlowBody { bytes_per_second } => {
            (with_body(reply), Transport::Slow { bytes_per_second: *bytes_per_second })
        }
        Fault::HugeBody { bytes } => (with_body(reply), Transport::Huge { bytes: *bytes }),
        Fault::GzipBomb { bytes } => (with_body(reply), Transport::GzipBomb { bytes: *bytes }),
        Fault::Delay { .. } => (reply, Transport::Whole),
    }
}

/// A body for faults that need one where the platform would have sent none.
fn with_body(reply: Reply) -> Reply {
    match reply.body {
        Some(_) => reply,
        None => Reply {
            headers: reply.headers.clone(),
            ..Reply::json(StatusCode::OK, &serde_json::json!({ "status": "accepted" }))
        }
        .with_header(header::CONTENT_TYPE, "application/json"),
    }
}
