//! How Genesys Cloud's own interface behaves where nobody outside knows it.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::get;
use serde_json::json;

use super::{Answer, done, patched};
use crate::server::Shared;

pub fn router() -> Router<Arc<Shared>> {
    Router::new().route("/platform", get(show).put(set))
}

async fn show(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!(shared.with(|organization, _| organization.platform.manners)))
}

async fn set(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let manners = shared.with(|organization, _| {
        let manners = patched(&organization.platform.manners, &body)?;
        organization.platform.manners = manners;
        Ok(manners)
    });
    done(json!(manners?))
}
