//! The edge behind the console's route.

use axum::body::Bytes;
use axum::http::HeaderMap;

use crate::console::{EventIntake, Taking};
use crate::sources::events::Edge;

impl EventIntake for Edge {
    fn take<'a>(&'a self, headers: &'a HeaderMap, body: Bytes) -> Taking<'a> {
        Box::pin(async move { Edge::take(self, headers, &body).await })
    }
}
