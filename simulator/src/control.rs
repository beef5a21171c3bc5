//! `/simulator/…`: faults, the request log, the world, other writers. For tests,
//! checkers and the demo's screen; no token is needed. Bodies and replies are JSON; a body that
//! cannot be read is refused with 400 and what is wrong. `PUT` takes the members to change
//! and leaves the others; replies show what is then in force. Lists answer
//! `{items, next, last, dropped}`: pass `next` as `since` for the items after these.
//!
//! | route | does |
//! |---|---|
//! | `GET\|PUT\|POST\|DELETE /simulator/faults` | the fault rules: see, replace, add, clear |
//! | `GET /simulator/requests?since=&limit=` | the log of requests, oldest first |
//! | `GET /simulator/campaigns` | the world as it is |
//! | `POST /simulator/campaigns/{id}/change` | another writer: merges the body, past all client rules |
//! | `DELETE /simulator/campaigns/{id}` | deletes a campaign |
//! | `PUT /simulator/rival` `{everySeconds}` | the second writer, in simulated seconds; null stops it |
//! | `POST /simulator/clock/advance?seconds=n` | moves the world by hand, at speed 0 |
//! | `POST /simulator/tokens/expire` | revokes every token |
//! | `PUT /simulator/clients/{id}` `{secret, revokeTokens?}` | gives an OAuth client another secret, or makes one; its tokens live on unless revoked |
//! | `POST /simulator/conversations` `[{conversationId, conversationStart, conversationEnd, availableAt?, mediaType?, originatingDirection?, flowId?, flowVersion?, queueId?, campaignId?, userId?, wrapUpCode?, wrapUpMs?}]` | registers ended conversations for the details query; without `availableAt` they appear as the manners say |
//! | `GET /simulator/conversations?since=&limit=` | all conversations so far, with `availableAt` |
//! | `GET\|PUT /simulator/details` `{appearsAfterMs, lateShare, lateMs, shortPageShare}` | manners of the details query, real milliseconds |
//! | `GET\|PUT /simulator/events` `{to, key, active, eventsPerSecond, campaigns, duplicateShare, duplicateWithinMs, disorderShare, disorderMs, lateShare, lateMs, batch, connections, backlog}` | the event stream: settings, and how much happened, waits and was acknowledged |
//! | `GET /simulator/events/log?since=&limit=` | every event the receiver has answered about, once: `{sequence, eventId, eventType, conversationId, eventTime, flowId?, flowVersion?, reason?, acknowledgedAt, late, rejected}` |
//! | `GET /simulator/flows` | flows, their habits, all versions with `errorRate` and status |
//! | `PUT /simulator/flows/{id}` `{interactionsPerMinute, abandonRate, transferRate, outcomeShare, flowSeconds, waitSeconds, talkSeconds, wrapUpSeconds}` | who comes and what they do, in simulated time |
//! | `POST /simulator/flows/{id}/publish` `{errorRate, version?, description?, afterSeconds?}` | publishes a new version, active at once or after so many simulated seconds |
//! | `PUT /simulator/flows/{id}/versions/{version}` `{errorRate?, status?}` | how bad a version is; `published`, `archived` or `deleted` for one that is not active |
//! | `PUT /simulator/unwell` `{endpoints: [measures, versions, deployments], aboveErrorRate, status}` or `null` | these endpoints fail while an active version's error rate is above the limit |
//! | `GET\|PUT /simulator/platform` `{stale, publishMs, publishSimulatedSeconds, publishFails, analyticsLagMs, missingAbandonedShare, restatedAfterMs, jobsMs, jobsLagMs, queriesMs}` | manners of Genesys Cloud's own interface (`platform/state.rs`) |
//! | `POST /simulator/platform/restate` | restates all analytics up to now |
//! | `GET\|PUT /simulator/campaign-rules` `[{name, enabled?, campaignIds, actionType, maxCallsPerAgent \| abandonRate \| outboundLineCount}]` | the organisation's campaign rules, with their ids |
//! | `POST /simulator/campaign-rules/{id}/fire` | lets a rule change its campaigns |
//! | `GET\|POST /simulator/usage` `{clientId, requests, at?}` | month to date: requests and call attempts; adds requests as if they had been made |
//! | `PUT /simulator/flows/{id}/lock` `{userId \| clientId, name?}` or `null` | somebody keeps the flow for himself, or lets it go |
//! | `PUT /simulator/flows/{id}/deleted` `true` or `false` | whether the flow is deleted |
//! | `GET /simulator/queues` | queues and who is available |
//! | `PUT /simulator/queues/{id}` `{availabilityPercentage}` | sets it, 0–100; null lets it change by itself again |
//! | `POST /simulator/decisions` `{to: [address], key?, configurationIds, ratePerSecond, repeatShare, concurrency, timeoutMs, limit?, dispatch?, defaultFlowId?}` | starts asking a decision service; forgets the answers of the last load. With `dispatch` each interaction then goes through the flow that the answer names, or through the default one |
//! | `GET\|DELETE /simulator/decisions` | where the load stands: counts by source and destination, latencies; stops it |
//! | `GET /simulator/decisions/answers?since=&limit=` | every answer: `{answer, conversationId, configurationId, address, repeat, sentAt, lateMs, latencyMs, destinationId, source, sequence, revision}` or `problem` |
//! | `GET /simulator/consumer-groups` | the groups event analytics tell about |
//! | `PUT\|DELETE /simulator/consumer-groups/{name}` `{eventTypes: [{name, eventsPerMinute, latencyMs, latencyVariation}]}` | puts a group in place of the one of its name; takes it away |
//! | `GET\|PUT /simulator/event-analytics` `{repeatPageToken, metricsAsObjects, badRows}` | manners of the event query |

