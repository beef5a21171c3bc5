//! The edge behind the console's route.

use axum::body::Bytes;
use axum::http::HeaderMap;

use crate::console::{EventIntake, Refusing, Taking};
use crate::sources::events::Edge;

impl EventIntake for Edge {
    fn take<'a>(&'a self, headers: &'a HeaderMap, body: Bytes) -> Taking<'a> {
        Box::pin(async move { Edge::take(self, headers, &body).await })
    }

    fn refuse_too_large<'a>(&'a self, headers: &'a HeaderMap, read: Bytes, limit: usize) -> Refusing<'a> {
        Box::pin(async move { Edge::refuse_too_large(self, headers, &read, limit).await })
    }
}
