//! The event stream: its settings, its standing, and the log of what was emitted.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::routing::get;
use serde_json::json;

use super::{Answer, PageQuery, bad, done, patched};
use crate::events::EventSettings;
use crate::server::Shared;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new().route("/events", get(show).put(set)).route("/events/log", get(list))
}

async fn show(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!(shared.with(|organization, _| organization.events.standing())))
}

async fn set(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let standing = shared.with(|organization, _| {
        let events = &mut organization.events;
        let settings: EventSettings = patched(events.settings(), &body)?;
        let key = settings.key.or(events.settings().key.clone());
        events.set(EventSettings { key, ..settings }).map_err(bad)?;
        Ok(events.standing())
    });
    done(json!(standing?))
}

async fn list(State(shared): State<Arc<Shared>>, query: Query<PageQuery>) -> Answer {
    let page = shared.with(|organization, _| organization.events.log_page(query.since, query.limit()));
    done(json!(page))
}