mod consumer_groups;
mod conversations;
mod decisions;
mod events;
mod flows;
mod platform;
mod queues;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::exchange::Transport;
use crate::faults::{FaultRule, Faults};
use crate::journal::Origin;
use crate::reply::{Refusal, Reply, refusal_for_status};
use crate::server::{MAX_REQUEST_BYTES, Shared};
use crate::transport::response;

/// Longest jump of the clock: a week.
const MAX_ADVANCE_SECONDS: u64 = 604_800;
/// Simulated seconds between two looks at whether others want the world.
const ADVANCE_SLICE_SECONDS: u64 = 500;
const PAGE_DEFAULT: usize = 10_000;
const PAGE_MAX: usize = 100_000;

type Answer = Result<Reply, Refusal>;

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        response(self, Transport::Whole)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.reply("").into_response()
    }
}

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/faults", get(list_faults).put(replace_faults).post(add_faults).delete(clear_faults))
        .route("/requests", get(list_requests))
        .route("/campaigns", get(show_campaigns))
        .route("/campaigns/{id}", axum::routing::delete(delete_campaign))
        .route("/campaigns/{id}/change", post(change_campaign))
        .route("/rival", put(set_rival))
        .route("/clock/advance", post(advance_clock))
        .route("/tokens/expire", post(expire_tokens))
        .route("/clients/{id}", put(set_client))
        .merge(conversations::router())
        .merge(events::router())
        .merge(flows::router())
        .merge(platform::router())
        .merge(queues::router())
        .merge(decisions::router())
        .merge(consumer_groups::router())
        .fallback(async || refusal_for_status(StatusCode::NOT_FOUND))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}

/// The current value with the body's members in place of its own.
fn patched<T: Serialize + DeserializeOwned>(current: &T, body: &Bytes) -> Result<T, Refusal> {
    let changes: Map<String, Value> = parse(body)?;
    let mut members = json!(current);
    for (name, value) in changes {
        members[name] = value;
    }
    serde_json::from_value(members).map_err(|error| bad(error.to_string()))
}

fn bad(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad.request", message)
}

fn done(body: Value) -> Answer {
    Ok(Reply::json(StatusCode::OK, &body))
}

