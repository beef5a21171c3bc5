//! Consumer groups of the event analytics, and the manners of its query.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, bad, done, parse, patched};
use crate::reply::refusal_for_status;
use crate::scenario::{ConsumerGroupScenario, EventTypeScenario};
use crate::server::Shared;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/consumer-groups", get(list))
        .route("/consumer-groups/{name}", put(set).delete(remove))
        .route("/event-analytics", get(show_manners).put(set_manners))
}

fn shown(group: &ConsumerGroupScenario) -> Value {
    let of = |kind: &EventTypeScenario| {
        json!({
            "name": kind.name,
            "eventsPerMinute": kind.events_per_minute,
            "latencyMs": kind.latency_ms,
            "latencyVariation": kind.latency_variation,
        })
    };
    json!({ "name": group.name, "eventTypes": group.event_types.iter().map(of).collect::<Vec<_>>() })
}

async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let groups = shared.with(|organization, _| organization.consumer_groups.all());
    done(json!({ "items": groups.iter().map(shown).collect::<Vec<_>>() }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Group {
    event_types: Vec<EventTypeScenario>,
}

async fn set(State(shared): State<Arc<Shared>>, Path(name): Path<String>, body: Bytes) -> Answer {
    let Group { event_types } = parse(&body)?;
    let group = ConsumerGroupScenario { name, event_types };
    let answer = shown(&group);
    shared.with(|organization, _| organization.consumer_groups.set(group)).map_err(bad)?;
    done(answer)
}

async fn remove(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Answer {
    if shared.with(|organization, _| organization.consumer_groups.remove(&name)) {
        return done(json!({ "removed": name }));
    }
    Err(refusal_for_status(StatusCode::NOT_FOUND))
}

async fn show_manners(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!(shared.with(|organization, _| organization.consumer_groups.manners)))
}

async fn set_manners(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let manners = shared.with(|organization, _| {
        let manners = patched(&organization.consumer_groups.manners, &body)?;
        organization.consumer_groups.manners = manners;
        Ok(manners)
    });
    done(json!(manners?))
}
