//! Queues: who is available, and making it so.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, put};
use serde::Deserialize;
use serde_json::json;

use super::{Answer, done, parse};
use crate::server::Shared;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/queues", get(list)).route("/queues/{id}", put(pin))
}

async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!({ "items": shared.with(|organization, _| organization.queues.overview()) }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pin {
    availability_percentage: Option<f64>,
}

async fn pin(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let Pin { availability_percentage } = parse(&body)?;
    let percentage = shared.with(|organization, _| {
        organization.queues.pin(&id, availability_percentage)?;
        organization.queues.percentage(&id)
    });
    done(json!({ "id": id, "availabilityPercentage": percentage? }))
}