async fn list_faults(State(shared): State<Arc<Shared>>) -> Answer {
    done(shared.with(|organization, _| json!({ "items": organization.faults.rules() })))
}

async fn replace_faults(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let rules: Vec<FaultRule> = parse(&body)?;
    change_faults(&shared, |faults| faults.replace(rules))
}

async fn add_faults(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let rules: Vec<FaultRule> = parse(&body)?;
    change_faults(&shared, |faults| faults.add(rules))
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> Answer {
    change_faults(&shared, |faults| faults.replace(Vec::new()))
}

fn change_faults(shared: &Shared, change: impl FnOnce(&mut Faults) -> Result<(), String>) -> Answer {
    let items = shared.with(|organization, _| {
        change(&mut organization.faults)?;
        Ok(json!({ "items": organization.faults.rules() }))
    });
    done(items.map_err(bad)?)
}

#[derive(Deserialize)]
struct PageQuery {
    #[serde(default)]
    since: u64,
    limit: Option<usize>,
}

impl PageQuery {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX)
    }
}

async fn list_requests(State(shared): State<Arc<Shared>>, query: Query<PageQuery>) -> Answer {
    let page = shared.with(|organization, _| organization.journal.page(query.since, query.limit()));
    done(json!(page))
}

async fn show_campaigns(State(shared): State<Arc<Shared>>) -> Answer {
    let overview = shared.with(|organization, _| organization.overview());
    let mut body = serde_json::to_value(overview).expect("an overview has text keys only");
    body["speed"] = json!(shared.speed());
    done(body)
}

async fn change_campaign(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let change: Value = parse(&body)?;
    let effect =
        shared.with(|organization, moment| organization.overrule(&id, &change, Origin::Control, moment))?;
    done(json!(effect))
}

async fn delete_campaign(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let effect = shared.with(|organization, moment| organization.delete(&id, moment))?;
    done(json!(effect))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RivalBody {
    every_seconds: Option<u64>,
}

async fn set_rival(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let rival: RivalBody = parse(&body)?;
    shared.with(|organization, _| organization.set_rival(rival.every_seconds));
    done(json!({ "everySeconds": rival.every_seconds }))
}

#[derive(Deserialize)]
struct AdvanceQuery {
    seconds: u64,
}

async fn advance_clock(State(shared): State<Arc<Shared>>, query: Query<AdvanceQuery>) -> Answer {
    let seconds = query.seconds;
    if shared.speed() > 0.0 {
        let message = "the clock moves by itself; start with speed 0 to move it by hand";
        return Err(Refusal::new(StatusCode::CONFLICT, "general.conflict", message));
    }
    if seconds > MAX_ADVANCE_SECONDS {
        return Err(bad(format!("seconds {seconds} must be at most {MAX_ADVANCE_SECONDS}")));
    }
    let moved = tokio::task::spawn_blocking(move || {
        let mut left = seconds;
        while left > 0 && !shared.ending.is_cancelled() {
            let slice = left.min(ADVANCE_SLICE_SECONDS);
            shared.with(|organization, moment| organization.advance(slice, moment));
            left -= slice;
        }
        shared.with(|organization, _| organization.overview().simulated_seconds)
    });
    let now = moved.await.map_err(|_| refusal_for_status(StatusCode::INTERNAL_SERVER_ERROR))?;
    done(json!({ "simulatedSeconds": now }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClientBody {
    secret: SecretString,
    #[serde(default)]
    revoke_tokens: bool,
}

async fn set_client(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let ClientBody { secret, revoke_tokens } = parse(&body)?;
    let revoked = shared.with(|organization, _| organization.tokens.set_secret(&id, secret, revoke_tokens));
    let revoked = revoked.ok_or_else(|| bad("there are too many OAuth clients".to_owned()))?;
    done(json!({ "id": id, "revoked": revoked }))
}

async fn expire_tokens(State(shared): State<Arc<Shared>>) -> Answer {
    let revoked = shared.with(|organization, _| organization.tokens.revoke_all());
    done(json!({ "revoked": revoked }))
}
