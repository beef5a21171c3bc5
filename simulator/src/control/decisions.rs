//! The load of decisions: start, stop, read.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::routing::get;
use serde_json::json;

use super::{Answer, PageQuery, bad, done, parse};
use crate::decisions::{self, DecisionSettings};
use crate::server::Shared;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/decisions", get(show).post(start).delete(stop))
        .route("/decisions/answers", get(list))
}

async fn show(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!(shared.decisions().standing()))
}

async fn start(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let settings: DecisionSettings = parse(&body)?;
    let stop = shared.ending.child_token();
    let settings = shared.decisions().begin(settings, shared.seed, stop.clone()).map_err(bad)?;
    let began = Instant::now();
    for _ in 0..settings.concurrency {
        let worker = decisions::work(shared.clone(), settings.clone(), began, stop.clone());
        shared.tasks.spawn(worker);
    }
    show(State(shared)).await
}

async fn stop(State(shared): State<Arc<Shared>>) -> Answer {
    shared.decisions().stop();
    show(State(shared)).await
}

async fn list(State(shared): State<Arc<Shared>>, query: Query<PageQuery>) -> Answer {
    done(json!(shared.decisions().page(query.since, query.limit())))
}
