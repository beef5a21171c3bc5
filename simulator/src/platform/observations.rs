//! Who is available in queues, all of them in one call.

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::campaign_document::home_queue_id;
use super::filter::Filter;
use super::request::{Request, missing, not_one_of};
use super::{Endpoint, Outcome};
use crate::input::invalid;
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::scenario::id_of_name;

const DIMENSIONS: &[&str] = &["queueId", "mediaType"];
const MEDIUM: &str = "voice";
/// Metrics of queue observations.
const QUEUE_METRICS: &[&str] = &[
    "oActiveUsers",
    "oAlerting",
    "oInteracting",
    "oLongestInteracting",
    "oLongestWaiting",
    "oMemberUsers",
    "oOffQueueUsers",
    "oOnQueueUsers",
    "oUserPresences",
    "oUserRoutingStatuses",
    "oWaiting",
];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: "/api/v2/analytics/queues/observations/query",
        permissions: &["analytics:queueObservation:view"],
        perform: query,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/routing/queues/{queueId}",
        permissions: &["routing:queue:view"],
        perform: queue,
    },
];

/// A queue's people and calls at one moment.
#[derive(Clone, Debug, Default)]
struct Observed {
    id: String,
    name: String,
    idle: u64,
    /// With a call or with the work after it.
    interacting: u64,
    off_queue: u64,
    waiting: u64,
    calls: u64,
}

#[derive(Deserialize)]
struct Query {
    filter: Option<Filter>,
    metrics: Option<Vec<String>>,
}

fn query(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let query: Query = request.body()?;
    let filter = query.filter.ok_or_else(|| missing("filter"))?;
    filter.check(DIMENSIONS, DIMENSIONS)?;
    let metrics = query.metrics.filter(|it| !it.is_empty()).ok_or_else(|| missing("metrics"))?;
    if let Some(unknown) = metrics.iter().find(|metric| !QUEUE_METRICS.contains(&metric.as_str())) {
        return Err(not_one_of("metrics", unknown, &QUEUE_METRICS.join(", ")));
    }
    let mut results = Vec::new();
    for observed in all(organization) {
        let of = |name: &str| match name {
            "queueId" => Some(observed.id.as_str()),
            "mediaType" => Some(MEDIUM),
            _ => None,
        };
        if !filter.admits(&of) {
            continue;
        }
        let (users, calls): (Vec<Value>, Vec<Value>) = observed.data(&metrics);
        for (data, medium) in [(users, None), (calls, Some(MEDIUM))] {
            if !data.is_empty() {
                let mut group = json!({ "queueId": observed.id });
                if let Some(medium) = medium {
                    group["mediaType"] = json!(medium);
                }
                results.push(json!({ "group": group, "data": data }));
            }
        }
    }
    let presence = id_of_name("presence", "on queue");
    let body = json!({ "results": results, "systemToOrganizationMappings": { "ON_QUEUE": [presence] } });
    Ok((Reply::json(StatusCode::OK, &body), None))
}

/// The scenario's queues, and one for each campaign's agents.
fn all(organization: &Organization) -> Vec<Observed> {
    let queues = organization.queues.overview().into_iter().map(|queue| {
        let idle = (queue.availability_percentage / 100.0 * f64::from(queue.agents)).round() as u64;
        let interacting = u64::from(queue.agents).saturating_sub(idle);
        Observed {
            id: queue.id,
            name: queue.name,
            idle,
            interacting,
            calls: interacting,
            ..Observed::default()
        }
    });
    let campaigns = organization.definitions.iter().filter_map(|(id, definition)| {
        let snapshot = organization.world.snapshot(id)?;
        let agents = snapshot.agents;
        Some(Observed {
            id: home_queue_id(id),
            name: definition.name().to_owned(),
            idle: agents.idle.into(),
            interacting: (agents.talking + agents.wrapping_up).into(),
            off_queue: (agents.on_break + agents.away).into(),
            waiting: snapshot.waiting,
            calls: agents.talking.into(),
        })
    });
    queues.chain(campaigns).collect()
}

impl Observed {
    /// Figures about users, and figures about calls: those of users have no medium.
    fn data(&self, metrics: &[String]) -> (Vec<Value>, Vec<Value>) {
        let (mut users, mut calls) = (Vec::new(), Vec::new());
        let qualified = |metric: &str, qualifier: &str, count: u64| {
            (count > 0)
                .then(|| json!({ "metric": metric, "qualifier": qualifier, "stats": { "count": count } }))
        };
        let plain = |metric: &str, count: u64| json!({ "metric": metric, "stats": { "count": count } });
        let members = self.idle + self.interacting + self.off_queue;
        for metric in metrics.iter().map(String::as_str) {
            match metric {
                "oOnQueueUsers" | "oUserRoutingStatuses" => {
                    users.extend(qualified(metric, "IDLE", self.idle));
                    users.extend(qualified(metric, "INTERACTING", self.interacting));
                    if metric == "oUserRoutingStatuses" {
                        users.extend(qualified(metric, "OFF_QUEUE", self.off_queue));
                    }
                }
                "oOffQueueUsers" => users.extend(qualified(metric, "OFF_QUEUE", self.off_queue)),
                "oMemberUsers" => users.push(plain(metric, members)),
                "oActiveUsers" => users.push(plain(metric, self.idle + self.interacting)),
                "oWaiting" => calls.push(plain(metric, self.waiting)),
                "oInteracting" => calls.push(plain(metric, self.calls)),
                "oAlerting" => calls.push(plain(metric, 0)),
                _ => {}
            }
        }
        (users, calls)
    }
}

fn queue(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let id = request.id();
    let found = all(organization).into_iter().find(|queue| queue.id == id).ok_or_else(|| unknown(id))?;
    let members = found.idle + found.interacting + found.off_queue;
    let body = json!({
        "id": found.id,
        "name": found.name,
        "memberCount": members,
        "userMemberCount": members,
        "joinedMemberCount": found.idle + found.interacting,
        "selfUri": format!("/api/v2/routing/queues/{id}"),
    });
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn unknown(id: &str) -> Refusal {
    let refusal = invalid(format!("Unable to find a queue with id {id}")).about(id);
    Refusal { status: StatusCode::NOT_FOUND, code: "not.found", ..refusal }
}
